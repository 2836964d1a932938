"""Segmentation: loss, scores and drawing against scikit-learn, scikit-image and hands."""

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.measure import label
from skimage.metrics import adapted_rand_error
from sklearn import metrics
from torch import nn

from hubel.data.masks.record import IGNORE
from hubel.engine.backprop import backpropagate
from hubel.engine.tape import Tape
from hubel.errors import DataError, ModelError, OptionError
from hubel.tasks.segment import TERMS, PixelTally, Segment
from hubel.tasks.segmentation import losses
from hubel.tasks.segmentation.losses import Pixels

NAMES = tuple("abcde")
COLOURS = tuple((40 * k, 90, 255 - 40 * k) for k in range(5))
FIVE = Segment(NAMES, COLOURS)


def scene(shape=(3, 5, 21, 17), seed=0, right=2.0, ignored=0.2):
    """Logits that are right more often than not; classes of unequal numbers."""
    draw = torch.Generator().manual_seed(seed)
    n, k, h, w = shape
    labels = (torch.rand(n, h, w, generator=draw) ** 2 * k).long()
    z = torch.randn(shape, generator=draw) * 2
    z += right * F.one_hot(labels, k).permute(0, 3, 1, 2)
    labels[torch.rand(n, h, w, generator=draw) < ignored] = IGNORE
    return z, labels


# The task itself


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ()}, "1 to 255 classes"),
        ({"classes": tuple(map(str, range(256)))}, "given 256"),
        ({"colours": COLOURS[:4]}, "5 classes, given 4 colours"),
        ({"objects": "A"}, "unknown class of objects 'A': did you mean 'a'"),
        ({"terms": ("dise",)}, "unknown loss 'dise': did you mean 'dice'"),
        ({"terms": ()}, "one to three different terms"),
        ({"terms": ("dice", "dice")}, "one to three different terms"),
        ({"weights": (1.0, 2.0)}, "5 numbers of 0 or more"),
        ({"weights": (1.0, 1.0, 1.0, 1.0, -1.0)}, "5 numbers of 0 or more"),
        ({"smoothing": 1.0}, "smoothing must be"),
        ({"gamma": 0.5}, "gamma must be 0, or 1 and above"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        Segment(**{"classes": NAMES, "colours": COLOURS, **options})


def test_encode_gives_int64_and_refuses_strangers():
    masks = np.array([[[0, 4, IGNORE]]], dtype=np.uint8)
    assert FIVE.encode(masks).dtype == torch.int64
    assert FIVE.encode(masks).tolist() == masks.tolist()
    with pytest.raises(DataError, match="0 to 4, .* or 255 for none; image 0 has 5 in row 0, col"):
        FIVE.encode(np.array([[[0, 5]]]))


def test_decode_is_softmax_in_float32():
    z = torch.randn(2, 5, 3, 4).bfloat16()
    probabilities = FIVE.decode({"logits": z})
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, torch.softmax(z.float(), dim=1))


# Loss


@pytest.mark.parametrize("terms", [("cross-entropy",), ("dice", "focal"), TERMS])
def test_terms_are_told_by_name_and_added_up(terms):
    task = Segment(NAMES, COLOURS, terms, (1.0, 2.0, 3.0, 4.0, 5.0), 0.1)
    z, labels = scene()
    pixels, log_p = Pixels.of(labels, z, task.weights), z.log_softmax(1)
    expected = {
        "cross-entropy": losses.cross_entropy(log_p, pixels, task.weights, 0.1),
        "dice": losses.dice(log_p, pixels),
        "focal": losses.focal(log_p, pixels, 2.0),
    }
    found = task.loss(z, labels)
    assert list(found) == [term.replace("-", "_") for term in terms]
    torch.testing.assert_close(list(found.values()), [expected[term] for term in terms])
    torch.testing.assert_close(task.total(z, labels), sum(found.values()))


def test_auxiliary_outputs_count_in_full_at_any_size():
    """Pinheiro and Collobert 2014 add up the losses of all instances of the net."""
    task = Segment(NAMES, COLOURS, ("cross-entropy", "dice"))
    z, labels = scene((2, 5, 16, 24))
    outputs = {"aux2": -z, "logits": z, "aux1": z[:, :, 4::8, 4::8], "features": None}
    terms = task.loss(outputs, labels)
    assert list(terms) == ["cross_entropy", "dice", "aux1", "aux2"]
    torch.testing.assert_close(terms["aux1"], task.total(outputs["aux1"], labels[:, 4::8, 4::8]))
    torch.testing.assert_close(terms["aux2"], task.total(-z, labels))


def test_precision_of_the_loss():
    z, labels = scene()
    assert FIVE.total(z.bfloat16(), labels).dtype == torch.float32
    torch.testing.assert_close(
        FIVE.total(z.bfloat16(), labels),
        F.cross_entropy(z.bfloat16().float(), labels, ignore_index=IGNORE),
    )
    weighted = torch.stack([labels.float(), torch.ones(labels.shape)], dim=1)
    assert FIVE.total(z.double(), weighted).dtype == torch.float64
    torch.testing.assert_close(FIVE.total(z, weighted), FIVE.total(z, labels))


