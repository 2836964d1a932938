"""Evidence of a net that labels pixels: its worst and best images with their masks and doubts."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from hubel.data.masks.record import IGNORE
from hubel.errors import DataError
from hubel.gather.common import look_inside
from hubel.runs.report.evidence import Case, Evidence, SeenBatch
from hubel.session import Setting
from hubel.tasks.segmentation.boundary import boundary_f
from hubel.tasks.segmentation.overlay import uncertainty
from hubel.tasks.segmentation.read import named, split
from hubel.tasks.segmentation.tally import PixelTally

Mask = NDArray[np.uint8]

CASES = 6  # of the worst, of the best and of those drawn by lot
LARGEST = 360  # pixels of a case's longer side: what a page shows, twice over
WINDOWS = 12  # of a training batch
LOOKED_AT = 3  # images that the net's features are shown of, if they have
LOOKED_PIXELS = 1 << 19  # together; a wide net keeps hundreds of numbers for each
MAPS_SIDE = 96  # pixels of a feature map; the page shows 56


@dataclass(frozen=True, eq=False)
class Answer:
    """What was said of one image: its row, its own mean IoU, its masks and doubts, scaled down."""

    row: int
    score: float
    truth: Mask
    predicted: Mask
    uncertainty: Mask


class Judged:
    """What the net said of a part: the mean IoU of every image, and some answers whole.

    Kept whole are the worst, the best, and enough drawn by lot that some stay when those are
    taken out: a part of any size needs the same memory.
    """

    def __init__(self, seed: int = 0) -> None:
        self.scores: list[float] = []
        self._worst, self._best, self._lot = _First(CASES), _First(2 * CASES), _First(3 * CASES)
        self._chance = np.random.default_rng(seed)

    def __call__(self, rows: Tensor, targets: Tensor, probabilities: Tensor) -> None:
        """Takes note of a batch: rows (n,), targets as a mask feed has them, (n, K, H, W)."""
        labels = split(targets)[0].to(torch.uint8).numpy()
        said = named(probabilities).to(torch.uint8).numpy()
        for row, truth, called, p in zip(rows.tolist(), labels, said, probabilities, strict=True):
            score = image_iou(truth, called, len(p))
            if not np.isnan(score):
                self.scores.append(score)
                self._keep(row, score, truth, called, p)

    def cases(self) -> dict[str, list[Answer]]:
        """Answers by why they are shown; none stands twice, and few images are shared out."""
        most = min(CASES, max(1, len(self.scores) // 3))
        worst = self._worst.answers()[:most]
        best = _without(self._best.answers(), worst)[:most]
        lot = _without(self._lot.answers(), [*worst, *best])[:CASES]
        return {"worst": worst, "best": best, "random": lot}

    def _keep(self, row: int, score: float, truth: Mask, said: Mask, p: Tensor) -> None:
        keys = (score, -score, float(self._chance.random()))
        shelves = (self._worst, self._best, self._lot)
        wanted = [(s, key) for s, key in zip(shelves, keys, strict=True) if s.wants(key)]
        if not wanted:
            return
        doubt = (255 * uncertainty(p.numpy())).round().astype(np.uint8)
        how = Image.Resampling.NEAREST
        answer = Answer(row, score, small(truth, how), small(said, how), small(doubt))
        for shelf, key in wanted:
            shelf.put(key, answer)


class _First:
    """The answers with the smallest keys, `room` of them."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._kept: list[tuple[float, int, Answer]] = []

    def wants(self, key: float) -> bool:
        return len(self._kept) < self.room or key < self._kept[-1][0]

    def put(self, key: float, answer: Answer) -> None:
        insort(self._kept, (key, answer.row, answer))
        del self._kept[self.room :]

    def answers(self) -> list[Answer]:
        return [answer for _, _, answer in self._kept]


def gather(
    setting: Setting, model: nn.Module, part: str, tally: PixelTally, said: Judged
) -> Evidence:
    """Everything the report draws, about `part`. The model is left as it was."""
    evidence = Evidence(part=part)
    evidence.confusion = tally.confusion.numpy()
    evidence.calibration = tally.calibration.numpy()
    evidence.boundary = boundary_f(tally.boundary.numpy())
    evidence.each = np.array(said.scores)
    evidence.cases = _cases(setting, said)
    evidence.batch = _seen(setting)
    look_inside(evidence, model, setting.feeds.train, _some(setting, part), MAPS_SIDE)
    return evidence


def image_iou(truth: Mask, said: Mask, classes: int) -> float:
    """Mean IoU of one image, masks (H, W), over the classes that occur in it or are called; NaN
    where nothing is labelled."""
    known = truth != IGNORE
    true, called = truth[known], said[known]
    right = np.bincount(true[true == called], minlength=classes)
    either = np.bincount(true, minlength=classes) + np.bincount(called, minlength=classes) - right
    present = either > 0
    return float((right[present] / either[present]).mean()) if present.any() else np.nan


def small(plane: Mask, how: Image.Resampling = Image.Resampling.BOX) -> Mask:
    """uint8 (H, W) scaled to at most LARGEST pixels on the longer side."""
    scale = LARGEST / max(plane.shape)
    if scale >= 1:
        return plane
    height, width = (max(1, round(side * scale)) for side in plane.shape)
    return np.asarray(Image.fromarray(plane).resize((width, height), how))


def _cases(setting: Setting, said: Judged) -> tuple[Case, ...]:
    return tuple(
        Case(
            image=_image(setting, answer.row),
            truth=answer.truth,
            predicted=answer.predicted,
            uncertainty=answer.uncertainty,
            id=str(setting.source.ids[answer.row]),
            score=answer.score,
            why=why,
        )
        for why, answers in said.cases().items()
        for answer in answers
    )


def _image(setting: Setting, row: int) -> NDArray[np.uint8]:
    """The image as it was judged, scaled as its masks are."""
    image = setting.card.preprocess.image(setting.source[row].image)
    return np.stack([small(channel) for channel in image])


def _seen(setting: Setting) -> SeenBatch:
    feed = setting.feeds.train
    batch = next(feed.batches(0))
    labels = split(batch.targets[:WINDOWS])[0].to(torch.uint8)
    return SeenBatch(feed.seen(batch)[:WINDOWS].numpy(), labels.cpu().numpy())


def _some(setting: Setting, part: str) -> NDArray[np.uint8]:
    """Images of one size, as many as can be looked into at once: the first of some that are evenly
    spread, or, where these are broken, of the part."""
    for most in (LOOKED_AT, None):
        feed = setting.judge(part, most)
        batch = None if feed is None else next(feed.batches(0), None)
        if feed is not None and batch is not None:
            images = feed.seen(batch)
            fitting = LOOKED_PIXELS // images.shape[2:].numel()
            return images[: max(1, min(LOOKED_AT, fitting))].numpy()
    raise DataError(f"no image of the {part} part can be read")


def _without(answers: list[Answer], taken: list[Answer]) -> list[Answer]:
    rows = {answer.row for answer in taken}
    return [answer for answer in answers if answer.row not in rows]
