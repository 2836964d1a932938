"""Run folders to report on: one of a small net really trained, and ones made by hand."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from hubel.runs.report.evidence import (
    Case,
    Evidence,
    FeatureMap,
    Features,
    Filters,
    Mistakes,
    Samples,
    SeenBatch,
)
from hubel.runs.report.finding import Finding
from hubel.runs.report.findings import findings
from hubel.runs.report.folder import read_run

FASHION = Path("/usr/share/datasets/fashion-mnist")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
GOOD = {"test": {"accuracy": 0.9}}
MANY = {"train": 50_000, "val": 5_000, "test": 10_000}
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small net, trained on Fashion-MNIST (on made images where it is absent)."""
    folder = tmp_path_factory.mktemp("runs") / "fashion-mnist-small-1"
    folder.mkdir()
    return train_small(folder)


@pytest.fixture
def made_run(tmp_path: Path) -> Callable[..., Path]:
    """A maker of run folders without training: see `make_run`."""

    def make(**changes: Any) -> Path:
        folder = tmp_path / changes.pop("name", "made-1")
        folder.mkdir()
        return make_run(folder, **changes)

    return make


@pytest.fixture
def told(made_run: Callable[..., Path]) -> Callable[..., dict[str, Finding]]:
    """Findings of a made run by title, without the evidence and warnings that others are about."""

    def tell(**changes: Any) -> dict[str, Finding]:
        usual = {"evidence": Evidence(), "metrics": GOOD, "count": MANY, "findings": []}
        return {f.title: f for f in findings(read_run(made_run(**(usual | changes))))}

    return tell


@pytest.fixture(name="mask_evidence")
def _mask_evidence() -> Callable[..., Evidence]:
    return mask_evidence


@pytest.fixture(name="mask_log")
def _mask_log() -> Callable[..., list[dict[str, Any]]]:
    return mask_log


@pytest.fixture(name="made_evidence")
def _made_evidence() -> Callable[..., Evidence]:
    return made_evidence


@pytest.fixture(name="made_log")
def _made_log() -> Callable[..., list[dict[str, Any]]]:
    return made_log