def test_what_cannot_be_judged_is_named():
    z, labels = scene()
    for ask in (FIVE.total, FIVE.hits, FIVE.tally):
        with pytest.raises(ModelError, match="5 logits, one per class; it gives 4"):
            ask(z[:, :4], labels)
        with pytest.raises(ModelError, match="at most as large as their labels"):
            ask(z, labels[:, 1:])


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 3.0, 4.0, 5.0)])
def test_the_readable_engine_walks_back_through_every_term(weights):
    """Its own backward formulas of all the loss is made of give autograd's gradient."""
    torch.manual_seed(0)
    task = Segment(NAMES, COLOURS, TERMS, weights, 0.1)
    net = nn.Conv2d(3, 5, 3, padding=1)
    x, (_, labels) = torch.randn(2, 3, 9, 7), scene((2, 5, 9, 7))
    targets = torch.stack([labels.float(), torch.rand(labels.shape)], dim=1)
    with Tape(net) as tape:
        loss = task.total(net(x), targets)
    found = backpropagate(tape, loss)
    task.total(net(x), targets).backward()
    torch.testing.assert_close(found, {n: w.grad for n, w in net.named_parameters()})


def test_training_brings_it_down():
    """A 1x1 convolution learns to tell two colours apart, half of the pixels unlabelled."""
    torch.manual_seed(0)
    task = Segment(("dark", "bright"), COLOURS[:2], TERMS)
    x = torch.rand(4, 1, 12, 12)
    labels = (x[:, 0] > 0.5).long().masked_fill(torch.rand(4, 12, 12) < 0.5, IGNORE)
    net = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    optimiser = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(150):
        optimiser.zero_grad()
        task.total(net(x), labels).backward()
        optimiser.step()
    assert task.scores(task.tally(net(x), labels))["miou"] > 0.9


# Hits


def test_hits_and_counted_are_the_confusions():
    z, labels = scene()
    tally = FIVE.tally(z, labels)
    hits = FIVE.hits({"logits": z}, labels)
    assert hits.dtype == FIVE.counted(labels).dtype == torch.int64
    assert hits == tally.confusion.trace()
    assert FIVE.counted(labels) == tally.count == (labels != IGNORE).sum()
    weighted = torch.stack([labels.float(), torch.rand(labels.shape)], dim=1)
    assert (FIVE.hits(z, weighted), FIVE.counted(weighted)) == (hits, tally.count)


def test_the_mass_of_a_piece_is_what_its_loss_is_a_mean_over():
    """Losses of two pieces, weighted by their masses, are the loss of both."""
    z, labels = scene(shape=(4, 5, 6, 7))
    labels[0, 1:], labels[3] = IGNORE, IGNORE
    weights = (0.1, 2.0, 0.0, 1.0, 0.5)
    for options in ({}, {"weights": weights}, {"terms": ("dice",)}, {"terms": ("focal",)}):
        task = Segment(NAMES, COLOURS, **options)
        parts = [(z[:1], labels[:1]), (z[1:3], labels[1:3]), (z[3:], labels[3:])]
        masses = torch.tensor([float(task.mass(t)) for _, t in parts])
        losses = torch.stack([task.total(*part) for part in parts])
        assert masses[2] == 0
        together = (masses * losses).sum() / masses.sum()
        torch.testing.assert_close(together, task.total(z, labels))


def test_hits_of_smaller_logits_are_of_all_pixels():
    z, labels = scene((2, 5, 3, 4), right=9)
    large = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert FIVE.hits(z, large) == 64 * FIVE.hits(z, labels)


# Scores


