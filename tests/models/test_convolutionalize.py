"""A net that slides gives the scores that the net itself gives for every window."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

import hubel
from hubel.errors import ModelError
from hubel.models.convolutionalize import convolutionalize
from hubel.models.names import MODELS, build, catalogue

LARGEST = 30e6  # parameters; the VGGs would take minutes
SMALL = [
    row.entry for row in catalogue() if row.parameters <= LARGEST and row.entry.task == "classify"
]
DICTS = {"lenet5_1998"}  # answers with a dict


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def by_hand(model, images, size, stride, windows):
    """The model itself on every window, one after the other: (N, K, h, w).

    The last windows may reach over the edge, by pixels that the model's strides never touch:
    noise stands there.
    """
    (high, wide), (down, right) = size, stride
    more = [(n - 1) * s + w for n, s, w in zip(windows, stride, size, strict=True)]
    over = [max(0, m - side) for m, side in zip(more, images.shape[2:], strict=True)]
    wider = noise(*images.shape[:2], *(s + o for s, o in zip(images.shape[2:], over, strict=True)))
    wider[..., : images.shape[2], : images.shape[3]] = images
    places = [(i * down, j * right) for i in range(windows[0]) for j in range(windows[1])]
    scores = [model(wider[:, :, y : y + high, x : x + wide]) for y, x in places]
    return torch.stack(scores, 2).unflatten(2, windows)


def same_on_windows(model, size, larger, channels=1):
    model = model.eval()
    net = convolutionalize(model, size, channels)
    images, stride = noise(2, channels, *larger, seed=1), net.meta["stride"]
    with torch.no_grad():
        found = net(images)
    for windows, side, own, step in zip(found.shape[2:], larger, size, stride, strict=True):
        assert 0 <= windows - ((side - own) // step + 1) <= (step > 1)
    expected = by_hand(model, images, size, stride, found.shape[2:])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    return net


def is_itself(entry, size):
    torch.manual_seed(1)
    channels = entry.usual[0]
    model = build(entry.name, classes=7, channels=channels, size=size).eval()
    net = convolutionalize(model, size, channels)
    down, right = net.meta["stride"]
    images = noise(1, channels, *size, seed=3)
    larger = noise(1, channels, size[0] + down, size[1] + 2 * right)
    with torch.no_grad():
        found = net(images)
        assert found.shape == (1, 7, 1, 1)
        torch.testing.assert_close(found[..., 0, 0], model(images), rtol=1e-3, atol=1e-4)
        assert net(larger).shape == (1, 7, 2, 3)
    used = {k: v for k, v in model.state_dict().items() if not k.startswith("aux")}
    state = net.state_dict()
    assert state.keys() == used.keys()
    for name, value in state.items():
        assert torch.equal(value.flatten(), used[name].flatten()), name


@pytest.mark.parametrize("entry", [e for e in SMALL if e.name not in DICTS], ids=lambda e: e.name)
def test_every_named_net_is_itself(entry):
    """The nets for photos at a seventh of their pixels: they pool over whatever is left."""
    is_itself(entry, entry.usual[1:] if entry.usual[1] <= 64 else (80, 96))


@pytest.mark.slow
@pytest.mark.parametrize("entry", [e for e in SMALL if e.usual[1] > 64], ids=lambda e: e.name)
def test_the_nets_for_photos_at_their_own_size(entry):
    is_itself(entry, entry.usual[1:])


@pytest.mark.parametrize("name", sorted(DICTS & MODELS.keys()))
def test_a_dict_is_no_score_map(name):
    channels, *size = MODELS[name].usual
    model = build(name, classes=10, channels=channels, size=tuple(size))
    with pytest.raises(ModelError, match=r"one tensor \(N, K\), LeNet5 with a dict"):
        convolutionalize(model, tuple(size), channels)


# Exact on windows, where nothing is padded -------------------------------------------------------

NAMED = [("net32", (32, 32)), ("lenet5", (32, 36)), ("softmax", (5, 7)), ("mlp", (6, 4))]


@pytest.mark.parametrize(("name", "size"), NAMED, ids=[name for name, _ in NAMED])
@settings(max_examples=6, deadline=None)
@given(more=st.tuples(st.integers(0, 13), st.integers(0, 13)))
def test_named_nets_without_padding(name, size, more):
    torch.manual_seed(2)
    model = build(name, classes=5, channels=2, size=size)
    larger = (size[0] + more[0], size[1] + more[1])
    net = same_on_windows(model, size, larger, channels=2)
    assert net.meta == {"window": size, "stride": (4, 4) if name in ("net32", "lenet5") else (1, 1)}


LAYERS = st.sampled_from(["conv", "wide", "strided", "dilated", "max", "average", "norm", "relu"])


def chain(kinds, size):
    """Layers as drawn, as long as they leave a map; then flat and two fully connected layers."""
    maps, layers = 3, [nn.Conv2d(2, 3, 1)]
    for kind in kinds:
        layer = {
            "conv": lambda m: nn.Conv2d(m, m + 1, 3),
            "wide": lambda m: nn.Conv2d(m, m, (2, 5)),
            "strided": lambda m: nn.Conv2d(m, m, (3, 2), stride=(2, 3)),
            "dilated": lambda m: nn.Conv2d(m, m, 2, dilation=(3, 1)),
            "max": lambda m: nn.MaxPool2d(2),
            "average": lambda m: nn.AvgPool2d((3, 2), stride=(2, 1)),
            "norm": nn.BatchNorm2d,
            "relu": lambda m: nn.LeakyReLU(),
        }[kind](maps)
        try:
            shape = nn.Sequential(*layers, layer)(torch.zeros(2, 2, *size)).shape
        except RuntimeError:  # nothing would be left
            continue
        maps = shape[1]
        layers.append(layer)
    features = nn.Sequential(*layers)(torch.zeros(2, 2, *size))[0].numel()
    head = [nn.Flatten(), nn.Linear(features, 6), nn.ReLU(), nn.Linear(6, 4)]
    return nn.Sequential(*layers, *head)


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(LAYERS, max_size=5),
    size=st.tuples(st.integers(9, 17), st.integers(9, 17)),
    more=st.tuples(st.integers(0, 11), st.integers(0, 11)),
)
def test_any_chain_without_padding(kinds, size, more):
    torch.manual_seed(3)
    net = chain(kinds, size)
    same_on_windows(net, size, (size[0] + more[0], size[1] + more[1]), channels=2)


class Own(nn.Module):
    """A user's net, all in functions; `end` makes logits of the maps (N, 6, 4, 4)."""

    def __init__(self, end):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 5), nn.Conv2d(4, 6, 3)
        self.fc1, self.fc2 = nn.Linear(6 * 4 * 4, 8), nn.Linear(8, 3)
        self.few, self.rows = nn.Linear(6, 3), nn.Linear(6 * 4, 3)
        self.norm = nn.BatchNorm1d(8)
        self.scale = nn.Parameter(torch.rand(3))
        self.end = end

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.end(self, F.relu(self.conv2(x)))


