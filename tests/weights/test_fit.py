"""Tensors into nets: whole or all but the head; and every misfit said with what to do."""

import pytest
import torch
from torch import nn

from hubel.errors import WeightsError
from hubel.models.names import build
from hubel.weights.fit import put_into, same_classes


def made(name="resnet20", seed=0, **words):
    torch.manual_seed(seed)
    return build(name, **{"classes": 5, "channels": 3, "size": (32, 32), **words})


def copied(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def moved(net, before):
    return {name for name, tensor in net.state_dict().items() if not tensor.equal(before[name])}


def refused(net, named, **words):
    """The message; and the net is as it was."""
    before, training = copied(net), net.training
    with pytest.raises(WeightsError) as error:
        put_into(net, named, "w.pth", **words)
    assert moved(net, before) == set()
    assert net.training == training
    assert "\n" not in str(error.value)
    return str(error.value)


def test_all_weights_go_in():
    net, other = made(seed=0), made(seed=1)
    other.bn1.running_mean.fill_(3)
    put_into(net, other.state_dict(), "w.pth")
    assert moved(net, other.state_dict()) == set()
    x = torch.randn(2, 3, 32, 32)
    assert net.eval()(x).equal(other.eval()(x))


def test_the_net_keeps_its_own_memory_and_dtype():
    net, named = made(), copied(made(seed=1))
    before = net.fc.weight.data_ptr()
    put_into(net, {name: tensor.double() for name, tensor in named.items()}, "w.pth")
    assert net.fc.weight.data_ptr() == before
    assert net.fc.weight.dtype == torch.float32
    named["fc.weight"].zero_()
    assert net.fc.weight.abs().max() > 0


# The head


def test_a_new_head_keeps_everything_but_the_head():
    net, other = made(seed=0, classes=3), made(seed=1)
    before = copied(net)
    put_into(net, other.state_dict(), "w.pth", new_head=True)
    assert moved(net, before | other.state_dict()) == {"fc.weight", "fc.bias"}
    assert net.fc.weight.equal(before["fc.weight"])
    assert net.fc.bias.equal(before["fc.bias"])


def test_a_new_head_over_as_many_classes_is_new_too():
    net, other = made(seed=0), made(seed=1)
    before = net.fc.weight.clone()
    put_into(net, other.state_dict(), "w.pth", new_head=True)
    assert net.fc.weight.equal(before)
    assert not before.equal(other.fc.weight)


def test_a_new_head_needs_none_in_the_file():
    features = {k: t for k, t in made(seed=1).state_dict().items() if not k.startswith("fc.")}
    net = made()
    put_into(net, features, "w.pth", new_head=True)
    assert net.conv1.weight.equal(features["conv1.weight"])
    assert "2 missing: fc.weight, fc.bias" in refused(made(), features)


def test_another_number_of_classes_is_said_with_what_to_do():
    message = refused(made(classes=3), made().state_dict())
    assert message == (
        "w.pth answers with 5 classes, the net with 3: ask for a new head to keep all but fc"
    )


def test_lenets_codes_count_its_classes():
    message = refused(made("lenet5_1998", classes=3), made("lenet5_1998").state_dict())
    assert (
        "answers with 5 classes, the net with 3: ask for a new head to keep all but f6" in message
    )
    net, other = made("lenet5_1998", classes=3), made("lenet5_1998", seed=1)
    before = copied(net)
    put_into(net, other.state_dict(), "w.pth", new_head=True)
    assert net.c5.weight.equal(other.c5.weight)
    assert net.output.codes.equal(before["output.codes"])
    assert net.f6.weight.equal(before["f6.weight"])


@pytest.mark.parametrize("name", ["resnet20", "lenet5", "lenet5_1998", "mlp"])
def test_whether_the_classes_are_as_many(name):
    for classes, same in ((5, True), (3, False)):
        assert same_classes(made(name), made(name, classes=classes).state_dict()) is same
    assert not same_classes(made(name), {"other": torch.ones(2)})


def test_images_of_another_size_are_not_taken_for_other_classes():
    """A softmax layer for 32x32 in one for 28x28: as many rows, other columns."""
    named = made("softmax").state_dict()
    net = made("softmax", size=(28, 28))
    assert same_classes(net, named)
    message = refused(net, named)
    assert "(5, 3072)" in message
    assert "(5, 2352)" in message
    assert "build the net with the options, channels and size the file was made for" in message


def test_auxiliary_heads_that_the_net_has_not_are_left_out():
    net = made("googlenet", aux=False)
    other = made("googlenet", seed=1)
    put_into(net, other.state_dict(), "w.pth")
    assert net.fc.weight.equal(other.fc.weight)
    assert "10 missing" not in refused(made("googlenet"), net.state_dict())


def test_auxiliary_heads_that_the_file_has_not_are_missed():
    message = refused(made("googlenet"), made("googlenet", aux=False).state_dict())
    assert "missing: aux1.conv.conv.weight" in message
    assert "with the options" in message


def test_auxiliary_heads_get_new_last_layers_with_a_new_head():
    net, other = made("googlenet", classes=3), made("googlenet", seed=1)
    before = copied(net)
    put_into(net, other.state_dict(), "w.pth", new_head=True)
    kept = {n for n, t in net.state_dict().items() if t.shape != other.state_dict()[n].shape}
    assert kept == {
        f"{head}.{p}" for head in ("fc", "aux1.fc2", "aux2.fc2") for p in ("weight", "bias")
    }
    assert all(net.state_dict()[name].equal(before[name]) for name in kept)
    assert net.aux1.fc1.weight.equal(other.aux1.fc1.weight)


# Misfits


def test_missing_and_unexpected_keys_are_counted_and_the_first_named():
    named = copied(made())
    for number, key in enumerate(list(named)[:6]):
        named[f"strange{number}"] = named.pop(key)
    message = refused(made(), named)
    assert "w.pth does not fit: 6 missing: conv1.weight, bn1.weight, bn1.bias, bn1.run" in message
    assert (
        " and 2 more; 6 unexpected: strange0, strange1, strange2, strange3 and 2 more." in message
    )
    assert message.endswith(
        "build the net with the options, channels and size the file was made for"
    )


def test_shapes_are_said_of_both_sides():
    named = copied(made())
    named["layer1.0.conv1.weight"] = torch.ones(16, 16, 5, 5)
    message = refused(made(), named)
    assert (
        "1 of another shape: the file has (16, 16, 5, 5) for layer1.0.conv1.weight (16, 16, 3, 3)"
        in (message)
    )


def test_grey_weights_in_a_colour_net_say_what_to_do():
    message = refused(made(channels=3), made(channels=1).state_dict())
    assert "the file has (16, 1, 3, 3) for conv1.weight (16, 3, 3, 3)" in message
    assert "build the net with the options, channels and size the file was made for" in message


@pytest.mark.parametrize(
    ("net", "file"),
    [("resnet20", "lenet5"), ("lenet5", "resnet20"), ("resnet20", "compact"), ("resnet20", "mlp")],
)
def test_another_net_is_called_one(net, file):
    message = refused(made(net), made(file).state_dict())
    assert "it is of another net: build the one it was made for" in message


@pytest.mark.parametrize(("net", "file"), [("resnet20", "resnet32"), ("resnet32", "resnet20")])
def test_a_deeper_twin_is_another_net(net, file):
    """All the keys of the shallow one are keys of the deep one, of the same shapes."""
    assert set(made("resnet20").state_dict()) < set(made("resnet32").state_dict())
    assert "it is of another net" in refused(made(net), made(file).state_dict())


def test_another_option_is_not_another_net():
    """Shortcuts that project have weights, those that pad have none."""
    message = refused(made("resnet18"), made("resnet18", shortcut="A").state_dict())
    assert "18 missing: layer2.0.downsample.0.weight" in message
    assert "build the net with the options" in message


def test_nothing_of_a_file_that_does_not_fit_goes_in_with_a_new_head_either():
    refused(made("lenet5"), made("resnet20").state_dict(), new_head=True)


def test_a_module_of_ones_own():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    put_into(net, {k: torch.ones_like(t) for k, t in net.state_dict().items()}, "w.pth")
    assert (net[3].weight == 1).all()
    assert "answers with 7 classes" in refused(
        net, net.state_dict() | {"3.weight": torch.ones(7, 16), "3.bias": torch.ones(7)}
    )
