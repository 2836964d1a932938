"""Runs side by side: one line each, and what differs between some of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubel.errors import RunError
from hubel.runs.files import read_json
from hubel.runs.headline import HEADLINES, headline, headline_score
from hubel.runs.log import read_log
from hubel.runs.run import Config, Run, list_runs

BARS = "▁▂▃▄▅▆▇█"
SCORES = ("miou", "pixel_accuracy", "accuracy", "loss")
NAMES = {**HEADLINES, "pixel_accuracy": "pixel accuracy"}


def overview(out: Path) -> list[dict[str, Any]]:
    """One record per run below `out`, oldest first; a damaged one says so in its status."""
    return [_line(run) for run in list_runs(out)]


def differences(folders: list[str]) -> list[dict[str, Any]]:
    """Rows {"what", "values"}: where the runs' configs differ, then how each fared."""
    runs = [Run.open(folder) for folder in folders]
    plans = [_flat(run.config()) for run in runs]
    names = list(dict.fromkeys(name for plan in plans for name in plan))
    rows = [{"what": name, "values": [plan.get(name) for plan in plans]} for name in names]
    rows = [row for row in rows if any(value != row["values"][0] for value in row["values"])]
    return rows + _outcomes(runs)


def sparkline(values: list[float]) -> str:
    """A curve in a word: one bar a value, the lowest to the highest."""
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    return "".join(BARS[int((v - low) / span * (len(BARS) - 1)) if span else 0] for v in values)


def _line(run: Run) -> dict[str, Any]:
    line = dict.fromkeys(("data", "model", "epochs", "val", "test", "started"))
    line = {"name": run.name, **line, "status": "damaged"}
    try:
        config = run.config()
        started = read_json(run.folder / "environment.json")["started"]
    except (RunError, KeyError):
        return line
    epochs = [record for record in read_log(run.folder) if record["kind"] == "epoch"]
    scores = run.results()["metrics"] if run.finished else {}
    return line | {
        "data": config.source["name"],
        "model": config.plan.model,
        "epochs": f"{len(epochs)}/{config.plan.epochs}",
        "val": headline_score(scores.get("val")) if run.finished else _best(epochs),
        "test": headline_score(scores.get("test")),
        "status": run.results()["stopped"] if run.finished else "stopped: 'hubel resume'",
        "started": started.replace("T", " ")[:16],
    }


def _best(epochs: list[dict[str, Any]]) -> float | None:
    return max(_by_epoch(epochs), default=None)


def _by_epoch(epochs: list[dict[str, Any]]) -> list[float]:
    """The headline's score on the validation part; epochs without one are left out."""
    found = [headline_score(epoch.get("val")) for epoch in epochs]
    return [score for score in found if score is not None]


def _flat(config: Config) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.plan.model_dump(mode="json").items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    how = {"run as": str(config.choice)}
    return flat | how


def _outcomes(runs: list[Run]) -> list[dict[str, Any]]:
    results = [run.results() if run.finished else {"metrics": {}} for run in runs]
    rows = []
    for part in ("train", "val", "test"):
        for score in SCORES:
            values = [r["metrics"].get(part, {}).get(score) for r in results]
            if any(value is not None for value in values):
                shown = [_shown(score, value) for value in values]
                rows.append({"what": f"{part} {NAMES.get(score, score)}", "values": shown})
    seconds = [r.get("seconds") for r in results]
    rows.append({"what": "seconds", "values": [None if s is None else round(s) for s in seconds]})
    curves = [_curve(run) for run in runs]
    names = {name for name, values in curves if values}
    what = names.pop() if len(names) == 1 else "score"
    shown = [sparkline(values) for _, values in curves]
    return [*rows, {"what": f"val {what} by epoch", "values": shown}]


def _shown(score: str, value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.4f}" if score == "loss" else f"{value:.2%}"


def _curve(run: Run) -> tuple[str, list[float]]:
    """The headline's name and its score on the validation part, epoch by epoch."""
    epochs = [record for record in read_log(run.folder) if record["kind"] == "epoch"]
    found = _by_epoch(epochs)
    name = next((headline(epoch["val"]) for epoch in epochs if epoch.get("val")), "accuracy")
    return NAMES[name], found[:: max(1, len(found) // 30)]
