"""A training step, or an evaluation, compiled for one net on this machine.

    step = compile_step(model, images, aim=Aim(loss=True), update=Update("nesterov", "l2"))
    answer = step.run(images, labels)

The weights stay in the model's own tensors, which the machine code reads and writes in place.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from hubel.engine.native.assemble import ANSWERED, FIELDS, METER, TABLE, TOLD, Assembler, Board
from hubel.engine.native.graph import NotCovered
from hubel.engine.native.jit import Loaded, compile_object, module_text
from hubel.engine.native.join import joined
from hubel.engine.native.kernels.pointwise import DROPOUTS, Pointwise
from hubel.engine.native.kernels.update import FIGURES, Update
from hubel.engine.native.machine import Machine, fitting, this_machine
from hubel.engine.native.plan import Aim, Plan
from hubel.engine.native.read import read_graph
from hubel.engine.native.schedule import make_plan
from hubel.engine.native.waiting import MEET, WAIT
from hubel.engine.native.workers import workers
from hubel.errors import ModelError


class Answer(NamedTuple):
    """What a step found: the batch's loss and hits, the gradient's norm, the logits (N, K) or
    (N, K, H, W), and whether the optimiser's step was taken (it is not where loss or norm is not
    finite)."""

    loss: float
    hits: int
    norm: float
    logits: Tensor
    sound: bool


@dataclass
class Step:
    """A compiled step of one model.

    Attributes:
        number: of images for which it is at its fastest.
        threads: the most that work on a step.
        alone_below: multiply-adds of a step that one thread does by itself, when it has fewer.
        gradients: by parameter, written by every run.
        figures: float32 (parameters, len(FIGURES)), what the update is told; to be filled in.
    """

    plan: Plan
    board: Board
    machine: Machine
    number: int
    threads: int
    alone_below: int
    aim: Aim
    update: Update | None
    code: Loaded
    size: torch.Size
    tensors: dict[str, Tensor]
    gradients: dict[str, Tensor]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.figures = np.zeros((len(self.plan.parts), len(FIGURES)), dtype=np.float32)
        self._board = np.zeros(self.board.size + 8, dtype=np.int64)
        start = (-self._board.ctypes.data // 8) % 8
        self._board = self._board[start:]
        self._bytes = self._board.data
        self._orders = {
            p.name: torch.tensor(p.order, dtype=torch.int32) for p in self.plan.parts if p.order
        }
        self._weights = [self.tensors[name] for name in self.board.weights]
        self._pointers = struct.Struct(f"={len(self._weights)}q")
        self._macs, self._reused = self.plan.macs, self.plan.reused  # long to tell, asked each run
        self._memory = _Memory(0)
        self._mine = _Memory(self.threads * self.plan.thread_bytes)
        self._shared = _Memory(self.plan.shared_bytes)
        self._board_at = self._board.ctypes.data
        self._board[FIELDS.index("figures")] = self.figures.ctypes.data
        for name, place in self.board.orders.items():
            if name in self._orders:
                self._board[place] = self._orders[name].data_ptr()
        for name, place in self.board.gradients.items():
            self._board[place] = self.gradients[name].data_ptr()
        self._states: dict[str, tuple[Tensor, Tensor | None]] = {}

    @property
    def parameters(self) -> list[str]:
        """The parameters that get gradients, in the order of `figures`."""
        return [part.name for part in self.plan.parts]

    @functools.cached_property
    def chance(self) -> bool:
        """Whether anything hangs on the seed: dropout."""
        specs = [call.spec for phase in self.plan.phases for call in phase.calls]
        programs = [spec.program for spec in specs if isinstance(spec, Pointwise)]
        return any(word[0] in DROPOUTS for program in programs for word in program)

    def suits(self, n: int) -> bool:
        """Whether its tiles are as large as those of a step compiled for n images."""
        if n <= self.number:
            return True
        at_work = _at_work(self.threads, self.alone_below, n * self._macs)
        return self.machine.lanes >= fitting(this_machine(), n, at_work).lanes

    def run(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        scale: float | None = None,
        seed: int = 0,
        clip: float | None = None,
    ) -> Answer:
        """Forward, and what the aim asks for.

        Args:
            images: float32 (N, C, H, W).
            labels: int64 (N,), or float32 (N, K) shares, or float32 (N, 2, H, W), every pixel's
                label (below 0 for none) and weight, as the aim has it; not for outputs alone.
            scale: what each image, or pixel, weighs in the loss; 1 / N unless given.
            seed: of dropout.
            clip: largest gradient norm of an update.

        Raises `ModelError` for images or labels of another shape or kind, and, with no step taken,
        for labels that are no classes. One caller at a time; others wait.
        """
        self._look_at(images, labels)
        with self._lock:
            answer = self._run(images, labels, scale, seed, clip)
        if not math.isfinite(answer.loss):
            self._look_at_labels(labels)
        return answer

    def _run(
        self,
        images: Tensor,
        labels: Tensor | None,
        scale: float | None,
        seed: int,
        clip: float | None,
    ) -> Answer:
        n = images.shape[0]
        images, logits = images.contiguous(), torch.empty(n, *self.plan.answer)
        labels = labels if labels is None else labels.contiguous()
        tiles = self._grow(n)
        threads = max(1, min(_at_work(self.threads, self.alone_below, n * self._macs), tiles))
        TOLD.pack_into(
            self._bytes, 0, n, images.data_ptr(), 0 if labels is None else labels.data_ptr(),
            logits.data_ptr(), threads, self._memory.address, self._mine.address,
            self._shared.address, 1 / max(n, 1) if scale is None else scale, seed, clip or 0.0,
        )  # fmt: skip
        self._board[METER // 8] = 0
        # Weights may have moved since; a fork has a new crew; one thread alone need wake nobody.
        self._pointers.pack_into(self._bytes, TABLE, *[w.data_ptr() for w in self._weights])
        crew = workers(self.threads if threads > 1 else 1, self.machine)
        crew.run(self.code.address["step"], self._board_at, threads)
        loss, hits, norm, sound = ANSWERED.unpack_from(self._bytes, 8 * FIELDS.index("loss"))
        return Answer(loss, int(hits), norm, logits, bool(sound))

    def _look_at(self, images: Tensor, labels: Tensor | None) -> None:
        """The machine code takes what it is given: it is looked at before."""
        if images.shape[1:] != self.size or images.dtype != torch.float32 or not images.is_cpu:
            raise ModelError(
                f"the step was compiled for float32 images (N, {', '.join(map(str, self.size))}), "
                f"given {images.dtype} {tuple(images.shape)} on {images.device}"
            )
        if not self.aim.loss:
            return
        n, (k, *size) = images.shape[0], self.plan.answer
        parts = [2, *size] if self.aim.pixels else [k] if self.aim.shares else []
        shape, kind = (n, *parts), torch.float32 if parts else torch.int64
        if labels is None or labels.shape != shape or labels.dtype != kind or not labels.is_cpu:
            given = None if labels is None else (tuple(labels.shape), labels.dtype, labels.device)
            raise ModelError(f"labels must be {kind} {shape} on the CPU, given {given}")

    def _look_at_labels(self, labels: Tensor | None) -> None:
        """The machine code makes the loss NaN where one is no class."""
        if labels is None or self.aim.shares or not len(labels):
            return
        labels, k = labels[:, 0] if self.aim.pixels else labels, self.plan.answer[0]
        low, high = (int(end) for end in torch.aminmax(labels))
        if (low < 0 and not self.aim.pixels) or high >= k:
            raise ModelError(f"labels must lie from 0 to {k - 1}, given {low} to {high}")

    def bind(self, name: str, first: Tensor, second: Tensor | None = None) -> None:
        """The optimiser's tensors for one parameter, float32 in its shape, contiguous. They must
        stay where they are; the step holds on to them."""
        self._states[name] = (first, second)
        for tensor, place in zip((first, second), self.board.states[name], strict=True):
            self._board[place] = 0 if tensor is None else tensor.data_ptr()

    def _grow(self, n: int) -> int:
        """Room for n images; how many tiles they are."""
        all_tiles = -(-n // self.machine.lanes)
        tiles = self.threads * self.plan.tiles if self._reused else all_tiles
        if self._memory.size < tiles * self.plan.tile_bytes:
            self._memory = _Memory(tiles * self.plan.tile_bytes)
        return all_tiles


class _Memory:
    """Zeros, on a page's border; the system gives the pages as they are touched.

    Raises `NotCovered` for more than half of what is free: PyTorch halves batches that do not fit.
    """

    def __init__(self, size: int) -> None:
        free = psutil.virtual_memory().available
        if size > free // 2:
            raise NotCovered(
                f"batches of such images in the memory there is ({size / 1e9:.1f} GB of "
                f"{free / 1e9:.1f} GB free)"
            )
        self.size = size
        self._array = np.zeros(size + 4096, dtype=np.uint8)
        self.address = self._array.ctypes.data + (-self._array.ctypes.data) % 4096


def compile_step(
    model: nn.Module,
    images: Tensor,
    *,
    aim: Aim,
    update: Update | None = None,
    number: int | None = None,
    threads: int | None = None,
    machine: Machine | None = None,
    cache_folder: Path | None = None,
) -> Step:
    """Compile what `aim` asks for, for `model` as it stands (training or not).

    Args:
        images: some images, float32 (N, C, H, W). Any number can be run later.
        number: of images for which the step is at its fastest; as many as are given unless said.
        update: the optimiser's step to take as well; None leaves the gradients alone.
        threads: how many work on it, fewer only where there are fewer tiles. None takes PyTorch's
            number, and one for steps of little work.
        cache_folder: where machine code is kept between processes.

    Raises `NotCovered`, saying what stands in the way.
    """
    number = len(images) if number is None else number
    alone_below = ALONE if threads is None else 0
    threads = threads or torch.get_num_threads()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    _check(tensors, images)
    graph = joined(read_graph(model, images[:2]))
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    plan = make_plan(graph, shapes, learns, machine or this_machine(), aim, own_cache())
    if machine is None:
        at_work = _at_work(threads, alone_below, number * plan.macs)
        machine = fitting(this_machine(), number, at_work)
        if machine != this_machine():
            plan = make_plan(graph, shapes, learns, machine, aim, own_cache())
    names = [name for name, t in tensors.items() if t.dtype == torch.float32]
    board = Board.of(plan, names)
    key = _key(graph, shapes, sorted(learns), machine, aim, update, names, own_cache())
    code = _code(key, plan, board, machine, update, cache_folder)
    gradients = {part.name: torch.zeros_like(tensors[part.name]) for part in plan.parts}
    return Step(
        plan, board, machine, number, threads, alone_below, aim, update,
        Loaded(code, machine, ["step"]), images.shape[1:], tensors, gradients,
    )  # fmt: skip


ALONE = 6_000_000  # multiply-adds that one thread does sooner than several agree on them


def _at_work(threads: int, alone_below: int, macs: int) -> int:
    return 1 if macs < alone_below else threads


def _check(tensors: dict[str, Tensor], images: Tensor) -> None:
    for name, t in [*tensors.items(), ("the images", images)]:
        if t.device.type != "cpu":
            raise NotCovered(f"{name} on {t.device}")
        if t.is_floating_point() and t.dtype != torch.float32:
            raise NotCovered(f"{name} in {t.dtype}")
        if not t.is_contiguous() and name != "the images":
            raise NotCovered(f"{name} not contiguous in memory")


@functools.cache
def own_cache() -> int:
    """Bytes of a core's own second-level cache; 1 MiB where the system does not say."""
    place = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
    found = re.match(r"(\d+)K", place.read_text()) if place.exists() else None
    return int(found[1]) * 1024 if found else 1 << 20


def _key(*parts: Any) -> str:
    return hashlib.sha256(repr((parts, _sources())).encode()).hexdigest()[:32]


@functools.cache
def _sources() -> str:
    """What the machine code depends on beside its plan: the generator's own text, and LLVM's."""
    import llvmlite  # noqa: PLC0415

    here = Path(__file__).parent
    digest = hashlib.sha256(llvmlite.__version__.encode())
    for path in sorted(here.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _code(
    key: str, plan: Plan, board: Board, machine: Machine, update: Update | None, folder: Path | None
) -> bytes:
    kept = folder / f"{key}.o" if folder is not None else None
    known = _kept_code(kept) if kept is not None else None
    if known is not None:
        return known
    functions = Assembler(plan, board, machine, update).module()
    code = compile_object(module_text(functions, machine, WAIT + MEET), machine)
    if kept is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, no more
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(f".{os.getpid()}")
            part.write_bytes(hashlib.sha256(code).digest() + code)
            part.replace(kept)
    return code


def _kept_code(path: Path) -> bytes | None:
    """Machine code kept earlier, if it is whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None
