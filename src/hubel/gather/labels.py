"""Evidence of a classifier: what it mistook for what, how sure it was, and what it says."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hubel.data.feed import Feed
from hubel.gather.common import LOOKED_AT, look_inside, normalised, pictures, spread
from hubel.runs.report.evidence import Evidence, Mistakes, Samples, SeenBatch
from hubel.session import Setting
from hubel.tasks.classify import Tally

MISTAKES, SAMPLES, SEEN = 24, 12, 36


class Judged:
    """What the net said of every image of a part: prediction and its probability."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._confidence: list[Tensor] = []

    def __call__(self, rows: Tensor, targets: Tensor, probabilities: Tensor) -> None:
        """Takes note of a batch."""
        confidence, label = probabilities.max(dim=1)
        self._rows.append(rows)
        self._labels.append(label)
        self._confidence.append(confidence)

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """rows, predicted labels, confidences; all (n,)."""
        found = (self._rows, self._labels, self._confidence)
        rows, labels, confidence = (torch.cat(parts).numpy() for parts in found)
        return rows, labels, confidence


def gather(setting: Setting, model: nn.Module, part: str, tally: Tally, said: Judged) -> Evidence:
    """Everything the report draws, about `part`. The model is left as it was."""
    feed = setting.judge(part)
    assert feed is not None
    rows, labels, confidence = said.arrays()
    evidence = Evidence(part=part)
    evidence.confusion = tally.confusion.numpy()
    evidence.calibration = tally.calibration.numpy()
    evidence.mistakes = _mistakes(setting, feed, rows, labels, confidence)
    evidence.samples = _samples(setting, model, feed)
    evidence.batch = _seen(setting)
    look_inside(evidence, model, feed, pictures(feed, spread(feed.rows.numpy(), LOOKED_AT))[0])
    return evidence


def _mistakes(
    setting: Setting,
    feed: Feed,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    confidence: NDArray[np.float32],
) -> Mistakes:
    truth = setting.source.targets[rows]
    wrong = np.flatnonzero(labels != truth)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return Mistakes(
        images=pictures(feed, rows[worst])[0],
        true=truth[worst],
        predicted=labels[worst],
        confidence=confidence[worst],
        ids=tuple(setting.source.ids[row] for row in rows[worst]),
    )


def _samples(setting: Setting, model: nn.Module, feed: Feed) -> Samples:
    images, rows = pictures(feed, spread(feed.rows.numpy(), SAMPLES))
    with torch.inference_mode():
        outputs = model.eval()(normalised(feed, images))
    return Samples(
        images=images,
        true=setting.source.targets[rows],
        probabilities=setting.task.decode(outputs).cpu().numpy(),
        ids=tuple(setting.source.ids[row] for row in rows),
    )


def _seen(setting: Setting) -> SeenBatch:
    batch = next(setting.feeds.train.batches(0))
    images = setting.feeds.train.seen(batch)[:SEEN]
    return SeenBatch(images.numpy(), batch.targets[:SEEN].cpu().numpy())
