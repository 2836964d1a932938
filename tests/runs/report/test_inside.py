"""The batch, the filters, the maps and the costs, as the template takes them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.runs.report import inside
from hubel.runs.report.evidence import Evidence, FeatureMap, Features, Filters, SeenBatch
from hubel.runs.report.folder import read_run

Make = Callable[..., Path]


def test_labels_of_a_plain_batch(made_run: Make) -> None:
    seen = SeenBatch(np.zeros((50, 1, 4, 4), np.uint8), np.arange(50) % 2)
    body = inside.batch(read_run(made_run(evidence=Evidence(batch=seen))))
    assert body is not None
    assert [label for _, label in body["pictures"][:3]] == ["cat", "dog", "cat"]
    assert len(body["pictures"]) == 36


def test_labels_that_mixup_blended(made_run: Make) -> None:
    labels = np.array([[0.3, 0.7], [1.0, 0.0]], np.float32)
    seen = SeenBatch(np.zeros((2, 1, 4, 4), np.uint8), labels)
    body = inside.batch(read_run(made_run(evidence=Evidence(batch=seen))))
    assert body is not None
    shown = [label.replace("\u202f", " ") for _, label in body["pictures"]]
    assert shown == ["70 % dog + 30 % cat", "cat"]


def test_filters_say_their_shape(made_run: Make) -> None:
    layer = Filters(np.ones((70, 3, 5, 7)), "conv1")
    body = inside.filters(read_run(made_run(evidence=Evidence(filters=layer))))
    assert body is not None
    assert body["shape"] == "70 filters of 5 × 7 pixels over 3 channels"
    assert (len(body["pictures"]), body["hidden"], body["colour"]) == (64, 6, True)


def test_maps_are_cut_to_what_a_page_holds(made_run: Make) -> None:
    layers = tuple(
        FeatureMap(f"layer{k}", "Conv2d", np.ones((4, 20, 6, 6), np.float32)) for k in range(11)
    )
    shown = Features(np.zeros((4, 1, 6, 6), np.uint8), layers)
    body = inside.features(read_run(made_run(evidence=Evidence(features=shown))))
    assert body is not None
    assert [layer["name"] for layer in body["layers"]] == [
        "layer0", "layer2", "layer4", "layer6", "layer8", "layer10",
    ]  # fmt: skip
    assert body["layers"][0]["size"] == "20 maps of 6 × 6"
    assert (len(body["inputs"]), len(body["layers"][0]["rows"])) == (3, 3)
    assert len(body["layers"][0]["rows"][0]) == 12


def test_maps_that_are_no_numbers_are_drawn_black(made_run: Make) -> None:
    broken = FeatureMap("conv", "Conv2d", np.full((1, 2, 4, 4), np.nan, np.float32))
    shown = Features(np.zeros((1, 1, 4, 4), np.uint8), (broken,))
    assert inside.features(read_run(made_run(evidence=Evidence(features=shown)))) is not None


def test_costs_are_shares_of_time(made_run: Make) -> None:
    rows = [
        {"layer": "a", "shape": [1, 6, 24, 24], "parameters": 10, "macs": 500, "milliseconds": 1.0},
        {"layer": "b", "shape": [1, 10], "parameters": 20, "macs": 100, "milliseconds": 3.0},
    ]
    body = inside.costs(read_run(made_run(evidence=Evidence(costs=rows))))
    assert body is not None
    assert [(row["shape"], row["share"]) for row in body["rows"]] == [
        ("6 × 24 × 24", 0.25), ("10", 0.75),
    ]  # fmt: skip
    assert body["totals"] == {"parameters": 30, "macs": 600, "milliseconds": 4}


def test_many_layers_open_with_the_costliest(made_run: Make) -> None:
    rows = [{"layer": str(k), "macs": k} for k in range(30)]
    body = inside.costs(read_run(made_run(evidence=Evidence(costs=rows))))
    assert body is not None
    assert [row["layer"] for row in body["costliest"][:2]] == ["29", "28"]
    assert (len(body["costliest"]), len(body["rows"])) == (12, 30)
    assert body["largest"] == pytest.approx(29 / 435)


def test_costs_tell_what_a_layer_sees_where_that_was_kept(made_run: Make) -> None:
    rows = [
        {"layer": "a", "macs": 3, "field": {"size": [14, 12], "step": [2.0, 2.0]}},
        {"layer": "b", "macs": 1, "field": {"size": None, "step": None}},
        {"layer": "c", "macs": 1, "field": None},
    ]
    body = inside.costs(read_run(made_run(evidence=Evidence(costs=rows))))
    assert body is not None
    assert [row["field"] for row in body["rows"]] == ["14 × 12", "all", ""]
    assert body["sight"]


def test_costs_of_older_runs_do_without_what_layers_see(made_run: Make) -> None:
    rows = [{"layer": "a", "macs": 3}, {"layer": "b", "macs": 1, "field": None}]
    body = inside.costs(read_run(made_run(evidence=Evidence(costs=rows))))
    assert body is not None
    assert not body["sight"]


def test_costs_without_times_are_shares_of_macs(made_run: Make) -> None:
    rows = [{"layer": "a", "macs": 300}, {"layer": "b", "macs": 100, "milliseconds": None}]
    body = inside.costs(read_run(made_run(evidence=Evidence(costs=rows))))
    assert body is not None
    assert not body["timed"]
    assert [row["share"] for row in body["rows"]] == pytest.approx([0.75, 0.25])


def test_windows_are_tinted_by_their_masks(
    made_run: Make, mask_evidence: Callable[..., Evidence]
) -> None:
    body = inside.batch(read_run(made_run(masks=True, classes=list("abcd"))))
    assert body is not None
    assert len(body["pictures"]) == 4
    assert [key.name for key in body["legend"]] == list("abcd")  # no label, no tint
    picture = body["pictures"][0][0]
    shown = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))).convert("RGB")
    )
    batch = mask_evidence().batch
    assert batch is not None
    image, mask = batch.images[0].transpose(1, 2, 0).astype(float), batch.labels[0]
    colours = np.array([[0, 0, 200], [40, 90, 200], [80, 180, 200], [120, 14, 200]])
    known = mask != 255
    expected = image.copy()
    expected[known] = (image[known] + colours[mask[known]]) / 2
    assert np.abs(shown - expected).mean() < 12  # 256 colours stand for all
    assert np.abs(shown - image).mean() > 25


def test_maps_that_were_shrunk_tell_their_own_size(
    made_run: Make, mask_evidence: Callable[..., Evidence]
) -> None:
    body = inside.features(read_run(made_run(masks=True, classes=list("abcd"))))
    assert body is not None
    assert body["layers"][0]["size"] == "8 maps of 60 × 67"