def two(self, flat):
    return self.fc2(F.dropout(F.relu(self.fc1(flat)), training=self.training))


ENDS = {
    "view -1": lambda s, x: two(s, x.view(-1, 96)),
    "view size": lambda s, x: two(s, x.view(x.size(0), -1)),
    "view shape": lambda s, x: two(s, x.reshape(x.shape[0], x.shape[1] * x.shape[2] * 4)),
    "torch.flatten": lambda s, x: two(s, torch.flatten(x, 1)),
    "flatten": lambda s, x: two(s, x.flatten(start_dim=1)),
    "branch on a size": lambda s, x: two(s, x.flatten(1) if x.dim() == 4 and len(x) else x),
    "relu after flat": lambda s, x: two(s, F.relu(x.flatten(1) * 2 - 0.1)),
    "norm": lambda s, x: s.fc2(s.norm(s.fc1(x.flatten(1)))),
    "softmax -1": lambda s, x: F.softmax(two(s, x.flatten(1)), dim=-1),
    "softmax": lambda s, x: torch.softmax(two(s, x.flatten(1)), 1),
    "log_softmax": lambda s, x: two(s, x.flatten(1)).log_softmax(1),
    "mean": lambda s, x: s.few(x.mean([2, 3])),
    "mean keepdim": lambda s, x: s.few(x.mean((-1, -2), keepdim=True).squeeze()),
    "mean twice": lambda s, x: s.few(x.mean(3).mean(2)),
    "mean of rows": lambda s, x: s.rows(torch.mean(x, dim=3).flatten(1)),
    "mean flat": lambda s, x: s.few(x.flatten(2).mean(-1)),
    "sum": lambda s, x: s.few(x.sum(dim=(2, 3))),
    "amax": lambda s, x: s.few(torch.amax(x, (2, 3))),
    "adaptive": lambda s, x: s.few(F.adaptive_avg_pool2d(x, 1).flatten(1)),
    "adaptive max": lambda s, x: s.few(F.adaptive_max_pool2d(x, (1, 1))[:, :, 0, 0]),
    "adaptive rows": lambda s, x: s.rows(F.adaptive_avg_pool2d(x, (None, 1)).flatten(1)),
    "avg_pool2d": lambda s, x: s.few(F.avg_pool2d(x, 4).view(-1, 6)),
    "avg_pool2d of the map": lambda s, x: s.few(F.avg_pool2d(x, x.shape[2:]).flatten(1)),
    "max and mean": lambda s, x: s.few((x.amax((2, 3)) + x.mean((2, 3))) / 2),
    "joined": lambda s, x: two(s, torch.cat([x[:, 2:], x[:, :2]], 1).flatten(1)),
    "joined flat": lambda s, x: two(s, torch.cat([x[:, :1].flatten(1), x[:, 1:].flatten(1)], -1)),
    "in place": lambda s, x: two(s, x.add_(1).mul_(0.5).relu_().flatten(1)),
    "constant": lambda s, x: two(s, (x - torch.tensor(0.3)).flatten(1)) * s.scale + s.scale,
    "F.linear": lambda s, x: F.linear(two(s, x.flatten(1)), s.fc2.weight[:, :3], s.fc2.bias),
    "F.linear on a map": lambda s, x: F.linear(x.flatten(1), s.fc1.weight[:3]),
    "thinned": lambda s, x: s.few(x[:, :, ::2, 1::2].mean((2, 3))),
    "cropped": lambda s, x: s.few(x[:, :, 1:-1, 1:-1].mean((2, 3))),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_forms_that_users_write(end):
    torch.manual_seed(4)
    model = Own(end)
    model.norm.running_mean.uniform_()
    model.norm.running_var.uniform_(1, 2)
    net = same_on_windows(model, (16, 16), (21, 24))
    assert net.meta["stride"] == (2, 2) if end is not ENDS["thinned"] else True


def test_a_case_by_hand():
    """One 2x2 template [[1, 2], [3, 4]] moved over the numbers 0..8."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    model[1].weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    model[1].bias.data = torch.tensor([100.0])
    net = convolutionalize(model, (2, 2), 1)
    found = net(torch.arange(9.0).view(1, 1, 3, 3))
    assert found[0, 0].tolist() == [[127.0, 137.0], [157.0, 167.0]]
    assert net.get_submodule("1").weight.tolist() == [[[[1.0, 2.0], [3.0, 4.0]]]]


def test_global_pooling_becomes_a_moving_window():
    """The mean over 4x4 places of a 1x1 convolution is SciPy's sliding mean."""
    from scipy.ndimage import uniform_filter

    model = nn.Sequential(
        nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1)
    )
    net = convolutionalize(model, (5, 5), 1)
    x = noise(1, 1, 9, 8)
    means = uniform_filter(x[0, 0].double().numpy(), 5)[2:-2, 2:-2]
    conv, fc = model[0], model[3]
    expected = (means * conv.weight.item() + conv.bias.item()) * fc.weight.item() + fc.bias.item()
    np.testing.assert_allclose(net(x)[0, 0].detach().numpy(), expected, atol=1e-5)
    assert isinstance(net.get_submodule("1"), nn.AvgPool2d)


