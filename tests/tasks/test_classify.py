"""Classification against torch's cross entropy and scikit-learn's metrics."""

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics

from hubel.errors import DataError, ModelError
from hubel.models.names import build
from hubel.tasks.classify import Classify, Tally, logits

TEN = Classify(tuple("abcdefghij"))


def batch(count=400, classes=10, seed=0, spread=2.0):
    """Logits that are right more often than not, and true classes of unequal numbers."""
    draw = torch.Generator().manual_seed(seed)
    weights = torch.linspace(1, 3, classes)
    targets = torch.multinomial(weights, count, replacement=True, generator=draw)
    z = torch.randn(count, classes, generator=draw) * spread
    return z + 3 * F.one_hot(targets, classes), targets


# Outputs and targets


def test_logits_are_found_in_tensors_and_dicts():
    z = torch.zeros(2, 3)
    assert logits(z) is z
    assert logits({"logits": z, "features": None}) is z


@pytest.mark.parametrize(
    ("outputs", "given"),
    [
        (torch.zeros(2, 3, 4), r"shape \(2, 3, 4\)"),
        (torch.zeros(3), r"shape \(3,\)"),
        ((torch.zeros(2, 3), None), "a tuple"),
        ({"out": torch.zeros(2, 3)}, "a dict with 'out'"),
        (None, "a NoneType"),
    ],
)
def test_other_outputs_are_named(outputs, given):
    with pytest.raises(ModelError, match=rf"must return logits \(N, classes\).*returned {given}"):
        logits(outputs)


def test_encode_gives_int64_and_refuses_strangers():
    assert TEN.encode(np.array([3, 9, 0], dtype=np.uint8)).tolist() == [3, 9, 0]
    assert TEN.encode([1]).dtype == torch.int64
    for wrong in (10, -1):
        with pytest.raises(DataError, match=f"targets must be 0 to 9, .* image 1 has {wrong}"):
            TEN.encode([0, wrong])


def test_encode_copies():
    targets = np.array([1, 2])
    encoded = TEN.encode(targets)
    targets[0] = 7
    assert encoded.tolist() == [1, 2]


def test_decode_is_softmax_in_float32():
    z = torch.randn(5, 10).bfloat16()
    probabilities = TEN.decode({"logits": z})
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, torch.softmax(z.float(), dim=1))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))


# Loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_torchs_for_hard_and_soft_targets(smoothing):
    task = Classify(TEN.classes, smoothing)
    z, targets = batch()
    shares = torch.softmax(torch.randn(400, 10), dim=1)
    for given in (targets, shares):
        expected = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(z, given)
        torch.testing.assert_close(task.loss(z, given), {"cross_entropy": expected})


def test_smoothing_by_hand():
    """Two classes, s = 0.2, logits (ln 3, 0): p = (3/4, 1/4), y = (0.9, 0.1)."""
    loss = Classify(("a", "b"), 0.2).loss(torch.tensor([[math.log(3), 0.0]]), torch.tensor([0]))
    by_hand = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    assert loss["cross_entropy"].item() == pytest.approx(by_hand, rel=1e-6)


def test_loss_of_bf16_outputs_is_taken_in_float32():
    z, targets = batch()
    loss = TEN.loss(z.bfloat16(), targets)["cross_entropy"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(z.bfloat16().float(), targets))


def test_float64_stays_float64_so_that_gradients_can_be_proven():
    z, targets = batch()
    outputs = {"logits": z.double(), "aux1": -z.double(), "garbage": z.double()[:, :1]}
    assert {term.dtype for term in TEN.loss(outputs, targets).values()} == {torch.float64}


# Auxiliary heads


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_auxiliary_heads_count_three_tenths(smoothing):
    """Szegedy et al. 2014: their losses are weighted by 0.3; of mixed targets too."""
    task = Classify(TEN.classes, smoothing)
    (z, targets), (first, _), (second, _) = (batch(seed=seed) for seed in range(3))
    other = targets.roll(1)
    mixed = 0.7 * F.one_hot(targets, 10) + 0.3 * F.one_hot(other, 10)
    for given in (targets, mixed):
        terms = task.loss({"aux2": second, "logits": z, "aux1": first, "features": None}, given)
        loss = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
        expected = {
            "cross_entropy": loss(z, given),
            "aux1": 0.3 * loss(first, given),
            "aux2": 0.3 * loss(second, given),
        }
        assert list(terms) == list(expected)
        torch.testing.assert_close(terms, expected)


