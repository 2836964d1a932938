"""What this processor offers to the kernels: how many floats in a register, how many registers."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Machine:
    """A processor, as the kernels see it.

    Attributes:
        lanes: images of a tile.
        registers: vector registers.
        cpu, features: LLVM's words for it.
        wide: columns of a tile that share a vector register where they stand side by side: more
            than 1 for tiles that are smaller than a register.
    """

    lanes: int
    registers: int
    cpu: str
    features: str
    wide: int = 1

    @property
    def accumulators(self) -> int:
        """Sums that a kernel holds in registers; the rest is for what flows by."""
        return 24 if self.registers >= 32 else 10

    @property
    def amx(self) -> bool:
        """Whether it has matrices in registers, and these tiles fill them (`kernels/amx.py`)."""
        fits = self.lanes in (8, 16) and self.wide == 1
        return fits and "+amx-bf16" in self.features.split(",")

    @property
    def half(self) -> bool:
        """Whether it multiplies pairs of bfloat16."""
        return self.lanes >= 8 and "+avx512bf16" in self.features.split(",")

    @property
    def adders(self) -> bool:
        """Whether additions run beside multiply-adds, on units of their own (AMD's Zen)."""
        return self.cpu.startswith("znver")

    @property
    def whole(self) -> bool:
        """Whether vectors of 16 floats start as often as vectors of 8: not where two units of 8
        join for them (Zen 4, Intel's smaller ones)."""
        return self.cpu in WHOLE or "+avx512fp16" in self.features.split(",")

    @property
    def vector(self) -> int:
        """Bytes of one number of every image of a tile."""
        return 4 * self.lanes

    @property
    def floats(self) -> int:
        """float32 numbers in a vector register."""
        return self.lanes * self.wide


@functools.cache
def this_machine() -> Machine:
    """The processor at hand: AVX-512 (16 lanes), AVX2 (8), else 128 bits, as NEON (4)."""
    import llvmlite.binding as llvm  # noqa: PLC0415 (60 ms, only where the native step runs)

    found = llvm.get_host_cpu_features()
    cpu, features = llvm.get_host_cpu_name(), found.flatten()
    if found.get("amx-bf16") and not _may_use_amx():
        features = features.replace("+amx-bf16", "-amx-bf16")
    if found.get("avx512f") and found.get("avx512vl") and found.get("avx512bw"):
        return Machine(16, 32, cpu, features)
    if found.get("avx2") and found.get("fma"):
        return Machine(8, 16, cpu, features)
    wide = platform.machine() in ("arm64", "aarch64")
    return Machine(4, 32 if wide else 16, cpu, features)


def _may_use_amx() -> bool:
    """Linux gives a process matrices in registers once it has asked for them."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    arch_prctl, ask_for, matrices = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, ask_for, matrices) == 0


SHORT = 8  # floats of a vector where a thread has no more images
WHOLE = ("znver5", "skylake-avx512", "cascadelake", "cooperlake", "icelake-server")


def fitting(machine: Machine, images: int, threads: int) -> Machine:
    """The processor with smaller tiles, where a thread has too few images for whole ones.

    Up to 8 images a thread: vectors of 8, two of which start in a cycle where often one of 16 does.
    Up to half of that: tiles of 2 or 4 images, so that every thread has some, with several columns
    to a vector: 4 images, where vectors of 16 are whole, take those.
    """
    each = -(-images // threads)
    short = min(machine.lanes, SHORT)
    if each > short // 2:
        return replace(machine, lanes=short) if each <= short else machine
    if each <= 2:
        return replace(machine, lanes=2, wide=short // 2)
    return replace(machine, lanes=4, wide=(machine.lanes if machine.whole else short) // 4)


def narrower(machine: Machine) -> Machine:
    """The same processor held to AVX2: what its younger brothers have."""
    without = ",".join(
        word for word in machine.features.split(",") if not word.startswith(("+avx512", "+amx"))
    )
    off = ",".join(f"-avx512{part}" for part in ("f", "vl", "bw", "dq", "cd", "bf16", "vnni"))
    return Machine(8, 16, machine.cpu, f"{without},{off}")
