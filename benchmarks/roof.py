"""The roof over the native step: what a core can do, each kernel's share of it, and the picture."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import matplotlib as mpl
import numpy as np

from hubel.engine.native import jit
from hubel.engine.native.emit import I64, PTR, Function, Registers
from hubel.engine.native.kernels.correlate import Correlate
from hubel.engine.native.kernels.weight_gradient import WeightGradient
from hubel.engine.native.kernels.winograd_correlate import WinogradCorrelate
from hubel.engine.native.kernels.winograd_gradient import WinogradGradient
from hubel.engine.native.kernels.writers import WRITERS
from hubel.engine.native.machine import Machine
from hubel.engine.native.plan import Buffer, Plan

mpl.use("Agg")
from matplotlib import pyplot as plt

Multiplies = Correlate | WeightGradient | WinogradCorrelate | WinogradGradient


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
    best = min(seconds(lambda: run(y.ctypes.data, turns)) for _ in range(7))
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


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def kernels(net: str, plan: Plan, machine: Machine, peak: float) -> list[dict[str, Any]]:
    """Every kernel of a plan that multiplies, alone on warm data: GFLOP/s and FLOP a byte."""
    found: dict[Any, dict[str, Any]] = {}
    for phase in plan.phases:
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
    common.table(f"kernels of {net}, one core", heads, rows)
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
    best = min(seconds(lambda: [run(*given) for _ in range(times)]) for _ in range(5)) / times
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
