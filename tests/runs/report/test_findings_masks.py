"""What the report makes of nets that label pixels, and whose story is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hubel.runs.report.evidence import Evidence
from hubel.runs.report.finding import Finding

Tell = Callable[..., dict[str, Finding]]
PARTS = ("train", "val", "test")
STREET = ["road", "sky", "car", "pole", "sign"]
# By class: well found; well found; mixed up with road; hardly found; never named.
PIXELS = np.array(
    [
        [9000, 100, 300, 10, 0],
        [100, 6000, 0, 20, 0],
        [700, 0, 1300, 0, 0],
        [150, 30, 10, 5, 0],
        [90, 0, 5, 0, 0],
    ]
)


@pytest.fixture
def tell(told: Tell, mask_log: Callable[..., Any]) -> Tell:
    """Findings of a made mask run by title; parts alike unless said."""

    def of(confusion: Any = PIXELS, log: Any = None, **changes: Any) -> dict[str, Finding]:
        judged = None if confusion is None else np.asarray(confusion)
        scores = {"miou": 0.5, "pixel_accuracy": 0.8, "boundary_f": 0.45}
        usual = {
            "masks": True, "classes": STREET, "log": log or mask_log([0.3, 0.45, 0.5, 0.5]),
            "evidence": Evidence(part="test", confusion=judged),
            "metrics": dict.fromkeys(PARTS, scores),
        }  # fmt: skip
        return told(**(usual | changes))

    return of


def plain(finding: Finding) -> str:
    return finding.text.replace("\u202f", " ")


def parts(train: float, val: float, test: float) -> dict[str, Any]:
    return {
        part: {"miou": miou, "pixel_accuracy": 0.9, "boundary_f": miou}
        for part, miou in (("train", train), ("val", val), ("test", test))
    }


def test_classes_that_are_never_named_or_hardly_found(tell: Tell) -> None:
    found = tell()["1 class is never named"]
    assert found.tone == "warn"
    # 95 of 17820 pixels are signs; a pole's IoU is 5 / (195 + 35 - 5).
    assert plain(found).startswith(
        "No pixel was called “sign” (0.5 % of all pixels). "
        "Their IoU is next to nothing: “pole” (2.2 %). "
        "Weigh rare classes more (--balance inverse-log), or add a loss that counts every class "
        "alike (--loss cross-entropy,dice)"
    )


def test_the_advice_leaves_out_what_was_tried(tell: Tell) -> None:
    plan = {"masks": {"balance": "balanced", "terms": ["cross-entropy"]}}
    text = tell(plan=plan)["1 class is never named"].text
    assert "--balance" not in text
    assert "Add a loss" in text
    both = {"masks": {"balance": "log", "terms": ["cross-entropy", "dice"]}}
    text = tell(plan=both, name="both")["1 class is never named"].text
    assert "--" not in text
    assert "more images" in text


def test_a_large_class_that_is_badly_found_is_not_called_rare(tell: Tell) -> None:
    confusion = np.array([[900, 100], [950, 50]])  # IoU 50 / 1100, half of the pixels
    assert not any("found" in title for title in tell(confusion, classes=["a", "b"]))


def test_the_hardest_class_of_those_that_are_found(tell: Tell) -> None:
    found = tell()["Of the other classes, “car” is the hardest"]
    assert found.tone == "note"
    # 1300 / (2000 + 1615 - 1300) = 56.2 %
    assert plain(found) == (
        "Its IoU is 56.2 %: 65.0 % of its pixels are recognised, 35.0 % are taken for “road”; "
        "and of the pixels called “car”, 80.5 % are."
    )


def test_a_perfect_net_has_no_hardest_class(tell: Tell) -> None:
    found = tell(np.diag([50, 40, 30, 20, 10]), metrics=parts(1, 1, 1))
    assert not any("hardest" in title or "never" in title for title in found)


def test_outlines_worse_than_insides(tell: Tell) -> None:
    metrics = parts(0.6, 0.6, 0.6)
    metrics["test"]["boundary_f"] = 0.3
    finding = tell(metrics=metrics)["It finds the areas but blurs their outlines"]
    assert "CRF" in finding.text
    assert "boundary F is 30.0 %" in plain(finding)
    metrics["test"] |= {"miou": 0.3, "boundary_f": 0.1}  # areas are not found either
    assert not any("outlines" in title for title in tell(metrics=metrics, name="bad"))


def test_overfitting_by_mean_iou(tell: Tell) -> None:
    finding = tell(metrics=parts(0.9, 0.6, 0.6))[
        "It knows its training images too well (overfitting)"
    ]
    assert "90.0 % on training images and 60.0 % on validation images" in plain(finding)
    assert "30.0 points less" in plain(finding)


@pytest.mark.parametrize(
    ("train", "title"),
    [
        (0.62, "It has room to learn more (no overfitting yet)"),
        (0.85, "Training and validation go hand in hand"),
    ],
)
def test_a_small_gap(tell: Tell, train: float, title: str) -> None:
    assert title in tell(metrics=parts(train, train - 0.04, train - 0.04))


def test_no_validation_part(tell: Tell, mask_log: Callable[..., Any]) -> None:
    log = [row | {"val": None} for row in mask_log([0.3, 0.4])]
    metrics = {"train": {"miou": 0.4}, "test": {"miou": 0.4}}
    found = tell(log=log, metrics=metrics, count={"train": 20, "test": 20})
    assert "--val 0.1" in found["There was no validation part"].text
    assert "There was no validation part" not in tell(name="with")


def test_the_commonest_class_everywhere_is_nothing_learned(tell: Tell) -> None:
    blank = np.zeros((2, 2), np.int64)
    blank[:, 0] = 700, 300
    metrics = {part: {"miou": 0.35} for part in PARTS}
    found = tell(blank, metrics=metrics, classes=["a", "b"])
    text = plain(found["It has not learned to tell the classes apart"])
    assert "would give a mean IoU of 35.0 %; the model reaches 35.0 %" in text
    assert "It has room to learn more (no overfitting yet)" not in found


def test_batch_norm_that_lags_behind(tell: Tell, mask_log: Callable[..., Any]) -> None:
    log = mask_log([0.1, 0.2], train=[0.7, 0.81])
    metrics = {part: {"miou": 0.2, "pixel_accuracy": 0.27} for part in PARTS}
    finding = tell(log=log, metrics=metrics)["Its normalisation has not settled"]
    assert "81.0 % of the training pixels right, judged afterwards 27.0 %" in plain(finding)


def test_a_test_part_harder_than_validation(tell: Tell) -> None:
    assert "Test images are harder than validation images" in tell(metrics=parts(0.7, 0.7, 0.5))
    wild = np.tile([0.1, 0.9], 4)  # eight images that differ by far more than 20 points
    judged = Evidence(part="test", confusion=PIXELS, each=wild)
    found = tell(metrics=parts(0.7, 0.7, 0.5), evidence=judged, name="wild")
    assert "Test images are harder than validation images" not in found


def test_few_images_are_said_to_be_few(tell: Tell) -> None:
    finding = tell(count={"train": 24, "val": 3, "test": 6})["Few test images, a rough score"]
    assert finding.text.startswith("6 images")


def test_a_rising_mean_iou(tell: Tell, mask_log: Callable[..., Any]) -> None:
    confusion = np.diag([10, 10, 10, 10, 10])
    log = mask_log([0.1, 0.2, 0.3, 0.4, 0.5])
    finding = tell(confusion, log=log)["It was still improving when it stopped"]
    assert "The mean IoU of validation images rose by 10.0 points" in plain(finding)


def test_without_a_matrix_no_class_is_named(tell: Tell) -> None:
    assert not any("class" in title for title in tell(None))
