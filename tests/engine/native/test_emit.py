"""What the pen writes, compiled and run, against Python's and NumPy's own arithmetic."""

import struct

import numpy as np
import pytest
from native_kernel import MACHINES, array, compiled, every_machine, like, noise

from hubel.engine.native.emit import F32, F64, I32, I64, PTR, Function, Registers, literal


def whole_numbers(write, *given):
    """What a function of whole numbers gives."""
    names = [f"a{i}" for i in range(len(given))]
    f = Function("f", [*((n, I64) for n in names), ("y", PTR)], MACHINES[0].lanes)
    f.store(f.as_value(write(f, *map(f.arg, names)), I64), f.arg("y"), 8)
    answer = array(1, dtype=np.int64)
    compiled(f, MACHINES[0])(*given, answer)
    return int(answer[0])


@pytest.mark.parametrize(
    "rule",
    [
        lambda a, b: a + b * 3 - 7,
        lambda a, b: 100 - a,
        lambda a, b: 5 * a + 0,
        lambda a, b: (a + 50) // (b + 50) + (a + 50) % 7,
        lambda a, b: (a & b) | (a ^ 12),
    ],
)
def test_whole_numbers_as_python_has_them(rule):
    for a, b in [(0, 0), (17, 5), (-3, 8), (40, -9)]:
        assert whole_numbers(lambda f, x, y: rule(x, y), a, b) == rule(a, b)


def test_smaller_larger_and_comparisons():
    for a, b in [(1, 2), (2, 1), (-5, 5), (3, 3)]:
        assert whole_numbers(lambda f, x, y: f.smaller(x, y), a, b) == min(a, b)
        assert whole_numbers(lambda f, x, y: f.larger(x, y), a, b) == max(a, b)
        for write, expected in [
            (lambda x, y: x < y, a < b), (lambda x, y: x > y, a > b), (lambda x, y: x <= y, a <= b),
            (lambda x, y: x >= y, a >= b), (lambda x, y: x.equals(y), a == b),
        ]:  # fmt: skip
            got = whole_numbers(lambda f, x, y, w=write: f.convert("zext", w(x, y), I64), a, b)
            assert got == int(expected)
    f = Function("f", [], 8)
    assert (f.smaller(3, 4), f.larger(3, 4)) == (3, 4)  # known at once: nothing is written
    assert "\n  ret" in f.text()
    assert "select" not in f.text()


@pytest.mark.parametrize("step", [0, -2])
def test_a_loop_that_would_never_end_is_not_written(step):
    f = Function("f", [], 8)
    with pytest.raises(ValueError, match=f"a loop by {step} would never end"), f.loop(0, 9, step):
        pass


def test_loops_carry_registers_and_nest():
    def fibonacci(f, n):
        state = Registers([f.constant(0, I64), f.constant(1, I64)])
        with f.loop(0, n, carry=state):
            state[0], state[1] = state[1], state[0] + state[1]
        return state[0]

    assert [whole_numbers(fibonacci, n) for n in (0, 1, 2, 10)] == [0, 1, 1, 55]

    def pairs(f, n):
        state = Registers([f.constant(0, I64)])
        with f.loop(2, n, 3, state) as i, f.loop(i, n, carry=state) as j:
            with f.when((i + j) % 2 > 0):
                f.store(i, f.arg("y"), 8)  # only what follows leaves a value
            state[0] = state[0] + i * j
        return state[0]

    for n in (0, 2, 3, 11):
        assert whole_numbers(pairs, n) == sum(i * j for i in range(2, n, 3) for j in range(i, n))


def test_when_runs_only_where_true():
    def write(f, n):
        f.store(f.constant(1, I64), f.arg("y"), 8)
        with f.when(n > 3):
            f.store(f.constant(2, I64), f.arg("y"), 8)
        return f.load(f.arg("y"), I64, 8)

    assert [whole_numbers(write, n) for n in (3, 4)] == [1, 2]


def on_vectors(machine, write, *given):
    """What a function of vectors gives."""
    names = [f"a{i}" for i in range(len(given))]
    f = Function("f", [*((n, PTR) for n in names), ("y", PTR)], machine.lanes)
    f.store(write(f, *[f.load(f.arg(n)) for n in names]), f.arg("y"))
    answer = array(machine.lanes)
    compiled(f, machine)(*given, answer)
    return answer


