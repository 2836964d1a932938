"""Masks as the template takes them: rows of layers, the legend, the table of classes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.runs.report import areas
from hubel.runs.report.evidence import Evidence
from hubel.runs.report.folder import read_run

Make = Callable[..., Path]
NAMES = ["sky", "tree", "car", "road"]


def test_rows_are_grouped_and_a_few_stand_open(
    made_run: Make, mask_evidence: Callable[..., Evidence]
) -> None:
    evidence = mask_evidence()
    assert evidence.cases is not None
    evidence.cases = evidence.cases[:4] + evidence.cases[:2]  # five of the worst, one of the best
    body = areas.overlays(read_run(made_run(masks=True, classes=NAMES, evidence=evidence)))
    assert body is not None
    groups = body["groups"]
    assert {title: tuple(map(len, rows)) for title, rows in groups.items()} == {
        "The worst": (3, 2), "The best": (1, 0),
    }  # fmt: skip
    row = groups["The worst"][0][0]
    assert (row.id, row.score) == (evidence.cases[0].id, evidence.cases[0].score)
    assert [name for name, _ in row.layers] == [
        "image", "truth", "prediction", "where wrong", "uncertainty",
    ]  # fmt: skip
    assert {(layer.width, layer.height) for _, layer in row.layers} == {(80, 60)}


def test_the_truth_is_in_the_legends_colours(
    made_run: Make, mask_evidence: Callable[..., Evidence]
) -> None:
    files = read_run(made_run(masks=True, classes=NAMES))
    body = areas.overlays(files)
    assert body is not None
    truth = dict(body["groups"]["The worst"][0][0].layers)["truth"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(truth.uri.partition(",")[2]))))
    cases = mask_evidence().cases
    assert cases is not None
    for key, name in zip(body["legend"], [*NAMES, "no label"], strict=True):
        assert key.name == name
        if key.colour:
            where = cases[0].truth == NAMES.index(name)
            shown = {"rgb({} {} {})".format(*rgb) for rgb in pixels[where][:, :3]}
            assert shown == {key.colour}


def test_the_legend_names_only_what_is_there(made_run: Make) -> None:
    files = read_run(made_run(masks=True, classes=NAMES))
    some = np.array([[2, 255], [0, 2]], np.uint8)
    assert [key.name for key in areas.legend(files, some)] == ["sky", "car", "no label"]
    assert [key.name for key in areas.legend(files, some, unlabelled=False)] == ["sky", "car"]


def test_the_weakest_class_stands_first_and_unknown_ones_last(made_run: Make) -> None:
    confusion = np.array([[6, 2, 0, 0], [2, 5, 0, 0], [0, 0, 9, 0], [0, 0, 0, 0]])
    judged = Evidence(part="val", confusion=confusion, boundary=np.array([0.5, 0.4, 0.9, np.nan]))
    body = areas.area_table(read_run(made_run(masks=True, classes=NAMES, evidence=judged)))
    assert body is not None
    assert [row[0] for row in body["rows"]] == ["tree", "sky", "car", "road"]
    tree = body["rows"][0]
    # IoU 5 / (7 + 7 - 5), accuracy 5 / 7, precision 5 / 7, F, 7 of 24 pixels
    assert tree[2:] == pytest.approx((5 / 9, 5 / 7, 5 / 7, 0.4, 7 / 24))
    assert body["met"]
    assert body["part"] == "validation"


def test_many_classes_are_split(made_run: Make) -> None:
    names = [str(k) for k in range(40)]
    judged = Evidence(part="test", confusion=np.eye(40, dtype=np.int64))
    body = areas.area_table(read_run(made_run(masks=True, classes=names, evidence=judged)))
    assert body is not None
    assert (len(body["rows"]), len(body["rest"]), body["met"]) == (15, 25, False)


def test_without_evidence_there_is_nothing(made_run: Make) -> None:
    files = read_run(made_run(masks=True, evidence=Evidence()))
    assert areas.overlays(files) is None
    assert areas.area_table(files) is None


def test_colours_that_the_run_lacks_are_vocs(made_run: Make) -> None:
    files = read_run(made_run(masks=True, classes=NAMES))
    files.config["colours"] = None
    assert files.colours == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
