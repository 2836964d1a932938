"""What this processor offers to the kernels: how many floats in a register, how many registers."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Machine:
    """A processor, as the kernels see it.

    Attributes:
        lanes: float32 numbers in a vector register; a tile is so many images.
        registers: vector registers.
        cpu, features: LLVM's words for it.
    """

    lanes: int
    registers: int
    cpu: str
    features: str

    @property
    def accumulators(self) -> int:
        """Sums that a kernel holds in registers; the rest is for what flows by."""
        return 24 if self.registers >= 32 else 10

    @property
    def half(self) -> bool:
        """Whether it multiplies pairs of bfloat16."""
        return self.lanes >= 8 and "+avx512bf16" in self.features.split(",")

    @property
    def vector(self) -> int:
        """Bytes of a vector."""
        return 4 * self.lanes


@functools.cache
def this_machine() -> Machine:
    """The processor at hand: AVX-512 (16 lanes), AVX2 (8), else 128 bits, as NEON (4)."""
    import llvmlite.binding as llvm  # noqa: PLC0415 (60 ms, only where the native step runs)

    found = llvm.get_host_cpu_features()
    cpu, features = llvm.get_host_cpu_name(), found.flatten()
    if found.get("avx512f") and found.get("avx512vl") and found.get("avx512bw"):
        return Machine(16, 32, cpu, features)
    if found.get("avx2") and found.get("fma"):
        return Machine(8, 16, cpu, features)
    wide = platform.machine() in ("arm64", "aarch64")
    return Machine(4, 32 if wide else 16, cpu, features)


def fitting(machine: Machine, images: int, threads: int) -> Machine:
    """The processor with vectors of half their length, where batches are too small for whole ones.

    Two short vectors a cycle do what one long one does where each thread has 8 images or fewer.
    """
    if machine.lanes == 16 and images <= 8 * threads:
        return replace(machine, lanes=8)
    return machine


def narrower(machine: Machine) -> Machine:
    """The same processor held to AVX2: what its younger brothers have."""
    without = ",".join(
        word for word in machine.features.split(",") if not word.startswith("+avx512")
    )
    off = ",".join(f"-avx512{part}" for part in ("f", "vl", "bw", "dq", "cd", "bf16", "vnni"))
    return Machine(8, 16, machine.cpu, f"{without},{off}")
