"""Faults planted in operators, one by one: the check finds each, and says of most what it is."""

import math

import pytest
import torch
from against import noise, with_backward

from hubel.engine.check import check_op
from hubel.engine.ops import OPS

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
