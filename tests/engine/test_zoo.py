"""The named nets for photos: the engine's gradients are autograd's, nothing is borrowed.

At 64 pixels (what a net needs at least, where that is more), two images, in training mode, in
float64: dropout draws the same masks on both sides, auxiliary heads count as training counts them.
"""

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from against import assert_same, autograds_of, gradients_of, largest_error
from torch import nn

import hubel
from hubel.engine.backprop import rules
from hubel.models.names import build
from hubel.models.table import MODELS
from hubel.models.watch import is_leaf
from hubel.tasks.classify import Classify
from hubel.training.distribute import Crew
from hubel.training.fit import Step
from hubel.training.passes import make_pass
from hubel.training.speed import Choice

NETS = {
    "alexnet_2012": {},
    "googlenet": {},
    "googlenet_2014": {},
    "resnet18-A": {"shortcut": "A"},
    "resnet18-B": {"shortcut": "B"},
    "resnet18-C": {"shortcut": "C"},
    "resnet50-3x3": {"stride_on": "3x3"},
    "resnet50-1x1": {"stride_on": "1x1", "shortcut": "A"},
    "mobilenet_v2": {},
    "efficientnet_lite0": {},
    "plain18": {},
}
LARGE = {"alexnet": {}, "vgg11": {}, "vgg11_bn": {}}  # gigabytes in float64
# Every rounding of a long net with batch norms over few numbers is enlarged on the way. Measured:
# 2e-11 at most (mobilenet_v2), most below 1e-12.
TOLERANCE = 1e-9
FLOOR = 1e-4  # of the largest gradient of the net: a bias before batch norm has a true one of 0
TASK = Classify(tuple("abcde"))

HEAVY = {"resnet50-1x1", "resnet18-B"}  # seconds each, and another of their kind is there


def quick(names):
    """As parameters; heavy ones only with -m slow."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in names]


def made(name, dtype=torch.float64):
    """A net in training mode, images, and a call that gives its loss."""
    torch.manual_seed(0)
    plain, _, _ = name.partition("-")
    side = max(64, *MODELS[plain].smallest)
    options = {**NETS, **LARGE}[name]
    model = build(plain, classes=5, channels=3, size=(side, side), **options).to(dtype).train()
    images, labels = torch.randn(2, 3, side, side, dtype=dtype), torch.tensor([1, 3])

    def loss(model, images):
        return functools.reduce(torch.add, TASK.loss(model(images), labels).values())

    return model, images, loss


def as_autograd(name, kernels):
    """Loss, every gradient, every buffer; returns the net and its tape."""
    model, images, loss = made(name)
    torch.manual_seed(5)
    expected, theirs, other = autograds_of(loss, model, [images])
    torch.manual_seed(5)
    tape, value, ours = gradients_of(loss, model, [images], kernels=kernels)
    assert not [r.spelling for r in tape.records if r.borrowed]
    assert ours.keys() == theirs.keys()
    top = max(float(g.abs().max()) for g in theirs.values())
    assert_same(ours, theirs, TOLERANCE, floor=FLOOR * top)
    torch.testing.assert_close(value, expected, rtol=TOLERANCE, atol=TOLERANCE)
    for mine, buffer in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, buffer, rtol=TOLERANCE, atol=TOLERANCE)
    return model, tape


def names_every_layer(model, tape):
    """Every layer that computes is in the tape; nothing but the loss is without a name."""
    layers = {
        path
        for path, module in model.named_modules()
        if is_leaf(module) and not isinstance(module, nn.Identity)
    }
    named = {record.path for record in tape.records}
    assert layers <= named
    assert named <= dict(model.named_modules()).keys()
    loss = [record.op.name for record in tape.records if not record.path]
    heads = 2 if hasattr(model, "aux1") else 0
    assert sorted(loss) == sorted(["cross_entropy"] * (1 + heads) + ["multiply", "add"] * heads)


@pytest.mark.parametrize("name", quick(NETS))
def test_every_gradient_is_autograds_and_every_layer_is_named(name):
    names_every_layer(*as_autograd(name, "math"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_with_torchs_kernels_too(name):
    as_autograd(name, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("kernels", ["math", "torch"])
def test_the_largest_too(name, kernels):
    names_every_layer(*as_autograd(name, kernels))


def test_the_comparison_sees_a_small_mistake():
    """Response normalisation's gradient, 0.1 % too large."""

    def larger(record, dy, default):
        return tuple(None if g is None else 1.001 * g for g in default(dy))

    with rules(local_response_norm=larger), pytest.raises(AssertionError):
        as_autograd("googlenet_2014", "math")


