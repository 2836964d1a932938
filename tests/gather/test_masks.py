"""Evidence of masks: which images are kept, how they are scored, and a net judged for real."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from hubel.assemble import assemble
from hubel.data.masks.record import MaskArrays
from hubel.errors import BrokenImage
from hubel.gather.door import gather, judge
from hubel.gather.masks import CASES, LARGEST, Judged, image_iou, small
from hubel.runs.report.evidence import Evidence
from hubel.training.speed import Choice

metrics = pytest.importorskip("sklearn.metrics", reason="the oracle of the scores")


def probabilities(said, classes, sure=0.9):
    """(n, K, H, W) that call every pixel what `said` (n, H, W) has."""
    p = np.full((len(said), classes, *said.shape[1:]), (1 - sure) / (classes - 1), np.float32)
    np.put_along_axis(p, said[:, None].astype(np.int64), sure, axis=1)
    return torch.from_numpy(p)


@pytest.mark.parametrize("seed", range(3))
def test_one_images_score_is_sklearns(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 3], (13, 17)).astype(np.uint8)  # class 2 is called, not there
    said = rng.integers(0, 3, (13, 17)).astype(np.uint8)
    unknown = rng.random((13, 17)) < 0.2
    truth[unknown] = 255
    expected = metrics.jaccard_score(truth[~unknown], said[~unknown], average="macro")
    assert image_iou(truth, said, 6) == pytest.approx(expected)


def test_an_image_without_labels_has_no_score_and_is_no_case():
    judged = Judged()
    blank = np.full((1, 4, 6), 255, np.uint8)
    judged(torch.tensor([3]), torch.from_numpy(blank).long(), probabilities(blank * 0, 2))
    assert judged.scores == []
    assert not any(judged.cases().values())


def shown_to(count, seed=0):
    """Answers to `count` images of growing sizes, of which image k has k pixels wrong; in any
    order, two at a time."""
    judged, order = Judged(), np.random.default_rng(seed).permutation(count)
    for rows in np.array_split(order, -(-count // 2)):
        truth = np.zeros((len(rows), 8, 40), np.uint8)
        truth[:, 4:] = 1
        said = truth.copy()
        for place, row in enumerate(rows):
            said[place].reshape(-1)[:row] = 1
        judged(torch.from_numpy(rows), torch.from_numpy(truth).long(), probabilities(said, 2))
    return judged


def test_the_worst_and_the_best_are_kept_in_order():
    cases = shown_to(100).cases()
    assert [case.row for case in cases["worst"]] == [99, 98, 97, 96, 95, 94]
    assert [case.row for case in cases["best"]] == [0, 1, 2, 3, 4, 5]
    drawn = [case.row for case in cases["random"]]
    assert len(drawn) == CASES
    assert set(drawn) <= set(range(6, 94))


@pytest.mark.parametrize("count", range(1, 20))
def test_few_images_are_shared_out_and_none_is_shown_twice(count):
    cases = shown_to(count).cases()
    rows = [case.row for answers in cases.values() for case in answers]
    most = min(CASES, max(1, count // 3))
    assert len(rows) == len(set(rows)) == min(count, 2 * most + CASES)
    assert len(cases["worst"]) == most


def test_those_drawn_by_lot_are_from_everywhere():
    """Of 40 images in one order, each of the middle 28 is drawn as often: 6 of 28, 400 times."""
    times = np.zeros(40)
    truth = np.zeros((40, 6, 10), np.uint8)
    truth[:, 3:] = 1
    said = truth.copy()
    for row in range(40):
        said[row].reshape(-1)[: row % 40 // 2] = 1
        said[row].reshape(-1)[60 - row % 2 :] = 0  # every score its own
    p, labels = probabilities(said, 2), torch.from_numpy(truth).long()
    for seed in range(400):
        judged = Judged(seed)
        judged(torch.arange(40), labels, p)
        times[[case.row for case in judged.cases()["random"]]] += 1
    drawn = times[6:34]
    assert times[:6].sum() == times[34:].sum() == 0
    assert stats.chisquare(drawn).pvalue > 0.001


def test_what_is_kept_is_what_was_said():
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, (2, 9, 12)).astype(np.uint8)
    truth[:, 0] = 255
    said = rng.integers(0, 3, (2, 9, 12)).astype(np.uint8)
    judged = Judged()
    weights = np.ones_like(truth, np.float32)
    targets = torch.from_numpy(np.stack([truth.astype(np.float32), weights], axis=1))
    judged(torch.tensor([7, 8]), targets, probabilities(said, 3, sure=1 / 3))
    (worst,), (best,) = judged.cases()["worst"], judged.cases()["best"]
    for answer in (worst, best):
        assert np.array_equal(answer.truth, truth[answer.row - 7])
        assert (answer.uncertainty == 255).all()  # all classes alike
    assert worst.score <= best.score
    assert {worst.row, best.row} == {7, 8}


@pytest.mark.parametrize("shape", [(720, 540), (400, 2000), (361, 7), (30, 40)])
def test_large_masks_are_scaled_down(shape):
    labels = np.random.default_rng(0).integers(0, 5, shape, dtype=np.uint8)
    found = small(labels)
    assert max(found.shape) <= LARGEST
    assert max(found.shape) == min(LARGEST, max(shape))
    assert found.shape[0] / found.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.15)


# A net judged for real -------------------------------------------------------------------------


class ByBrightness(nn.Module):
    """Logits that call a pixel by how bright it is: 0 dark, 1 light; class 2 is never called."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([-9.0, 9.0, 0.0])[:, None, None, None] / 3)
            self.conv.bias.copy_(torch.tensor([0.0, 0.0, -50.0]))
        self.conv.weight.data = self.conv.weight.data.expand(3, 3, 1, 1).clone()

    def forward(self, x):
        return self.conv(x)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The evidence of 12 test images, half of them labelled wrongly in their right part."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (24, 6, 8), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    images = np.where(masks == 1, 200, 40)[:, None].repeat(3, 1)
    images = (images + rng.integers(-20, 20, images.shape)).astype(np.uint8)
    masks = masks.copy()
    for row in range(12, 24, 2):
        masks[row, :, 16:] = 1 - masks[row, :, 16:]
    masks[:, 0] = 255
    parts = np.array(["train"] * 10 + ["val"] * 2 + ["test"] * 12)
    source = MaskArrays(
        images, masks, ("dark", "light", "none"), ((0, 0, 0), (9, 9, 9), (5, 5, 5)), parts=parts
    )
    words = {"task": "segment", "size": (24, 32), "batch": 4, "device": "cpu"}
    setting, net = assemble(ByBrightness(), source, words, lambda event: None)
    tally, said = judge(setting, net, "test", Choice())
    folder = tmp_path_factory.mktemp("run")
    gather(setting, net, "test", tally, said).save(folder)
    return Evidence.load(folder), masks, images, source