def test_mixed_and_smoothed_targets_of_an_auxiliary_head_by_hand():
    """Shares (0.7, 0.3), s = 0.2: y = (0.66, 0.34). Logits (ln 3, 0): p = (3/4, 1/4)."""
    z = torch.tensor([[math.log(3), 0.0]])
    terms = Classify(("a", "b"), 0.2).loss({"logits": z, "aux": z}, torch.tensor([[0.7, 0.3]]))
    by_hand = -(0.66 * math.log(0.75) + 0.34 * math.log(0.25))
    assert terms["cross_entropy"].item() == pytest.approx(by_hand, rel=1e-6)
    assert terms["aux"].item() == pytest.approx(0.3 * by_hand, rel=1e-6)


def test_auxiliary_heads_are_taken_in_float32_and_no_score_sees_them():
    z, targets = batch()
    outputs = {"logits": z, "aux1": -z.bfloat16()}
    assert TEN.loss(outputs, targets)["aux1"].dtype == torch.float32
    assert TEN.scores(TEN.tally(outputs, targets)) == TEN.scores(TEN.tally(z, targets))
    assert TEN.hits(outputs, targets) == TEN.hits(z, targets)


@pytest.mark.parametrize("wrong", [None, torch.zeros(400, 10, 2, 2)])
def test_an_auxiliary_output_that_is_no_logits_is_named(wrong):
    z, targets = batch()
    with pytest.raises(ModelError, match=r"must return logits \(N, classes\)"):
        TEN.loss({"logits": z, "aux1": wrong}, targets)


def test_googlenets_terms():
    torch.manual_seed(0)
    net = build("googlenet", classes=10, channels=3, size=(32, 32)).train()
    outputs = net(torch.randn(4, 3, 32, 32))
    assert list(TEN.loss(outputs, torch.arange(4))) == ["cross_entropy", "aux1", "aux2"]


# The garbage class


def equation_9(distances, targets, j):
    """LeCun et al. 1998, equation 9, term by term: the mean of
    y_D + log(exp(-j) + sum_i exp(-y_i)), y_i the distance to class i's code."""
    rows = np.arange(len(targets))
    return np.mean(distances[rows, targets] + np.log(np.exp(-j) + np.exp(-distances).sum(axis=1)))


@pytest.mark.parametrize("j", [-2.0, 0.1, 1.0, 30.0])
def test_garbage_makes_the_sum_equation_9(j):
    draw = np.random.default_rng(0)
    distances, targets = draw.uniform(0, 8, (50, 10)), draw.integers(0, 10, 50)
    outputs = {"logits": torch.tensor(-distances), "garbage": torch.full((50, 1), -j)}
    terms = TEN.loss(outputs, torch.tensor(targets))
    assert set(terms) == {"cross_entropy", "garbage"}
    expected = equation_9(distances, targets, j)
    assert sum(terms.values()).item() == pytest.approx(expected, rel=1e-5)


def test_garbage_by_hand():
    """One class at distance ln 2, j = ln 4: log(1/4 + 1/2) + ln 2 = ln 1.5, all of it garbage."""
    outputs = {
        "logits": torch.tensor([[-math.log(2)]]),
        "garbage": torch.tensor([[-math.log(4)]]),
    }
    terms = Classify(("a",)).loss(outputs, torch.tensor([0]))
    assert terms["cross_entropy"].item() == pytest.approx(0, abs=1e-7)
    assert terms["garbage"].item() == pytest.approx(math.log(1.5), rel=1e-6)


def test_garbage_stays_finite_far_away():
    """Distances in the hundreds, as an untrained LeNet-5 has them: exp(-y) is 0 in float32."""
    outputs = {"logits": torch.full((2, 10), -400.0), "garbage": torch.full((2, 1), -1.0)}
    terms = TEN.loss(outputs, torch.tensor([0, 1]))
    assert terms["garbage"].item() == pytest.approx(400 - math.log(10) - 1, rel=1e-6)


def test_lenets_own_outputs_give_equation_9():
    torch.manual_seed(0)
    net = build("lenet5_1998", classes=10, channels=1, size=(28, 28))
    outputs, targets = net(torch.randn(6, 1, 28, 28)), torch.arange(6)
    with torch.no_grad():
        distances = -outputs["logits"].double().numpy()
    found = sum(TEN.loss(outputs, targets).values()).item()
    assert found == pytest.approx(equation_9(distances, targets.numpy(), 1.0), rel=1e-5)


# Scores