@every_machine
def test_vectors_as_numpy_has_them(machine):
    a, b, c = (noise(machine.lanes, seed=s) for s in range(3))
    for rule in (
        lambda a, b, c: a + b * c,
        lambda a, b, c: a * 0.1 - b / c,
        lambda a, b, c: 1.0 - a,
        lambda a, b, c: 2.0 / b,
    ):
        ours = on_vectors(machine, lambda f, x, y, z, r=rule: r(x, y, z), a, b, c)
        np.testing.assert_array_equal(ours, rule(a, b, c).astype(np.float32))
    fused = on_vectors(machine, lambda f, x, y, z: f.fma(x, y, z), a, b, c)
    exact = (a.astype(np.float64) * b + c).astype(np.float32)
    assert np.abs(fused - exact).max() <= np.spacing(np.float32(4))
    roots = on_vectors(machine, lambda f, x: f.root(f.size_of(x)), a)
    np.testing.assert_array_equal(roots, np.sqrt(np.abs(a)))
    half = like(np.array([0.5, 1.5, -2.5, 3.4] * (machine.lanes // 4)))
    np.testing.assert_array_equal(
        on_vectors(machine, lambda f, x: f.nearest(x), half), np.rint(half)
    )


@every_machine
def test_a_scalar_meets_a_vector_in_every_lane(machine):
    x = noise(machine.lanes)
    first = x[0]
    for rule in (lambda s, v: s * v, lambda s, v: v - s, lambda s, v: s - v):
        ours = on_vectors(machine, lambda f, v, r=rule: r(f.lane(v, 0), v), x)
        np.testing.assert_array_equal(ours, rule(first, x))


@every_machine
def test_comparisons_are_false_at_nan_and_uno_finds_it(machine):
    x = like(np.array([np.nan, 1.0, -1.0, np.inf] * (machine.lanes // 4)))
    for how, rule in [
        ("lt", np.less), ("gt", np.greater), ("le", np.less_equal), ("ge", np.greater_equal),
        ("eq", np.equal), ("uno", lambda v, _: np.isnan(v)),
    ]:  # fmt: skip
        ours = on_vectors(
            machine, lambda f, v, h=how: f.select(f.compare(h, v, 1.0), f.constant(1.0), 0.0), x
        )
        np.testing.assert_array_equal(ours, rule(x, np.float32(1)).astype(np.float32), how)


@every_machine
def test_lanes_are_added_shuffled_and_spread(machine):
    lanes = machine.lanes
    x, y = noise(lanes), noise(lanes, seed=1)
    total = on_vectors(machine, lambda f, v: f.spread(f.lane_sum(v)), x)
    np.testing.assert_allclose(total, np.full(lanes, x.astype(np.float64).sum()), rtol=1e-5)
    rows = noise(lanes, lanes, seed=2)
    sums = on_vectors(machine, lambda f, *vs: f.lane_sums(list(vs)), *rows)
    one_by_one = [on_vectors(machine, lambda f, v: f.spread(f.lane_sum(v)), r)[0] for r in rows]
    np.testing.assert_array_equal(sums, one_by_one)
    picks = [(7 * i + 3) % (2 * lanes) for i in range(lanes)]
    ours = on_vectors(machine, lambda f, v, w: f.shuffle(v, w, picks), x, y)
    np.testing.assert_array_equal(ours, np.concatenate([x, y])[picks])


@every_machine
def test_only_masked_lanes_are_read_and_written(machine):
    lanes = machine.lanes
    f = Function("f", [("x", PTR), ("y", PTR), ("n", I64)], lanes)
    mask = f.first(f.arg("n"))
    f.store_some(f.load_some(f.arg("x"), mask, 5.0) + 1.0, f.arg("y"), mask)
    call = compiled(f, machine)
    x = noise(lanes)
    for n in (-(1 << 40), -1, 0, 1, lanes - 1, lanes, lanes + 1, 1 << 40):
        y = array(lanes)
        call(x, y, n)
        there = min(max(n, 0), lanes)
        np.testing.assert_array_equal(y[:there], x[:there] + 1)
        assert not y[there:].any()


@pytest.mark.parametrize("number", [0.1, -3.25, 1e-45, 1e30, float("inf"), -0.0])
def test_literals_are_the_float_next_to_the_number(number):
    word = literal(F32, number)
    back = struct.unpack("d", struct.pack("Q", int(word, 16)))[0]
    assert back == float(np.float32(number))
    assert np.signbit(back) == np.signbit(number)
    exact = struct.unpack("d", struct.pack("Q", int(literal(F64, number), 16)))[0]
    assert exact == number


def test_literals_of_vectors_and_whole_numbers():
    assert literal(I32, 7) == "7"
    assert literal("i1", 1) == "true"
    assert literal("<2 x i32>", 3) == "<i32 3, i32 3>"


def test_numbers_are_carried_from_one_type_to_another():
    def write(f, n):
        wide = f.convert("sitofp", n, F64)
        third = f.convert("fptrunc", wide / 3.0, F32)
        return f.convert("fptosi", f.convert("fpext", third, F64) * 3e6, I64)

    assert whole_numbers(write, 10) == int(np.float64(np.float32(10 / 3)) * 3e6)