# Padding: alike, not the same --------------------------------------------------------------------


def test_padding_is_where_windows_differ():
    """Zeros around a window are zeros around the image only at the image's corner: there, the
    places that see no other border are the net's own."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 36, 2)).eval()
    net = convolutionalize(model, (6, 6), 1)
    images = torch.zeros(1, 1, 12, 12)
    images[..., 6:, 6:] = noise(1, 1, 6, 6)  # zeros around this window, as in the net itself
    with torch.no_grad():
        found, expected = net(images), by_hand(model, images, (6, 6), (1, 1), (7, 7))
    torch.testing.assert_close(found[..., 6, 6], expected[..., 6, 6])
    assert not torch.allclose(found, expected, atol=1e-3)


# What it leaves, and what it refuses -------------------------------------------------------------


def test_the_model_is_left_as_it_was():
    model = build("resnet20", classes=4, channels=3, size=(16, 16)).train()
    model.layer1.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    chance = torch.get_rng_state(), random.getstate()
    net = convolutionalize(model, (16, 16))
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), chance[0])
    assert random.getstate() == chance[1]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert isinstance(model.fc, nn.Linear)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_result_is_a_graph_in_evaluation_mode():
    net = hubel.convolutionalize(build("lenet5", classes=4, channels=1, size=(28, 28)), (28, 28), 1)
    assert isinstance(net, fx.GraphModule)
    assert not any(module.training for module in net.modules())
    assert type(net).__name__ == "LeNet"
    assert net.classifier.fc1.weight.shape == (120, 16, 5, 5)
    again = copy.deepcopy(net)
    assert again.meta["window"] == (28, 28)
    x = noise(1, 1, 40, 40)
    assert torch.equal(again(x), net(x))


def test_half_and_double():
    for dtype in (torch.float64, torch.bfloat16):
        model = build("net32", classes=4, channels=3, size=(32, 32)).to(dtype)
        net = convolutionalize(model, (32, 32))
        assert net(noise(1, 3, 40, 32).to(dtype)).dtype == dtype


class Refused(nn.Module):
    def __init__(self, forward, **layers):
        super().__init__()
        self.fc = nn.Linear(18, 2)
        self.of_two = nn.Linear(2, 2)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.way = forward

    def forward(self, x):
        return self.way(self, x)


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]


def flat(s, x):
    return s.fc(x.flatten(1))


REFUSED = {  # what comes after a map (N, 2, 3, 3), and the words it is refused with
    "dict": (lambda s, x: {"logits": flat(s, x)}, {}, "one tensor .* with a dict"),
    "tuple": (lambda s, x: (flat(s, x), x), {}, "one tensor .* with a tuple"),
    "maps": (lambda s, x: x, {}, r"answers with \(N, K\), Refused with \(2, 2, 3, 3\)"),
    "flat maps": (lambda s, x: x.flatten(1), {}, "still holds places"),
    "control flow": (
        lambda s, x: flat(s, x if x.sum() > 0 else -x), {}, "branches on values",
    ),
    "own failure": (lambda s, x: s.of_two(x.flatten(1)), {}, "does not take images"),
    "linear over width": (
        lambda s, x: s.across(x).mean((2, 3)), {"across": nn.Linear(3, 5)},
        r"across \(Linear\): it works along the last axis of \(2, 2, 3, 3\)",
    ),
    "attention": (
        lambda s, x: s.of_two(s.heads(*[x.flatten(2).transpose(1, 2)] * 3)[0].mean(1)),
        {"heads": nn.MultiheadAttention(2, 1, batch_first=True)}, "transpose in the forward",
    ),
    "gate": (
        lambda s, x: flat(s, s.gate(x)), {"gate": Gate()}, r"getitem in the forward of gate",
    ),
    "group norm": (
        lambda s, x: flat(s, s.norm(x)), {"norm": nn.GroupNorm(1, 2)},
        r"norm \(GroupNorm\): it normalises with the mean of the whole map",
    ),
    "norm of places": (
        lambda s, x: s.fc(s.norm(x.flatten(1))), {"norm": nn.BatchNorm1d(18)},
        r"norm \(BatchNorm1d\): it has numbers for every place",
    ),
    "uneven pool": (
        lambda s, x: s.of_two(s.pool(x).flatten(1)[:, :2]), {"pool": nn.AdaptiveAvgPool2d(2)},
        r"pool \(AdaptiveAvgPool2d\): it pools 3x3 places to 2x2, in windows of uneven size; "
        r"images of 4x4 or 6x6 would divide, given 5x5",
    ),
    "upsampling pool": (
        lambda s, x: s.fc(s.pool(x).flatten(1)[:, :18]), {"pool": nn.AdaptiveAvgPool2d(7)},
        r"3x3 places to 7x7, .*images of 9x9 would divide",
    ),
    "softmax of places": (
        lambda s, x: s.fc(F.softmax(x.flatten(1), 1)), {}, "softmax in the forward of the model: ",
    ),
    "permuted": (lambda s, x: s.fc(x.permute(0, 2, 3, 1).flatten(1)), {}, "permute in the forward"),
    "one place": (lambda s, x: s.of_two(x[:, :, 1, 1]), {}, "only plain slices"),
    "cut at a fixed place": (
        lambda s, x: s.of_two(x[:, :, :2].mean((2, 3))), {}, "that a larger image has elsewhere",
    ),
    "places made for one size": (
        lambda s, x: flat(s, x + torch.ones(3, 3)), {}, r"tensor of shape \(3, 3\)",
    ),
    "different steps": (
        lambda s, x: s.of_two((x[:, :, 1:2, 1:2] if False else F.max_pool2d(x, 3))
                              .add(x.mean((2, 3), keepdim=True)).flatten(1)),
        {}, "places lie differently far apart",
    ),
    "split channels": (
        lambda s, x: s.fc(x.view(-1, 2, 1, 3, 3).flatten(1).view(-1, 3, 6).flatten(1)), {},
        "it takes axes apart",
    ),
    "chance": (lambda s, x: flat(s, x) + torch.rand(1), {}, "gives other scores"),
}  # fmt: skip


@pytest.mark.parametrize(("way", "layers", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_slide_is_named(way, layers, words):
    torch.manual_seed(6)
    model = Refused(lambda s, x: way(s, s.conv(x)), conv=nn.Conv2d(1, 2, 3), **layers)
    with pytest.raises(ModelError, match=words):
        convolutionalize(model, (5, 5), 1)


def test_wrong_words():
    model = build("net32", classes=4, channels=3, size=(32, 32))
    with pytest.raises(ModelError, match=r"does not take images \(2, 1, 32, 32\)"):
        convolutionalize(model, (32, 32), 1)
    with pytest.raises(ModelError, match=r"size must be \(height, width\)"):
        convolutionalize(model, 32)
    model.classifier.fc3.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        convolutionalize(model, (32, 32))


# Structures --------------------------------------------------------------------------------------


def test_layers_used_twice_take_the_form_each_place_needs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(2)
            self.fc, self.end = nn.Linear(12, 12), nn.Linear(12, 2)

        def forward(self, x):
            x = self.pool(self.pool(self.conv(x)))  # 8x8 places to 2x2, then as they are
            return self.end(self.fc(self.fc(x.flatten(1))))

    torch.manual_seed(7)
    net = same_on_windows(Twice(), (10, 10), (14, 19))
    assert net.meta["stride"] == (4, 4)


def test_branches_without_padding():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.three = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 3, 3)
            self.down = nn.Conv2d(5, 5, 3, stride=2)
            self.short = nn.Conv2d(5, 5, 1, stride=2)
            self.fc = nn.Linear(5 * 9, 3)

        def forward(self, x):
            x = torch.cat([self.one(x)[:, :, 1:-1, 1:-1], self.three(x)], dim=1)
            return self.fc((self.down(x) + self.short(x[:, :, 1:-1, 1:-1])).flatten(1))

    torch.manual_seed(8)
    assert same_on_windows(Branches(), (9, 9), (14, 17)).meta["stride"] == (2, 2)


def test_own_layers_and_named_arguments():
    class Mine(nn.Linear):
        pass

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.rand(1, 2, 1, 1))
            self.body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.PReLU(3), nn.LocalResponseNorm(2))
            self.head = Mine(3 * 4 * 4, 2)

        def forward(self, x, scale=2.0, flip=None):
            x = (x if flip is None else x.flip(3)) - self.mean
            return self.head(self.body(x * scale).flatten(1))

    torch.manual_seed(9)
    net = same_on_windows(Net(), (6, 6), (9, 8), channels=2)
    assert net.state_dict().keys() == Net().state_dict().keys()
