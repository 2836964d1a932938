"""Winograd's matrices and weights: the sums that they stand for, and what rounding they cost."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from native_kernel import MACHINES, array, compiled, kernel, noise, wide_machines, worst

from hubel.engine.native.emit import F32, PTR, Function
from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.winograd import (
    Form,
    WinogradWeights,
    applied,
    stretches,
    turned,
)

FORMS = [Form(2, 3), Form(4, 3), Form(2, 5)]
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f.patch}of{f.kernel}")


def correlated(x, w, patch):
    """The plain sums."""
    r = len(w)
    return np.array([[(x[a : a + r, b : b + r] * w).sum() for b in patch] for a in patch])


@each_form
def test_the_matrices_give_the_plain_sums(form):
    chance = np.random.default_rng(0)
    x, w = chance.standard_normal((form.n, form.n)), chance.standard_normal((form.kernel,) * 2)
    b, g, a = map(np.array, (form.input, form.weight, form.output))
    y = a @ ((g @ w @ g.T) * (b @ x @ b.T)) @ a.T
    np.testing.assert_allclose(y, correlated(x, w, range(form.patch)), rtol=0, atol=1e-13)


def test_patches_of_two_are_those_of_the_paper():
    """F(2 x 2, 3 x 3) of Lavin & Gray 2016, section 4.1, up to the signs of matching rows."""
    b, g, a = map(np.array, (Form(2, 3).input, Form(2, 3).weight, Form(2, 3).output))
    theirs_b = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    theirs_g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    np.testing.assert_array_equal(np.abs(b), np.abs(theirs_b))
    np.testing.assert_array_equal(np.abs(g), np.abs(theirs_g))
    np.testing.assert_array_equal(a, [[1, 1, 1, 0], [0, 1, -1, 1]])


def in_single(form, x, w):
    """Winograd's sums over channels, all in float32: x (C, n, n), w (C, r, r)."""
    b, g, a = (np.array(m, np.float32) for m in (form.input, form.weight, form.output))
    u = g @ w @ g.T
    v = np.einsum("ij,cjk,lk->cil", b, x, b, dtype=np.float32)
    total = np.zeros((form.n, form.n), np.float32)
    for one, other in zip(u, v, strict=True):
        total += one * other
    return a @ total @ a.T


@each_form
def test_rounding_stays_within_three_times_that_of_the_plain_sums(form):
    """Root mean squares over many patches of 32 channels; the usual points 0, +-1, +-2 lose five
    times as much and more."""
    chance = np.random.default_rng(1)
    off = {"winograd": 0.0, "plain": 0.0}
    for _ in range(60):
        x = chance.standard_normal((32, form.n, form.n)).astype(np.float32)
        w = chance.standard_normal((32, form.kernel, form.kernel)).astype(np.float32)
        places = range(form.patch)
        exact = sum(correlated(*pair, places) for pair in zip(x.astype(float), w, strict=True))
        plain = np.zeros((form.patch, form.patch), np.float32)
        for c in range(32):
            for i in range(form.kernel):
                for j in range(form.kernel):
                    plain += w[c, i, j] * x[c, i : i + form.patch, j : j + form.patch]
        off["winograd"] += np.square(in_single(form, x, w) - exact).sum()
        off["plain"] += np.square(plain - exact).sum()
    assert off["winograd"] ** 0.5 < 3 * off["plain"] ** 0.5


@each_form
@pytest.mark.parametrize("which", ["input", "weight", "output", "A", "G'"])
def test_what_rows_and_columns_have_in_common_is_added_once(form, which):
    """`applied` is the matrix, written with fewer sums where values are missing or not."""
    matrix = {"A": turned(form.output), "G'": turned(form.weight)}.get(which)
    matrix = matrix or getattr(form, which)
    machine, columns = MACHINES[0], len(matrix[0])
    for missing in (set(), {0}, {columns - 1, 1}):
        f = Function("apply", [("x", PTR), ("y", PTR)], machine.lanes)
        values = [
            None if j in missing else f.load(f.arg("x").at(4 * j), F32) for j in range(columns)
        ]
        for i, value in enumerate(applied(f, matrix, values)):
            if value is not None:
                f.store(value, f.arg("y").at(4 * i))
        x, y = noise(columns), array(len(matrix))
        compiled(f, machine)(x, y)
        there = np.array([j not in missing for j in range(columns)])
        assert worst(y, np.array(matrix) @ (x * there)) < 1e-6
        every_sum = sum(sum(map(bool, row)) for row in matrix)
        assert f.text().count("fma") + f.text().count("fadd") <= every_sum


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(FORMS), st.integers(1, 40), st.integers(0, 4), st.integers(1, 5), st.booleans()
)
def test_stretches_cover_every_column_once(form, n_in, padding, width, shorter):
    padding = min(padding, form.kernel - 1)
    n_out = n_in + 2 * padding - form.kernel + 1
    if n_out < 1:
        return
    axis = Axis(n_in, max(1, n_out - shorter), form.kernel, padding=padding)
    patches = -(-axis.n_out // form.patch)
    found, start = [], 0
    for stretch in stretches(form, axis, width, patches):
        assert stretch.start == start
        seen = [set() for _ in stretch.reads]
        for number in range(stretch.count):
            first = (stretch.start + number * width) * form.patch
            assert len(stretch.writes) == stretch.width * form.patch
            assert len(stretch.reads) == stretch.width * form.patch + form.kernel - 1
            found += [first + c for c, there in enumerate(stretch.writes) if there]
            for c, known in enumerate(seen):
                known.add(0 <= first - padding + c < n_in)
        assert stretch.reads == tuple(known.pop() if len(known) == 1 else None for known in seen)
        start += stretch.width if stretch.count == 1 else stretch.count * width
    assert found == list(range(axis.n_out))


@wide_machines
@each_form
@pytest.mark.parametrize("back", [False, True], ids=["forward", "back"])
@pytest.mark.parametrize(("out", "inside", "block"), [(1, 1, 1), (7, 5, 3), (6, 9, 2), (4, 3, 8)])
def test_transformed_weights(out, inside, block, back, form, machine):
    written, read = (inside, out) if back else (out, inside)
    block = min(block, written)
    spec = WinogradWeights(form, out, inside, back, block)
    w, u = noise(out, inside, form.kernel, form.kernel), array(spec.floats)
    call = kernel(spec, machine)
    for low, high in ((0, written // 2), (written // 2, written)):
        call(w, u, low, high)
    given_weight = w[:, :, ::-1, ::-1].swapaxes(0, 1) if back else w
    g = np.array(form.weight)
    expected = np.einsum("ai,ocij,bj->ocab", g, given_weight.astype(float), g)
    start = 0
    for first in range(0, written, block):
        size = min(block, written - first)
        part = u[start : start + size * read * form.n**2]
        start += part.size
        found = part.reshape(form.n, read, form.n, size).transpose(3, 1, 0, 2)
        assert worst(found, expected[first : first + size]) < 1e-6
    assert start == spec.floats
