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
import ctypes
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
import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from contenders.graph_walk import DECAY, MOMENTUM, RATE
from contenders.step_nets import CASES, Case, build
from torch import Tensor, nn

from hubel.engine.native import jit
from hubel.engine.native.emit import I64, PTR, Function, Registers
from hubel.engine.native.kernels.correlate import Correlate
from hubel.engine.native.kernels.update import FIGURES, Update
from hubel.engine.native.kernels.weight_gradient import WeightGradient
from hubel.engine.native.kernels.winograd_correlate import WinogradCorrelate
from hubel.engine.native.kernels.winograd_gradient import WinogradGradient
from hubel.engine.native.kernels.writers import WRITERS
from hubel.engine.native.machine import Machine, this_machine
from hubel.engine.native.plan import Aim, Buffer
from hubel.engine.native.step import Step, compile_step

mpl.use("Agg")
from matplotlib import pyplot as plt

Multiplies = Correlate | WeightGradient | WinogradCorrelate | WinogradGradient
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
    peak = fma_peak(this_machine())
    found["peak_gflops_one_core"] = peak
    print(f"multiply-adds on registers: {peak:.0f} GFLOP/s a core")
    rows = []
    for name in words.cases:
        found["cases"][name] = race(CASES[name], words.rounds, words.contenders)
        rows.append(_row(name, found["cases"][name], peak * words.threads))
    heads = ("", "native, ms", "of peak", "as defined", *words.contenders[1:], "bf16 / native bf16")
    common.table(f"one training step, {words.threads} threads: others / native", heads, rows)
    found["kernels"] = {net: kernels(CASES[net], peak) for net in words.kernels}
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
        draw(found["kernels"], peak, words.results / f"{name}.png")


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
    labels = torch.randint(0, 10, (case.batch,))
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
    aim, update = Aim(loss=True, half=half), Update("nesterov", "l2")
    step = compile_step(net, images, aim=aim, update=update, machine=machine, cache_folder=folder)
    for name in step.parameters:
        step.bind(name, torch.zeros_like(step.tensors[name]))
    told = {"rate": RATE, "momentum": MOMENTUM, "decay": DECAY, "warm1": 1.0, "warm2": 1.0}
    step.figures[:] = [told.get(word, 0.0) for word in FIGURES]
    return step


def _native(
    net: nn.Module, images: Tensor, labels: Tensor, half: bool = False
) -> Callable[[], object]:
    return functools.partial(compiled(net, images, half=half).run, images, labels)


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


# ---- the roof


def fma_peak(machine: Machine) -> float:
    """GFLOP/s of one core on chains of multiply-adds that never leave the registers."""
    f = Function("chains", [("y", PTR), ("n", I64)], machine.lanes, internal=False)
    chains = 16 if machine.registers >= 32 else 10
    sums = Registers([f.load(f.arg("y").at(i * machine.vector)) for i in range(chains)])
    a, b = f.load(f.arg("y")), f.load(f.arg("y").at(machine.vector))
    with f.loop(0, f.arg("n"), carry=sums):
        for i in range(chains):
            sums[i] = f.fma(sums[i], a, b)
    for i in range(chains):
        f.store(sums[i], f.arg("y").at(i * machine.vector))
    run = _loaded(f, machine, [ctypes.c_void_p, ctypes.c_int64])
    y = np.full(16 * machine.lanes, 0.5, np.float32)
    turns = 2_000_000
    best = min(_seconds(lambda: run(y.ctypes.data, turns)) for _ in range(7))
    return 2 * chains * machine.lanes * turns / best / 1e9


def _loaded(f: Function, machine: Machine, kinds: Sequence[Any]) -> Callable[..., None]:
    f.internal = False
    code = jit.compile_object(jit.module_text([f], machine), machine)
    loaded = jit.Loaded(code, machine, [f.name])
    call = ctypes.CFUNCTYPE(None, *kinds)(loaded.address[f.name])

    def run(*given: Any) -> None:
        assert loaded is not None  # the code lives as long as this does
        call(*given)

    return run


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def kernels(case: Case, peak: float) -> list[dict[str, Any]]:
    """Every kernel of the case that multiplies, alone on warm data: GFLOP/s and FLOP a byte."""
    machine = this_machine()
    images = torch.zeros(2, case.channels, case.side, case.side)
    step = compiled(build(case), images, machine=machine)
    found: dict[Any, dict[str, Any]] = {}
    for phase in step.plan.phases:
        for call in phase.calls:
            if isinstance(call.spec, Multiplies) and call.spec not in found:
                sizes = [a.size(machine) for a in call.arguments if isinstance(a, Buffer)]
                scratch = getattr(call.spec, "scratch", lambda machine: 0)(machine)
                found[call.spec] = _kernel(call.spec, sum(sizes) - scratch, machine, peak)
    rows = [
        (k["what"], f"{k['gflops']:.0f}", f"{k['of_peak']:.0%}", f"{k['as_defined']:.0f}")
        for k in found.values()
    ]
    heads = ("", "GFLOP/s", "of peak", "as defined")
    common.table(f"kernels of {case.net}, one core", heads, rows)
    return list(found.values())


