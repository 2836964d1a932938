"""Several processes (`torchrun`): who am I, how gradients and sums meet. One process needs none."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hubel.errors import OptionError


@dataclass(frozen=True)
class Crew:
    """This process among its like: number `rank` of `world`, computing on `device`."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """The one process that writes and speaks."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, its gradients averaged over the crew as they are made."""
        if self.world == 1:
            return model
        return DistributedDataParallel(model)

    def total(self, sums: Tensor) -> Tensor:
        """`sums` added over the crew."""
        if self.world > 1:
            shared = sums.to(self.device)
            dist.all_reduce(shared)
            return shared.to(sums.device)
        return sums

    def average(self, tensors: list[Tensor]) -> None:
        """Every tensor becomes its mean over the crew, in one exchange."""
        if self.world > 1 and tensors:
            whole = torch.cat([t.reshape(-1) for t in tensors])
            dist.all_reduce(whole)
            whole /= self.world
            means = torch.split(whole, [t.numel() for t in tensors])
            for tensor, mean in zip(tensors, means, strict=True):
                tensor.copy_(mean.view_as(tensor))

    def spread(self, tensors: list[Tensor]) -> None:
        """Every tensor becomes what it is in the first process (running statistics)."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def any(self, flag: bool) -> bool:
        """Whether anyone's flag is up; all of the crew get the same answer."""
        return flag if self.world == 1 else bool(self.total(torch.tensor(float(flag))) > 0)

    def meet(self) -> None:
        """Wait for the others: what one of them wrote is there for all."""
        if self.world > 1:
            dist.barrier()


def join(device: str = "auto") -> Crew:
    """The crew of this process: alone, or as `torchrun` says (RANK, WORLD_SIZE, LOCAL_RANK)."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Crew(0, 1, choose_device(device))
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        # Kept for the process's next training: a group that is left cannot be joined anew, for the
        # launcher's store still has the addresses of the first.
        atexit.register(dist.destroy_process_group)
    return Crew(dist.get_rank(), dist.get_world_size(), chosen)


def choose_device(name: str) -> torch.device:
    """CUDA where there is one, else the CPU, for "auto". Raises `OptionError` for what is not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        here = "auto, cpu" + (", cuda" if torch.cuda.is_available() else "")
        raise OptionError(f"device {name!r} is not here: allowed on this machine: {here}") from None
    return device
