"""The tester is tested: planted faults are all caught, and what is right is never called wrong."""

import math

import pytest
import torch
import torch.nn.functional as F
from against import noise, with_backward
from small_nets import NETS
from torch import nn

from hubel.engine.backprop import rules
from hubel.engine.check import check, check_op
from hubel.engine.ops import OPS
from hubel.errors import ModelError

# ---- a whole net, with one rule wrong


def wrong_by(factor):
    return lambda record, dy, default: tuple(g if g is None else g * factor for g in default(dy))


@pytest.mark.parametrize(
    ("name", "kind", "rule"),
    [
        ("lenet", "relu", lambda record, dy, default: (dy,)),
        ("resnet", "batch_norm", wrong_by(1.001)),
        ("alexnet", "local_response_norm", wrong_by(0.999)),
        ("googlenet", "concat", wrong_by(-1)),
        ("unet", "conv_transposed", wrong_by(2)),
        ("captioner", "lstm", wrong_by(1.0001)),
        ("transformer", "layer_norm", wrong_by(1.00001)),
        ("siamese", "softmax", lambda record, dy, default: (dy * record.saved[0],)),
    ],
)
def test_a_wrong_rule_is_caught_in_a_whole_net(name, kind, rule):
    model, inputs, labels = NETS[name].make()
    given = inputs if labels is None else [*inputs, labels]
    with rules(**{kind: rule}):
        report = check(model, *given, differences=False)
    assert not report.fine
    assert report.worst.against == "autograd"


def test_the_verdict_names_the_parameter_its_place_and_both_numbers():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    with rules({"0": wrong_by(2)}):
        report = check(model, noise(5, 4), differences=False)
    wrong = [v for v in report.verdicts if not v.fine]
    assert {v.name for v in wrong} == {"0.weight", "0.bias", "input"}
    for verdict in wrong:
        assert verdict.got == pytest.approx(2 * verdict.expected)
        assert "added twice" in verdict.cause
        assert str(verdict.place) in str(verdict)
    assert "3 of 5 gradients are WRONG" in str(report)


def test_a_mean_for_a_sum_over_the_batch_is_named_in_a_net():
    model = nn.Linear(4, 3).double()
    with rules(linear=lambda record, dy, default: tuple(g / 5 for g in default(dy))):
        report = check(model, noise(5, 4), differences=False)
    assert "divided by the batch of 5" in report.worst.cause


# ---- an autograd.Function of somebody's


class Affine(torch.autograd.Function):
    """x @ w + b, right."""

    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return x @ w + b

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        return dy @ w.t(), x.t() @ dy, dy.sum(0)


def affine_with(change):
    """The function, its gradients changed."""

    class Wrong(Affine):
        @staticmethod
        def backward(ctx, dy):
            return change(*Affine.backward(ctx, dy))

    def late(*inputs):
        return Wrong.apply(*inputs)

    return late


AFFINE = (noise(5, 4), noise(4, 3, seed=1), noise(3, seed=2))


@pytest.mark.parametrize(
    ("change", "name", "says"),
    [
        (lambda dx, dw, db: (dx, dw, db * 0), "input2", "cut"),
        (lambda dx, dw, db: (dx, dw / 5, db), "input1", "divided by the batch of 5"),
        (lambda dx, dw, db: (dx, -dw, db), "input1", "sign"),
        (lambda dx, dw, db: (dx, dw * 1.001, db), "input1", "factor"),
        (lambda dx, dw, db: (dx * 0, dw, db), "input", "cut"),
        (lambda dx, dw, db: (dx, dw, db * math.nan), "input2", "not finite"),
    ],
    ids=["zero bias", "mean", "sign", "1.001", "cut branch", "nan"],
)
def test_a_wrong_function_is_caught_by_finite_differences(change, name, says):
    report = check(affine_with(change), *AFFINE)
    assert report.borrowed == ("Wrong",)
    wrong = [v for v in report.verdicts if not v.fine and v.against == "finite differences"]
    assert [v.name for v in wrong] == [name]
    assert says in wrong[0].cause


def test_a_function_that_forgets_an_input_is_caught():
    assert not check(affine_with(lambda dx, dw, db: (dx, None, db)), *AFFINE).fine


def test_a_right_function_is_fine():
    report = check(affine_with(lambda *gradients: gradients), *AFFINE)
    assert report.fine, str(report)
    assert report.borrowed == ("Wrong",)
    assert len(report.verdicts) == 6


def test_a_right_function_is_fine_as_the_documentation_gives_it():
    report = check(Affine.apply, *AFFINE)
    assert report.fine, str(report)
    assert report.borrowed == ("Affine",)