def test_the_confusion_counts_every_labelled_pixel(found):
    evidence, masks, *_ = found
    known = masks[12:] != 255
    assert evidence.confusion.sum() == known.sum()
    assert evidence.confusion[:, 2].sum() == 0
    wrong = evidence.confusion[0, 1] + evidence.confusion[1, 0]
    assert wrong == 6 * 23 * 16  # the right halves of six images, less the row without labels
    assert evidence.calibration[:, 0].sum() == known.sum()
    assert evidence.part == "test"


def test_cases_are_the_images_and_their_masks(found):
    evidence, masks, images, source = found
    ids = list(source.ids)
    assert len(evidence.cases) == 12
    assert [case.why for case in evidence.cases] == ["worst"] * 4 + ["best"] * 4 + ["random"] * 4
    for case in evidence.cases:
        row = ids.index(case.id)
        assert np.array_equal(case.truth, masks[row])
        assert np.array_equal(case.image, images[row])
        assert (case.score == 1) == (row % 2 == 1)
        assert ((case.predicted == 1) == (images[row].mean(axis=0) > 120)).all()
    assert all(case.score == 1 for case in evidence.cases if case.why == "best")
    assert sorted(evidence.each) == sorted(
        image_iou(masks[row], (images[row].mean(axis=0) > 120).astype(np.uint8), 3)
        for row in range(12, 24)
    )


def test_the_batch_is_windows_with_their_labels(found):
    batch = found[0].batch
    assert batch.images.shape[1:] == (3, 24, 32)
    assert batch.labels.shape == (len(batch.images), 24, 32)
    assert batch.labels.dtype == np.uint8
    known = batch.labels != 255
    bright = batch.images.mean(axis=1) > 120
    assert (bright == (batch.labels == 1))[known].mean() > 0.9  # they moved together


def test_the_rest_is_as_for_classifiers(found):
    evidence = found[0]
    assert evidence.filters.weights.shape == (3, 3, 1, 1)
    assert evidence.features.layers[0].maps.shape[1:] == (3, 24, 32)
    assert evidence.costs[0]["kind"] == "Conv2d"
    assert evidence.boundary.shape == (3,)
    assert np.isnan(evidence.boundary[2])


class Torn(MaskArrays):
    """Noise of which the rows in `broken` cannot be read."""

    broken = ()

    def __getitem__(self, row):
        if row in self.broken:
            raise BrokenImage(self.ids[row], "is broken")
        return super().__getitem__(row)


def judged(broken):
    """A setting of 4 training and 7 test images, the net, and what was said of the test part."""
    draw = np.random.default_rng(0)
    masks = draw.integers(0, 3, (11, 8, 12), dtype=np.uint8)
    images = draw.integers(0, 255, (11, 3, 8, 12), dtype=np.uint8)
    parts = np.array(["train"] * 4 + ["test"] * 7)
    source = Torn(images, masks, "abc", ((0, 0, 0), (9, 9, 9), (5, 5, 5)), parts=parts)
    source.broken = broken
    words = {"task": "segment", "size": (8, 12), "batch": 4, "device": "cpu", "val": 0.0}
    setting, net = assemble(ByBrightness(), source, words, lambda event: None)
    return setting, net, judge(setting, net, "test", Choice())


def test_features_are_shown_though_the_images_chosen_for_it_are_broken(tmp_path):
    setting, net, found = judged({4, 7, 10})  # the first, the middle and the last
    gather(setting, net, "test", *found).save(tmp_path)
    evidence = Evidence.load(tmp_path)
    assert evidence.features.layers[0].maps.shape[1:] == (3, 8, 12)
    assert len(evidence.each) == 4


def test_a_part_of_which_nothing_can_be_read_is_no_part():
    assert judged(set(range(4, 11)))[2] is None
