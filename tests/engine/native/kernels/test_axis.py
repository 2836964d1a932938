"""Which place a tap reads, against torch's own unfolding of a numbered line."""

import pytest
import torch
import torch.nn.functional as F

from hubel.engine.native.kernels.axis import Axis, runs

CASES = [
    (n, k, s, p, d)
    for n in (1, 5, 12, 17)
    for k in (1, 2, 3, 5)
    for s in (1, 2, 3)
    for p in (0, 1, 3)
    for d in (1, 2, 3)
    if p <= d * (k - 1) and n + 2 * p >= d * (k - 1) + 1
]


def made(n, k, s, p, d):
    return Axis(n, (n + 2 * p - d * (k - 1) - 1) // s + 1, k, s, p, d)


def unfolded(axis):
    """(taps, outputs): the place read, or None."""
    line = torch.arange(1.0, axis.n_in + 1).reshape(1, 1, 1, -1)
    table = F.unfold(
        line, (1, axis.kernel), (1, axis.dilation), (0, axis.padding), (1, axis.stride)
    )
    return [[int(v) - 1 if v else None for v in row] for row in table[0]]


def test_forward_reads_what_torch_unfolds():
    assert len(CASES) > 100
    for case in CASES:
        axis = made(*case)
        ours = [[axis.source(o, k) for o in range(axis.n_out)] for k in range(axis.kernel)]
        assert ours == unfolded(axis), case


def test_the_way_back_turns_every_pair_round_and_has_no_others():
    for case in CASES:
        axis = made(*case)
        pairs = {
            (k, place, out)
            for k, row in enumerate(unfolded(axis))
            for out, place in enumerate(row)
            if place is not None
        }
        back = axis.back()
        assert (back.n_in, back.n_out) == (axis.n_out, axis.n_in)
        found = {
            (k, place, back.source(place, k))
            for k in range(axis.kernel)
            for place in range(axis.n_in)
            if back.source(place, k) is not None
        }
        assert found == pairs, case


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("wide", [1, 2, 4])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7])
def test_runs_cover_every_column_once_and_read_what_the_axis_says(width, wide, turned):
    for case in CASES:
        axis = made(*case).back() if turned else made(*case)
        if wide > 1 and axis.stride > 1:
            continue
        seen = {}
        for run in runs(axis, width, wide=wide):
            for block in range(run.count):
                for j, reads in enumerate(run.reads):
                    base = run.base + block * run.step
                    first = run.start + (block * run.width + j) * wide
                    for i, there in enumerate(run.outputs[j]):
                        assert there == (first + i < axis.n_out)
                        assert first + i not in seen
                        places = [base + r.place + i if r and r.there[i] else None for r in reads]
                        if there:
                            seen[first + i] = places
                        else:
                            assert all(place is None for place in places)
        expected = {o: [axis.source(o, k) for k in range(axis.kernel)] for o in range(axis.n_out)}
        assert seen == expected, case


def test_taps_of_a_phase_are_those_that_some_output_of_it_has():
    for case in CASES:
        n, *rest = case
        wide = made(n + 40, *rest).back()  # so wide that every phase has outputs off the rim
        for phase in range(wide.phases):
            outs = range(phase, wide.n_out, wide.phases)
            used = {k for k in range(wide.kernel) for o in outs if wide.source(o, k) is not None}
            assert used <= set(wide.taps(phase)), case
            assert set(wide.taps(phase)) <= used or not used, case
