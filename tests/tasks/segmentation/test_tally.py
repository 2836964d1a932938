"""Sums over pixels against a slow loop; exact, whatever the cut."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix

from hubel.data.masks.record import IGNORE
from hubel.tasks.segmentation.boundary import boundary_sums
from hubel.tasks.segmentation.membranes import pair_sums
from hubel.tasks.segmentation.tally import PixelTally
from hubel.tasks.tally import BINS, Tally


def scene(shape=(3, 4, 19, 23), seed=0):
    draw = torch.Generator().manual_seed(seed)
    n, k, h, w = shape
    z = torch.randn(shape, generator=draw) * 2
    labels = torch.randint(k, (n, h, w), generator=draw)
    labels[torch.rand(n, h, w, generator=draw) < 0.2] = IGNORE
    return z, labels


def test_every_sum_against_its_oracle():
    z, labels = scene()
    tally = PixelTally.of(z, labels, objects=2)
    known = labels != IGNORE
    said = z.argmax(dim=1)
    expected = confusion_matrix(labels[known], said[known], labels=range(4))
    assert tally.confusion.tolist() == expected.tolist()
    assert tally.count == int(known.sum())
    nll = F.cross_entropy(z.double(), labels, ignore_index=IGNORE, reduction="sum")
    assert tally.nll == pytest.approx(nll.item(), rel=1e-6)
    flat = Tally.of(z.permute(0, 2, 3, 1)[known], labels[known])
    np.testing.assert_allclose(tally.calibration, flat.calibration, rtol=1e-6)
    images = [(t.numpy().astype(np.uint8), s.numpy().astype(np.uint8))
              for t, s in zip(labels, said, strict=True)]  # fmt: skip
    assert tally.boundary.tolist() == sum(boundary_sums(t, s, 4) for t, s in images).tolist()
    assert tally.pairs.tolist() == sum(pair_sums(t, s, 2) for t, s in images).tolist()


def test_cut_anywhere_the_sum_is_the_same_and_survives_the_flat_form():
    z, labels = scene((6, 3, 11, 9), seed=2)
    whole = PixelTally.of(z, labels, objects=0)
    for cut in (1, 4):
        parts = [PixelTally.of(z[s], labels[s], 0) for s in (np.s_[:cut], np.s_[cut:])]
        flat = (parts[0] + parts[1]).to_tensor()
        torch.testing.assert_close(flat, whole.to_tensor(), rtol=1e-12, atol=0)
    flat = (PixelTally.empty(3) + whole).to_tensor()
    assert flat.dtype == torch.float64
    assert flat.shape == (9 + 1 + 45 + 12 + 3,)
    back = PixelTally.from_tensor(flat * 2, 3)
    assert back.confusion.dtype == torch.int64
    assert back.to_tensor().equal((whole + whole).to_tensor())


def test_nothing_labelled_and_nothing_at_all():
    nothing = PixelTally.empty(4).to_tensor()
    z = torch.randn(2, 4, 5, 5)
    assert PixelTally.of(z, torch.full((2, 5, 5), IGNORE)).to_tensor().equal(nothing)
    assert PixelTally.of(z[:0], torch.zeros(0, 5, 5, dtype=torch.int64)).to_tensor().equal(nothing)
    assert PixelTally.empty(4).count == 0


def test_no_objects_no_pairs():
    z, labels = scene()
    assert PixelTally.of(z, labels).pairs.tolist() == [0, 0, 0]


def test_smaller_logits_are_brought_to_the_labels_size():
    z, labels = scene((2, 4, 16, 24), seed=1)
    small = z[:, :, ::8, ::8]
    whole = F.interpolate(small, size=(16, 24), mode="bilinear", align_corners=False)
    found = PixelTally.of(small, labels)
    assert found.to_tensor().equal(PixelTally.of(whole, labels).to_tensor())


def test_nan_does_not_stop_it():
    z, labels = scene()
    z[0, :, 0, 0], labels[0, 0, 0] = float("nan"), 1
    tally = PixelTally.of(z, labels)
    assert np.isnan(tally.nll)
    assert tally.count == int((labels != IGNORE).sum())
    assert torch.isfinite(tally.calibration).all()


def test_bfloat16_and_certainty():
    z, labels = scene()
    half = PixelTally.of(z.bfloat16(), labels)
    assert half.to_tensor().equal(PixelTally.of(z.bfloat16().float(), labels).to_tensor())
    sure = PixelTally.of(torch.tensor([[[[100.0]], [[0.0]]]]), torch.tensor([[[0]]]))
    assert sure.calibration[BINS - 1].tolist() == [1, 1, 1]


def test_255_classes_are_told_from_no_label():
    labels = torch.tensor([[[254, IGNORE]]])
    z = torch.zeros(1, 255, 1, 2)
    z[:, 254] = 5
    tally = PixelTally.of(z, labels)
    assert tally.count == 1
    assert tally.confusion[254, 254] == 1
