"""Runs taken up for use, one or several as one: `load_run` and `ensemble`.

An ensemble answers with the average of its members' probabilities. The members of a group of folds
are judged on what each of them never saw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hubel import loaded as single
from hubel.assemble import foreign, reopen
from hubel.data.record import PARTS
from hubel.data.split import ALL_PARTS
from hubel.deploy.door import answers, equipped, labels_alone
from hubel.deploy.ensemble import EnsemblePredictor, class_places
from hubel.deploy.mask_ensemble import MaskEnsemble
from hubel.deploy.mask_predictor import MaskPrediction, MaskPredictor
from hubel.deploy.predictor import Prediction, Predictor
from hubel.deploy.views import viewed
from hubel.errors import BrokenImage, DataError, OptionError
from hubel.kinds.kind import Data
from hubel.loaded import LoadedNet, LoadedRun, own_parts
from hubel.runs.files import read_json
from hubel.runs.group import Group, is_group
from hubel.runs.run import Run
from hubel.runs.weights import Card
from hubel.session import Setting, Tell, silent, tell_broken
from hubel.tasks.classify import Classify, Tally, logits
from hubel.training.distribute import Crew, choose_device
from hubel.training.evaluate import evaluate, predictions
from hubel.training.speed import Choice
from hubel.weights.open import load_net

Scores = dict[str, dict[str, float]]
OUT_OF_FOLD = "out-of-fold"


@dataclass(frozen=True)
class LoadedEnsemble:
    """Several runs as one, with the methods of a `LoadedRun`.

    Attributes:
        members: the runs; they know the same classes.
        folds: they are the folds of one data set: each held out other images of it.
    """

    members: tuple[LoadedRun, ...]
    folds: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The first member's class names: the order of the ensemble's probabilities."""
        return self.members[0].card.classes

    @property
    def card(self) -> Card:
        """The first member's."""
        return self.members[0].card

    def averaged(self) -> MaskEnsemble:
        """Members that label pixels as one net, which the first member's card describes.

        Raises `DataError` where they prepare images in different ways.
        """
        return MaskEnsemble([m.model for m in self.members], [m.card for m in self.members])

    def predictor(
        self, device: str = "auto", top: int = 5, tta: str = "none", refine: str = "none"
    ) -> EnsemblePredictor | MaskPredictor:
        """The average of the members' probabilities: files in, predictions out.

        Args:
            tta, refine: as `LoadedNet.predictor` has them; views are taken by every member, masks
                refined after averaging.
        """
        chosen = choose_device(device)
        if self.card.task == "segment":
            return MaskPredictor(self.averaged(), self.card, chosen, tta=tta, refine=refine)
        labels_alone(self.classes, refine=refine)
        nets = [viewed(member.model, member.card, tta) for member in self.members]
        return EnsemblePredictor([Predictor(net, card, chosen) for net, card in nets], top)

    def predict(
        self,
        files: Iterable[str | Path],
        tta: str = "none",
        refine: str = "none",
        out: str | Path | None = None,
    ) -> list[Prediction] | list[MaskPrediction]:
        """One prediction per file, in order; `out` is a folder for masks."""
        return answers(self.predictor(tta=tta, refine=refine), files, out)

    def evaluate(
        self,
        data: Data | None = None,
        device: str = "auto",
        tell: Tell = silent,
        tta: str = "none",
        refine: str = "none",
        parts: Sequence[str] | None = None,
    ) -> Scores:
        """The ensemble's scores by part.

        On the members' own parts if all of them have one split; on all of another `data` (part
        "all"). For folds: "out-of-fold", every image judged by the one member that held it out;
        and "test", the ensemble on the source's own test part, if it has one.

        Args:
            parts: which of the members' own; None: all. Folds have only the two.

        Raises `DataError` where the members' splits differ, or the data's class names are others;
        `OptionError` for parts that are not to be had.
        """
        if parts is not None and self.folds:
            raise OptionError("folds are judged on what each held out: no part can be asked for")
        chosen = own_parts(parts, data)
        if data is None:
            return self.own_scores(None, chosen, device, tell, tta, refine)
        bench = _bench(self, Crew(0, 1, choose_device(device)), tell, tta, refine)
        found = bench.together(data, ["test"], other=True)  # where foreign images stand
        return {"all": found["test"]} if found else {}

    def own_scores(
        self,
        data: Data | None = None,
        parts: Sequence[str] = PARTS,
        device: str = "auto",
        tell: Tell = silent,
        tta: str = "none",
        refine: str = "none",
    ) -> Scores:
        """`evaluate` on these of the members' own parts; `data` is where their images are now."""
        bench = _bench(self, Crew(0, 1, choose_device(device)), tell, tta, refine)
        if self.folds:
            return bench.folds(data)
        cuts = [_cut(member.run) for member in self.members]
        for member, cut in zip(self.members, cuts, strict=True):
            if cut != cuts[0]:
                raise DataError(
                    f"{self.members[0].run.folder} and {member.run.folder} were not trained on one "
                    "split, so no image is new to both: give other data to judge them on, or "
                    "train them with one --split-seed"
                )
        return bench.together(data, parts)


