"""Confusions, classes, confidence and judged pictures, as the template takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hubel.runs.report import answers
from hubel.runs.report.evidence import Evidence, Mistakes, Samples
from hubel.runs.report.folder import read_run

Make = Callable[..., Path]


def test_a_small_matrix_is_cells(made_run: Make) -> None:
    judged = Evidence(part="val", confusion=np.array([[9, 1], [0, 10]]))
    body = answers.confusion_matrix(read_run(made_run(evidence=judged)))
    assert body is not None
    cells = body["rows"][0]
    thin = "\u202f%"
    assert [(c.text, c.title, c.hit) for c in cells] == [
        ("9", f"90.0{thin}", True), ("1", f"10.0{thin}", False),
    ]  # fmt: skip
    assert body["rows"][1][0].shade == 0  # an empty cell has no colour
    assert body["pairs"] == [("cat", "dog", "1", 0.1)]
    assert body["part"] == "validation"


def test_pixels_are_shown_as_percent_of_their_class(made_run: Make) -> None:
    pixels = np.array([[9_000_000, 996_000, 4_000], [0, 0, 0], [0, 500_000, 500_000]])
    judged = Evidence(part="val", confusion=pixels)
    files = read_run(made_run(masks=True, evidence=judged, classes=["a", "b", "c"]))
    body = answers.confusion_matrix(files)
    assert body is not None
    assert [[cell.text for cell in row] for row in body["rows"]] == [
        ["90", "10", ""], ["", "", ""], ["", "50", "50"],
    ]  # fmt: skip
    assert body["rows"][0][1].title == "996\u202fk pixels, 10.0\u202f%"
    assert body["rows"][0][2].shade == 0  # what is not written is not coloured
    assert body["pairs"][0] == ("a", "b", "996\u202fk", 0.0996)
    assert body["unit"] == "pixel"
    assert "11\u202fM labelled pixels of validation images" in body["caption"]


@pytest.mark.parametrize(("classes", "named"), [(25, True), (300, False)])
def test_a_large_matrix_is_a_picture(made_run: Make, classes: int, named: bool) -> None:
    judged = Evidence(part="test", confusion=np.eye(classes, dtype=np.int64))
    names = [str(k) for k in range(classes)]
    body = answers.confusion_matrix(read_run(made_run(evidence=judged, classes=names)))
    assert body is not None
    assert (body["picture"].width, body["picture"].height) == (classes, classes)
    assert body["named"] is named


def test_the_weakest_class_stands_first_and_unknown_ones_last(made_run: Make) -> None:
    confusion = np.array([[9, 1, 0, 0], [5, 5, 0, 0], [0, 0, 7, 0], [0, 0, 0, 0]])
    names = ["good", "weak", "best", "never seen"]
    judged = Evidence(part="test", confusion=confusion)
    body = answers.class_table(read_run(made_run(evidence=judged, classes=names)))
    assert body is not None
    assert [row[0] for row in body["rows"]] == ["weak", "good", "best", "never seen"]
    assert body["rest"] == []


def test_many_classes_are_split(made_run: Make) -> None:
    names = [str(k) for k in range(40)]
    judged = Evidence(part="test", confusion=np.eye(40, dtype=np.int64))
    body = answers.class_table(read_run(made_run(evidence=judged, classes=names)))
    assert body is not None
    assert (len(body["rows"]), len(body["rest"])) == (15, 25)


def test_mistakes_come_surest_first(made_run: Make) -> None:
    wrong = Mistakes(
        np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 1]), np.array([1, 0]),
        np.array([0.6, 0.9]), ("a.png", "b.png"),
    )  # fmt: skip
    body = answers.mistakes(read_run(made_run(evidence=Evidence(mistakes=wrong))))
    assert body is not None
    assert [(c.id, c.true, c.said, c.confidence) for c in body["cards"]] == [
        ("b.png", "dog", "cat", 0.9),
        ("a.png", "cat", "dog", 0.6),
    ]


def test_a_sample_always_shows_its_true_class(made_run: Make) -> None:
    chances = np.array([[0.4, 0.3, 0.2, 0.06, 0.04]])
    shown = Samples(np.zeros((1, 3, 4, 4), np.uint8), np.array([4]), chances, ("x",))
    files = read_run(made_run(evidence=Evidence(samples=shown), classes=list("abcde")))
    body = answers.samples(files)
    assert body is not None
    (card,) = body["cards"]
    assert not card.right
    assert [(name, true) for name, _, true in card.bars] == [
        ("a", False), ("b", False), ("c", False), ("e", True),
    ]  # fmt: skip


def test_two_classes_have_two_bars(made_run: Make) -> None:
    shown = Samples(np.zeros((1, 1, 4, 4), np.uint8), np.array([1]), np.array([[0.2, 0.8]]), ("x",))
    body = answers.samples(read_run(made_run(evidence=Evidence(samples=shown))))
    assert body is not None
    assert body["cards"][0].bars == (("dog", 0.8, True), ("cat", 0.2, False))


def test_without_evidence_there_is_nothing(made_run: Make) -> None:
    files = read_run(made_run(evidence=Evidence()))
    for fill in (
        answers.confusion_matrix, answers.class_table, answers.confidence, answers.mistakes,
        answers.samples,
    ):  # fmt: skip
        assert fill(files) is None