def _kernel(spec: Multiplies, moved: int, machine: Machine, peak: float) -> Any:
    f = WRITERS[type(spec)]("kernel", spec, machine)
    room = np.zeros(64 << 18, np.float32)
    area = room.nbytes // 10 // 4096 * 4096
    places = [room.ctypes.data + n * area for n in range(9)]
    given, kinds = [], []
    for name, kind in f.arguments:
        kinds.append(ctypes.c_void_p if kind == PTR else ctypes.c_int64)
        given.append(places[len(given)] if kind == PTR else {"r0": 0, "r1": _rows_done(spec)}[name])
    run = _loaded(f, machine, kinds)
    flop = 2.0 * getattr(spec, "products", spec.macs) * machine.lanes
    times = max(1, int(2e9 / flop))
    best = min(_seconds(lambda: [run(*given) for _ in range(times)]) for _ in range(5)) / times
    return {
        "what": _named(spec), "gflops": flop / best / 1e9, "of_peak": flop / best / 1e9 / peak,
        "flop_per_byte": flop / moved, "as_defined": 2.0 * spec.macs * machine.lanes / best / 1e9,
    }  # fmt: skip


def _rows_done(spec: Multiplies) -> int:
    if isinstance(spec, WinogradCorrelate):
        return spec.patches[0]
    return spec.rows.n_out // (2 if getattr(spec, "pool", False) else 1)


def _named(spec: Multiplies) -> str:
    a, b = spec.rows, spec.columns
    sizes = f"{spec.cin} to {spec.cout}, {a.kernel}x{b.kernel}, {a.n_in}x{b.n_in}"
    if isinstance(spec, (WinogradCorrelate, WinogradGradient)):
        sizes += f", patches of {spec.form.patch}"
    if isinstance(spec, (WeightGradient, WinogradGradient)):
        return f"weight gradient, {sizes}"
    if isinstance(spec, WinogradCorrelate):  # the same kernel both ways, but for what follows it
        back = not (spec.bias or spec.relu or spec.sums or spec.pool)
    else:
        back = a.transposed
    return f"{'input gradient' if back else 'forward'}, {sizes}"


def draw(nets: dict[str, list[dict[str, Any]]], peak: float, path: Path) -> None:
    """The roof over the kernels: GFLOP/s against FLOP a byte of the maps read and written."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for net, points in nets.items():
        x, y = ([p[word] for p in points] for word in ("flop_per_byte", "gflops"))
        dots = axes.scatter(x, y, label=net, s=28)
        defined, colour = [p["as_defined"] for p in points], dots.get_facecolor()
        axes.scatter(x, defined, s=28, facecolor="none", edgecolor=colour)
        axes.vlines(x, y, defined, color=colour, linewidth=0.8)
    axes.axhline(peak, color="black", linewidth=1)
    axes.annotate(f"multiply-adds on registers: {peak:.0f}", (2, peak), (3, 3),
                  textcoords="offset points", fontsize=9)  # fmt: skip
    axes.set(xscale="log", xlabel="FLOP for each byte of the maps", ylabel="GFLOP/s, one core",
             xlim=(2, 200))  # fmt: skip
    axes.set_ylim(0, 1.15 * max(p["as_defined"] for points in nets.values() for p in points))
    label = "as the layer is defined (Winograd's form multiplies less)"
    axes.scatter([], [], facecolor="none", edgecolor="grey", s=28, label=label)
    figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(path, dpi=150)
    print(f"drawn: {path.name}")


def compiling(case: Case) -> tuple[float, float]:
    """Seconds from the net to a step that is ready: the first time, and with code that was kept."""
    images = torch.zeros(case.batch, case.channels, case.side, case.side)
    with tempfile.TemporaryDirectory() as folder:
        nets = [build(case) for _ in range(2)]
        new, kept = (_seconds(functools.partial(compiled, n, images, Path(folder))) for n in nets)
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
    labels = torch.randint(0, 10, (case.batch,))
    net = build(case)
    before = _peak_mib()
    if who == "native":
        step = functools.partial(compiled(net, images, common.cache()).run, images, labels)
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
