"""What hubel's care costs: its training against a bare PyTorch loop of the same configuration.

Same net, data in memory as uint8, batch, learning rate, Nesterov momentum, weight decay (on
weights, not on biases and norms), fp32, no augmentation, no validation part, no tuning. The bare
loop does what one would write by hand and reads the loss every step; hubel besides looks for NaN,
counts hits, logs, checkpoints, and can be resumed bit for bit. Only the steps are timed, by one
clock outside of both. `bare, fused` is the same loop with `torch.optim.SGD(fused=True)`.
Goal: hubel at 97 % of the bare loop or more.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hubel
from hubel import api
from hubel.data.augment import Augment
from hubel.data.record import ArraySource
from hubel.session import Event
from hubel.training.fit import Step


class Case(NamedTuple):
    """One fixed configuration."""

    net: str
    batch: int
    rate: float
    epochs: int


class Trial(NamedTuple):
    """One training."""

    images_per_second: float
    accuracy: float


CASES = {
    "lenet5": Case("lenet5", batch=64, rate=0.01, epochs=4),
    "compact": Case("compact", batch=128, rate=0.05, epochs=2),
}
MOMENTUM, DECAY = 0.9, 5e-4
WARM_UP = 2000  # images of one uncounted training of each kind


def main(argv: Sequence[str] | None = None) -> None:
    """Train in turns; print and write images/s, their ratio, and the accuracies."""
    words = _words(argv)
    data = common.fashion_mnist(words.images)
    found = {}
    for name in words.cases:
        case = CASES[name]._replace(epochs=words.epochs or CASES[name].epochs)
        found[name] = _compare(case, data, words.rounds)
        _show(name, case, found[name])
    common.write(words.results, "overhead", {"images": len(data.rows("train")), "cases": found})


def _words(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="a training (lenet5: 4, compact: 2)")
    parser.add_argument("--images", type=int, help="for a trial: so many images a part")
    return parser.parse_args(argv)


def _compare(case: Case, data: ArraySource, rounds: int) -> dict[str, Any]:
    def contenders(case: Case, data: ArraySource) -> dict[str, Callable[[], Trial]]:
        return {
            "hubel": partial(with_hubel, case, data),
            "bare": partial(bare, case, data),
            "bare, fused": partial(bare, case, data, fused=True),
        }

    common.in_turns(contenders(case._replace(epochs=1), common.cut(data, WARM_UP)), 1)
    trials = common.in_turns(contenders(case, data), rounds)
    pace = {name: [t.images_per_second for t in of] for name, of in trials.items()}
    return {
        "configuration": case._asdict() | {"momentum": MOMENTUM, "weight_decay": DECAY},
        "images_per_second": {name: common.summary(of) for name, of in pace.items()},
        "accuracy": {name: common.summary(t.accuracy for t in of) for name, of in trials.items()},
        "hubel_against": {
            name: common.ratio(pace["hubel"], pace[name]) for name in ("bare", "bare, fused")
        },
    }


def _show(name: str, case: Case, found: dict[str, Any]) -> None:
    rows = []
    for who, pace in found["images_per_second"].items():
        against = found["hubel_against"].get(who)
        quotient = common.shown(against, ".3f") if against else ""
        rows.append((who, common.shown(pace), quotient, f"{found['accuracy'][who]['median']:.2%}"))
    columns = ("", "images/s: median (range)", "hubel / this", "test accuracy")
    common.table(f"{name}, batch {case.batch}, {case.epochs} epochs", columns, rows)


class Clock:
    """Images/s between the first and the last step that hubel tells of."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.images = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            self.times.append(time.perf_counter())
            self.images += event.images if len(self.times) > 1 else 0

    def pace(self) -> float:
        return self.images / (self.times[-1] - self.times[0])


def with_hubel(case: Case, data: ArraySource) -> Trial:
    """`hubel.train`, the configuration spelt out."""
    optimiser = {"name": "sgd", "lr": case.rate, "momentum": MOMENTUM, "weight_decay": DECAY}
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        result = api.train(
            case.net,
            data,
            out=out,
            tell=clock,
            batch=case.batch,
            epochs=case.epochs,
            optimiser=optimiser | {"momentum_form": "nesterov"},
            schedule={"name": "constant"},
            smoothing=0.0,
            augment=Augment(),
            val=0.0,
            precision="fp32",
            tune="off",
        )
    return Trial(clock.pace(), result.metrics["test"]["accuracy"])


def bare(case: Case, data: ArraySource, fused: bool | None = None) -> Trial:
    """The same by hand."""
    (train, train_targets), (test, test_targets) = _tensors(data, "train"), _tensors(data, "test")
    mean, std = train.float().mean((0, 2, 3), keepdim=True), train.float().std()
    net = hubel.build(case.net, classes=len(data.classes), channels=train.shape[1]).train()
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": DECAY},
        {"params": others},
    ]
    optimiser = torch.optim.SGD(groups, case.rate, MOMENTUM, nesterov=True, fused=fused)
    full = len(train) // case.batch * case.batch
    total, began = 0.0, time.perf_counter()
    for _ in range(case.epochs):
        for rows in torch.randperm(len(train))[:full].split(case.batch):
            images = train[rows].float().sub_(mean).div_(std)
            loss = F.cross_entropy(net(images), train_targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
    pace = full * case.epochs / (time.perf_counter() - began)
    return Trial(pace, _accuracy(net, (test.float() - mean) / std, test_targets))


def _tensors(data: ArraySource, part: str) -> tuple[Tensor, Tensor]:
    rows = data.rows(part)
    return torch.from_numpy(data.images[rows]), torch.from_numpy(data.targets[rows])


@torch.inference_mode()
def _accuracy(net: nn.Module, images: Tensor, targets: Tensor) -> float:
    net.eval()
    said = torch.cat([net(part).argmax(1) for part in images.split(256)])
    return float((said == targets).float().mean())


if __name__ == "__main__":
    main()