def train_small(folder: Path, epochs: int = 6, images: int = 3000) -> Path:
    """Train a small net for real and write all that a run folder holds for the report."""
    torch.manual_seed(0)
    (train_x, train_y), (test_x, test_y) = clothes("train", images), clothes("t10k", 1000)
    cut = len(train_x) * 5 // 6
    val_x, val_y, train_x, train_y = train_x[cut:], train_y[cut:], train_x[:cut], train_y[:cut]
    net, log, began = small_net(), [], time.perf_counter()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    best, step, batch, total = 0.0, 0, 64, epochs * (len(train_x) // 64)
    for epoch in range(epochs):
        losses, hits = [], 0
        for rows in torch.randperm(len(train_x)).split(batch)[: len(train_x) // batch]:
            rate = 0.1 * min(1, (step + 1) / (0.25 * total), (total - step) / (0.75 * total))
            for group in optimiser.param_groups:
                group["lr"] = rate
            logits = net(normal(train_x[rows.numpy()]))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(train_y[rows.numpy()]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            losses.append(loss.item())
            hits += int((logits.argmax(1).numpy() == train_y[rows.numpy()]).sum())
            record = {"step": step, "epoch": epoch, "loss": losses[-1], "lr": rate}
            log.append({"kind": "step", **record, "images_per_second": 9000.0})
        train = {"loss": float(np.mean(losses)), "accuracy": hits / (len(losses) * batch)}
        val = scores(probabilities(net, val_x), val_y)
        gained, best = val["accuracy"] > best, max(best, val["accuracy"])
        entry = {"epoch": epoch, "step": step, "train": train, "val": val, "lr": rate}
        seconds = time.perf_counter() - began
        log.append({"kind": "epoch", **entry, "seconds": seconds, "best": gained})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    parts = {"train": (train_x, train_y), "val": (val_x, val_y), "test": (test_x, test_y)}
    metrics = {part: scores(probabilities(net, x), y) for part, (x, y) in parts.items()}
    write_records(
        folder,
        classes=CLOTHES,
        count={part: len(y) for part, (_, y) in parts.items()},
        metrics=metrics,
        counts={part: np.bincount(y, minlength=10).tolist() for part, (_, y) in parts.items()},
    )
    net_evidence(net, train_x, train_y, test_x, test_y).save(folder)
    return folder


def clothes(part: str, most: int) -> tuple[Images, Labels]:
    """Fashion-MNIST, uint8 (N, 1, 28, 28) and labels; bright squares by class where absent."""
    if not FASHION.is_dir():
        rng = np.random.default_rng(len(part))
        labels = rng.integers(0, 10, most)
        images = rng.integers(0, 90, (most, 1, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[0, 2 * label : 2 * label + 8, 4:24] += 120
        return images, labels
    with gzip.open(FASHION / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = file.read(16 + 784 * most)[16:]
    with gzip.open(FASHION / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + most)[8:], np.uint8).astype(np.int64)
    return np.frombuffer(pixels, np.uint8).reshape(-1, 1, 28, 28).copy(), labels


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(600, 10),
    )  # fmt: skip


def normal(images: Images) -> torch.Tensor:
    return (torch.from_numpy(images).float() / 255 - 0.286) / 0.353


def probabilities(net: nn.Module, images: Images) -> NDArray[np.float32]:
    with torch.inference_mode():
        return net(normal(images)).softmax(1).numpy()


def scores(said: NDArray[np.float32], true: Labels) -> dict[str, float]:
    right = said.argmax(1) == true
    loss = -np.log(said[np.arange(len(true)), true] + 1e-12).mean()
    recalls = [right[true == k].mean() for k in np.unique(true)]
    return {
        "accuracy": float(right.mean()),
        "loss": float(loss),
        "balanced_accuracy": float(np.mean(recalls)),
    }


def confusion_of(true: Labels, said: Labels, classes: int) -> NDArray[np.int64]:
    return np.bincount(true * classes + said, minlength=classes**2).reshape(classes, classes)


def calibration_of(chances: NDArray[Any], true: Labels) -> NDArray[np.float64]:
    sure, right = chances.max(1), chances.argmax(1) == true
    bins = np.minimum((sure * 15).astype(int), 14)
    columns = (np.ones_like(sure), sure, right)
    return np.stack([np.bincount(bins, c, minlength=15) for c in columns], axis=1)


def net_evidence(
    net: nn.Sequential, train_x: Images, train_y: Labels, test_x: Images, test_y: Labels
) -> Evidence:
    chances = probabilities(net, test_x)
    said, sure = chances.argmax(1), chances.max(1)
    wrong = np.flatnonzero(said != test_y)
    worst = wrong[np.argsort(-sure[wrong])][:24]
    few = np.arange(12)
    layers, x = [], normal(test_x[:4])
    costs = []
    for number, layer in enumerate(net):
        with torch.inference_mode():
            x = layer(x)
        if x.ndim == 4:
            layers.append(FeatureMap(str(number), type(layer).__name__, x.numpy()))
        learned = sum(p.numel() for p in layer.parameters())
        places = x[0, 0].numel() if x.ndim == 4 else 1
        row = {"layer": str(number), "kind": type(layer).__name__, "shape": [1, *x.shape[1:]]}
        numbers = {"parameters": learned, "macs": learned * places, "bytes": 4 * x[0].numel()}
        costs.append({**row, **numbers, "milliseconds": 0.02 + 1e-7 * learned * places})
    return Evidence(
        part="test",
        confusion=confusion_of(test_y, said, 10),
        calibration=calibration_of(chances, test_y),
        mistakes=Mistakes(
            test_x[worst], test_y[worst], said[worst], sure[worst],
            tuple(f"test/{row:05d}" for row in worst),
        ),
        samples=Samples(test_x[few], test_y[few], chances[few], tuple(f"test/{k}" for k in few)),
        batch=SeenBatch(np.roll(train_x[:36], 3, axis=3), train_y[:36]),
        filters=Filters(net[0].weight.detach().numpy(), "0"),
        features=Features(test_x[:4], tuple(layers)),
        costs=costs,
    )  # fmt: skip


def made_evidence(
    classes: int, *, size: int = 28, channels: int = 1, seed: int = 0, total: int = 2000
) -> Evidence:
    """Evidence of a model that is right four times out of five, on smooth made-up pictures."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, total)
    near = (true + rng.integers(1, 3, total)) % classes
    said = np.where(rng.random(total) < 0.8, true, near)
    chances = rng.dirichlet(np.full(classes, 0.3), total) * 0.3
    chances[np.arange(total), said] += 0.7
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [
        np.sin(7 * (k + 1) * x + c) * np.cos(5 * y * (k + 2))
        for k in range(36)
        for c in range(channels)
    ]
    images = (127 + 127 * np.array(waves)).astype(np.uint8).reshape(36, channels, size, size)
    wrong = np.flatnonzero(said != true)[:24]
    few = range(12)
    maps = rng.random((4, 16, max(4, size // 2), max(4, size // 2)), dtype=np.float32)
    return Evidence(
        part="test",
        confusion=confusion_of(true, said, classes),
        calibration=calibration_of(chances, true),
        mistakes=Mistakes(
            images[: len(wrong)], true[wrong], said[wrong], chances[wrong].max(1),
            tuple(f"test/{row:05d}.jpg" for row in wrong),
        ),
        samples=Samples(images[:12], true[:12], chances[:12], tuple(f"test/{k}" for k in few)),
        batch=SeenBatch(images[:36], true[:36]),
        filters=Filters(rng.normal(size=(16, channels, 3, 3)).astype(np.float32), "stem.conv"),
        features=Features(images[:4], (FeatureMap("stem", "Conv2d", maps),)),
        costs=[{"layer": "stem", "kind": "Conv2d", "parameters": 160, "macs": 9e4}],
    )  # fmt: skip


def made_log(epochs: int, *, val: bool = True) -> list[dict[str, Any]]:
    """A smooth history: loss falls towards 0.2, accuracy rises towards 92 %."""
    log = []
    for epoch in range(1, epochs + 1):
        fall = float(np.exp(-4 * epoch / epochs))
        train = {"loss": 0.2 + 2 * fall, "accuracy": 0.92 - 0.8 * fall}
        judged = {"loss": 0.25 + 2 * fall, "accuracy": 0.91 - 0.8 * fall} if val else None
        log.append(
            {
                "kind": "step",
                "step": 10 * epoch - 5,
                "epoch": epoch,
                "loss": 0.25 + 2 * fall,
                "lr": 0.1,
            }
        )
        log.append(
            {"kind": "epoch", "epoch": epoch, "step": 10 * epoch, "train": train, "val": judged,
             "lr": 0.1, "seconds": 2.0 * epoch, "best": True}
        )  # fmt: skip
    return log


def mask_evidence(
    classes: int = 4, *, sizes: Sequence[tuple[int, int]] = ((60, 80), (90, 67)), channels: int = 3
) -> Evidence:
    """Evidence of a net that labels pixels: stripes of classes, the answer moved by some pixels,
    a corner without a label, images of several sizes."""
    rng = np.random.default_rng(classes)
    cases, confusion = [], np.zeros((classes, classes), np.int64)
    for number in range(9):
        height, width = sizes[number % len(sizes)]
        columns = np.broadcast_to(np.arange(width) * classes // width, (height, width))
        truth = columns.astype(np.uint8)
        said = np.roll(truth, 1 + number, axis=1)
        truth[: height // 6, : width // 6] = 255
        known = truth != 255
        confusion += confusion_of(truth[known].astype(np.int64), said[known], classes)
        photo = rng.integers(0, 256, (channels, height, width), dtype=np.uint8)
        doubt = np.where(truth == said, 20, 200).astype(np.uint8)
        why = ("worst", "best", "random")[number // 3]
        score = float((truth == said)[known].mean())
        cases.append(Case(photo, truth, said, doubt, f"test/{number}.png", score, why))
    table = np.zeros((15, 3))
    table[9], table[14] = (40_000, 25_000, 24_000), (60_000, 58_000, 57_000)
    maps = rng.random((2, 8, 30, 40), dtype=np.float32)
    high, wide = min(height for height, _ in sizes), min(width for _, width in sizes)
    windows = np.stack([case.image[:, :high, :wide] for case in cases[:4]])
    return Evidence(
        part="test",
        confusion=confusion,
        calibration=table,
        boundary=np.linspace(0.2, 0.9, classes),
        each=np.array([case.score for case in cases]),
        cases=tuple(cases),
        batch=SeenBatch(windows, np.stack([case.truth[:high, :wide] for case in cases[:4]])),
        filters=Filters(rng.normal(size=(16, channels, 3, 3)).astype(np.float32), "down.0"),
        features=Features(windows[:2], (FeatureMap("down.0", "Conv2d", maps, (60, 67)),)),
        costs=[{"layer": "down.0", "kind": "Conv2d", "parameters": 160, "macs": 9e4}],
    )


def mask_log(val: Sequence[float], train: Sequence[float] | None = None) -> list[dict[str, Any]]:
    """A history by its validation mean IoU; the best epoch is where that is highest."""
    return [
        {"kind": "epoch", "epoch": e, "step": e, "lr": 0.1, "best": e == int(np.argmax(val)),
         "train": {"loss": 1.0 - miou, "pixel_accuracy": (train or val)[e]},
         "val": {"loss": 1.1 - miou, "pixel_accuracy": min(1.0, miou + 0.1), "miou": miou}}
        for e, miou in enumerate(val)
    ]  # fmt: skip


def make_run(
    folder: Path,
    *,
    classes: Sequence[str] = ("cat", "dog"),
    evidence: Evidence | None = None,
    log: list[dict[str, Any]] | None = None,
    metrics: dict[str, Any] | None = None,
    masks: bool = False,
    **records: Any,
) -> Path:
    """A run folder from hand-made pieces; what is not given is sensible.

    `masks`: of a net that labels pixels."""
    if masks:
        colours = [[(40 * k) % 256, (90 * k) % 256, 200] for k in range(len(classes))]
        records["card"] = {"task": "segment", "colours": colours}
        evidence = mask_evidence(len(classes)) if evidence is None else evidence
        log = mask_log([0.3, 0.5, 0.6, 0.61]) if log is None else log
        scores = {"miou": 0.6, "pixel_accuracy": 0.8, "boundary_f": 0.5, "loss": 0.5, "ece": 0.03}
        metrics = dict.fromkeys(("train", "val", "test"), scores) if metrics is None else metrics
    evidence = made_evidence(len(classes)) if evidence is None else evidence
    evidence.save(folder)
    lines = made_log(8) if log is None else log
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if metrics is None:
        metrics = {"val": {"accuracy": 0.81, "loss": 0.5}, "test": {"accuracy": 0.8, "loss": 0.52}}
    count = records.pop("count", {"train": 8000, "val": 1000, "test": 2000})
    write_records(folder, classes=classes, count=count, metrics=metrics, **records)
    return folder


def write_records(
    folder: Path,
    *,
    classes: Sequence[str],
    count: dict[str, int],
    metrics: dict[str, Any],
    counts: dict[str, Any] | None = None,
    findings: list[dict[str, Any]] | None = None,
    plan: dict[str, Any] | None = None,
    results: dict[str, Any] | None = None,
    card: dict[str, Any] | None = None,
) -> None:
    """config.json, environment.json, results.json and data.json."""
    usual = {"source": "fashion-mnist", "model": "small", "epochs": 6, "batch": 64, "seed": 3}
    preprocess = {"channels": 1, "height": 28, "width": 28, "fit": "stretch"}
    source = {"name": "fashion-mnist", "origin": "Debian package dataset-fashion-mnist"}
    config = {
        "plan": {**usual, **(plan or {})},
        "source": {**source, "count": count},
        "architecture": {"name": "small", "classes": len(classes)},
        "classes": list(classes),
        "preprocess": {**preprocess, "mean": [0.286], "std": [0.353]},
        **(card or {}),
    }
    environment = {
        "command": "hubel train fashion-mnist --model small --seed 3",
        "started": "2025-03-04T10:11:12+00:00",
        "versions": {"python": "3.12.3", "hubel": "0.1.0", "torch": "2.6.0", "numpy": "2.1.0"},
        "machine": {"cpu": "A two-core processor", "cores": 2, "memory_gib": 7.7, "gpu": None},
    }
    choices = {"device": "cpu", "precision": "fp32", "channels_last": True, "compile": False}
    outcome = {
        "metrics": metrics,
        "seconds": 41.3,
        "images_per_second": 2312.0,
        "choices": {**choices, "why": "1.31 times the images/s of channels-first"},
        "stopped": "finished",
        "notices": ["reading 3,000 images into memory"],
        **(results or {}),
    }
    said = [
        {"level": "warning", "code": "leak", "text": "2 images stand in both train and test",
         "rows": [1, 2], "names": ["train/00012 = test/00345", "train/01001 = test/00007"]},
        {"level": "note", "code": "copies", "text": "3 images stand more than once", "names": []},
    ]  # fmt: skip
    data = {
        "findings": said if findings is None else findings,
        "full": False,
        "classes": list(classes),
        "counts": counts or {"train": [100] * len(classes)},
        "sizes": {"height": [28, 28, 28], "width": [28, 30, 64], "grey": 3000, "rgb": 0},
    }
    records = {"config": config, "environment": environment, "results": outcome, "data": data}
    for name, record in records.items():
        (folder / f"{name}.json").write_text(json.dumps(record))