# Public words ------------------------------------------------------------------------------------


def test_a_look_finds_layers_by_their_paths():
    model, images, _ = made("googlenet_2014", torch.float32)
    labels = torch.tensor([1, 3])

    def loss(outputs, labels):
        return functools.reduce(torch.add, TASK.loss(outputs, labels).values())

    seen = hubel.look(model, images, labels, loss=loss, kernels="torch", keep="statistics")
    assert seen["inception4a.branch3.1.conv"].kind == "conv"
    assert seen["inception4a.branch3.1.conv"].record.shapes.outputs == ((2, 48, 5, 5),)
    assert seen["norm2"].kind == "local_response_norm"
    assert seen["aux2.fc2"].kind == "linear"
    table = repr(seen)
    assert "0 borrowed" not in table
    for path in ("inception5b.branch4.0", "aux1.pool", "maxpool3", "norm1"):
        assert path in table
    assert seen.grads.keys() == dict(model.named_parameters()).keys()


def test_hubel_check_proves_them():
    model, images, _ = made("efficientnet_lite0", torch.float32)
    report = hubel.check(model, images, torch.tensor([1, 3]), differences=False)
    assert report.fine
    assert report.borrowed == ()
    assert len(report.verdicts) == len(list(model.parameters())) + 1


# Steps -------------------------------------------------------------------------------------------


def test_a_training_step_with_heads_is_autograds():
    """The loop's own passes: a batch in two pieces, then a step of gradient descent."""
    ours, images, _ = made("googlenet_2014")
    theirs, targets = copy.deepcopy(ours), torch.tensor([4, 0])
    crew, found = Crew(0, 1, torch.device("cpu")), []
    for model, engine in ((ours, "explicit"), (theirs, "torch")):
        optimiser = torch.optim.SGD(model.parameters(), 0.01)
        go = make_pass(model, TASK, SimpleNamespace(engine=engine), Choice(), crew)
        torch.manual_seed(9)
        for step in range(2):
            optimiser.zero_grad()
            losses = [go(images[i : i + 1], targets[i : i + 1], 0.5, last=i == 1) for i in range(2)]
            found.append((engine, step, float(losses[0][1] + losses[1][1]), losses[0][0].keys()))
            optimiser.step()
    for mine, other in zip(found[:2], found[2:], strict=True):
        assert mine[2] == pytest.approx(other[2], rel=1e-10)
        assert mine[3] == {"logits", "aux1", "aux2"}
    assert found[0][2] != found[1][2]
    for (path, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert largest_error(mine.detach(), other.detach()) < 1e-10, path


@pytest.mark.slow
def test_hubel_train_takes_the_same_steps_with_heads_by_either_engine(tmp_path):
    data = hubel.load_data("sample")
    few = (data.images[:40], data.targets[:40])

    def losses(engine):
        found = []
        hubel.train(
            "googlenet_2014", few, out=tmp_path, engine=engine, tune="off", seed=3, epochs=1,
            size=(79, 79), batch=8, optimiser={"name": "sgd", "lr": 0.001},
            tell=lambda event: found.append(event.loss) if isinstance(event, Step) else None,
        )  # fmt: skip
        return found

    ours, torchs = losses("explicit"), losses("torch")
    assert len(ours) >= 3
    assert ours[:3] == pytest.approx(torchs[:3], rel=1e-3)
