"""Run folders to report on: one of a small net really trained, and ones made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import calibration_of, confusion_of, train_small, write_records

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

GOOD = {"test": {"accuracy": 0.9}}
MANY = {"train": 50_000, "val": 5_000, "test": 10_000}


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
