"""Where it all came from: headline, learning curves, data check, how to repeat the run."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from hubel.runs.report.answers import unit
from hubel.runs.report.figures import accuracy_curve, loss_curve, miou_curve, rate_strip
from hubel.runs.report.folder import PARTS, RunFiles, record
from hubel.runs.report.inside import parameters
from hubel.runs.report.score import guessing, headline, measured, spread
from hubel.runs.report.words import DASH, count, decimal, duration, number, percent, short

ENDINGS = {
    "early": "Early stopping ended it: the validation score had stopped rising.",
    "interrupted": "It was interrupted before its planned end.",
    "diverged": "It stopped because the loss was no longer a number.",
}
METRICS = {
    "miou": ("mean IoU", percent),
    "pixel_accuracy": ("pixels right", percent),
    "mean_accuracy": ("pixels right, mean of classes", percent),
    "fw_iou": ("IoU weighted by class size", percent),
    "boundary_f": ("boundary F", percent),
    "rand_f": ("Rand F", percent),
    "rand_split": ("Rand, not split", percent),
    "rand_merge": ("Rand, not merged", percent),
    "pixel_error": ("pixel error", percent),
    "accuracy": ("accuracy", percent),
    "balanced_accuracy": ("balanced accuracy", percent),
    "macro_f1": ("macro F1", percent),
    "top5": ("right class in top 5", percent),
    "loss": ("loss", decimal),
    "ece": ("calibration error", percent),
}
MACHINE = {"cpu": "processor", "memory_gib": "memory in GiB", "gpu": "GPU"}
NAMED = 30  # images or cases under one finding


def head(files: RunFiles) -> dict[str, Any]:
    """Title, the headline score and the key numbers."""
    source, score = record(files.config, "source"), headline(files)
    return {
        "model": plan_model(files),
        "source": source.get("name") or files.plan.get("source") or "unnamed data",
        "run": files.path.resolve().name,
        "task": files.task,
        "score": score,
        "measured": measured(files),
        "spread": spread(files) if score and score.part == files.evidence.part else None,
        "pixels": {part: files.metrics(part).get("pixel_accuracy") for part in PARTS},
        "parts": PARTS,
        "guess": guessing(files),
        "ending": ENDINGS.get(str(files.results.get("stopped", "")), ""),
        "facts": _facts(files),
        "metrics": _metrics(files),
        "ran": _ran(record(files.results, "choices")),
        "unread": files.unread,
    }


def curves(files: RunFiles) -> dict[str, Any] | None:
    """Loss, accuracy and learning rate over the training."""
    history = files.history
    if not len(history) and len(history.steps) < 2:
        return None
    best = files.best
    return {
        "loss": loss_curve(history, best),
        "accuracy": accuracy_curve(history, best) if len(history) else None,
        "miou": miou_curve(history, best) if np.isfinite(history.val_miou).any() else None,
        "unit": unit(files),
        "rate": rate_strip(history),
        "steps": len(history.steps) > 1,
        "best": None if best is None else int(history.epoch[best]),
        "val": history.has_val,
    }


def data_check(files: RunFiles) -> dict[str, Any] | None:
    """The findings with the images they name, the class counts by part, the sizes."""
    if not files.data:
        return None
    rows = files.data.get("findings")
    findings = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    counts = _counts(files)
    names = list(dict.fromkeys(name for part in counts.values() for name in part))
    return {
        "findings": [_finding(row) for row in findings],
        "full": files.data.get("full") is True,
        "counts": counts,
        "counted": _counted(files),
        "names": names,
        "most": max((n for part in counts.values() for n in part.values()), default=0) or 1,
        "sizes": _sizes(record(files.data, "sizes")),
        "origin": record(files.config, "source").get("origin"),
    }


def _finding(row: dict[str, Any]) -> dict[str, Any]:
    """One finding as shown: its sentence, and the first of the images or cases it names."""
    named = _texts(row.get("names")) or _texts(row.get("ids"))
    text = str(row.get("text") or row.get("code") or "").rstrip(".")
    level = str(row.get("level") or "note")
    return {"level": level, "text": f"{text}.", "names": named[:NAMED], "rest": len(named[NAMED:])}


def _counts(files: RunFiles) -> dict[str, dict[str, int]]:
    """Images of each class by part."""
    classes = files.data.get("classes") or files.classes
    parts = record(files.data, "counts").items()
    found = {PARTS.get(part, part): _by_class(numbers, classes) for part, numbers in parts}
    return {part: numbers for part, numbers in found.items() if numbers}


def _counted(files: RunFiles) -> str:
    """What the class counts are of."""
    if unit(files) == "image":
        return "Images of each class"
    read = record(files.data, "sizes").get("read")
    return "Images that show each class" + (f", of the {count(read)} looked at" if read else "")


def _by_class(numbers: Any, classes: list[str]) -> dict[str, int]:
    """Counts by class name, whether the file holds names or a list in class order."""
    if isinstance(numbers, list):
        numbers = dict(zip(classes, numbers, strict=False))
    pairs = numbers.items() if isinstance(numbers, dict) else ()
    return {str(name): int(n) for name, n in pairs if number(n) >= 0}


def _sizes(sizes: dict[str, Any]) -> list[tuple[str, str]]:
    """Size statistics in words; a key that is not known is shown as it stands."""
    words = {"grey": "grey images", "rgb": "RGB images", "read": "read for these numbers"}
    return [
        (words.get(key, str(key)), _span(value) if key in ("height", "width") else _brief(value))
        for key, value in sizes.items()
        if value != 0
    ]


def _span(value: Any) -> str:
    """[smallest, median, largest] in pixels."""
    if not isinstance(value, list) or len(value) != 3:
        return _brief(value)
    low, middle, high = (count(side) for side in value)
    return f"{low} pixels" if low == high else f"{low} to {high} pixels, median {middle}"


def reproduce(files: RunFiles) -> dict[str, Any] | None:
    """Command, Python lines, seed, versions, machine, config."""
    if not files.config and not files.environment:
        return None
    machine = record(files.environment, "machine")
    return {
        "command": files.environment.get("command"),
        "python": python_lines(files) if files.plan else None,
        "seed": files.plan.get("seed"),
        "started": files.environment.get("started"),
        "versions": record(files.environment, "versions"),
        "machine": [(MACHINE.get(k, k), v) for k, v in machine.items() if v is not None],
        "config": json.dumps(files.config, indent=2, ensure_ascii=False),
        "said": _texts(files.results.get("notices")),
    }


def python_lines(files: RunFiles) -> str:
    """The same training again from its own plan, and the trained model taken up for use."""
    folder = str(files.path)
    lines = [
        "import json",
        "import hubel",
        "",
        f"with open({str(files.path / 'config.json')!r}) as file:",
        '    plan = json.load(file)["plan"]',
        'model, data = plan.pop("model"), plan.pop("source")',
        "hubel.train(model, data, **plan)  # the same training once more",
        "",
        f"run = hubel.load_run({folder!r})  # or this one, to be used",
        'run.predict(["photo.jpg"])',
    ]
    if files.config.get("architecture") is None:
        lines[5] = (
            f'model, data = ..., plan.pop("source")  # your own {plan_model(files)}, made anew'
        )
        lines.insert(6, 'del plan["model"]')
        lines[-2] = f"run = hubel.load_run({folder!r}, model=model)  # or this one, to be used"
    return "\n".join(lines)


def plan_model(files: RunFiles) -> str:
    """The model's name as the plan has it."""
    return str(files.plan.get("model") or "model")


