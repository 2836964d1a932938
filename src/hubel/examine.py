"""A net laid open for the command: where it comes from, what it is fed, and the engine's answer.

Right of the verbs: a run's net and its preprocessing come from there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hubel.api import LoadedNet, load_run
from hubel.data.decode import decode
from hubel.engine.check import check
from hubel.engine.look import Look, look
from hubel.engine.verdict import Report
from hubel.errors import ModelError, OptionError, unknown
from hubel.models.check import image_size, whole
from hubel.models.names import build, default_side
from hubel.models.own import is_own
from hubel.models.table import MODELS
from hubel.models.watch import untouched
from hubel.probe.look_page import look_page
from hubel.probe.summary import Summary, summarise
from hubel.session import Stage, Tell, silent
from hubel.tasks.classify import Classify, logits
from hubel.tasks.segment import Segment
from hubel.tasks.segment import logits as maps


@dataclass(frozen=True)
class Subject:
    """A net and something to feed it: images (N, C, H, W), and labels (N), or (N, H, W) for a net
    that labels pixels."""

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
    if _is_run(target):
        loaded = load_run(target)
        preprocess = loaded.card.preprocess
        shape = shape or (preprocess.channels, preprocess.height, preprocess.width)
        model, classes, origin = loaded.model.train(), len(loaded.card.classes), f"run {target}"
        task: str | None = loaded.card.task
    else:
        if shape is None:
            if is_own(target):
                raise OptionError(f"say what {target} takes: --input CxHxW, as 3x32x32")
            if target not in MODELS:
                raise ModelError(f"{unknown('model', target, MODELS)}; or give a run folder")
            shape = MODELS[target].usual
        model = build(target, classes=classes, channels=shape[0], size=(shape[1], shape[2]))
        origin = f"model {target}"
        task = None if is_own(target) else MODELS[target].task
    x = torch.rand(images, *shape)
    x = (x - x.mean()) / x.std()
    per_pixel = _labels_pixels(model, x) if task is None else task == "segment"
    count = (images, *x.shape[2:]) if per_pixel else (images,)
    labels = torch.arange(math.prod(count)).view(count) % classes  # each class in its turn
    return Subject(model, x, labels, origin)


def _labels_pixels(model: nn.Module, images: Tensor) -> bool:
    """Whether a net of the user's own answers for every pixel."""
    try:
        with untouched(model, training=False), torch.inference_mode():
            outputs = model(images[:1])
    except RuntimeError:  # it will be said where the net is at work
        return False
    found = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    return isinstance(found, Tensor) and found.ndim == 4


def _is_run(target: str) -> bool:
    return (Path(target) / "config.json").exists() or Path(target).is_dir()


def check_subject(found: Subject, *, differences: bool, seed: int, tell: Tell = silent) -> Report:
    """Our gradients, autograd's and finite differences, in training mode."""
    return check(
        found.model, found.images, found.labels, loss=_loss, differences=differences, seed=seed,
        tell=lambda done, of: tell(Stage(f"checking {found.origin}", done, of)),
    )  # fmt: skip


def coverage(found: Subject) -> dict[str, Any]:
    """Which operators the net runs through, how often, and which of them are borrowed."""
    seen = look(found.model, found.images, found.labels, loss=_loss, kernels="torch", keep="saved")
    counts = Counter((op.kind, op.record.borrowed) for op in seen.ops)
    return {
        "operators": {kind: n for (kind, borrowed), n in counts.most_common() if not borrowed},
        "borrowed": {kind: n for (kind, borrowed), n in counts.most_common() if borrowed},
    }


