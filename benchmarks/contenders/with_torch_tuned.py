"""The plain script by somebody who tried what PyTorch offers: memory layout, bfloat16,
torch.compile, a worker process that loads. Each is timed first, for `TRIAL` seconds of training
after some steps to be warm; what is fastest is kept.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import meter
import nets
import torch
from dataset import Images
from torch import Tensor, nn
from torch.utils.data import DataLoader

TRIAL = 2.0


class Setting(NamedTuple):
    """One way to train in PyTorch."""

    channels_last: bool
    bf16: bool
    compiled: bool

    def __str__(self) -> str:
        words = ["bf16" if self.bf16 else "fp32"]
        words += ["channels-last" if self.channels_last else "channels-first"]
        return ", ".join([*words, "torch.compile"] if self.compiled else words)


def main() -> None:
    words = meter.words()
    images, labels = meter.load(words.data)
    data = Images(images, labels, words.shift)

    def net() -> nn.Module:
        return nets.build(words.net, images.shape[1], images.shape[2])

    first = next(iter(DataLoader(data, batch_size=words.batch)))
    settings = [Setting(*bits) for bits in itertools.product((False, True), repeat=3)]
    rates = {setting: _rate(_step(net(), setting), itertools.repeat(first)) for setting in settings}
    best = max(rates, key=lambda setting: rates[setting])

    loaders = {
        workers: DataLoader(
            data, words.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        for workers in (0, 1)
    }
    loading = {n: _rate(_step(net(), best), _endless(loaders[n])) for n in loaders}
    workers = max(loading, key=lambda n: loading[n])

    model = net()
    step = _step(model, best)
    count = meter.Meter(words.seconds)
    for x, y in _endless(loaders[workers]):
        step(x, y)
        if count(len(x)):
            break

    parameters = sum(p.numel() for p in model.parameters())
    tried = {str(setting): rate for setting, rate in rates.items()}
    meter.answer(
        count.images, count.seconds, parameters, ["torch"],
        choice=f"{best}, {workers} workers", steps_per_second=tried,
    )  # fmt: skip


def _step(model: nn.Module, setting: Setting) -> Callable[[Tensor, Tensor], None]:
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    model = model.train().to(memory_format=layout)  # type: ignore[call-overload]
    forward: Any = torch.compile(model) if setting.compiled else model
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> None:
        x = x.contiguous(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16) if setting.bf16 else contextlib.nullcontext():
            loss = loss_fn(forward(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _rate(step: Callable[[Tensor, Tensor], None], batches: Iterator[Any]) -> float:
    """Steps per second; 0 for what fails, as torch.compile does without a C++ compiler."""
    try:
        for x, y in itertools.islice(batches, 20):
            step(x, y)
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < TRIAL:
            step(*next(batches))
            steps += 1
    except RuntimeError:
        return 0.0
    return steps / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
