"""LeNet-5 as printed: its counts, table I, every layer by hand, and equation 9 in NumPy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import correlate2d

import hubel
from hubel.engine.backprop import backpropagate
from hubel.engine.tape import Tape
from hubel.errors import ModelError
from hubel.models.lenet_1998 import CODE, Squash, Subsampling, codes, lenet5_1998
from hubel.tasks.classify import Classify
from hubel.training.fit import Step

# Table I of the paper: rows are maps of S2, columns are maps of C3.
PRINTED = """
X . . . X X X . . X X X X . X X
X X . . . X X X . . X X X X . X
X X X . . . X X X . . X . X X X
. X X X . . X X X X . . X . X X
. . X X X . . X X X X . X X . X
. . . X X X . . X X X X . X X X
"""
TABLE = np.array([[mark == "X" for mark in line.split()] for line in PRINTED.strip().splitlines()])
DIGITS = Classify(tuple("0123456789"))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return hubel.build("lenet5_1998", classes=10, channels=1, size=(32, 32))


def rand(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def layers(net, images):
    """What every layer puts out, by its name."""
    seen = {}
    for name, module in net.named_children():
        module.register_forward_hook(lambda m, given, out, name=name: seen.update({name: out}))
    net(images)
    return seen


# Counts -------------------------------------------------------------------------------------------


def test_60_000_weights_layer_by_layer(net):
    counts = {
        name: sum(p.numel() for p in getattr(net, name).parameters())
        for name in ("c1", "s2", "c3", "s4", "c5", "f6", "output")
    }
    assert counts == {
        "c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0,
    }  # fmt: skip
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 60_000


def test_340_908_connections_from_the_maps_there_are(net):
    """A unit's connections: its inputs and its bias; a unit of the output compares 84 pixels."""
    seen = layers(net, torch.zeros(1, 1, 32, 32))
    units = {name: value[0].numel() for name, value in seen.items()}
    side = {name: value[0, 0].numel() for name, value in seen.items() if value.ndim == 4}
    connections = {
        "c1": units["c1"] * (25 + 1),
        "s2": units["s2"] * (4 + 1),
        "c3": side["c3"] * int((25 * TABLE.sum(0) + 1).sum()),
        "s4": units["s4"] * (4 + 1),
        "c5": units["c5"] * (16 * 25 + 1),
        "f6": units["f6"] * (units["c5"] + 1),
        "output": units["output"] * units["f6"],
    }
    assert connections == {
        "c1": 122_304, "s2": 5_880, "c3": 151_600, "s4": 2_000, "c5": 48_120, "f6": 10_164,
        "output": 840,
    }  # fmt: skip
    assert sum(connections.values()) == 340_908
    shapes = {name: tuple(seen[name].shape[1:]) for name in ("c1", "s2", "c3", "s4", "c5", "f6")}
    assert shapes == {
        "c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5),
        "c5": (120, 1, 1), "f6": (84,),
    }  # fmt: skip


# Layers -------------------------------------------------------------------------------------------


def test_table_1_has_60_links_in_the_printed_columns():
    assert TABLE.sum() == 60
    assert TABLE.sum(0).tolist() == [3] * 6 + [4] * 9 + [6]
    assert TABLE.sum(1).tolist() == [10] * 6


@pytest.mark.parametrize("dark", range(6))
def test_a_map_of_s2_reaches_the_maps_of_c3_that_table_1_links_to_it(net, dark):
    maps = rand(2, 6, 14, 14)
    without = maps.clone()
    without[:, dark] = 0
    moved = (net.c3(maps) != net.c3(without)).any(-1).any(-1).any(0)
    assert moved.tolist() == TABLE[dark].tolist()


def test_c3_is_a_sum_of_correlations_over_its_links(net):
    """SciPy's correlation of each linked map with its kernel; kernels stand map by map."""
    maps = rand(1, 6, 14, 14)
    found = net.c3(maps)[0].detach().numpy()
    kernels, bias = iter(net.c3.weight.detach().numpy()), net.c3.bias.detach().numpy()
    for o in range(16):
        linked = [maps[0, i].numpy() for i in range(6) if TABLE[i, o]]
        expected = bias[o] + sum(correlate2d(x, next(kernels), "valid") for x in linked)
        np.testing.assert_allclose(found[o], expected, rtol=1e-4, atol=1e-5)
    assert next(kernels, None) is None


