"""The report's arithmetic against published values, scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest

from hubel.runs.report.measures import (
    area_scores,
    calibration,
    class_scores,
    confusions,
    mean_iou,
    wilson,
)

HAND = np.array([[8, 2, 0], [1, 9, 0], [3, 4, 3]])


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [  # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("right", "total"), [(9, 10), (851, 1000), (0, 7), (10_000, 10_000)])
def test_wilson_as_scipy(right: int, total: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    theirs = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert wilson(right, total) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_knows_nothing_without_images() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_class_scores_by_hand() -> None:
    scores = class_scores(HAND)
    assert scores.precision == pytest.approx([8 / 12, 9 / 15, 1])
    assert scores.recall == pytest.approx([0.8, 0.9, 0.3])
    assert scores.f1 == pytest.approx([16 / 22, 18 / 25, 6 / 13])
    assert scores.support.tolist() == [10, 10, 10]


def test_class_scores_as_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true, said = rng.integers(0, 7, 500), rng.integers(0, 7, 500)
    scores = class_scores(metrics.confusion_matrix(true, said))
    theirs = metrics.precision_recall_fscore_support(true, said)
    for ours, expected in zip(
        (scores.precision, scores.recall, scores.f1, scores.support), theirs, strict=True
    ):
        assert ours == pytest.approx(expected)


def test_a_class_without_images_has_no_recall() -> None:
    scores = class_scores(np.array([[4, 1], [0, 0]]))
    assert np.isnan(scores.recall[1])
    assert scores.precision[1] == 0


def test_confusions_are_the_largest_off_the_diagonal() -> None:
    found = [(c.true, c.predicted, c.count, c.share) for c in confusions(HAND, 3)]
    assert found == [(2, 1, 4, 0.4), (2, 0, 3, 0.3), (0, 1, 2, 0.2)]


def test_confusions_leave_out_zeros() -> None:
    assert confusions(np.diag([3, 4, 5]), 10) == []


def test_calibration_by_hand() -> None:
    # 10 images said 0.6 and 5 were right; 30 said 0.9 and 27 were right
    table = np.zeros((15, 3))
    table[9], table[13] = (10, 6.0, 5), (30, 27.0, 27)
    found = calibration(table)
    assert found is not None
    assert found.ece == pytest.approx(0.25 * 0.1 + 0.75 * 0.0)
    assert (found.confidence, found.accuracy, found.total) == pytest.approx((33 / 40, 32 / 40, 40))


def test_calibration_of_no_images() -> None:
    assert calibration(np.zeros((15, 3))) is None


def test_area_scores_as_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the oracle")
    rng = np.random.default_rng(3)
    true, said = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    scores = area_scores(metrics.confusion_matrix(true, said))
    assert scores.iou == pytest.approx(metrics.jaccard_score(true, said, average=None))
    assert scores.accuracy == pytest.approx(metrics.recall_score(true, said, average=None))
    assert scores.precision == pytest.approx(metrics.precision_score(true, said, average=None))
    assert scores.share == pytest.approx(np.bincount(true) / 400)
    assert mean_iou(metrics.confusion_matrix(true, said)) == pytest.approx(
        metrics.jaccard_score(true, said, average="macro")
    )


def test_the_mean_leaves_out_classes_that_are_not_there() -> None:
    assert mean_iou(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]])) == pytest.approx((3 / 4 + 0) / 2)
    assert np.isnan(mean_iou(np.zeros((2, 2), np.int64)))
