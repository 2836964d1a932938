"""The sliding window: the paper's maps, the dense pass against every window, foveation by SciPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from hubel.errors import ModelError
from hubel.models import sliding_window as module
from hubel.models.names import build
from hubel.models.sliding_window import BELLS

SIZES = [(1, 1), (7, 13), (33, 20)]


def small(**options):
    torch.manual_seed(0)
    return build(
        "sliding_window",
        **{"classes": 3, "channels": 2, "window": 21, "width": 5, "hidden": 7, **options},
    )


def test_the_papers_largest_net():
    """Window 95: kernels 4, 5, 4, 4 of 48 maps; behind the pools 46, 21, 9 and 3 places; 200."""
    net = small(channels=1, classes=2, window=95, width=48, hidden=200)
    assert [conv.kernel_size[0] for conv in net.convs] == [4, 5, 4, 4]
    x, sides = torch.zeros(1, 1, 95, 95), []
    for conv in net.convs:
        x = conv(x)
        assert x.shape[2] % 2 == 0  # no pixel is left over
        x = F.max_pool2d(x, 2)
        sides.append(x.shape[2])
    assert sides == [46, 21, 9, 3]
    weights = 48 * 17 + 48 * (48 * 25 + 1) + 2 * 48 * (48 * 16 + 1)
    weights += 200 * (48 * 9 + 1) + 2 * 201
    assert sum(p.numel() for p in net.parameters()) == weights


@pytest.mark.parametrize("window", range(5, 110, 2))
def test_every_odd_window_comes_down_to_one_answer_without_rest(window):
    with torch.device("meta"):
        net = small(window=window)
        x = torch.zeros(1, 2, window, window)
        for conv in net.convs:
            x = conv(x)
            assert x.shape[2] % 2 == 0
            x = F.max_pool2d(x, 2)
        assert net.fc(x).shape[2:] == (1, 1)


def every_window(net, x):
    """Cut out and classified one after the other, from the state dict alone."""
    w, reach = net.state_dict(), net.window // 2
    border = [(0, 0), (0, 0), (reach, reach), (reach, reach)]
    wide = torch.from_numpy(np.pad(x.numpy(), border, mode="reflect"))
    found = torch.empty(len(x), 3, *x.shape[2:])
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            y = wide[..., i : i + net.window, j : j + net.window]
            for n in range(len(net.convs)):
                y = F.conv2d(y, w[f"convs.{n}.weight"], w[f"convs.{n}.bias"]).relu()
                y = F.max_pool2d(y, 2)
            y = F.conv2d(y, w["fc.weight"], w["fc.bias"]).relu()
            found[..., i, j] = F.conv2d(y, w["score.weight"], w["score.bias"]).flatten(1)
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [21, 33])
def test_dense_by_windows_and_one_by_one_are_the_same(size, window):
    net = small(window=window).eval()
    x = torch.randn(2, 2, *size)
    with torch.no_grad():
        dense, windows, expected = net(x), net.by_windows(x), every_window(net, x)
    assert dense.shape == (2, 3, *size)
    torch.testing.assert_close(dense, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(windows, expected, rtol=0, atol=1e-5)
    assert dense.argmax(1).equal(windows.argmax(1))


def test_the_usual_window_too():
    net = small(window=65, width=8).eval()
    x = torch.randn(1, 2, 6, 9)
    with torch.no_grad():
        torch.testing.assert_close(net(x), every_window(net, x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("foveation", [False, True])
@pytest.mark.parametrize("size", SIZES[:2])
def test_backward_is_the_windows(foveation, size):
    """Gradients of both ways, and by pieces that are computed again on the way back."""
    net = small(foveation=foveation)
    x = torch.randn(2, 2, *size)
    (net(x) - 1).square().mean().backward()
    first = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    pieces = torch.cat([net.classify(w) for w in net._windows(x)])
    (pieces - 1).square().mean().backward()
    for p, grad in zip(net.parameters(), first, strict=True):
        assert grad.abs().sum() > 0
        torch.testing.assert_close(grad, p.grad, rtol=1e-4, atol=1e-6)


def test_foveated_windows_by_hand():
    """Level l at distance d of the way to the corner: (d - 1/4) / (3/4) * 3, mixed linearly."""
    net = small(foveation=True)
    x = torch.randn(1, 2, 9, 12)
    found = torch.cat(list(net._windows(x))).view(9, 12, 2, 21, 21)
    levels = [
        ndimage.gaussian_filter(x[0].numpy(), b, mode="mirror", truncate=3, axes=(1, 2))
        for b in BELLS
    ]
    wide = [np.pad(level, [(0, 0), (10, 10), (10, 10)], mode="reflect") for level in levels]
    for i, j in [(0, 0), (4, 7), (8, 11)]:
        for r, c in [(10, 10), (10, 11), (0, 0), (20, 0), (3, 17), (10, 20)]:
            far = np.hypot(r - 10, c - 10) / np.hypot(10, 10)
            level = max(0.0, (far - 0.25) / 0.75 * 3)
            values = [w[:, i + r, j + c] for w in wide]
            expected = [np.interp(level, range(4), [v[k] for v in values]) for k in (0, 1)]
            assert found[i, j, :, r, c].tolist() == pytest.approx(expected, abs=1e-5)


def test_foveation_keeps_the_middle_and_calms_the_corners():
    net = small(foveation=True, window=65)
    x = torch.randn(1, 2, 20, 20)
    windows = torch.cat(list(net._windows(x)))
    assert windows[..., 30:35, 30:35].std() > 0.9
    assert windows[..., :4, :4].std() < 0.15


@pytest.mark.parametrize("piece", [1, 2 * 21 * 21 * 5, 1 << 24])
def test_pieces_do_not_change_the_answer_and_are_no_larger_than_said(piece, monkeypatch):
    net = small(foveation=True).eval()
    x = torch.randn(2, 2, 7, 13)
    expected = net(x)
    monkeypatch.setattr(module, "CHUNK", piece)
    torch.testing.assert_close(net(x), expected)
    largest = max(w.numel() for w in net._windows(x))
    assert largest <= max(piece, 2 * 21 * 21)


def test_its_first_answers_are_unsure():
    net = small(window=65, width=48, hidden=200)
    assert net(torch.randn(2, 2, 20, 20)).std() < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 64}, "window must be odd, so that it has a middle pixel, given 64"),
        ({"window": 3}, "window must be a whole number of at least 5"),
        ({"foveation": "yes"}, "foveation must be True or False"),
        ({"width": 0}, "width must be"),
    ],
)
def test_what_does_not_fit_is_said(options, message):
    with pytest.raises(ModelError, match=message):
        small(**options)
