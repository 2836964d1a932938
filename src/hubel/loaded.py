"""A trained net taken up for use: `load_run`, and what can be done with what it gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from hubel.assemble import foreign, make_net, reopen
from hubel.data.record import PARTS
from hubel.deploy.door import answers, equipped, predictor_for
from hubel.deploy.mask_predictor import MaskPrediction, MaskPredictor
from hubel.deploy.predictor import Prediction, Predictor
from hubel.errors import OptionError, unknown
from hubel.gather.door import judge
from hubel.kinds.kind import Data
from hubel.runs.run import Config, Run
from hubel.runs.weights import Card, fill
from hubel.session import Tell, silent, tell_broken
from hubel.training.distribute import Crew, choose_device
from hubel.training.plan import make_plan
from hubel.training.speed import Choice


@dataclass(frozen=True)
class LoadedNet:
    """A trained net taken up for use: in eval mode, with its card."""

    model: nn.Module
    card: Card

    def predictor(
        self, device: str = "auto", top: int = 5, tta: str = "none", refine: str = "none"
    ) -> Predictor | MaskPredictor:
        """The net with its preprocessing and class names: files in, predictions out.

        Args:
            top: likeliest classes that a classifier names.
            tta: test-time augmentation: "none", "flip", "ten-crop" or "dense"
                (`hubel.deploy.views`); of masks "none", "flip" or "scales"
                (`hubel.deploy.mask_views`).
            refine: what follows a net for masks: "none", "crf" or "superpixels", with settings as
                in "crf:w1=4,alpha=50" (`hubel.deploy.refine`).

        Raises `OptionError` for words that are not for the net's task.
        """
        return predictor_for(self.model, self.card, choose_device(device), top, tta, refine)

    def predict(
        self,
        files: Iterable[str | Path],
        tta: str = "none",
        refine: str = "none",
        out: str | Path | None = None,
    ) -> list[Prediction] | list[MaskPrediction]:
        """One prediction per file, in order; of masks each with its mask.

        Args:
            out: of masks: a folder that they are written to, with pictures
                (`hubel.deploy.mask_files`).
        """
        return answers(self.predictor(tta=tta, refine=refine), files, out)

    def evaluate(
        self,
        data: Data | None = None,
        device: str = "auto",
        tell: Tell = silent,
        tta: str = "none",
        refine: str = "none",
        parts: Sequence[str] | None = None,
    ) -> dict[str, dict[str, float]]:
        """Scores by part: on a run's own split, or on all of another `data` (part "all").

        Args:
            parts: which of its own; None: all.

        Raises `DataError` where the other data's class names are not the net's, `OptionError` for
        a net that is no run's and has no data of its own, and as `own_parts` does.
        """
        return evaluate(self, data, device, tell, tta, refine, parts)


@dataclass(frozen=True)
class LoadedRun(LoadedNet):
    """A run taken up again for use."""

    run: Run


def load_run(path: str | Path, *, model: nn.Module | None = None) -> LoadedRun:
    """A run's best weights in its model, in eval mode.

    Args:
        model: needed only where the run's model was a module made by hand.
    """
    run = Run.open(path)
    weights, card = run.weights()
    plan = run.config().plan
    net = make_net(model if model is not None else plan.model, card, plan)
    fill(net, weights, str(run.folder))
    return LoadedRun(net.eval(), card, run)


def own_parts(asked: Sequence[str] | None, data: Data | None) -> Sequence[str]:
    """The parts of a run's own data to judge; all where none is asked for.

    Raises `OptionError` for an unknown part, and for any beside other `data`.
    """
    if asked is None:
        return PARTS
    if data is not None:
        raise OptionError("a part is one of the run's own: other data is judged as a whole")
    for part in asked:
        if part not in PARTS:
            raise OptionError(unknown("part", part, PARTS))
    return asked


def evaluate(
    loaded: LoadedNet,
    data: Data | None,
    device: str,
    tell: Tell,
    tta: str = "none",
    refine: str = "none",
    parts: Sequence[str] | None = None,
) -> dict[str, dict[str, float]]:
    """See `LoadedNet.evaluate`."""
    parts = own_parts(parts, data)
    model, card = equipped(loaded.model, loaded.card, tta, refine)
    config = replace(_config(loaded), card=card)
    crew = Crew(0, 1, choose_device(device))
    if data is None:
        if not isinstance(loaded, LoadedRun):
            raise OptionError("weights that are no run's have no data of their own: say which")
        setting = reopen(loaded.run, config, None, crew, tell)
    else:
        setting = foreign(config, data, crew, tell)
        parts = ("test",)
    net = model.to(crew.device)
    scores = {}
    for part in parts:
        judged = judge(setting, net, part, Choice())
        if judged is not None:
            scores["all" if data is not None else part] = setting.task.scores(judged[0])
    tell_broken(setting.store.broken, tell)
    return scores


def _config(loaded: LoadedNet) -> Config:
    """The run's; of a net from elsewhere, one that is enough to judge it by."""
    if isinstance(loaded, LoadedRun):
        return loaded.run.config()
    name = loaded.card.architecture.name if loaded.card.architecture else ""
    return Config(make_plan(source="", model=name, batch=1), loaded.card, {}, Choice())
