"""A net laid open for the command: where it comes from, what it is fed, and the engine's answer.

Right of the verbs: a run's net and its preprocessing come from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hubel.api import load_run
from hubel.data.decode import decode
from hubel.engine.check import check
from hubel.engine.look import Look, look
from hubel.engine.verdict import Report
from hubel.errors import ModelError, OptionError, unknown
from hubel.models.names import MODELS, build
from hubel.models.own import is_own
from hubel.probe.look_page import look_page
from hubel.session import Stage, Tell, silent


@dataclass(frozen=True)
class Subject:
    """A net and something to feed it: images (N, C, H, W) and labels (N)."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    origin: str


def subject(
    target: str, *, images: int = 2, shape: Sequence[int] | None = None, classes: int = 10,
    seed: int = 0,
) -> Subject:  # fmt: skip
    """A run's net, a named one or "file.py:function", with random images of the size it takes.

    Args:
        shape: (C, H, W) of the images; by default what a run's images come to, or a model's usual.
        classes: for nets that are not a run's.
    """
    torch.manual_seed(seed)
    if (Path(target) / "config.json").exists() or Path(target).is_dir():
        loaded = load_run(target)
        preprocess = loaded.card.preprocess
        shape = shape or (preprocess.channels, preprocess.height, preprocess.width)
        model, classes, origin = loaded.model.train(), len(loaded.card.classes), f"run {target}"
    else:
        if shape is None:
            if is_own(target):
                raise OptionError(f"say what {target} takes: --input CxHxW, as 3x32x32")
            if target not in MODELS:
                raise ModelError(f"{unknown('model', target, MODELS)}; or give a run folder")
            shape = MODELS[target].usual
        model = build(target, classes=classes, channels=shape[0], size=(shape[1], shape[2]))
        origin = f"model {target}"
    x = torch.rand(images, *shape)
    return Subject(model, (x - x.mean()) / x.std(), torch.arange(images) % classes, origin)


def check_subject(found: Subject, *, differences: bool, seed: int, tell: Tell = silent) -> Report:
    """Our gradients, autograd's and finite differences, in training mode."""
    return check(
        found.model, found.images, found.labels, differences=differences, seed=seed,
        tell=lambda done, of: tell(Stage(f"checking {found.origin}", done, of)),
    )  # fmt: skip


def coverage(found: Subject) -> dict[str, Any]:
    """Which operators the net runs through, how often, and which of them are borrowed."""
    seen = look(found.model, found.images, found.labels, kernels="torch", keep="saved")
    counts = Counter((op.kind, op.record.borrowed) for op in seen.ops)
    return {
        "operators": {kind: n for (kind, borrowed), n in counts.most_common() if not borrowed},
        "borrowed": {kind: n for (kind, borrowed), n in counts.most_common() if borrowed},
    }


@dataclass(frozen=True)
class Looked:
    """One image through a run's net, backward from a class."""

    look: Look
    label: str
    guessed: str
    confidence: float
    page: str


def look_at(run: str | Path, image: str | Path, *, label: str | None = None) -> Looked:
    """Lay one pass of a run's net open, for the loss of class `label` (default: the likeliest).

    Raises `OptionError` for a class that the run does not know, `BrokenImage` for a broken file.
    """
    loaded = load_run(run)
    card = loaded.card
    if label is not None and label not in card.classes:
        raise OptionError(unknown("class", label, card.classes))
    pixels = card.preprocess.image(decode(Path(image), str(image), largest=card.preprocess.enough))
    x = card.preprocess.normalise(torch.from_numpy(pixels[None]))
    with torch.no_grad():
        probabilities = torch.softmax(loaded.model(x)[0], 0)
    best = int(probabilities.argmax())
    target = best if label is None else card.classes.index(label)
    seen = look(loaded.model, x, torch.tensor([target]))
    name, guess, sure = card.classes[target], card.classes[best], float(probabilities[best])
    page = look_page(seen, pixels, str(image), name, guess, sure)
    return Looked(seen, name, guess, sure, page)
