"""The threads that run steps: started once, asleep between steps, theirs alone the waiting.

Each is a Python thread that goes into machine code and stays there, without the interpreter's lock.
It looks for work for some 50 microseconds after a step, as the next one is often near, then sleeps
until it is woken (on Linux by a futex; elsewhere it looks again every 50 microseconds).
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading

import numpy as np

from hubel.engine.native.jit import Loaded, compile_object
from hubel.engine.native.machine import Machine
from hubel.engine.native.tiny import TINY
from hubel.engine.native.waiting import WAIT, pause

_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if sys.platform == "linux" else None
LOOKS = 1500  # about 50 microseconds of looking before sleep

# The desk: a word to be woken by at 0; the job at 64, its board at 72, its threads at 80, its
# number at 88; from 192 on, 64 bytes a worker, the number of the job that it has finished.
_SLEEP = (
    f"%slept = call i64 (i64, ...) @syscall(i64 {_FUTEX}, ptr %desk, i64 128, i32 %seen, ptr null)"
    if _FUTEX
    else "%slept = call i32 @usleep(i32 50)"
)
_WAKE = (
    f"%woken = call i64 (i64, ...) @syscall(i64 {_FUTEX}, ptr %desk, i64 129, i32 65536)"
    if _FUTEX
    else ""
)
_TEXT = f"""
{WAIT}
{TINY}
declare i64 @syscall(i64, ...)
declare i32 @usleep(i32)

define void @work(ptr %desk, i64 %id) {{
entry:
  %jobp = getelementptr i8, ptr %desk, i64 64
  %boardp = getelementptr i8, ptr %desk, i64 72
  %threadsp = getelementptr i8, ptr %desk, i64 80
  %numberp = getelementptr i8, ptr %desk, i64 88
  %slot = mul i64 %id, 64
  %at = add i64 %slot, 128
  %donep = getelementptr i8, ptr %desk, i64 %at
  %ignored = call i64 @tiny_off()
  br label %idle
idle:
  %seen = phi i32 [ 0, %entry ], [ %gen, %finished ], [ %seen, %asleep ]
  br label %look
look:
  %spins = phi i64 [ 0, %idle ], [ %more, %wait ]
  %gen = load atomic i32, ptr %desk acquire, align 4
  %new = icmp ne i32 %gen, %seen
  br i1 %new, label %called, label %wait
wait:
  {pause()}
  %more = add i64 %spins, 1
  %long = icmp ugt i64 %more, {LOOKS}
  br i1 %long, label %asleep, label %look
asleep:
  {_SLEEP}
  br label %idle
called:
  %job = load ptr, ptr %jobp, align 8
  %board = load ptr, ptr %boardp, align 8
  %threads = load i64, ptr %threadsp, align 8
  %number = load i64, ptr %numberp, align 8
  %mine = icmp ult i64 %id, %threads
  br i1 %mine, label %do, label %finished
do:
  call void %job(ptr %board, i64 %id)
  br label %finished
finished:
  store atomic i64 %number, ptr %donep release, align 8
  br label %idle
}}

define void @run(ptr %desk, ptr %job, ptr %board, i64 %threads, i64 %workers) {{
entry:
  %jobp = getelementptr i8, ptr %desk, i64 64
  %boardp = getelementptr i8, ptr %desk, i64 72
  %threadsp = getelementptr i8, ptr %desk, i64 80
  store ptr %job, ptr %jobp, align 8
  store ptr %board, ptr %boardp, align 8
  store i64 %threads, ptr %threadsp, align 8
  %numberp = getelementptr i8, ptr %desk, i64 88
  %last = load i64, ptr %numberp, align 8
  %number = add i64 %last, 1
  store i64 %number, ptr %numberp, align 8
  %before = atomicrmw add ptr %desk, i32 1 seq_cst
  {_WAKE}
  %tiny = call i64 @tiny_off()
  call void %job(ptr %board, i64 0)
  call void @tiny_as(i64 %tiny)
  br label %each
each:
  %id = phi i64 [ 1, %entry ], [ %next, %ready ]
  %left = icmp ule i64 %id, %workers
  br i1 %left, label %ready, label %over
ready:
  %slot = mul i64 %id, 64
  %at = add i64 %slot, 128
  %donep = getelementptr i8, ptr %desk, i64 %at
  call void @wait(ptr %donep, i64 %number)
  %next = add i64 %id, 1
  br label %each
over:
  ret void
}}
"""


class Workers:
    """A crew of threads. `run` is for one caller at a time; others wait."""

    def __init__(self, count: int, machine: Machine) -> None:
        code = Loaded(compile_object(_TEXT, machine), machine, ["work", "run"])
        self._code = code
        self._desk = np.zeros(16 + 8 * (count + 2), dtype=np.int64)
        desk = self._desk.ctypes.data
        self._desk_at = desk + (-desk) % 64
        self._entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address["work"])
        self._run = ctypes.CFUNCTYPE(
            None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
        )(code.address["run"])
        self._lock = threading.Lock()
        self.count = count
        for number in range(1, count + 1):
            threading.Thread(
                target=self._work, args=(number,), name=f"hubel-{number}", daemon=True
            ).start()

    def _work(self, number: int) -> None:
        """A thread's life. It holds on to the crew: its code and desk must outlast it."""
        self._entry(self._desk_at, number)

    def run(self, address: int, board: int, threads: int) -> None:
        """Run machine code on `threads` threads (this one is one of them), until all are done."""
        with self._lock:
            self._run(self._desk_at, address, board, threads, self.count)


_crews: dict[int, Workers] = {}
_making = threading.Lock()


def workers(threads: int, machine: Machine) -> Workers:
    """The crew of this process with that many threads, the caller's included.

    A forked process has none of its parent's threads: it gets a crew of its own.
    """
    if threads not in _crews:
        with _making:
            if threads not in _crews:
                _crews[threads] = Workers(threads - 1, machine)
    return _crews[threads]


def _forget() -> None:
    global _making  # noqa: PLW0603 (held, perhaps, by a thread that the child has not)
    _making = threading.Lock()
    _crews.clear()


os.register_at_fork(after_in_child=_forget)
