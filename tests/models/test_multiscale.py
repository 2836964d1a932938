"""The multiscale net: its bands against SciPy and by hand, weights, the pass spelt out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from hubel.models.multiscale import evened, laplacian, yuv
from hubel.models.names import build
from hubel.models.upsampling import bilinear


def small(**options):
    torch.manual_seed(0)
    return build("multiscale", **{"classes": 4, "channels": 3, "hidden": 9, **options})


def test_weights_by_hand():
    with torch.device("meta"):
        net = build("multiscale", classes=8, channels=3)
    convs = 16 * (3 * 49 + 1) + 64 * (16 * 49 + 1) + 256 * (64 * 49 + 1)
    assert sum(p.numel() for p in net.parameters()) == convs + 1024 * 769 + 8 * 1025
    assert net.hidden[0].in_channels == 768


def test_yuv_of_known_colours():
    """Grey has no colour; the rows are those of analogue television (BT.601)."""
    colours = torch.tensor([[1.0, 1, 1], [0.3, 0.3, 0.3], [1, 0, 0], [0, 0, 1]])
    found = yuv(colours.view(4, 3, 1, 1)).view(4, 3)
    expected = [[1, 0, 0], [0.3, 0, 0], [0.299, -0.14713, 0.615], [0.114, 0.436, -0.10001]]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
    for channels in (1, 2, 4):
        x = torch.randn(1, channels, 3, 3)
        assert yuv(x).equal(x)


def test_bands_add_up_to_the_image():
    x = torch.randn(2, 3, 16, 32)
    fine, middle, coarse = laplacian(x, 3)
    assert (fine.shape[2:], middle.shape[2:], coarse.shape[2:]) == ((16, 32), (8, 16), (4, 8))
    again = fine + bilinear(middle + bilinear(coarse, 2), 2)
    torch.testing.assert_close(again, x)


def test_a_band_is_what_scipy_says_the_next_scale_lacks():
    x = np.random.default_rng(0).normal(size=(8, 12))
    row = np.array([1, 4, 6, 4, 1]) / 16
    smooth = ndimage.convolve(x, np.outer(row, row), mode="mirror")
    coarse = smooth.reshape(4, 2, 6, 2).mean(axis=(1, 3))
    _, found = laplacian(torch.from_numpy(x)[None, None], 2)
    np.testing.assert_allclose(found[0, 0].numpy(), coarse, atol=1e-12)


def test_scales_lie_over_each_other():
    """A mirrored image has mirrored bands, and a slope has nothing that the next scale lacks."""
    x = torch.randn(1, 1, 16, 32, dtype=torch.float64)
    for band, mirrored in zip(laplacian(x, 3), laplacian(x.flip(3), 3), strict=True):
        torch.testing.assert_close(mirrored, band.flip(3))
    slope = torch.arange(64.0).expand(1, 1, 64, 64)
    fine, middle, _ = laplacian(slope, 3)
    assert fine[..., 8:-8].abs().max() < 1e-4
    assert middle[..., 8:-8].abs().max() < 1e-4


@pytest.mark.parametrize("size", [(4, 4), (20, 33)])
def test_surroundings_have_no_mean_and_unit_variance(size):
    x = 3 + 5 * np.random.default_rng(0).normal(size=size)
    centred = x - ndimage.uniform_filter(x, 15, mode="mirror")
    power = ndimage.uniform_filter(centred**2, 15, mode="mirror")
    found = evened(torch.from_numpy(x)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(found, centred / np.sqrt(power + 1e-3), atol=1e-9)


def test_a_flat_image_is_nothing():
    assert evened(torch.full((1, 2, 20, 20), 7.0)).abs().max() < 1e-3


@pytest.mark.parametrize("hidden", [0, 9])
def test_forward_spelt_out(hidden):
    net = small(hidden=hidden)
    w, x = net.state_dict(), torch.randn(2, 3, 32, 48)
    maps = []
    for scale, band in enumerate(net.bands(x)):
        y = band
        for n in (1, 2, 3):
            y = F.conv2d(y, w[f"shared.conv{n}.weight"], w[f"shared.conv{n}.bias"], padding=3)
            y = F.max_pool2d(y.tanh(), 2) if n < 3 else y
        size = (32 // 4, 48 // 4)
        maps.append(F.interpolate(y, size, mode="bilinear") if scale else y)
    y = torch.cat(maps, 1)
    if hidden:
        y = F.conv2d(y, w["hidden.0.weight"], w["hidden.0.bias"]).tanh()
    y = F.conv2d(y, w["score.weight"], w["score.bias"])
    expected = F.interpolate(y, (32, 48), mode="bilinear")
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (33, 70)])
def test_any_size_and_any_channels(channels, size):
    net = small(channels=channels)
    found = net(torch.randn(2, channels, *size))
    assert found.shape == (2, 4, *size)
    (found - 1).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    assert net.score.weight.grad.abs().sum() > 0 or size == (1, 1)  # one pixel is flat


def test_sides_are_mirrored_to_multiples_of_16():
    net = small()
    x = torch.randn(1, 3, 20, 29)
    wide = F.pad(x, (0, 3, 0, 12), mode="reflect")
    torch.testing.assert_close(net(x), net(wide)[..., :20, :29])
