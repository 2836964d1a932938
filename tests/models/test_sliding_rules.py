"""Each rule alone: the turned call on a larger map is the plain call on every window of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hubel.errors import ModelError
from hubel.models.convolutionalize import convolutionalize
from hubel.models.sliding_rules import FUNCTIONS, LAYERS, POINTWISE


class Net(nn.Module):
    """`call` on images (N, 4, H, W), then whatever it gives, flat, to two scores."""

    def __init__(self, call, features, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.call, self.fc = call, nn.Linear(features, 2)

    def forward(self, x):
        return self.fc(self.call(self, x).flatten(1))


def windows_agree(call, size=(6, 6), layers=None, stride=(1, 1)):
    torch.manual_seed(0)
    layers = {name: layer.eval() for name, layer in (layers or {}).items()}
    probe = Net(call, 1, **layers).eval()
    features = call(probe, torch.rand(2, 4, *size)).flatten(1).shape[1]
    model = Net(call, features, **layers).eval()
    net = convolutionalize(model, size, 4)
    assert net.meta["stride"] == stride
    x = torch.rand(2, 4, size[0] + 4, size[1] + 3) + 0.1
    with torch.no_grad():
        found = net(x)
        for i in range(found.shape[2]):
            for j in range(found.shape[3]):
                y, left = i * stride[0], j * stride[1]
                own = x[:, :, y : y + size[0], left : left + size[1]]
                if own.shape[2:] == size:
                    torch.testing.assert_close(found[..., i, j], model(own), rtol=1e-4, atol=1e-4)
    return net


LESS = {  # what the call needs besides the map
    "clamp": (0.2, 0.7), "clip": (0.2, 0.7), "clamp_max": (0.5,), "clamp_min": (0.5,),
    "pow": (2,), "threshold": (0.5, 0.1), "local_response_norm": (2,), "true_divide": (2,),
    **dict.fromkeys(("add", "sub", "mul", "multiply", "div"), (2,)),
    "prelu": (torch.tensor([0.3]),),
}  # fmt: skip
OPERATORS = {
    "radd": lambda x: 2 + x, "rsub": lambda x: 2 - x, "rmul": lambda x: 2 * x,
    "rtruediv": lambda x: 2 / x, "truediv": lambda x: x / 2, "maximum": lambda x: x.maximum(1 - x),
    "minimum": lambda x: torch.minimum(x, 1 - x), "float": lambda x: x.float(),
    "to": lambda x: x.to(torch.float32), "contiguous": lambda x: x.contiguous(),
    "log_sigmoid": F.logsigmoid,
}  # fmt: skip
OFF = {"dropout", "dropout2d", "alpha_dropout", "feature_alpha_dropout"}


@pytest.mark.parametrize("name", [n for n in POINTWISE if n not in ("double", "feature_dropout")])
def test_pointwise_functions(name):
    if name in OPERATORS:
        windows_agree(lambda s, x: OPERATORS[name](x))
        return
    function = next(getattr(m, name) for m in (F, torch, torch.Tensor) if hasattr(m, name))
    words = {"training": False} if name in OFF else {}
    windows_agree(lambda s, x: function(x, *LESS.get(name, ()), **words))


WITH = {
    nn.Conv2d: (4, 3, 2), nn.MaxPool2d: (2, 1), nn.AvgPool2d: (2, 1), nn.LPPool2d: (2, 2, 1),
    nn.BatchNorm2d: (4,), nn.LocalResponseNorm: (2,), nn.AdaptiveAvgPool2d: (1,),
    nn.AdaptiveMaxPool2d: (1,), nn.Threshold: (0.5, 0.1), nn.PReLU: (4,),
}  # fmt: skip
BORDERED = {nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d}
BEHIND = {
    nn.Linear,
    nn.BatchNorm1d,
    nn.Flatten,
    nn.Unflatten,
    nn.Softmax,
    nn.LogSoftmax,
    nn.Softmin,
}


@pytest.mark.parametrize("kind", [k for k in LAYERS if k not in BORDERED | BEHIND])
def test_layers(kind):
    layer = kind(*WITH.get(kind, ()))
    windows_agree(lambda s, x: s.layer(x), layers={"layer": layer})


@pytest.mark.parametrize("kind", [nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d])
def test_softmax_over_channels(kind):
    layer = kind() if kind is nn.Softmax2d else kind(dim=-3)
    if kind is not nn.Softmax2d:
        assert LAYERS[kind] is FUNCTIONS["softmax"]
    windows_agree(lambda s, x: s.layer(x), layers={"layer": layer})
    if kind is not nn.Softmax2d:
        windows_agree(lambda s, x: kind(dim=-1)(s.a(x.flatten(1))), layers={"a": nn.Linear(144, 3)})


@pytest.mark.parametrize("kind", sorted(BORDERED, key=str))
def test_a_border_is_laid_around_the_larger_image(kind):
    """Only windows in the corners see it, so the first one alone is asked: its own two sides."""
    words = (1, 0.5) if kind is nn.ConstantPad2d else (1,)
    net = Net(lambda s, x: s.border(x)[:, :, :3, :3] * 1, 36, border=kind(*words))
    with pytest.raises(ModelError, match="that a larger image has elsewhere"):
        convolutionalize(net, (5, 5), 4)
    model = Net(lambda s, x: s.border(x), 4 * 7 * 7, border=kind(*words)).eval()
    x = torch.rand(1, 4, 8, 9)
    found = convolutionalize(model, (5, 5), 4)(x)
    bordered = model.border(x)[:, :, :7, :7]
    torch.testing.assert_close(found[..., 0, 0], model.fc(bordered.flatten(1)))


CALLS = {
    "strided convolution": (lambda s, x: s.a(x), (2, 3), {"a": nn.Conv2d(4, 2, 3, stride=(2, 3))}),
    "conv2d": (lambda s, x: F.conv2d(x, s.a.weight, stride=2), (2, 2), {"a": nn.Conv2d(4, 2, 2)}),
    "pool with its own stride": (lambda s, x: F.max_pool2d(x, (2, 3)), (2, 3), {}),
    "pool with a stride": (lambda s, x: F.max_pool2d(x, 2, 1), (1, 1), {}),
    "pool by name": (lambda s, x: F.avg_pool2d(x, kernel_size=3, stride=2), (2, 2), {}),
    "sum of a map": (lambda s, x: F.avg_pool2d(x, 6, divisor_override=1), (1, 1), {}),
    "layer over a map": (lambda s, x: s.a(x), (1, 1), {"a": nn.AvgPool2d(6)}),
    "even adaptive pool": (lambda s, x: s.a(x), (2, 3), {"a": nn.AdaptiveMaxPool2d((3, 2))}),
    "adaptive pool of rows": (lambda s, x: s.a(x), (1, 3), {"a": nn.AdaptiveAvgPool2d((1, 2))}),
    "channels added": (lambda s, x: F.pad(x, (0, 0, 0, 0, 1, 2)), (1, 1), {}),
    "thinned": (lambda s, x: x[:, 1:, ::2, 1::3], (2, 3), {}),
    "one map for all": (lambda s, x: x * x[:, :1], (1, 1), {}),
    "unflattened": (lambda s, x: s.u(s.a(x.flatten(1))), (1, 1),
                    {"a": nn.Linear(144, 3), "u": nn.Unflatten(1, (3, 1, 1))}),
    "norm of rows": (lambda s, x: s.n(x.flatten(2)), (1, 1), {"n": nn.BatchNorm1d(4)}),
    "norm without numbers": (lambda s, x: s.n(s.a(x.flatten(1))), (1, 1),
                             {"a": nn.Linear(144, 3), "n": nn.BatchNorm1d(3, affine=False)}),
    "functional norm": (
        lambda s, x: F.batch_norm(x, torch.ones(4), torch.ones(4) * 2), (1, 1), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "stride", "layers"), CALLS.values(), ids=CALLS.keys())
def test_calls(call, stride, layers):
    windows_agree(call, stride=stride, layers=layers)


def test_a_pool_that_changes_nothing_goes():
    net = windows_agree(lambda s, x: s.a(x), layers={"a": nn.AdaptiveAvgPool2d((6, 6))})
    assert not hasattr(net, "a")


REFUSED = {
    "maps of two sizes": (
        lambda s, x: x[:, :, :-1] + x[:, :, -1:] if False else x + x.amax((2, 3), keepdim=True),
        r"joins values of \(2, 4, 6, 6\) and \(2, 4, 1, 1\)",
    ),
    "mean of channels": (lambda s, x: x.mean(1), "over more than heights and widths"),
    "mean of all": (lambda s, x: x - x.mean(), "over more than heights and widths"),
    "softmax of rows": (lambda s, x: x.softmax(2), "only dim=1"),
    "joined along rows": (lambda s, x: torch.cat([x, x], 2), "only channels can be joined"),
    "joined with a constant": (
        lambda s, x: torch.cat([x, torch.ones(2, 1, 6, 6)], 1), "a tensor of fixed size",
    ),
    "joined, unlike": (
        lambda s, x: torch.cat([x[:, :, ::2, ::2], x[:, :, 3:, 3:]], 1), "do not lie alike",
    ),
    "flat, unlike": (
        lambda s, x: x.flatten(1) + x[:, :1].flatten(2).repeat(1, 4, 1).flatten(1), "repeat",
    ),
    "two maps": (lambda s, x: F.max_pool2d(x, 2, return_indices=True)[0], "max_pool2d"),
    "images taken out": (lambda s, x: x[:2], "that a larger image has elsewhere"),
    "constant of channels on rows": (lambda s, x: x * torch.ones(6), r"shape \(6,\)"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(call, words):
    with pytest.raises(ModelError, match=words):
        windows_agree(call)
