"""What every task's evidence has in common: training batches, and the net looked into."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hubel.data.feed import Feed
from hubel.probe.costs import costs
from hubel.probe.features import FeatureMaps, feature_maps
from hubel.probe.filters import first_filters
from hubel.runs.report.evidence import Evidence, FeatureMap, Features, Filters

Pictures = NDArray[np.uint8]

LOOKED_AT = 4  # images that the net's features are shown of


def look_inside(
    evidence: Evidence, model: nn.Module, feed: Feed, images: Pictures, largest: int | None = None
) -> None:
    """Filters, feature maps and costs, by some images uint8 (n, C, H, W).

    Args:
        largest: pixels of a kept map's longer side; maps of whole photos would fill a disk.
    """
    x = normalised(feed, images)
    filters = first_filters(model, (x.shape[1], x.shape[2], x.shape[3]))
    if filters is None:
        evidence.absent["filters"] = "the first layer with weights has no filters to draw"
    else:
        evidence.filters = Filters(filters.weights, filters.name)
    found = feature_maps(model, x)
    layers = tuple(_kept(m, largest) for m in found)
    if layers:
        evidence.features = Features(images, layers)
    else:
        evidence.absent["features"] = "no layer of this net answers with maps"
    evidence.costs = [_row(cost) for cost in costs(model, x[:1]).layers]


def _kept(answer: FeatureMaps, largest: int | None) -> FeatureMap:
    """A layer's answer, its maps averaged down where they are larger than `largest`."""
    height, width = answer.maps.shape[2:]
    side = max(height, width)
    if largest is None or side <= largest:
        return FeatureMap(answer.layer, answer.kind, answer.maps)
    smaller = max(1, round(largest * height / side)), max(1, round(largest * width / side))
    maps = F.adaptive_avg_pool2d(torch.from_numpy(answer.maps), smaller).numpy()
    return FeatureMap(answer.layer, answer.kind, maps, (height, width))


def _row(cost: Any) -> dict[str, Any]:
    return asdict(cost)


def pictures(feed: Feed, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Prepared images, uint8 (n, C, H, W), and the rows they are of: broken ones are left out."""
    images, whole = next(iter(feed.store.fetch([torch.from_numpy(rows)])))
    return images.cpu().numpy(), whole.numpy()


def normalised(feed: Feed, images: Pictures) -> Tensor:
    """The images as the net is fed them."""
    return feed.store.preprocess.normalise(torch.from_numpy(images).to(feed.device))


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]
