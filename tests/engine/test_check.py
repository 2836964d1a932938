"""The tester is tested: planted faults are all caught, and what is right is never called wrong."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_nets import NETS
from torch import nn

from hubel.engine.backprop import rules
from hubel.engine.check import check, check_op
from hubel.engine.differences import along, at_element, slope
from hubel.engine.ops import OPS
from hubel.errors import ModelError


def noise(*shape, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=chance, dtype=torch.float64)


def with_backward(op, wrong):
    """An operator whose gradients are `wrong(gradients, dy, saved)`."""

    def backward(dy, saved):
        return wrong(list(op.backward(dy, saved)), dy, saved)

    return type(f"Faulty{op.name}", (op,), {"backward": staticmethod(backward)})


# ---- planted faults: name -> (operator, arguments, options, wrong backward, word in the cause)

FAULTS = {}


def fault(name, op, args, options=None, *, says=""):
    def register(wrong):
        FAULTS[name] = (op, args, options or {}, wrong, says)
        return wrong

    return register


def changed(name, argument, change, op, args, options=None, says=""):
    """A fault that changes one gradient, whatever it was."""

    @fault(name, op, args, options, says=says)
    def wrong(gradients, dy, saved):
        gradients[argument] = change(gradients[argument].clone())
        return tuple(gradients)


def zeroed(*places):
    def change(g):
        for place in places:
            g[place] = 0
        return g

    return change


CONV_OPTIONS = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
SMALL = (noise(1, 2, 5, 6), noise(3, 2, 3, 3, seed=1), noise(3, seed=2))
SQUARE = (noise(2, 3, 5, 4), noise(3, 3, 3, 2, seed=1), noise(3, seed=2))
LINEAR = (noise(5, 4), noise(3, 4, seed=1), noise(3, seed=2))

for _argument, _what in enumerate(("input", "kernel", "bias")):
    for _words, _change, _says in (
        ("a factor of 1.001", lambda g: g * 1.001, "factor"),
        ("a factor of 2", lambda g: g * 2, "twice"),
        ("the sign", lambda g: -g, "sign"),
        ("half", lambda g: g / 2, "half"),
        ("zero", lambda g: g * 0, "cut"),
    ):
        changed(f"conv {_what}: {_words}", _argument, _change, "conv", SMALL, CONV_OPTIONS, _says)

conv_fault = {"op": "conv", "args": SMALL, "options": CONV_OPTIONS}
changed(
    "three cells of a kernel are zero", 1, zeroed((0, 0, 1, 1), (1, 1, 0, 2), (2, 0, 2, 0)),
    **conv_fault, says="3 of 54 elements are zero",
)  # fmt: skip
changed(
    "one cell of a kernel is zero", 1, zeroed((2, 1, 1, 1)), **conv_fault,
    says="1 of 54 elements are zero, the first at (2, 1, 1, 1)",
)  # fmt: skip
changed("the kernel is transposed", 1, lambda g: g.mT, **conv_fault, says="transposed kernel")
changed("the kernel is flipped", 1, lambda g: g.flip(2, 3), **conv_fault, says="flipped")
changed(
    "the kernel is upside down", 1, lambda g: g.flip(2), **conv_fault, says="axis 2 is reversed"
)
changed(
    "channels in and out are exchanged", 1, lambda g: g.transpose(0, 1), "conv", SQUARE,
    CONV_OPTIONS, says="exchanged",
)  # fmt: skip
changed("padding on the wrong side", 0, lambda g: g.roll(1, 3), **conv_fault, says="shifted by one")
changed("padding above for below", 0, lambda g: g.roll(-1, 2), **conv_fault, says="shifted by one")
changed(
    "the border is missing", 0, zeroed((..., 0), (..., -1)), "conv",
    (noise(1, 1, 5, 12), noise(2, 1, 3, 3, seed=1), None), CONV_OPTIONS, says="border",
)  # fmt: skip
changed("a hidden weight decay", 1, lambda g: g + 0.01 * SMALL[1], **conv_fault, says="decay")
changed("channels are shuffled", 0, lambda g: g.flip(1), **conv_fault)
changed("NaN", 1, lambda g: g.fill_(math.nan), **conv_fault, says="not finite")
changed("one infinity", 0, lambda g: g.index_fill(3, torch.tensor([2]), math.inf), **conv_fault,
        says="not finite")  # fmt: skip
changed("noise in the gradient", 0, lambda g: g + 1e-4 * noise(*g.shape, seed=9), **conv_fault)
changed(
    "mean instead of sum over the batch", 0, lambda g: g / 5, "linear", LINEAR,
    says="divided by the batch of 5",
)  # fmt: skip
changed(
    "not divided by the batch", 0, lambda g: g * 5, "cross_entropy",
    (noise(5, 4), torch.tensor([0, 3, 2, 3, 1]), None), says="not divided by the batch of 5",
)  # fmt: skip
changed("a scale per channel is left out", 0, lambda g: g / (1 + torch.arange(4.0)), "linear",
        LINEAR, says="factor per entry of axis 1")  # fmt: skip
changed(
    "the parts of a join are in another order", 0, lambda g: g.flip(0), "stack",
    (noise(2, 3), noise(2, 3, seed=1)), {"axis": 0},
)  # fmt: skip

NORM_OPTIONS = {"training": True, "momentum": 0.1, "eps": 1e-5}
NORM = (noise(7, 3), noise(3, seed=1), noise(3, seed=2), None, None)


@fault("batch norm without the mean's slope", "batch_norm", NORM, NORM_OPTIONS, says="mean over")
def no_mean(gradients, dy, saved):
    xhat, w, _, scale, *_ = saved
    d = dy * w
    return scale * (d - xhat * (d * xhat).mean(0, keepdim=True)), *gradients[1:]


@fault("batch norm without the variance's slope", "batch_norm", NORM, NORM_OPTIONS)
def no_variance(gradients, dy, saved):
    _, w, _, scale, *_ = saved
    d = dy * w
    return scale * (d - d.mean(0, keepdim=True)), *gradients[1:]


@fault("batch norm with its statistics as constants", "batch_norm", NORM, NORM_OPTIONS)
def constant_statistics(gradients, dy, saved):
    _, w, _, scale, *_ = saved
    return dy * w * scale, *gradients[1:]


@fault("batch norm without its scale", "batch_norm", NORM, NORM_OPTIONS, says="factor per entry")
def no_scale(gradients, dy, saved):
    return gradients[0] / saved[1], *gradients[1:]


@fault("layer norm over the wrong axis", "layer_norm", (noise(4, 4), None, None), {"axes": 1})
def other_axis(gradients, dy, saved):
    xhat, _, _, scale, _ = saved
    return scale * (dy - dy.mean(0) - xhat * (dy * xhat).mean(0)), None, None


NEAR_ZERO = torch.linspace(-1, 1, 40, dtype=torch.float64) + 1e-3


@fault("relu that starts at -0.1", "relu", (NEAR_ZERO,), says="elements are wrong")
def early_relu(gradients, dy, saved):
    return (dy * (NEAR_ZERO >= -0.1),)


@fault("relu without a mask", "relu", (NEAR_ZERO,))
def unmasked(gradients, dy, saved):
    return (dy,)


@fault("leaky relu with another slope", "leaky_relu", (noise(30),), {"negative_slope": 0.2})
def other_slope(gradients, dy, saved):
    x, _ = saved
    return (torch.where(x > 0, dy, 0.1 * dy),)


@fault("sigmoid with slope y", "sigmoid", (noise(30),))
def half_a_slope(gradients, dy, saved):
    return (dy * saved[0],)


@fault("tanh without the square", "tanh", (noise(30),))
def no_square(gradients, dy, saved):
    return (dy * (1 - saved[0]),)


@fault("gelu without the density", "gelu", (noise(30),))
def no_density(gradients, dy, saved):
    return (dy * 0.5 * (1 + torch.erf(saved[0] / math.sqrt(2))),)


@fault("softmax without the sum", "softmax", (noise(3, 5),), {"axis": 1})
def no_sum(gradients, dy, saved):
    return (saved[0] * dy,)


@fault("softmax summed along the other axis", "softmax", (noise(5, 5),), {"axis": 1})
def other_sum(gradients, dy, saved):
    return (saved[0] * (dy - (dy * saved[0]).sum(0, keepdim=True)),)


@fault("cross-entropy p for p - y", "cross_entropy", (noise(5, 4), torch.arange(5) % 4, None))
def no_target(gradients, dy, saved):
    return dy * saved[1] / 5, None, None


@fault("l2 loss without its 2", "l2_loss", (noise(3, 5), noise(3, 5, seed=1)), says="half")
def no_two(gradients, dy, saved):
    return tuple(g / 2 for g in gradients)


MASK = (noise(4, 6, seed=3) > 0).double()


@fault("dropout without 1 / (1 - p)", "dropout", (noise(4, 6), MASK), {"p": 0.3}, says="factor of")
def not_grown(gradients, dy, saved):
    return dy * MASK, None


@fault("dropout with another mask", "dropout", (noise(4, 6), MASK), {"p": 0.3})
def other_mask(gradients, dy, saved):
    return dy * MASK.flip(0) / 0.7, None


POOL_OPTIONS = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
IMAGE = (noise(1, 2, 6, 6),)


@fault("max pooling to the first place", "max_pool", IMAGE, {**POOL_OPTIONS, "dilation": (1, 1)})
def first_place(gradients, dy, saved):
    winner, shape, geometry = saved
    return OPS["max_pool"].backward(dy, (torch.zeros_like(winner), shape, geometry))


@fault("max pooling to the whole window", "max_pool", IMAGE, {**POOL_OPTIONS, "dilation": (1, 1)})
def whole_window(gradients, dy, saved):
    return (dy.repeat_interleave(2, 2).repeat_interleave(2, 3),)


@fault("average pooling not divided", "average_pool", IMAGE, POOL_OPTIONS, says="factor of 0.25")
def not_divided(gradients, dy, saved):
    return (gradients[0] * 4,)


@fault(
    "average pooling that counts padding", "average_pool", IMAGE,
    {"kernel": (3, 3), "stride": (3, 3), "padding": (1, 1), "count_padding": False},
)  # fmt: skip
def padding_counted(gradients, dy, saved):
    shape, _, geometry = saved
    return OPS["average_pool"].backward(dy, (shape, 9, geometry))


@fault("a window's count off by one", "average_pool", IMAGE, POOL_OPTIONS, says="factor of 1.25")
def count_off(gradients, dy, saved):
    shape, count, geometry = saved
    return OPS["average_pool"].backward(dy, (shape, count + 1, geometry))


RESPONSE = {"size": 5, "alpha": 0.1, "beta": 0.75, "k": 2.0}


@fault("response norm without its cross term", "local_response_norm", (noise(2, 7, 3),), RESPONSE)
def no_cross_term(gradients, dy, saved):
    _, s, _, _, beta = saved
    return (dy * s**-beta,)


@fault(
    "upsampling undone by subsampling", "upsample", (noise(1, 2, 3, 4),),
    {"size": (6, 8), "kind": "nearest"},
)  # fmt: skip
def subsampled(gradients, dy, saved):
    return (dy[:, :, ::2, ::2],)


@fault("joined parts swapped", "concat", (noise(2, 3), noise(2, 3, seed=1)), {"axis": 1})
def swapped(gradients, dy, saved):
    return gradients[1], gradients[0]


@fault("broadcasting not summed", "add", (noise(4, 3), noise(3, seed=1)))
def not_summed(gradients, dy, saved):
    return dy, dy[0]


@fault("a factor forgotten in a product", "multiply", (noise(4, 3), noise(4, 3, seed=1)))
def not_multiplied(gradients, dy, saved):
    return dy, dy


@fault("a matrix not transposed", "matmul", (noise(4, 4), noise(4, 4, seed=1)))
def not_transposed(gradients, dy, saved):
    return dy @ noise(4, 4, seed=1), gradients[1]


@fault("a row that is looked up twice", "embedding", (noise(5, 3), torch.tensor([1, 3, 1])))
def looked_up_once(gradients, dy, saved):
    dw = torch.zeros(5, 3, dtype=torch.float64)
    dw[torch.tensor([1, 3, 1])] = dy
    return dw, None


@fault("true convolution not flipped back", "true_convolution", (SMALL[0], SMALL[1]),
       {"stride": (1, 1), "padding": (1, 1)}, says="flipped")  # fmt: skip
def not_flipped(gradients, dy, saved):
    return gradients[0], gradients[1].flip(2, 3)


@fault(
    "attention without its scale", "attention",
    (*[noise(1, 3, 9, seed=s) for s in range(3)], None, None), {"scale": 1 / 3},
    says="factor of 0.333",
)  # fmt: skip
def not_scaled(gradients, dy, saved):
    return gradients[0] * 3, *gradients[1:]


@fault("a mean over too many", "mean", (noise(3, 4),), {"axes": (1,), "keep": False},
       says="divided by the batch of 3")  # fmt: skip
def too_many(gradients, dy, saved):
    return (gradients[0] / 3,)


def planted(name):
    op, args, options, wrong, says = FAULTS[name]
    return with_backward(OPS[op], wrong), args, options, says


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught_and_named(name):
    op, args, options, says = planted(name)
    report = check_op(op, args, options)
    assert not report.fine
    assert says in report.worst.cause
    assert "WRONG" in str(report)


@pytest.mark.parametrize("name", FAULTS)
def test_without_its_fault_the_operator_is_fine(name):
    op, args, options, _, _ = FAULTS[name]
    report = check_op(OPS[op], args, options)
    assert report.fine, str(report)


def test_there_are_enough_planted_faults():
    assert len(FAULTS) >= 32


@pytest.mark.parametrize("tiny", [1e-5, 1e-4])
def test_a_small_deviation_is_caught_in_a_tensor_too_large_to_try_element_by_element(tiny):
    args = (noise(3, 40), noise(30, 40, seed=1), None)
    op = with_backward(OPS["linear"], lambda g, dy, saved: (g[0], g[1] * (1 + tiny), g[2]))
    assert not check_op(op, args, {}).fine


@pytest.mark.parametrize("place", [(0, 0), (17, 23), (29, 39)])
def test_one_wrong_cell_is_caught_among_many(place):
    args = (noise(3, 40), noise(30, 40, seed=1), None)
    op = with_backward(
        OPS["linear"], lambda g, dy, saved: (g[0], zeroed(place)(g[1].clone()), None)
    )
    assert not check_op(op, args, {}).fine


def test_a_gradient_that_is_left_out_is_caught():
    op = with_backward(OPS["linear"], lambda g, dy, saved: (g[0], None, g[2]))
    assert not check_op(op, LINEAR, {}).fine


def test_one_wrong_cell_at_the_edge_of_a_kernel_is_no_border():
    op = with_backward(
        OPS["conv"], lambda g, dy, saved: (g[0], zeroed((2, 1, 0, 1))(g[1].clone()), g[2])
    )
    assert "1 of 54 elements" in check_op(op, SMALL, CONV_OPTIONS).worst.cause


def test_a_missing_forget_gate_is_caught(monkeypatch):
    lstm = OPS["lstm"]
    right = lstm.unstep

    def unstep(dstate, memo):
        d, same, (dh, dc) = right(dstate, memo)
        return d, same, (dh, dc / memo[1])

    case = next(lstm.cases())
    args = case.make(lambda *s: noise(*s, seed=sum(s)))
    monkeypatch.setattr(lstm, "unstep", staticmethod(unstep))
    assert not check_op(lstm, args, case.options).fine


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


# ---- slopes


@pytest.mark.parametrize(
    ("f", "true"),
    [
        (lambda t: 3 * t + 1, 3.0),
        (lambda t: math.sin(t + 1), math.cos(1)),
        (math.exp, 1.0),
        (lambda t: (t + 2) ** 5, 80.0),
        (lambda t: 1 / (1 + math.exp(-t)), 0.25),
        (lambda t: t * t, 0.0),
        (lambda t: 5.0, 0.0),
        (lambda t: math.log(t + 0.5), 2.0),
        (lambda t: 1e6 + t, 1.0),
    ],
)
def test_slopes_of_smooth_functions(f, true):
    found = slope(f)
    assert not found.kink
    assert found.value == pytest.approx(true, abs=1e-7)
    assert abs(found.value - true) <= found.uncertainty + 1e-12
    assert found.uncertainty < 1e-4 * max(1, abs(f(0)))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_slopes_of_steep_and_of_flat_functions(scale):
    found = slope(lambda t: math.sin(t / scale), scale=scale)
    assert found.value * scale == pytest.approx(1, abs=1e-9)
    assert not found.kink


@pytest.mark.parametrize("height", [1e-8, 1.0, 1e8])
def test_slopes_of_low_and_of_high_functions(height):
    found = slope(lambda t: height * math.tanh(t + 0.3))
    assert found.value / height == pytest.approx(1 - math.tanh(0.3) ** 2, rel=1e-8)


@pytest.mark.parametrize(
    ("f", "left", "right"),
    [
        (abs, -1, 1),
        (lambda t: max(t, 0.0), 0, 1),
        (lambda t: max(t, 0.2 * t) + 3, 0.2, 1),
        (lambda t: abs(t) * 100 + t * t, -100, 100),
        (lambda t: math.sin(t) + abs(t) / 2, 0.5, 1.5),
    ],
)
def test_at_a_kink_both_sides_are_told(f, left, right):
    found = slope(f)
    assert found.kink
    assert found.left == pytest.approx(left, abs=1e-5)
    assert found.right == pytest.approx(right, abs=1e-5)
    assert found.distance((left + right) / 2) == 0
    assert found.distance(right + 1) == pytest.approx(1, abs=1e-3 * (right - left))


@pytest.mark.parametrize("away", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_a_kink_near_the_point_does_not_spoil_the_slope(away):
    found = slope(lambda t: abs(t - away) + math.sin(t))
    assert found.distance(0.0) <= found.uncertainty + 1e-6
    assert found.distance(0.1) > 0.05


@pytest.mark.parametrize("strength", [1.0, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("away", [1e-2, 1e-3, 1e-4, 1e-5])
def test_the_uncertainty_covers_a_weak_kink_nearby(strength, away):
    found = slope(lambda t: strength * abs(t - away) + math.sin(t))
    assert found.distance(1 - strength) <= found.uncertainty + 1e-8


def test_one_element_of_a_tensor_moves_and_comes_back():
    x = noise(3, 4)
    before = x.clone()
    found = at_element(lambda: x.square().sum(), x, (1, 3))
    assert found.value == pytest.approx(2 * float(x[1, 3]))
    assert torch.equal(x, before)


def test_a_direction_sees_all_elements_at_once():
    x, v = noise(3, 4), noise(3, 4, seed=1)
    before = x.clone()
    found = along(lambda: x.pow(3).sum(), x, v)
    assert found.value == pytest.approx(float((3 * x * x * v).sum()))
    assert torch.equal(x, before)
