"""Tallies: exact sums, whatever the cut; against a slow loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubel.tasks.tally import BINS, Tally


def by_loop(logits, targets):
    """Image by image, in float64, as the definitions read."""
    classes = logits.shape[1]
    confusion = np.zeros((classes, classes), dtype=np.int64)
    calibration = np.zeros((BINS, 3))
    top5, nll = 0, 0.0
    for z, t in zip(logits.double().numpy(), targets.tolist(), strict=True):
        p = np.exp(z - z.max())
        p /= p.sum()
        said = int(z.argmax())
        confusion[t, said] += 1
        top5 += t in np.argsort(-z)[:5]
        nll -= np.log(p[t])
        place = next(b for b in range(BINS) if b / BINS < p[said] <= (b + 1) / BINS + 1e-12)
        calibration[place] += (1, p[said], said == t)
    return confusion, top5, nll, calibration


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(1, 60), st.integers(0, 10**6))
def test_against_a_slow_loop(classes, count, seed):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=draw) * 3
    targets = torch.randint(classes, (count,), generator=draw)
    tally = Tally.of(logits, targets)
    confusion, top5, nll, calibration = by_loop(logits, targets)
    assert tally.confusion.numpy().tolist() == confusion.tolist()
    assert tally.confusion.dtype == torch.int64
    assert (tally.top5, tally.count) == (top5, count)
    assert tally.nll == pytest.approx(nll, rel=1e-12)
    np.testing.assert_allclose(tally.calibration.numpy(), calibration, rtol=1e-12)


def test_cut_anywhere_the_sum_is_the_same_and_survives_the_flat_form():
    torch.manual_seed(0)
    logits, targets = torch.randn(50, 7), torch.randint(7, (50,))
    whole = Tally.of(logits, targets)
    for cut in (0, 1, 17, 50):
        parts = Tally.of(logits[:cut], targets[:cut]) + Tally.of(logits[cut:], targets[cut:])
        torch.testing.assert_close(parts.to_tensor(), whole.to_tensor(), rtol=1e-12, atol=0)
    flat = (Tally.empty(7) + whole).to_tensor()
    assert flat.dtype == torch.float64
    assert flat.shape == (49 + 2 + 45,)
    back = Tally.from_tensor(flat * 2, 7)
    assert back.confusion.equal(whole.confusion * 2)
    assert back.confusion.dtype == torch.int64
    assert back.to_tensor().equal((whole + whole).to_tensor())


def test_edges_of_the_bins_belong_below():
    """Certainty, the uppermost edge, goes to the last bin; a half lies in the middle one."""
    sure = Tally.of(torch.tensor([[100.0, 0.0]]), torch.tensor([0]))
    assert sure.calibration[BINS - 1].tolist() == [1, 1, 1]
    even = Tally.of(torch.zeros(1, 2), torch.tensor([1]))
    assert even.calibration[7].tolist() == pytest.approx([1, 0.5, 0])  # (7/15, 8/15] holds 0.5


def test_nan_and_infinity_do_not_stop_it():
    logits = torch.tensor([[float("nan")] * 3, [float("inf"), 0, 0], [0, float("-inf"), 1]])
    tally = Tally.of(logits, torch.tensor([1, 0, 2]))
    assert tally.count == 3
    assert np.isnan(tally.nll)
    assert tally.calibration[:, 0].sum() == 3
    assert torch.isfinite(tally.calibration).all()


def test_soft_targets_count_as_their_largest_share():
    torch.manual_seed(1)
    logits = torch.randn(8, 4)
    shares = torch.rand(8, 4).softmax(dim=1)
    tally = Tally.of(logits, shares)
    assert tally.confusion.equal(Tally.of(logits, shares.argmax(dim=1)).confusion)
    expected = torch.nn.functional.cross_entropy(logits, shares, reduction="sum")
    assert tally.nll == pytest.approx(expected.item(), rel=1e-5)


def test_nothing_at_all():
    tally = Tally.of(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert tally.count == 0
    assert tally.to_tensor().equal(Tally.empty(4).to_tensor())