Loaded = LoadedNet | LoadedEnsemble


def load_run(path: str | Path, *, model: nn.Module | None = None) -> Loaded:
    """A run's best weights in its model, in eval mode; of a group's folder, all its members.

    Args:
        path: a run or group folder; a name with published weights ("efficientnet_lite0",
            "resnet50:imagenet1k_v2"); or a file of weights that hubel wrote.
        model: needed only where the run's model was a module made by hand.

    Raises `RunError` where the run is damaged, or not every member of the group is finished.
    """
    loose = load_net(path)
    if loose is not None:
        return LoadedNet(*loose)
    if not is_group(path):
        return single.load_run(path, model=model)
    group = Group.open(path)
    members = tuple(single.load_run(run.folder) for run in group.runs())
    return LoadedEnsemble(members, folds=group.kind == "folds")


def ensemble(runs: Sequence[str | Path | LoadedRun | LoadedEnsemble]) -> LoadedEnsemble:
    """Runs that were trained separately, as one. A group counts as all its members.

    Raises:
        OptionError: no runs.
        DataError: they do not know the same classes (in whatever order).
    """
    if isinstance(runs, str | Path) or not runs:
        raise OptionError(f"an ensemble takes a list of one run or more, given {runs!r}")
    members: list[LoadedRun] = []
    for run in runs:
        loaded = run if isinstance(run, LoadedRun | LoadedEnsemble) else load_run(run)
        if isinstance(loaded, LoadedEnsemble):
            members += loaded.members
        elif isinstance(loaded, LoadedRun):
            members.append(loaded)
        else:
            raise OptionError(f"an ensemble is of runs, and {run} is a net without one")
    tasks = sorted({member.card.task for member in members})
    if len(tasks) > 1:
        raise DataError(
            f"these runs do different things, {' and '.join(tasks)}: no average is of both"
        )
    class_places([member.card.classes for member in members])
    return LoadedEnsemble(tuple(members))


def take_up(paths: Sequence[str]) -> Loaded:
    """One net, run or group, or an ensemble of several."""
    return load_run(paths[0]) if len(paths) == 1 else ensemble(paths)


# How an ensemble is judged ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Said:
    """What was said of some images: rows and true classes int64 (n,), log probabilities (n, K)."""

    rows: Tensor
    targets: Tensor
    log_p: Tensor

    def __add__(self, other: _Said) -> _Said:
        """The logarithm of the summed probabilities."""
        assert torch.equal(self.rows, other.rows)
        return replace(self, log_p=torch.logaddexp(self.log_p, other.log_p))

    def tally(self, members: int = 1) -> Tally:
        return Tally.of(self.log_p - math.log(members), self.targets)


@dataclass(frozen=True)
class _Bench:
    """Where an ensemble is judged, and with which views."""

    ensemble: LoadedEnsemble
    crew: Crew
    tell: Tell
    tta: str

    def together(self, data: Data | None, parts: Sequence[str], *, other: bool = False) -> Scores:
        """The average of all members on each part, all of them on the same images.

        Args:
            other: `data` are not the images that the members were trained on.
        """
        sums: dict[str, _Said] = {}
        for net, setting, place in self._each(data, shared=True, other=other):
            for part in parts:
                _add(sums, part, _judge(net, setting, part, place))
        count = len(self.ensemble.members)
        return self._scores({part: said.tally(count) for part, said in sums.items()})

    def folds(self, data: Data | None) -> Scores:
        """Each member on what it held out; their average on what was apart from all folds."""
        tally = Tally.empty(len(self.ensemble.classes))
        apart: dict[str, _Said] = {}
        for net, setting, place in self._each(data, shared=False):
            held = _judge(net, setting, "test", place)
            tally = tally if held is None else tally + held.tally()
            _add(apart, "test", _judge(net, setting, "apart", place))
        count = len(self.ensemble.members)
        tested = {part: said.tally(count) for part, said in apart.items()}
        return self._scores({OUT_OF_FOLD: tally, **tested})

    def _each(
        self, data: Data | None, *, shared: bool, other: bool = False
    ) -> Iterator[tuple[nn.Module, Setting, NDArray[np.int64]]]:
        """(net, where it is judged, where its classes are) of every member in turn.

        The source is opened once; images are prepared again only for members that take them
        otherwise, or that have a split of their own (not `shared`).
        """
        members = self.ensemble.members
        places = class_places([member.card.classes for member in members])
        setting: Setting | None = None
        broken: dict[int, BrokenImage] = {}
        for member, place in zip(members, places, strict=True):
            net, card = viewed(member.model, member.card, self.tta)
            config = replace(member.run.config(), card=card)
            alike = setting is not None and _takes(setting.card) == _takes(card)
            if setting is None or not (shared and alike):
                source = data if setting is None else setting.source
                if other:
                    assert source is not None
                    setting = foreign(config, source, self.crew, self.tell)
                else:
                    setting = reopen(member.run, config, source, self.crew, self.tell)
            yield net.to(self.crew.device), setting, place
            broken |= setting.store.broken
        tell_broken(broken, self.tell)

    def _scores(self, tallies: dict[str, Tally]) -> Scores:
        task = Classify(self.ensemble.classes)
        return {part: task.scores(tally) for part, tally in tallies.items()}


