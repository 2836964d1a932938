"""Evidence for the report: the trained net looked at from all sides."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hubel.data.feed import Feed
from hubel.probe.costs import costs
from hubel.probe.features import feature_maps
from hubel.probe.filters import first_filters
from hubel.runs.report.evidence import (
    Evidence,
    FeatureMap,
    Features,
    Filters,
    Mistakes,
    Samples,
    SeenBatch,
)
from hubel.session import Setting
from hubel.tasks.classify import Tally
from hubel.training.evaluate import evaluate
from hubel.training.speed import Choice

MISTAKES, SAMPLES, LOOKED_AT, SEEN = 24, 12, 4, 36


class Judged:
    """What the net said of every image of a part: prediction and its probability."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._confidence: list[Tensor] = []

    def __call__(self, rows: Tensor, probabilities: Tensor) -> None:
        confidence, label = probabilities.max(dim=1)
        self._rows.append(rows)
        self._labels.append(label)
        self._confidence.append(confidence)

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """rows, predicted labels, confidences; all (n,)."""
        found = (self._rows, self._labels, self._confidence)
        rows, labels, confidence = (torch.cat(parts).numpy() for parts in found)
        return rows, labels, confidence


def judge(
    setting: Setting, model: nn.Module, part: str, choice: Choice, most: int | None = None
) -> tuple[Tally, Judged] | None:
    """The tally of a part and what was said of each image; None where the part is empty."""
    feed = setting.judge(part, most)
    if feed is None:
        return None
    said = Judged()
    return evaluate(model, setting.task, feed, setting.crew, choice, said), said


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
    _look_inside(evidence, setting, model, feed)
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
        images=_pictures(feed, rows[worst])[0],
        true=truth[worst],
        predicted=labels[worst],
        confidence=confidence[worst],
        ids=tuple(setting.source.ids[row] for row in rows[worst]),
    )


def _samples(setting: Setting, model: nn.Module, feed: Feed) -> Samples:
    images, rows = _pictures(feed, _spread(feed.rows.numpy(), SAMPLES))
    with torch.inference_mode():
        outputs = model.eval()(_normalised(feed, images))
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


def _look_inside(evidence: Evidence, setting: Setting, model: nn.Module, feed: Feed) -> None:
    images, _ = _pictures(feed, _spread(feed.rows.numpy(), LOOKED_AT))
    x = _normalised(feed, images)
    filters = first_filters(model, (x.shape[1], x.shape[2], x.shape[3]))
    if filters is None:
        evidence.absent["filters"] = "the first layer with weights has no filters to draw"
    else:
        evidence.filters = Filters(filters.weights, filters.name)
    layers = tuple(FeatureMap(m.layer, m.kind, m.maps) for m in feature_maps(model, x))
    if layers:
        evidence.features = Features(images, layers)
    else:
        evidence.absent["features"] = "no layer of this net answers with maps"
    evidence.costs = [_row(cost) for cost in costs(model, x[:1]).layers]


def _row(cost: Any) -> dict[str, Any]:
    return asdict(cost)


def _pictures(feed: Feed, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Prepared images, uint8 (n, C, H, W), and the rows they are of: broken ones are left out."""
    images, whole = next(iter(feed.store.fetch([torch.from_numpy(rows)])))
    return images.cpu().numpy(), whole.numpy()


def _normalised(feed: Feed, images: NDArray[np.uint8]) -> Tensor:
    return feed.store.preprocess.normalise(torch.from_numpy(images).to(feed.device))


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]
