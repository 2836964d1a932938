"""The recurrent net: its strided self at every pixel, its own answer fed back, weights shared."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hubel.errors import ModelError
from hubel.models.names import build
from hubel.models.recurrent import blurred

SIZES = [(1, 1), (7, 13), (33, 70)]


def small(**options):
    torch.manual_seed(0)
    return build("recurrent", **{"classes": 3, "channels": 2, "width": 4, **options})


def patches(x, reach, step):
    """For every pixel the places `step` apart around it, of a mirrored image: (H W, C, 25, 25)."""
    wide = np.pad(x[0].numpy(), [(0, 0), (reach, reach), (reach, reach)], mode="reflect")
    side = 2 * reach + 1
    return torch.from_numpy(
        np.stack(
            [
                wide[:, i : i + side : step, j : j + side : step]
                for i in range(x.shape[2])
                for j in range(x.shape[3])
            ]
        )
    )


@pytest.mark.parametrize("rate", [1, 4])
def test_a_round_is_the_strided_net_on_every_pixels_surroundings(rate):
    """conv 8, pool 2, conv 8, pool 2, 1x1: 25 places leave one."""
    net = small()
    w, x = net.state_dict(), torch.randn(1, 5, 6, 9)
    y = patches(x, 12 * rate, rate)
    assert y.shape[2:] == (25, 25)
    for n in (1, 2):
        y = F.max_pool2d(F.conv2d(y, w[f"conv{n}.weight"], w[f"conv{n}.bias"]).tanh(), 2)
    y = F.conv2d(y, w["score.weight"], w["score.bias"])
    expected = y.view(6, 9, 3).permute(2, 0, 1)[None]
    torch.testing.assert_close(net.once(x, rate), expected, rtol=1e-4, atol=1e-5)


def test_rounds_spelt_out():
    net = small(rounds=3)
    x = torch.randn(2, 2, 7, 13)
    found = net(x)
    assert found.keys() == {"logits", "aux1", "aux2"}
    fed, answers = torch.zeros(2, 3, 7, 13), []
    for rate in (1, 4, 16):
        answers.append(net.once(torch.cat([blurred(x, rate), fed], 1), rate))
        fed = answers[-1].exp() / answers[-1].exp().sum(1, keepdim=True)
    for key, expected in zip(("aux1", "aux2", "logits"), answers, strict=True):
        torch.testing.assert_close(found[key], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.eval()(x), answers[-1], rtol=1e-4, atol=1e-5)


def test_more_rounds_cost_no_weights():
    counts = {n: sum(p.numel() for p in small(rounds=n).parameters()) for n in (1, 2, 3)}
    assert set(counts.values()) == {4 * (5 * 64 + 1) + 8 * (4 * 64 + 1) + 3 * 9}
    with torch.device("meta"):
        net = build("recurrent", classes=8, channels=3)
    weights = 25 * (11 * 64 + 1) + 50 * (25 * 64 + 1) + 8 * 51
    assert sum(p.numel() for p in net.parameters()) == weights


@pytest.mark.parametrize(("rounds", "window"), [(1, 25), (2, 121)])
def test_a_round_more_sees_four_times_as_far(rounds, window):
    net = small(channels=1, rounds=rounds).double().eval()
    x = torch.randn(1, 1, 131, 131, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(net(x)[0, :, 65, 65].sum(), x)
    rows = grad[0, 0].abs().sum(1).nonzero().flatten()
    # pools pass on maxima alone, so the outermost pixels may happen to count for nothing
    assert window - 24 * 4 ** (rounds - 1) / 4 <= rows[-1] - rows[0] + 1 <= window + 4


def test_the_image_of_a_later_round_is_its_mean():
    x = torch.randn(1, 2, 9, 9)
    assert blurred(x, 1) is x
    found = blurred(x, 4)
    assert found.shape == x.shape
    torch.testing.assert_close(found[0, 0, 4, 4], x[0, 0, 2:7, 2:7].mean())


@pytest.mark.parametrize("size", SIZES)
def test_any_size_forward_and_backward(size):
    net = small()
    found = net(torch.randn(2, 2, *size))
    assert {tuple(t.shape) for t in found.values()} == {(2, 3, *size)}
    sum(t.square().mean() for t in found.values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_what_does_not_fit_is_said():
    with pytest.raises(ModelError, match="rounds must be a whole number of at least 1"):
        small(rounds=0)