def _loss(outputs: Any, labels: Tensor) -> Tensor:
    """What training adds up, of nets that answer with a dict too; class names do not matter."""
    if labels.ndim == 1:
        return Classify(()).total(outputs, labels)
    numbers = range(maps(outputs).shape[1])
    return Segment(tuple(map(str, numbers)), ((0, 0, 0),) * len(numbers)).total(outputs, labels)


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

    Of a net that labels pixels: the loss of that class at every pixel (default: of its own answer);
    `guessed` is then the class that most pixels are called, and `confidence` their share.

    Raises `OptionError` for a class that the run does not know, `BrokenImage` for a broken file.
    """
    loaded = load_run(run)
    card = loaded.card
    if label is not None and label not in card.classes:
        raise OptionError(unknown("class", label, card.classes))
    pixels = card.preprocess.image(decode(Path(image), str(image), largest=card.preprocess.enough))
    x = card.preprocess.normalise(torch.from_numpy(pixels[None]))
    shares, answer = _answer(loaded, x)
    best = int(shares.argmax())
    if label is not None:
        answer = torch.full_like(answer, card.classes.index(label))
    seen = look(loaded.model, x, answer, loss=_loss)
    name = label if label is not None else card.classes[best]
    guess, sure = card.classes[best], float(shares[best])
    page = look_page(seen, pixels, str(image), name, guess, sure)
    return Looked(seen, name, guess, sure, page)


def _answer(loaded: LoadedNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of one image: each class's probability, or its share of the pixels (K,); and the likeliest
    labels (1,), or (1, H, W)."""
    with torch.no_grad():
        outputs = loaded.model(x)
    if loaded.card.task == "classify":
        probabilities = torch.softmax(logits(outputs)[0], 0)
        return probabilities, probabilities.argmax()[None]
    labels = maps(outputs).max(dim=1).indices
    counts = labels.flatten().bincount(minlength=len(loaded.card.classes))
    return counts / counts.sum(), labels


def summary(
    model: str | Path | nn.Module,
    *,
    size: int | Sequence[int] | None = None,
    channels: int | None = None,
    classes: int | None = None,
    batch: int = 1,
    times: bool = True,
    depth: int | None = None,
) -> Summary:
    """A model layer by layer: outputs, parameters, multiply-adds, memory, receptive fields, times.

    Args:
        model: a name, "file.py:function", a run folder, or any module that maps (N, C, H, W).
        size: pixels a side, or (H, W); by default what a run's or a named model's images have.
        channels, classes: as the model's by default; `classes` is for names and files.
        batch: images in the pass; counts are for all of them.
        times: without, nothing is computed for a named model, however large.
        depth: fold layers below paths of this many parts into one row.

    Raises `ModelError` where the model cannot take such images.
    """
    for word, value in (("batch", batch), ("depth", depth), ("channels", channels)):
        if value is not None:
            whole(word, value)
    sides = None if size is None else (size, size) if isinstance(size, int) else tuple(size)
    if isinstance(model, nn.Module):
        found = _given(model, sides, channels, batch)
    else:
        found = _named(str(model), sides, channels, classes, batch, times)
    try:
        return summarise(found.model, found.images, name=found.origin, times=times, depth=depth)
    except RuntimeError as error:
        shape = "x".join(map(str, found.images.shape[1:]))
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{found.origin} cannot take images of {shape}: {reason}") from error


def _named(
    target: str,
    size: tuple[int, ...] | None,
    channels: int | None,
    classes: int | None,
    batch: int,
    times: bool,
) -> Subject:
    """A named net is built without numbers where nothing is timed; chance is left as it was."""
    usual = _usual(target) if size or channels or is_own(target) else None
    shape = None if usual is None else (channels or usual[0], *image_size(size or usual[1:]))
    named = target in MODELS
    classes = classes or (MODELS[target].classes if named else 10)
    device = torch.device("meta" if named and not times else "cpu")
    with torch.random.fork_rng(devices=[]), device:
        return subject(target, images=batch, shape=shape, classes=classes)


def _usual(target: str) -> tuple[int, int, int] | None:
    """(C, H, W) of the images it is made for; None for an unknown name."""
    if _is_run(target):
        preprocess = load_run(target).card.preprocess
        return preprocess.channels, preprocess.height, preprocess.width
    if is_own(target):
        return 3, default_side(target), default_side(target)
    return MODELS[target].usual if target in MODELS else None


def _given(
    model: nn.Module, size: tuple[int, ...] | None, channels: int | None, batch: int
) -> Subject:
    """A module of the caller's, with images of the channels that its first layer takes."""
    if size is None:
        raise OptionError("say how large its images are: size=32, or size=(height, width)")
    height, width = image_size(size)
    channels = channels or _channels(model, height * width)
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    images = torch.zeros(batch, channels, height, width, dtype=first.dtype, device=first.device)
    return Subject(model, images, torch.zeros(batch), type(model).__name__)


def _channels(model: nn.Module, pixels: int) -> int:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
        if isinstance(module, nn.Linear):
            return max(module.in_features // pixels, 1)
    return 3