def test_scores_are_scikit_learns():
    z, labels = scene()
    known = labels != IGNORE
    true, said = labels[known].numpy(), z.argmax(dim=1)[known].numpy()
    tally = FIVE.tally(z, labels)
    scores = FIVE.scores(tally)
    iou = metrics.jaccard_score(true, said, average=None)
    assert scores["miou"] == pytest.approx(iou.mean())
    assert scores["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(true, said))
    assert scores["mean_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(true, said))
    weighted = metrics.jaccard_score(true, said, average="weighted")
    assert scores["fw_iou"] == pytest.approx(weighted)
    chances = torch.softmax(z, 1).permute(0, 2, 3, 1)[known].double().numpy()
    chances /= chances.sum(axis=1, keepdims=True)
    assert scores["loss"] == pytest.approx(metrics.log_loss(true, chances), rel=1e-5)
    rows = FIVE.per_class(tally)
    precision, recall, _, support = metrics.precision_recall_fscore_support(true, said)
    assert [row.name for row in rows] == list(NAMES)
    assert [row.iou for row in rows] == pytest.approx(iou.tolist())
    assert [row.precision for row in rows] == pytest.approx(precision.tolist())
    assert [row.accuracy for row in rows] == pytest.approx(recall.tolist())
    assert [row.share for row in rows] == pytest.approx((support / support.sum()).tolist())
    mean_f = np.mean([row.boundary_f for row in rows])
    assert scores["boundary_f"] == pytest.approx(mean_f)


def test_order_and_headline():
    plain = ["miou", "pixel_accuracy", "mean_accuracy", "fw_iou", "boundary_f", "loss", "ece"]
    z, labels = scene()
    assert list(FIVE.scores(FIVE.tally(z, labels))) == plain
    task = Segment(NAMES, COLOURS, objects="b")
    found = list(task.scores(task.tally(z, labels)))
    assert found == [*plain, "rand_f", "rand_split", "rand_merge", "pixel_error"]
    assert (FIVE.headline, FIVE.running) == (plain[0], plain[1])
    assert FIVE.kind == "segment"


def say(labels, classes=5):
    return F.one_hot(labels, classes).permute(0, 3, 1, 2).float() * 20


def test_which_classes_the_means_are_over_by_hand():
    """True 0 0 0 1, called 0 0 2 1. IoU 2/3, 1, 0 (called, never there), none, none; accuracy
    2/3, 1. Weighted by frequency: 3/4 of 2/3 and 1/4 of 1."""
    truth, said = torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([[[0, 0, 2, 1]]])
    tally = FIVE.tally(say(said), truth)
    scores = FIVE.scores(tally)
    assert scores["miou"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores["mean_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["fw_iou"] == pytest.approx(3 / 4 * 2 / 3 + 1 / 4)
    assert scores["pixel_accuracy"] == pytest.approx(3 / 4)
    rows = FIVE.per_class(tally)
    assert (rows[2].iou, rows[2].precision, rows[2].share) == (0, 0, 0)
    assert math.isnan(rows[2].accuracy)
    assert math.isnan(rows[3].iou)


def test_calibration_by_hand():
    """Called with 3/4 everywhere, right for half of the pixels: a distance of 1/4."""
    z = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1).repeat(1, 1, 1, 4)
    task = Segment(NAMES[:2], COLOURS[:2])
    scores = task.scores(task.tally(z, torch.tensor([[[0, 0, 1, 1]]])))
    assert scores["ece"] == pytest.approx(0.25)
    assert scores["loss"] == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_objects_are_scikit_images():
    task = Segment(("membrane", "cell"), COLOURS[:2], objects="cell")
    truth = torch.ones(1, 40, 52, dtype=torch.int64)
    truth[:, 7::9] = truth[:, :, 5::11] = 0
    said = truth.clone()
    said[0, 7, 8:10] = said[0, 16, 20] = 1
    said[0, 20:26, 30] = 0
    scores = task.scores(task.tally(say(said, 2), truth))
    error, _, _ = adapted_rand_error(*(label(m[0].numpy(), connectivity=1) for m in (truth, said)))
    assert scores["rand_f"] == pytest.approx(1 - error)
    assert scores["rand_merge"] < scores["rand_split"]
    assert scores["pixel_error"] == pytest.approx((said != truth).double().mean().item())


def test_pixel_error_knows_objects_and_the_rest_alone():
    """Other classes taken for each other are no error of the two-class map."""
    task = Segment(NAMES, COLOURS, objects="b")
    truth, said = torch.tensor([[[0, 1, 1, 2, 3]]]), torch.tensor([[[2, 1, 0, 1, 3]]])
    assert task.scores(task.tally(say(said), truth))["pixel_error"] == pytest.approx(2 / 5)


def test_merged_over_batches_and_processes():
    task = Segment(NAMES, COLOURS, objects="a")
    z, labels = scene((6, 5, 13, 11))
    whole = task.scores(task.tally(z, labels))
    total = task.empty()
    for part in (np.s_[:1], np.s_[1:4], np.s_[4:]):
        total = total + task.tally(z[part], labels[part])
    assert task.scores(total) == pytest.approx(whole, rel=1e-12)
    halves = [task.tally(z[part], labels[part]) for part in (np.s_[:3], np.s_[3:])]
    summed = task.untold(sum(half.to_tensor() for half in halves))
    assert task.scores(summed) == pytest.approx(whole, rel=1e-12)


def test_auxiliary_outputs_and_weights_change_no_score():
    z, labels = scene()
    weighted = torch.stack([labels.float(), torch.rand(labels.shape)], dim=1)
    other = Segment(NAMES, COLOURS, TERMS, (1.0, 2.0, 3.0, 4.0, 5.0), 0.3)
    plain = FIVE.scores(FIVE.tally(z, labels))
    assert other.scores(other.tally({"logits": z, "aux1": -z}, weighted)) == plain


def test_nothing_labelled_gives_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = Segment(NAMES, COLOURS, objects="a").scores(PixelTally.empty(5))
        rows = FIVE.per_class(PixelTally.empty(5))
    assert all(math.isnan(value) for value in scores.values())
    assert all(math.isnan(row.iou) for row in rows)


# Drawing


def test_drawing_takes_tensors_and_arrays():
    z, labels = scene((1, 5, 21, 34))
    chances = FIVE.decode(z)[0]
    image = np.full((1, 21, 34), 90, np.uint8)
    told = FIVE.draw(image, labels[0], chances)
    assert told.tobytes() == FIVE.draw(image, labels[0].numpy(), chances.numpy()).tobytes()
    assert FIVE.draw(image, None, chances).width < told.width
