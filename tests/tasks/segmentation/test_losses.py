"""Losses over pixels against PyTorch's cross-entropy, slow loops, hands and finite differences."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hubel.data.masks.record import IGNORE
from hubel.tasks.segmentation import losses
from hubel.tasks.segmentation.losses import Pixels

WEIGHTS = (0.5, 2.0, 1.25, 3.0)


def scene(shape=(2, 4, 7, 5), seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    n, k, h, w = shape
    z = torch.randn(shape, generator=draw, dtype=dtype) * 2
    labels = torch.randint(k, (n, h, w), generator=draw)
    labels[torch.rand(n, h, w, generator=draw) < 0.3] = IGNORE
    return z, labels


def run(z, targets, what, weights=None, **options):
    pixels = Pixels.of(targets, z, weights)
    log_p = z.log_softmax(dim=1)
    if what == "cross_entropy":
        return losses.cross_entropy(log_p, pixels, weights, options.get("smoothing", 0.0))
    if what == "focal":
        return losses.focal(log_p, pixels, options.get("gamma", 2.0))
    return losses.dice(log_p, pixels)


KINDS = ("cross_entropy", "focal", "dice")


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_cross_entropy_is_torchs_mean(weights, smoothing):
    z, labels = scene()
    ours = run(z, labels, "cross_entropy", weights, smoothing=smoothing)
    tensor = None if weights is None else torch.tensor(weights, dtype=z.dtype)
    theirs = F.cross_entropy(
        z, labels, weight=tensor, ignore_index=IGNORE, label_smoothing=smoothing
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_gradient_is_torchs():
    z, labels = scene(dtype=torch.float32)
    z.requires_grad_()
    theirs = torch.autograd.grad(F.cross_entropy(z, labels, ignore_index=IGNORE), z)[0]
    ours = torch.autograd.grad(run(z, labels, "cross_entropy"), z)[0]
    torch.testing.assert_close(ours, theirs)


def test_a_weight_map_gives_the_mean_of_weighted_losses():
    z, labels = scene()
    weights = torch.rand(labels.shape, dtype=torch.float64) * 10
    ours = run(z, torch.stack([labels.double(), weights], dim=1), "cross_entropy")
    each = F.cross_entropy(z, labels, ignore_index=IGNORE, reduction="none")
    torch.testing.assert_close(ours, (each * weights).sum() / (labels != IGNORE).sum())
    ones = torch.stack([labels.double(), torch.ones_like(weights)], dim=1)
    assert run(z, ones, "cross_entropy") == run(z, labels, "cross_entropy")


def test_map_and_class_weights_together_by_hand():
    """Logits (ln 3, 0): p = (3/4, 1/4). Labels 0 and 1, classes weigh 1 and 3, pixels 2 and 0.5:
    (1*2*ln(4/3) + 3*0.5*ln 4) / (1 + 3)."""
    z = torch.tensor([math.log(3), 0.0], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    targets = torch.tensor([[[[0.0, 1.0]], [[2.0, 0.5]]]])
    by_hand = (2 * math.log(4 / 3) + 1.5 * math.log(4)) / 4
    found = run(z, targets, "cross_entropy", (1.0, 3.0))
    assert found.item() == pytest.approx(by_hand, rel=1e-12)


def test_focal_by_hand_and_at_gamma_0():
    """p = 3/4 of class 0: (1/4)^2 ln(4/3) where it is 0, (3/4)^2 ln 4 where it is 1."""
    z = torch.tensor([math.log(3), 0.0], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    by_hand = (math.log(4 / 3) / 16 + math.log(4) * 9 / 16) / 2
    assert run(z, torch.tensor([[[0, 1]]]), "focal").item() == pytest.approx(by_hand, rel=1e-12)
    z, labels = scene()
    for weights in (None, WEIGHTS):
        plain = run(z, labels, "focal", weights, gamma=0.0)
        torch.testing.assert_close(plain, run(z, labels, "cross_entropy", weights))


def dice_by_loop(z, labels):
    """Image by image and class by class, as the definition reads."""
    p = torch.softmax(z, dim=1).numpy()
    images = []
    for chances, truth in zip(p, labels.numpy(), strict=True):
        known = truth != IGNORE
        terms = []
        for k in np.unique(truth[known]):
            g, q = (truth == k)[known].astype(float), chances[k][known]
            terms.append(1 - 2 * (q * g).sum() / ((q**2).sum() + (g**2).sum()))
        if terms:
            images.append(np.mean(terms))
    return np.mean(images) if images else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_dice_is_the_loops(seed):
    z, labels = scene((3, 4, 5, 3), seed)
    labels[labels == seed % 4] = 1  # one class is absent
    labels[1] = IGNORE if seed > 2 else labels[1]
    assert run(z, labels, "dice").item() == pytest.approx(dice_by_loop(z, labels), rel=1e-12)


def test_dice_of_certainty():
    labels = torch.tensor([[[0, 1], [1, IGNORE]]])
    right = F.one_hot(labels % IGNORE, 2).permute(0, 3, 1, 2).double() * 200
    assert run(right, labels, "dice").item() == pytest.approx(0, abs=1e-12)
    assert run(-right, labels, "dice").item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_gradients_by_finite_differences(what, weights):
    z, labels = scene((2, 4, 3, 2), seed=3)
    own = torch.rand(labels.shape, dtype=torch.float64)
    targets = torch.stack([labels.double(), own], dim=1)
    z.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: run(z, targets, what, weights, smoothing=0.1), z, eps=1e-6, atol=1e-9, rtol=1e-6
    )


@pytest.mark.parametrize("what", KINDS)
def test_unlabelled_pixels_have_no_part(what):
    z, labels = scene(dtype=torch.float32)
    z.requires_grad_()
    loss = run(z, labels, what, WEIGHTS, smoothing=0.1)
    gradient = torch.autograd.grad(loss, z)[0]
    unknown = (labels == IGNORE)[:, None].expand_as(z)
    assert (gradient[unknown] == 0).all()
    assert (gradient[~unknown] != 0).all()
    moved = torch.where(unknown, torch.randn(z.shape) * 50, z)
    assert run(moved, labels, what, WEIGHTS, smoothing=0.1) == loss


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_no_label_at_all_is_zero_with_zero_gradient(what, weights):
    z = (torch.randn(2, 4, 3, 3) * 100).requires_grad_()
    labels = torch.full((2, 3, 3), IGNORE)
    loss = run(z, labels, what, weights)
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, z)[0] == 0).all()


def test_a_class_without_weight_is_left_out():
    z, labels = scene()
    found = run(z, labels, "cross_entropy", (1.0, 1.0, 1.0, 0.0))
    without = labels.masked_fill(labels == 3, IGNORE)
    torch.testing.assert_close(found, F.cross_entropy(z, without, ignore_index=IGNORE))
    only = torch.full_like(labels, 3)
    assert run(z, only, "cross_entropy", (1.0, 1.0, 1.0, 0.0)) == 0


@pytest.mark.parametrize("what", KINDS)
def test_extreme_logits_stay_finite(what):
    z = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).repeat(1, 1, 1, 2).requires_grad_()
    loss = run(z, torch.tensor([[[0, 1]]]), what)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


def test_smaller_logits_read_labels_and_weights_at_their_places():
    z, _ = scene((1, 4, 2, 3))
    labels = torch.arange(16 * 24).view(1, 16, 24) % 4
    own = torch.rand(1, 16, 24, dtype=torch.float64)
    read = torch.stack([labels.double(), own], dim=1)[:, :, 4::8, 4::8]
    whole = torch.stack([labels.double(), own], dim=1)
    assert run(z, whole, "cross_entropy") == run(z, read, "cross_entropy")


def test_deterministic_algorithms_have_nothing_to_say(recwarn):
    z, labels = scene(dtype=torch.float32)
    z.requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        for what in KINDS:
            run(z, labels, what, WEIGHTS, smoothing=0.1).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert not recwarn.list