def test_a_module_around_a_wrong_function_is_caught():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.b = nn.Parameter(AFFINE[1].clone()), nn.Parameter(AFFINE[2].clone())

        def forward(self, x):
            return affine_with(lambda dx, dw, db: (dx, dw, db + 1))(x, self.w, self.b)

    report = check(Layer(), AFFINE[0])
    assert {v.name for v in report.verdicts if not v.fine} == {"b"}
    assert "mean over axes 0" in report.worst.cause


# ---- no false alarm

FIRST_CASES = [
    (op, next(c for c in op.cases() if c.error is None))
    for op in OPS.values()
    if op.name != "overwritten"
]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("op", "case"), FIRST_CASES, ids=[op.name for op, _ in FIRST_CASES])
def test_no_operator_is_called_wrong(op, case, seed):
    chance = torch.Generator().manual_seed(seed)
    args = case.make(lambda *s: torch.randn(s, generator=chance, dtype=torch.float64))
    report = check_op(op, args, case.options, seed=seed)
    assert report.fine, str(report)


# torch's hardsigmoid backward holds a float32 1/6, which only finite differences can tell
AGAINST_AUTOGRAD = [n for n in NETS if n != "mobilenet"]


def test_a_slip_of_autograds_own_is_told_from_one_of_ours():
    alone = report_on("mobilenet", 0, differences=False)
    assert not alone.fine
    assert alone.worst.error == pytest.approx(3e-8, rel=0.5)
    whole = report_on("mobilenet", 0)
    assert whole.fine
    assert "finite differences side with ours" in str(whole)


def report_on(name, seed, training=True, **options):
    model, inputs, labels = NETS[name].make(seed)
    given = inputs if labels is None else [*inputs, labels]
    return check(model.train(training), *given, seed=seed, **options)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", AGAINST_AUTOGRAD)
def test_no_net_is_called_wrong(name, training, seed):
    report = report_on(name, seed, training, differences=False)
    assert report.fine, str(report)
    assert report.borrowed == ()


@pytest.mark.parametrize("name", ["siamese", "googlenet", "unet"])
def test_no_small_net_is_called_wrong_by_finite_differences(name):
    report = report_on(name, 0)
    assert report.fine, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", NETS)
def test_no_net_is_called_wrong_by_finite_differences(name, seed):
    report = report_on(name, seed)
    assert report.fine, str(report)


# ---- what a check leaves alone, and what it asks for


def test_a_check_leaves_the_model_and_chance_as_they_were():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    chance = torch.get_rng_state()
    assert check(model, noise(2, 2, 5, 4), differences=False).fine
    assert torch.equal(torch.get_rng_state(), chance)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in model.parameters())
    assert next(model.parameters()).dtype == torch.float32


def test_a_model_in_channels_last_can_be_checked():
    model = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    assert check(model, noise(2, 2, 5, 4)).fine


def test_labels_are_told_from_inputs():
    report = check(nn.Linear(4, 3), noise(5, 4), torch.arange(5) % 3, differences=False)
    assert report.fine
    assert [v.name for v in report.verdicts] == ["weight", "bias", "input"]


def test_a_loss_can_be_given():
    model, x = nn.Linear(4, 3), noise(5, 4)
    report = check(model, x, torch.arange(5) % 3, loss=F.multi_margin_loss)
    assert report.fine, str(report)


def test_a_model_without_floating_output_is_refused():
    class Counts(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    with pytest.raises(ModelError, match="no floating tensor"):
        check(Counts(), noise(5, 4))


def test_a_model_that_gives_a_tuple_needs_a_loss_with_labels():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x * 2

    with pytest.raises(ModelError, match="loss="):
        check(Pair(), noise(5, 4), torch.arange(5) % 4)
    assert check(Pair(), noise(5, 4)).fine


def test_kinks_are_stepped_round_and_counted():
    x = torch.tensor([0.0, 1.0, -1.0, 0.0], dtype=torch.float64)
    report = check_op(OPS["relu"], (x,), {})
    assert report.fine, str(report)
    assert report.verdicts[0].kinks == 2
    assert "2 kinks stepped round" in str(report)


def claiming(at_the_kink):
    """ReLU's gradient at (0, 1) with another slope at the kink."""
    slopes = torch.tensor([at_the_kink, 1.0], dtype=torch.float64)
    op = with_backward(OPS["relu"], lambda g, dy, saved: (dy * slopes,))
    return check_op(op, (torch.tensor([0.0, 1.0], dtype=torch.float64),), {})


@pytest.mark.parametrize("outside", [-0.2, 1.2])
def test_a_slope_outside_both_sides_of_a_kink_is_wrong(outside):
    assert not claiming(outside).fine


@pytest.mark.parametrize("between", [0.0, 0.25, 1.0])
def test_any_slope_between_both_sides_of_a_kink_is_right(between):
    assert claiming(between).fine