def test_subsampling_by_hand():
    """(1 + 2 + 5 + 6) * 0.5 - 1 = 6; (3 + 4 + 7 + 8) * 0.5 - 1 = 10; the other map: * -2 + 3."""
    layer = Subsampling(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -2.0]))
        layer.bias.copy_(torch.tensor([-1.0, 3.0]))
    window = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    found = layer(torch.stack([window, window + 1])[None])
    assert found.tolist() == [[[[6.0, 10.0]], [[-33.0, -49.0]]]]


def test_the_squash():
    squash = Squash()
    points = torch.tensor([-1.0, 0.0, 1.0, 50.0], dtype=torch.float64)
    assert squash(points).tolist() == pytest.approx([-1, 0, 1, 1.7159], abs=1e-4)
    x = torch.linspace(0, 3, 3001, dtype=torch.float64)
    bend = squash(x)[2:] - 2 * squash(x)[1:-1] + squash(x)[:-2]
    assert x[1:-1][bend.abs().argmax()] == pytest.approx(0.99, abs=0.02)  # it bends most about 1


def test_the_codes_of_ten_classes_are_ten_pictures():
    found = codes(10)
    assert found.shape == (10, CODE)
    assert found.abs().eq(1).all()
    apart = (found[:, None] != found).sum(2)  # pixels in which two digits differ
    apart.fill_diagonal_(CODE)
    assert apart.min() >= 5
    assert apart[3, 8] < apart[1, 0]  # alike digits have alike codes
    one = found[1].view(12, 7)
    assert (one[:, 3] == 1).sum() >= 8  # an upright stroke
    assert found.view(10, 12, 7)[:, 0].eq(-1).all()


@pytest.mark.parametrize("classes", [2, 3, 26])
def test_other_numbers_of_classes_get_the_same_random_codes_every_time(classes):
    torch.manual_seed(1)
    one = codes(classes)
    torch.manual_seed(2)
    assert one.equal(codes(classes))
    assert one.shape == (classes, CODE)
    assert one.abs().eq(1).all()
    apart = (one[:, None] != one).sum(2).fill_diagonal_(CODE)
    assert apart.min() >= 20


