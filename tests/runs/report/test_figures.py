"""The charts: well-formed, coloured by the page, and with the right numbers in them."""

from __future__ import annotations

import re
import warnings
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from hubel.runs.report.figures import (
    accuracy_curve,
    loss_curve,
    miou_curve,
    rate_strip,
    reliability,
)
from hubel.runs.report.history import History, history_of

TABLE = np.zeros((15, 3))
TABLE[9], TABLE[14] = (10, 6.1, 5), (30, 29.0, 27)


def history(epochs: int, **more: Any) -> History:
    rows = [
        {"epoch": k, "step": 10 * k, "lr": 0.1 / k, "best": k == 2,
         "train": {"loss": 2 / k, "accuracy": 1 - 0.5 / k},
         "val": {"loss": 2.2 / k, "accuracy": 1 - 0.6 / k}, **more}
        for k in range(1, epochs + 1)
    ]  # fmt: skip
    steps = [
        {"kind": "step", "epoch": 1, "step": s, "loss": 20 / s, "lr": 0.1}
        for s in range(1, 10 * epochs + 1)
    ]
    return history_of(rows, steps)


def charts(of: History) -> list[str]:
    drawn = [loss_curve(of, of.best), accuracy_curve(of, of.best), rate_strip(of)]
    return [str(chart) for chart in drawn if chart is not None]


@pytest.mark.parametrize("epochs", [1, 2, 40, 1000])
def test_curves_are_one_svg_each(epochs: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = charts(history(epochs))
    for chart in [*drawn, str(reliability(TABLE))]:
        root = ElementTree.fromstring(chart)  # raises where a tag stays open
        assert root.tag == "svg"
        assert root.get("role") == "img"
        assert root.get("aria-label")
    assert sum(map(len, drawn)) < 120_000


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_drawn_around(value: float | None) -> None:
    broken = history(3, train={"loss": value, "accuracy": value}, val=None)
    for chart in charts(broken):
        ElementTree.fromstring(chart)
        assert "nan" not in re.sub(r'aria-label="[^"]*"', "", chart)


def test_colours_and_fonts_are_the_pages() -> None:
    for chart in [*charts(history(5)), str(reliability(TABLE))]:
        assert "var(--" in chart
        assert not re.search(r"#[0-9a-f]{6}", chart)
        assert "font:" not in chart
        assert "DejaVu" not in chart
        assert "http" not in chart


def test_ids_are_unique_across_charts() -> None:
    together = "".join([*charts(history(5)), str(reliability(TABLE))])
    ids = re.findall(r' id="([^"]+)"', together)
    used = re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", together)
    assert len(ids) == len(set(ids))
    assert {one or other for one, other in used} <= set(ids)


def test_the_label_tells_the_numbers() -> None:
    label = ElementTree.fromstring(str(accuracy_curve(history(4), None))).get("aria-label")
    assert label == (
        "Accuracy in percent by epoch: training from 50.0 to 87.5; validation from 40.0 to 85.0"
    )
    told = ElementTree.fromstring(str(reliability(TABLE))).get("aria-label")
    assert told is not None
    assert told.endswith("60–67 %: 50 % of 10, 93–100 %: 90 % of 30")


def test_small_rates_keep_their_digits() -> None:
    rows = [{"epoch": k, "step": k, "lr": 0.00025} for k in (1, 2, 3)]
    assert ">0.00025<" in str(rate_strip(history_of(rows, [])))


def test_no_rate_no_strip() -> None:
    assert rate_strip(history_of([{"epoch": 1, "step": 1}], [])) is None


def test_the_same_numbers_draw_the_same_chart() -> None:
    assert charts(history(6)) == charts(history(6))


def test_matplotlibs_own_options_are_left_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    charts(history(3))
    assert dict(matplotlib.rcParams) == before


def test_mean_iou_is_told() -> None:
    rows = [{"epoch": k, "step": k, "val": {"miou": 0.2 * k}} for k in (1, 2, 3)]
    chart = ElementTree.fromstring(str(miou_curve(history_of(rows, []), 2)))
    assert chart.get("aria-label") == "Mean IoU in percent by epoch: validation from 20.0 to 60.0"


def test_pixels_get_no_whiskers() -> None:
    """They are not independent: an interval from their number would be a false promise."""
    million = TABLE * 1_000_000
    assert "var(--ink)" in str(reliability(TABLE))
    chart = str(reliability(million, "pixel"))
    assert "var(--ink)" not in chart
    assert ">pixels<" in chart
    assert "M<" in chart  # counts in millions