def _ran(choices: dict[str, Any]) -> str:
    """How steps were run, and why so, in a sentence."""
    if not choices:
        return ""
    layout = ", channels-last" if choices.get("channels_last") else ""
    compiled = ", compiled" if choices.get("compile") else ""
    why = f": {choices['why']}" if choices.get("why") else ""
    where = f"{choices.get('device', 'an unnamed device')} in {choices.get('precision', 'fp32')}"
    return f"Trained on {where}{layout}{compiled}{why}."


def _facts(files: RunFiles) -> list[tuple[str, str]]:
    """The key numbers, as (name, value); what is not known is left out."""
    results, history, best = files.results, files.history, files.best
    facts = {
        "training images": count(files.size_of("train")),
        "classes": count(len(files.classes)) if files.classes else None,
        "parameters": short(parameters(files)),
        "training time": duration(results.get("seconds")),
        "images/s": count(results.get("images_per_second")),
        f"epoch kept, of {len(history)}": None if best is None else count(history.epoch[best]),
        "seed": count(files.plan.get("seed")),
    }
    return [(name, value) for name, value in facts.items() if value not in (None, DASH)]


def _metrics(files: RunFiles) -> dict[str, Any]:
    """The scores of each part as a table; rows that no part has are left out."""
    parts = [part for part in ("train", "val", "test") if files.metrics(part)]
    few = len(files.classes) <= 5
    rows = [
        (label, [form(files.metrics(part).get(key)) for part in parts])
        for key, (label, form) in METRICS.items()
        if any(key in files.metrics(part) for part in parts) and not (few and key == "top5")
    ]
    heads = [(PARTS[part], files.size_of(part)) for part in parts]
    return {"parts": heads, "rows": rows}


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _brief(value: Any) -> str:
    """A value of unknown kind on one line, cut where it would run on."""
    if math.isfinite(number(value)):
        return count(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:119] + "…"
