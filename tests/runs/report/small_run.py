"""A run folder of a small net that was really trained, and what run folders hold at all."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hubel.runs.report.evidence import (
    Evidence,
    FeatureMap,
    Features,
    Filters,
    Mistakes,
    Samples,
    SeenBatch,
)

FASHION = Path("/usr/share/datasets/fashion-mnist")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


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
