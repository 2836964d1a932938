"""The native step against PyTorch: whole training steps, in turns; and how near it is to the roof.

  native          hubel's compiled step, SGD with Nesterov momentum and weight decay in it
  native bf16     the same with its convolutions in bfloat16, where the processor has that
  eager           PyTorch as it comes: NCHW, float32, torch.optim.SGD(foreach)
  channels-last   the same in the other memory layout
  bf16            channels-last under bfloat16 autocast
  jax             jax.jit of the same net in NHWC; where jax is installed
  tensorflow      tf.function of the same (with oneDNN); where tensorflow is installed
  tinygrad        TinyJit of the same in NCHW; where tinygrad and clang are installed

Random images and labels, the same for all; every contender trains its own copy. --threads is told
to hubel, PyTorch and TensorFlow; JAX and tinygrad take the cores that the process may use
(taskset). Beside times: the processor's own peak (multiply-adds on registers alone), each kernel's
share of it, a picture of the roof, what compiling takes, new and kept, and the memory of a process
of its own for each (its peak above what it had before the first step). "Of peak" counts the
multiply-adds that are done, "as defined" those of the layers' definitions: a convolution in
Winograd's form does fewer.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import roof
import torch
import torch.nn.functional as F
from contenders.graph_walk import DECAY, MOMENTUM, RATE
from contenders.step_nets import CASES, Case, UNet, build
from roof import seconds
from torch import Tensor, nn

from hubel.engine.native.kernels.update import FIGURES, Update
from hubel.engine.native.machine import Machine, this_machine
from hubel.engine.native.plan import Aim
from hubel.engine.native.step import Step, compile_step

OTHERS = ("jax", "tensorflow", "tinygrad")
PACKAGES = ("llvmlite", "jax", "tensorflow-cpu", "tinygrad")
CONTENDERS = ("native", "native bf16", "eager", "channels-last", "bf16", *OTHERS)


def main(argv: Sequence[str] | None = None) -> None:
    """Race, weigh, draw, write."""
    words = _words(argv)
    torch.set_num_threads(words.threads)
    if words.one:
        print(weight(*words.one))
        return
    found: dict[str, Any] = {"threads": words.threads, "cases": {}}
    peak = roof.fma_peak(this_machine())
    found["peak_gflops_one_core"] = peak
    print(f"multiply-adds on registers: {peak:.0f} GFLOP/s a core")
    rows = []
    for name in words.cases:
        found["cases"][name] = race(CASES[name], words.rounds, words.contenders)
        rows.append(_row(name, found["cases"][name], peak * words.threads))
    heads = ("", "native, ms", "of peak", "as defined", *words.contenders[1:], "bf16 / native bf16")
    common.table(f"one training step, {words.threads} threads: others / native", heads, rows)
    found["kernels"] = {name: _kernels(CASES[name], peak) for name in words.kernels}
    found["compiling_seconds"] = {name: compiling(CASES[name]) for name in words.cases}
    common.table(
        "compiling, seconds", ("", "new", "kept"),
        [(n, f"{a:.2f}", f"{b:.2f}") for n, (a, b) in found["compiling_seconds"].items()],
    )  # fmt: skip
    found["mib"] = {n: {who: weighed(who, n) for who in _WEIGHED} for n in words.weigh}
    common.table(
        "memory of the steps, MiB", ("", *_WEIGHED),
        [(n, *(f"{of[who]:.0f}" for who in _WEIGHED)) for n, of in found["mib"].items()],
    )  # fmt: skip
    name = f"native-{words.threads}"
    common.write(words.results, name, found, packages=PACKAGES)
    if found["kernels"]:
        roof.draw(found["kernels"], peak, words.results / f"{name}.png")


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=_there())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--kernels", nargs="*", choices=CASES, default=["lenet5, batch 64", "resnet20, batch 128"]
    )
    parser.add_argument("--weigh", nargs="*", choices=CASES, default=["lenet5, batch 512"])
    parser.add_argument("--one", nargs=2, metavar=("WHO", "CASE"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _there() -> list[str]:
    """All contenders that this machine has."""
    absent = set() if this_machine().half else {"native bf16"}
    absent |= {who for who in OTHERS if importlib.util.find_spec(who) is None}
    if shutil.which("clang") is None:
        absent.add("tinygrad")
    return [who for who in CONTENDERS if who not in absent]


def _row(name: str, found: dict[str, Any], peak: float) -> tuple[str, ...]:
    ours = found["milliseconds"]["native"]
    shares = [found[word] / ours["median"] * 1e3 / peak for word in ("gflop_done", "gflop")]
    ratios = [f"{found['others_against_native'][w]['median']:.2f}" for w in found["others"]]
    halves = found["bf16_against_native_bf16"]
    ratios.append(common.shown(halves, ".2f") if halves else "")
    return (name, common.shown(ours, ".2f"), *(f"{s:.0%}" for s in shares), *ratios)


# ---- whole steps


def race(case: Case, rounds: int, contenders: Sequence[str]) -> dict[str, Any]:
    """Milliseconds a step of every contender, and ratios round by round."""
    images = torch.randn(case.batch, case.channels, case.side, case.side)
    labels = case.labels()
    steps = {who: _WAYS[who](build(case), images, labels) for who in contenders}
    laps = common.in_turns({who: _timed(step) for who, step in steps.items()}, rounds)
    others = [who for who in contenders if who != "native"]
    defined, done = _flop(case)
    return {
        "milliseconds": {who: common.summary(t * 1e3 for t in ts) for who, ts in laps.items()},
        "others": others,
        "others_against_native": {who: common.ratio(laps[who], laps["native"]) for who in others},
        "bf16_against_native_bf16": common.ratio(laps["bf16"], laps["native bf16"])
        if {"bf16", "native bf16"} <= laps.keys()
        else None,
        "gflop": defined / 1e9,
        "gflop_done": done / 1e9,
    }


def _timed(step: Callable[[], object], seconds: float = 0.15) -> Callable[[], float]:
    """Seconds of a step, the mean over as many as fill `seconds`."""
    step()
    start = time.perf_counter()
    step()
    times = max(1, int(seconds / (time.perf_counter() - start)))

    def lap() -> float:
        start = time.perf_counter()
        for _ in range(times):
            step()
        return (time.perf_counter() - start) / times

    return lap


def compiled(
    net: nn.Module,
    images: Tensor,
    folder: Path | None = None,
    half: bool = False,
    machine: Machine | None = None,
) -> Step:
    """The native step of a net, its optimiser bound."""
    aim = Aim(loss=True, half=half, pixels=isinstance(net, UNet))
    update = Update("nesterov", "l2")
    step = compile_step(net, images, aim=aim, update=update, machine=machine, cache_folder=folder)
    for name in step.parameters:
        step.bind(name, torch.zeros_like(step.tensors[name]))
    told = {"rate": RATE, "momentum": MOMENTUM, "decay": DECAY, "warm1": 1.0, "warm2": 1.0}
    step.figures[:] = [told.get(word, 0.0) for word in FIGURES]
    return step


def _native(
    net: nn.Module, images: Tensor, labels: Tensor, half: bool = False, folder: Path | None = None
) -> Callable[[], object]:
    step = compiled(net, images, folder, half)
    if labels.ndim == 1:
        return functools.partial(step.run, images, labels)

    def run() -> object:
        told = torch.stack([labels.float(), torch.ones(labels.shape)], dim=1)
        return step.run(images, told, scale=1 / labels.numel())

    return run


def _torch(
    net: nn.Module, images: Tensor, labels: Tensor, last: bool = False, bf16: bool = False
) -> Callable[[], object]:
    if last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(net(images).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def _jax(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    from contenders.jax_nets import jax_step

    return jax_step(net, images.numpy(), labels.numpy())


def _tensorflow(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    from contenders.tf_nets import tf_step

    return tf_step(net, images.numpy(), labels.numpy())


def _tinygrad(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    from contenders.tinygrad_nets import tinygrad_step

    return tinygrad_step(net, images.numpy(), labels.numpy())


_WAYS = {
    "native": _native,
    "native bf16": functools.partial(_native, half=True),
    "eager": _torch,
    "channels-last": functools.partial(_torch, last=True),
    "bf16": functools.partial(_torch, last=True, bf16=True),
    "jax": _jax,
    "tensorflow": _tensorflow,
    "tinygrad": _tinygrad,
}


def _flop(case: Case) -> tuple[float, float]:
    """Floating-point operations of a step in the kernels that multiply, padding left out: those
    that the net is defined by, and those that are done: Winograd's form takes fewer."""
    images = torch.zeros(case.batch, case.channels, case.side, case.side)
    plan = compiled(build(case), images).plan
    return 2 * plan.macs * case.batch, 2 * plan.products * case.batch