@dataclass(frozen=True)
class _MaskBench:
    """Where an ensemble of nets that label pixels is judged: as one net, image by image, for what
    is said of all pixels of a part would fill the memory."""

    ensemble: LoadedEnsemble
    crew: Crew
    tell: Tell
    tta: str
    refine: str

    def together(self, data: Data | None, parts: Sequence[str], *, other: bool = False) -> Scores:
        """The average of all members on each part.

        Args:
            other: `data` are not the images that the members were trained on.
        """
        first = self.ensemble.members[0]
        config = first.run.config()
        if other:
            assert data is not None
            setting = foreign(config, data, self.crew, self.tell)
        else:
            setting = reopen(first.run, config, data, self.crew, self.tell)
        tallies = self._tallies(self.ensemble.averaged(), setting, parts)
        tell_broken(setting.store.broken, self.tell)
        return {part: setting.task.scores(tally) for part, tally in tallies.items()}

    def folds(self, data: Data | None) -> Scores:
        """Each member on what it held out; their average on what was apart from all folds."""
        total: Any = None
        broken: dict[int, BrokenImage] = {}
        for number, member in enumerate(self.ensemble.members):
            setting = reopen(member.run, member.run.config(), data, self.crew, self.tell)
            for tally in self._tallies(member.model, setting, ("test",)).values():
                total = tally if total is None else total + tally
            if number == 0:
                first = setting
            data = setting.source
            broken |= setting.store.broken
        found = {OUT_OF_FOLD: first.task.scores(total)}
        for tally in self._tallies(self.ensemble.averaged(), first, ("apart",)).values():
            found["test"] = first.task.scores(tally)
        tell_broken(broken, self.tell)
        return found

    def _tallies(self, net: nn.Module, setting: Setting, parts: Sequence[str]) -> dict[str, Any]:
        judged = equipped(net, setting.card, self.tta, self.refine)[0].to(self.crew.device)
        feeds = {part: setting.judge(part) for part in parts}
        return {
            part: evaluate(judged, setting.task, feed, self.crew)
            for part, feed in feeds.items()
            if feed is not None
        }


def _bench(
    some: LoadedEnsemble, crew: Crew, tell: Tell, tta: str, refine: str
) -> _Bench | _MaskBench:
    if some.card.task == "segment":
        return _MaskBench(some, crew, tell, tta, refine)
    labels_alone(some.classes, refine=refine)
    return _Bench(some, crew, tell, tta)


def _judge(net: nn.Module, setting: Setting, part: str, place: NDArray[np.int64]) -> _Said | None:
    """One member on one part, classes in the ensemble's order, rows rising; None without images."""
    feed = setting.judge(part)
    if feed is None:
        return None
    order = torch.from_numpy(place)
    rows, targets, said = [], [], []
    for some, truth, outputs in predictions(net, feed, Choice()):
        rows.append(some)
        targets.append(truth.cpu())
        said.append(F.log_softmax(logits(outputs).float(), dim=1).cpu()[:, order])
    if not rows:
        return None
    rising = torch.cat(rows).argsort()
    truth = order.argsort()[torch.cat(targets)]
    return _Said(torch.cat(rows)[rising], truth[rising], torch.cat(said)[rising])


def _add(sums: dict[str, _Said], part: str, said: _Said | None) -> None:
    if said is not None:
        sums[part] = sums[part] + said if part in sums else said


def _takes(card: Card) -> tuple[Any, ...]:
    """What decides the batches that a net is judged on."""
    return card.preprocess, card.classes


def _cut(run: Run) -> dict[str, list[str]]:
    """The images of every part by content, in one order."""
    record = read_json(run.folder / "split.json")
    return {part: sorted(record.get(part, ())) for part in ALL_PARTS}
