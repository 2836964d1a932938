"""Every operator over all of its cases: both kernels, autograd, finite differences, refusals."""

import re
import zlib

import pytest
import torch

from hubel.engine.check import check_op
from hubel.engine.ops import OPS
from hubel.errors import ModelError

EXACT = 1e-9  # of the largest element
CASES = [(op, case) for op in OPS.values() for case in op.cases()]
GOOD = [(op, case) for op, case in CASES if case.error is None]
BAD = [(op, case) for op, case in CASES if case.error is not None]
LONG = {("gru", "two layers, both ways"), ("lstm", "two layers, both ways")}
ALIASES = {("copy", "alias")}  # the output is the input's memory, which autograd does not follow


def named(pairs, long=frozenset()):
    return [
        pytest.param(
            op, case, id=f"{op.name}: {case.name}",
            marks=[pytest.mark.slow] if (op.name, case.name) in long else [],
        )
        for op, case in pairs
    ]  # fmt: skip


good_cases = pytest.mark.parametrize(("op", "case"), named(GOOD))


def arguments(op, case, seed=0):
    seed += zlib.crc32(f"{op.name}: {case.name}".encode())
    chance = torch.Generator().manual_seed(seed)
    return list(case.make(lambda *s: torch.randn(s, generator=chance, dtype=torch.float64)))


def is_float(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def many(y):
    return y if isinstance(y, tuple) else (y,)


def incoming(y):
    """A random gradient per floating output, in the form of the output."""
    chance = torch.Generator().manual_seed(5)
    dy = tuple(
        torch.randn(t.shape, generator=chance, dtype=t.dtype) if is_float(t) else None
        for t in many(y)
    )
    return dy if isinstance(y, tuple) else dy[0]


def assert_near(got, expected):
    assert got.shape == expected.shape
    scale = max(float(expected.abs().max()), 1e-9) if expected.numel() else 1.0
    assert bool(((got - expected).abs() <= EXACT * scale).all())


def by_autograd(op, args, options, dy):
    """Gradients of our own forward by torch, one per argument; None for what is no number."""
    leaves = [a.clone().requires_grad_() if is_float(a) else a for a in args]
    y, _ = op.forward(*leaves, **options)
    wanted = [leaf for leaf in leaves if is_float(leaf)]
    pairs = [(a, b) for a, b in zip(many(y), many(dy), strict=True) if b is not None]
    outputs, gradients = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, gradients, allow_unused=True))
    return [next(found) if is_float(leaf) else None for leaf in leaves]


def our_gradients(op, args, options):
    y, saved = op.forward(*args, **options)
    return op.backward(incoming(y), saved)


@good_cases
def test_torchs_kernel_gives_what_the_mathematics_gives(op, case):
    args = arguments(op, case)
    ours, _ = op.forward(*args, **case.options)
    fast, _ = op.fast_forward(*args, **case.options)
    assert isinstance(ours, tuple) == isinstance(fast, tuple)
    for a, b in zip(many(fast), many(ours), strict=True):
        assert a.dtype == b.dtype
        assert_near(a, b)


@good_cases
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")
def test_backward_is_autograds_of_our_forward(op, case):
    args = arguments(op, case)
    if (op.name, case.name) in ALIASES:
        y, saved = op.forward(*args, **case.options)
        (dx,) = op.backward(incoming(y), saved)
        assert torch.equal(dx, incoming(y))
        return
    y, _ = op.forward(*args, **case.options)
    expected = by_autograd(op, args, case.options, incoming(y))
    ours = our_gradients(op, args, case.options)
    for mine, theirs, argument in zip(ours, expected, args, strict=True):
        if mine is not None and is_float(argument):
            assert_near(mine, torch.zeros_like(argument) if theirs is None else theirs)


@good_cases
def test_gradients_come_one_per_argument_in_its_shape(op, case):
    args = arguments(op, case)
    gradients = our_gradients(op, args, case.options)
    assert len(gradients) == len(args)
    assert any(g is not None for g in gradients)
    for gradient, argument in zip(gradients, args, strict=True):
        if gradient is not None:
            assert is_float(argument)
            assert gradient.shape == argument.shape


@good_cases
def test_torchs_backward_gives_what_the_mathematics_gives(op, case):
    args = arguments(op, case)
    ours = our_gradients(op, args, case.options)
    y, saved = op.fast_forward(*args, **case.options)
    needs = tuple(is_float(a) for a in args)
    fast = op.fast_backward(incoming(y), saved, needs)
    assert len(fast) == len(ours)
    for a, b in zip(fast, ours, strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            assert_near(a, b)


@good_cases
def test_backward_changes_neither_its_gradient_nor_what_was_saved(op, case):
    args = arguments(op, case)
    y, saved = op.forward(*args, **case.options)
    dy = incoming(y)
    before = [d if d is None else d.clone() for d in many(dy)]
    first = op.backward(dy, saved)
    kept = [g if g is None else g.clone() for g in first]
    again = op.backward(dy, saved)
    for a, b in zip([*many(dy), *again], [*before, *kept], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize(("op", "case"), named(GOOD, LONG))
def test_backward_is_the_slope_of_forward(op, case):
    report = check_op(op, arguments(op, case), case.options)
    assert report.fine, str(report)


@pytest.mark.slow
@pytest.mark.parametrize(("op", "case"), named(GOOD))
def test_torchs_backward_is_the_slope_of_torchs_forward(op, case):
    report = check_op(op, arguments(op, case), case.options, kernels="torch")
    assert report.fine, str(report)


@pytest.mark.parametrize("kernels", ["math", "torch"])
@pytest.mark.parametrize(("op", "case"), named(BAD))
def test_a_bad_call_is_refused_with_a_reason(op, case, kernels):
    forward = op.forward if kernels == "math" else op.fast_forward
    args = arguments(op, case)
    if kernels == "math":
        with pytest.raises(ModelError, match=case.error):
            forward(*args, **case.options)
    else:  # torch's own words are good enough, but it may not let the call pass
        with pytest.raises((ModelError, RuntimeError, IndexError)):
            forward(*args, **case.options)


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_an_operator_explains_itself(op):
    assert op.name
    assert op.family
    assert op.formula
    assert op.__doc__
    assert op.tensors


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_an_operator_has_a_good_case(op):
    written_by_the_tape_alone = op.name == "overwritten"
    assert any(case.error is None for case in op.cases()) != written_by_the_tape_alone


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_cases_of_an_operator_have_names_of_their_own(op):
    names = [case.name for case in op.cases()]
    assert len(names) == len(set(names))
    assert not [c for c in op.cases() if c.error and not re.compile(c.error)]