def test_scores_are_scikit_learns():
    z, targets = batch()
    p = z.double().softmax(dim=1).numpy()
    scores = TEN.scores(TEN.tally(z[:100], targets[:100]) + TEN.tally(z[100:], targets[100:]))
    true, said = targets.numpy(), p.argmax(axis=1)
    labels = np.arange(10)
    expected = {
        "accuracy": metrics.accuracy_score(true, said),
        "top5": metrics.top_k_accuracy_score(true, p, k=5, labels=labels),
        "loss": metrics.log_loss(true, p, labels=labels),
        "balanced_accuracy": metrics.balanced_accuracy_score(true, said),
        "macro_f1": metrics.f1_score(true, said, average="macro"),
        "ece": by_loop_ece(true, p),
    }
    assert scores == pytest.approx(expected, rel=1e-6)
    assert 0.5 < scores["accuracy"] < 0.95  # neither trivial


def by_loop_ece(true, p, bins=15):
    """Naeini et al. 2015: sum over bins of n_b / N * |accuracy - confidence|."""
    confidence, right = p.max(axis=1), p.argmax(axis=1) == true
    total = 0.0
    for b in range(bins):
        held = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if held.any():
            total += held.mean() * abs(right[held].mean() - confidence[held].mean())
    return total


def test_classes_that_never_occur_are_left_out_as_scikit_learn_does():
    """Class 3 is neither true nor said; class 2 is said but never true."""
    task = Classify(("a", "b", "c", "d"))
    true = torch.tensor([0, 0, 1, 1, 1])
    said = torch.tensor([0, 2, 1, 1, 0])
    tally = task.tally(F.one_hot(said, 4).float(), true)
    scores = task.scores(tally)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        balanced = metrics.balanced_accuracy_score(true, said)
        f1 = metrics.f1_score(true, said, average="macro", zero_division=0)
    assert scores["balanced_accuracy"] == pytest.approx(balanced) == pytest.approx(7 / 12)
    assert scores["macro_f1"] == pytest.approx(f1)
    assert "top5" not in scores
    assert task.per_class(tally)[3].support == 0


def test_per_class_is_scikit_learns():
    z, targets = batch(seed=3)
    rows = TEN.per_class(TEN.tally(z, targets))
    truth = metrics.precision_recall_fscore_support(targets, z.argmax(dim=1))
    assert [row.name for row in rows] == list(TEN.classes)
    for row, *expected in zip(rows, *truth, strict=True):
        assert [row.precision, row.recall, row.f1, row.support] == pytest.approx(expected)


def test_hits_are_the_trace():
    z, targets = batch()
    assert TEN.hits(z, targets) == TEN.tally(z, targets).confusion.trace()
    shares = F.one_hot(targets, 10) * 0.6 + 0.04
    assert TEN.hits({"logits": z}, shares) == TEN.hits(z, targets)


def test_no_images_give_nan_not_an_error():
    scores = TEN.scores(Tally.empty(10))
    assert all(math.isnan(value) for value in scores.values())
    assert all(row.f1 == row.precision == row.recall == 0 for row in TEN.per_class(Tally.empty(10)))


def test_nan_outputs_show_in_the_loss():
    scores = TEN.scores(TEN.tally(torch.full((4, 10), math.nan), torch.arange(4)))
    assert math.isnan(scores["loss"])
    assert 0 <= scores["accuracy"] <= 1


def test_headline_is_one_of_the_scores():
    assert TEN.headline in TEN.scores(TEN.tally(*batch()))


# Drawing


@pytest.mark.parametrize("channels", [1, 3])
def test_drawing_shows_image_and_colour(channels):
    image = np.full((channels, 28, 20), 200, dtype=np.uint8)
    chances = np.eye(10)[4] * 0.9 + 0.01
    right, wrong, unknown = (TEN.draw(image, target, chances) for target in (4, 5, None))
    corner = (right.width // 2, 1)  # on the frame, above the image
    red, green, _ = right.getpixel(corner)
    assert green > red
    red, green, _ = wrong.getpixel(corner)
    assert red > green
    assert len(set(unknown.getpixel(corner))) == 1
    assert right.getpixel((right.width // 2, 50)) == (200, 200, 200)
    assert wrong.height > right.height  # a second line says what it is


def test_total_adds_up_every_term():
    torch.manual_seed(0)
    task = Classify(("a", "b"))
    outputs = {name: torch.randn(4, 2) for name in ("logits", "aux1", "aux2")}
    outputs["garbage"] = torch.randn(4, 1)
    targets = torch.tensor([0, 1, 1, 0])
    terms = task.loss(outputs, targets)
    assert terms.keys() == {"cross_entropy", "aux1", "aux2", "garbage"}
    assert task.total(outputs, targets).item() == pytest.approx(sum(map(float, terms.values())))
