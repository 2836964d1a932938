"""The cores of this process, not of the machine."""

import os
import subprocess
import sys

import pytest
import torch

from hubel.data.cores import cores, one_thread


def test_at_least_one_and_no_more_than_the_machine_has():
    assert 1 <= cores() <= os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_a_pinned_process_counts_what_it_may_use():
    """In a process of its own, so that no other test is pinned."""
    one = min(os.sched_getaffinity(0))
    script = (
        "import os; from hubel.data.cores import cores; print(cores())\n"
        f"os.sched_setaffinity(0, [{one}]); print(cores())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert before == len(os.sched_getaffinity(0))
    assert after == 1


@pytest.mark.parametrize(("count", "expected"), [(6, 6), (None, 1)])
def test_where_no_process_is_pinned_the_machines_cores_count(monkeypatch, count, expected):
    """macOS and Windows; None where Python cannot tell."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert cores() == expected


def test_one_thread_and_as_many_as_before_after_it():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before
