"""The crew of threads: everyone once, nobody left behind, asleep and awake, forked and gone."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from native_kernel import MACHINES

from hubel.engine.native.emit import F32, F64, I64, PTR, Function, Registers
from hubel.engine.native.jit import Loaded, compile_object, module_text
from hubel.engine.native.workers import Workers, workers

MACHINE = MACHINES[0]


@pytest.fixture(scope="module")
def job():
    """job(board, thread): board[8 thread] += 1, after a while of work."""
    f = Function("job", [("board", PTR), ("thread", I64)], MACHINE.lanes, internal=False)
    place = f.arg("board").at(f.arg("thread") * 64)
    state = Registers([f.constant(1.0, F64)])
    with f.loop(0, 200, carry=state):
        state[0] = state[0] * 1.0000001
    f.store(f.load(place, I64, 8) + f.convert("fptosi", state[0], I64), place, 8)
    loaded = Loaded(compile_object(module_text([f], MACHINE), MACHINE), MACHINE, ["job"])
    yield loaded.address["job"]
    assert loaded.address


def counted(board):
    return board.reshape(-1, 8)[:, 0].tolist()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_every_thread_works_once_and_the_others_not_at_all(count, job):
    crew = Workers(count, MACHINE)
    for threads in range(1, count + 2):
        board = np.zeros(8 * (count + 2), dtype=np.int64)
        for turn in range(1, 31):
            crew.run(job, board.ctypes.data, threads)
            assert counted(board) == [turn] * threads + [0] * (count + 2 - threads)


@pytest.fixture(scope="module")
def smaller():
    """job(board, thread): board[8 thread] = half of it, as a float."""
    f = Function("job", [("board", PTR), ("thread", I64)], MACHINE.lanes, internal=False)
    place = f.arg("board").at(f.arg("thread") * 64)
    f.store(f.load(place, F32) * 0.5, place)
    loaded = Loaded(compile_object(module_text([f], MACHINE), MACHINE), MACHINE, ["job"])
    yield loaded.address["job"]
    assert loaded.address


def test_tiny_numbers_are_zero_for_all_who_work_and_for_nobody_else(smaller):
    crew, board = Workers(2, MACHINE), np.full(48, 1e-38, dtype=np.float32)
    crew.run(smaller, board.ctypes.data, 3)
    assert board[::16].tolist() == [0, 0, 0]
    assert board[1] * np.float32(0.5) > 0
    board[:] = 4e-38
    crew.run(smaller, board.ctypes.data, 3)
    assert board[::16].tolist() == pytest.approx([2e-38] * 3)


def test_sleepers_wake_up(job):
    crew, board = Workers(2, MACHINE), np.zeros(24, dtype=np.int64)
    for turn in range(1, 6):
        time.sleep(0.02)  # far longer than anyone looks for work before sleeping
        crew.run(job, board.ctypes.data, 3)
        assert counted(board) == [turn] * 3


def test_several_callers_take_turns(job):
    crew = Workers(2, MACHINE)
    boards = [np.zeros(24, dtype=np.int64) for _ in range(4)]

    def call(board):
        for _ in range(100):
            crew.run(job, board.ctypes.data, 3)

    callers = [threading.Thread(target=call, args=(board,)) for board in boards]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
    assert [counted(board) for board in boards] == [[100] * 3] * 4


def test_one_crew_a_process_and_a_number_of_threads():
    assert workers(2, MACHINE) is workers(2, MACHINE)
    assert workers(2, MACHINE) is not workers(3, MACHINE)
    assert workers(3, MACHINE).count == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_gets_a_crew_of_its_own(job):
    mine = workers(3, MACHINE)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        board = np.zeros(24, dtype=np.int64)
        crew = workers(3, MACHINE)
        crew.run(job, board.ctypes.data, 3)
        os._exit(0 if counted(board) == [1, 1, 1] and crew is not mine else 1)
    assert os.waitpid(child, 0)[1] == 0
    board = np.zeros(24, dtype=np.int64)
    mine.run(job, board.ctypes.data, 3)  # and the parent's goes on
    assert counted(board) == [1, 1, 1]


def test_a_process_ends_cleanly_while_its_crew_looks_for_work():
    script = """
        import torch
        from torch import nn
        from hubel.engine.native.plan import Aim
        from hubel.engine.native.step import compile_step
        model, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), torch.randn(200, 1, 8, 8)
        step = compile_step(model, images, aim=Aim(loss=True), threads=4)
        step.run(images, torch.zeros(200, dtype=torch.int64))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