def _kernels(case: Case, peak: float) -> list[dict[str, Any]]:
    """With whole tiles, as large batches have them."""
    machine, images = this_machine(), torch.zeros(2, case.channels, case.side, case.side)
    plan = compiled(build(case), images, machine=machine).plan
    return roof.kernels(case.net, plan, machine, peak)


# ---- compiling and memory


def compiling(case: Case) -> tuple[float, float]:
    """Seconds from the net to a step that is ready: the first time, and with code that was kept."""
    images = torch.zeros(case.batch, case.channels, case.side, case.side)
    with tempfile.TemporaryDirectory() as folder:
        nets = [build(case) for _ in range(2)]
        new, kept = (seconds(functools.partial(compiled, n, images, Path(folder))) for n in nets)
    return new, kept


_WEIGHED = ("native", "eager", "channels-last")


def weighed(who: str, case: str) -> float:
    """MiB that a contender's steps take, in a process of its own. The native step's machine code
    is there already, as it is from the second training on."""
    command = [sys.executable, __file__, "--one", who, case]
    command += ["--threads", str(torch.get_num_threads())]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)]
    return float(runs[-1].stdout.splitlines()[-1])


def weight(who: str, name: str) -> float:
    """The peak of this process's memory over ten steps, above what it had before, in MiB."""
    case = CASES[name]
    images = torch.randn(case.batch, case.channels, case.side, case.side)
    labels = case.labels()
    net = build(case)
    before = _peak_mib()
    if who == "native":
        step = _native(net, images, labels, folder=common.cache())
    else:
        step = _WAYS[who](net, images, labels)
    for _ in range(10):
        step()
    return _peak_mib() - before


def _peak_mib() -> float:
    """Resident memory of this process at its highest, by Linux's account."""
    line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert line is not None
    return int(line[1]) / 1024


if __name__ == "__main__":
    main()