def test_the_whole_net_spelt_out(net):
    """From the parameters alone, in NumPy."""
    image = rand(1, 1, 32, 32)
    w = {name: value.detach().double().numpy() for name, value in net.state_dict().items()}
    squash = lambda a: 1.7159 * np.tanh(2 / 3 * a)
    pool = lambda x: x.reshape(len(x), x.shape[1] // 2, 2, -1, 2).sum((2, 4))
    x = image[0, 0].double().numpy()
    x = np.stack([correlate2d(x, k[0], "valid") for k in w["c1.weight"]])
    x = squash(x + w["c1.bias"][:, None, None])
    x = squash(pool(x) * w["s2.weight"][:, None, None] + w["s2.bias"][:, None, None])
    kernels = iter(w["c3.weight"])
    x = np.stack(
        [sum(correlate2d(x[i], next(kernels), "valid") for i in np.flatnonzero(c)) for c in TABLE.T]
    )
    x = squash(x + w["c3.bias"][:, None, None])
    x = squash(pool(x) * w["s4.weight"][:, None, None] + w["s4.bias"][:, None, None])
    x = squash((w["c5.weight"] * x).sum((1, 2, 3)) + w["c5.bias"])
    x = squash(w["f6.weight"] @ x + w["f6.bias"])
    distances = ((x - codes(10).numpy()) ** 2).sum(1)
    found = net(image)
    np.testing.assert_allclose(found["logits"][0].detach(), -distances, rtol=1e-4)
    assert found["garbage"].tolist() == [[-1.0]]


# Loss, draw, sizes --------------------------------------------------------------------------------


def test_the_loss_is_equation_9():
    """y_D + log(exp(-j) + sum_i exp(-y_i)), a mean over the images; j = 1."""
    distances = np.array([[3.0, 0.5, 7.0], [0.2, 90.0, 1.5]])
    labels = np.array([1, 2])
    right = distances[np.arange(2), labels]
    expected = (right + np.log(np.exp(-1.0) + np.exp(-distances).sum(1))).mean()
    outputs = {
        "logits": -torch.from_numpy(distances).float(),
        "garbage": torch.full((2, 1), -1.0),
    }
    terms = Classify(("a", "b", "c")).loss(outputs, torch.from_numpy(labels))
    assert terms.keys() == {"cross_entropy", "garbage"}
    assert float(sum(terms.values())) == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_the_net_is_equation_9(net):
    images, labels = rand(4, 1, 32, 32), torch.tensor([3, 1, 4, 1])
    outputs = net(images)
    y = -outputs["logits"].detach().double().numpy()
    expected = (y[np.arange(4), labels] + np.log(np.exp(-1.0) + np.exp(-y).sum(1))).mean()
    found = float(sum(DIGITS.loss(outputs, labels).values()))
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_first_draw_fills_its_bounds(net):
    """+-2.4 / root of the fan-in; S2 and S4 +-2.4 / 4."""
    kernels = torch.split(net.c3.weight, TABLE.sum(0).tolist())
    drawn = [(net.c1.weight, 25), (net.c5.weight, 400), (net.f6.weight, 120)]
    drawn += [(torch.cat(kernels[:6]), 75), (torch.cat(kernels[6:15]), 100), (kernels[15], 150)]
    drawn += [(torch.cat([*net.s2.parameters(), *net.s4.parameters()]), 4**2), (net.c5.bias, 400)]
    for parameter, fan_in in drawn:
        bound = 2.4 / math.sqrt(fan_in)
        assert 0.9 * bound < float(parameter.detach().abs().max()) <= bound
        assert abs(float(parameter.detach().mean())) < bound / 3


@pytest.mark.parametrize("size", [(28, 28), (32, 28), (28, 32)])
def test_28_pixels_are_32_with_the_edge_repeated(net, size):
    small = lenet5_1998(classes=10, channels=1, size=size)
    small.load_state_dict(net.state_dict())
    images = rand(3, 1, *size)
    rows, columns = (2 if side == 28 else 0 for side in size)
    whole = F.pad(images, (columns, columns, rows, rows), "replicate")
    torch.testing.assert_close(small(images)["logits"], net(whole)["logits"])


def test_other_sizes_channels_and_classes():
    net = hubel.build("lenet5_1998", classes=4, channels=3, size=(40, 20))
    assert tuple(net.c5.weight.shape) == (120, 16, 7, 3)
    found = net(rand(2, 3, 40, 20))
    assert (found["logits"].shape, found["garbage"].shape) == ((2, 4), (2, 1))


@pytest.mark.parametrize(("size", "axis"), [((11, 28), "high"), ((28, 9), "wide")])
def test_too_small_images_are_refused(size, axis):
    with pytest.raises(ModelError, match=f"lenet5_1998 needs images at least 12 pixels {axis}"):
        lenet5_1998(classes=10, channels=1, size=size)


def test_state_dict_round_trip(net):
    """Parameters and the codes, and nothing else: what table I says needs no saving."""
    saved = net.state_dict()
    assert saved.keys() == {name for name, _ in net.named_parameters()} | {"output.codes"}
    other = lenet5_1998(classes=10, channels=1, size=(32, 32))
    other.load_state_dict(saved)
    images = rand(2, 1, 32, 32)
    assert other(images)["logits"].equal(net(images)["logits"])


# Training -----------------------------------------------------------------------------------------


def sum_of_terms(outputs, labels):
    return sum(DIGITS.loss(outputs, labels).values())


def test_its_gradients_are_right():
    """Ours, autograd's and finite differences, in float64, under equation 9."""
    torch.manual_seed(1)
    net = hubel.build("lenet5_1998", classes=10, channels=1, size=(16, 13))
    images, labels = rand(2, 1, 16, 13), torch.tensor([3, 8])

    def equation_9(outputs, labels):  # the task's own rounds to float32
        every = torch.cat([outputs["logits"], outputs["garbage"]], 1)
        return F.cross_entropy(every, labels)

    assert hubel.check(net, images, labels, loss=equation_9).fine


def test_the_engine_goes_through_it_without_borrowing(net):
    images, labels = rand(2, 1, 32, 32), torch.tensor([0, 9])
    with Tape(net) as tape:
        loss = sum_of_terms(net(images), labels)
    assert not any(record.borrowed for record in tape.records)
    ours = backpropagate(tape, loss)
    sum_of_terms(net(images), labels).backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimiser", ["sgd", "sdlm"])
@pytest.mark.parametrize("engine", ["torch", "explicit"])
def test_it_trains(tmp_path, optimiser, engine):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (240, 1, 16, 16), dtype=np.uint8)
    labels = np.arange(240) % 3
    images[labels != 1, :, :6] += 150
    images[labels != 0, :, -6:] += 150
    losses = []
    result = hubel.train(
        "lenet5_1998", (images, labels), out=tmp_path, engine=engine, tune="off", epochs=4,
        batch=8, optimiser={"name": optimiser},
        tell=lambda event: losses.append(event.loss) if isinstance(event, Step) else None,
    )  # fmt: skip
    assert np.mean(losses[-5:]) < 0.2 * losses[0]
    assert result.metrics["test"]["accuracy"] == 1
