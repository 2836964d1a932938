"""What to make of the run: at most six plain sentences, each computed, each with its cure.

Rules that hold for every task stand here, the others in `findings_labels` and `findings_masks`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hubel.runs.report import findings_labels as labels
from hubel.runs.report import findings_masks as masks
from hubel.runs.report.answers import unit
from hubel.runs.report.finding import Finding, Rule, noise
from hubel.runs.report.folder import RunFiles
from hubel.runs.report.history import Column, History
from hubel.runs.report.measures import calibration
from hubel.runs.report.words import decimal, number, percent, points, several

MOST = 6


def findings(files: RunFiles) -> list[Finding]:
    """The most important first. A rule that has nothing to say says nothing."""
    rules = RULES.get(files.task, RULES["classify"])
    return [finding for rule in rules for finding in rule(files)][:MOST]


def _trouble(files: RunFiles) -> Iterator[Finding]:
    """The training did not end as planned, or its loss stopped being a number."""
    bad = files.history.bad_step
    cure = "Try a lower learning rate, a warm-up, or gradient clipping."
    if bad is not None:
        yield Finding("warn", f"The loss stopped being a number at step {bad:,}", cure)
    elif not files.results and (files.path / "diverged.safetensors").exists():
        yield Finding("warn", "The training diverged: its loss or a gradient was no number", cure)
    elif not files.results or files.results.get("stopped") == "interrupted":
        text = "The figures show how far it came; “hubel resume” goes on from its last checkpoint."
        yield Finding("note", "The run is not finished", text)


def _past_best(files: RunFiles) -> Iterator[Finding]:
    """The best epoch came early, and the validation loss has risen since."""
    history, row = files.history, files.best
    if row is None or len(history) < 4 or row + 1 > 0.7 * len(history):
        return
    then, last = history.val_loss[row], history.val_loss[-1]
    best, epochs = int(history.epoch[row]), int(history.epoch[-1])
    risen = ""
    if last > 1.05 * then:
        risen = f" Since then the validation loss rose from {decimal(then)} to {decimal(last)}."
    text = (
        f"Later epochs did not do better on validation images.{risen} The weights of epoch {best} "
        f"were kept; early stopping (--patience) would have saved the time."
    )
    yield Finding("note", f"The best epoch came early: {best} of {epochs}", text)


def _still_rising(files: RunFiles) -> Iterator[Finding]:
    """The validation score was still climbing in the last fifth of the training."""
    history = files.history
    if len(history) < 4 or files.results.get("stopped", "finished") != "finished":
        return
    column = history.val_score if history.has_val else history.train_accuracy
    size = files.size_of("val" if history.has_val else "train")
    gain = _late_gain(column)
    if not gain > max(0.005, noise(column[-1], size) if unit(files) == "image" else 0.0):
        return
    annealed = _falls_to_nothing(history)
    why = (
        " Part of that is the falling learning rate, yet a longer schedule is likely to gain."
        if annealed
        else " Train longer: the end of the curve is not flat."
    )
    text = f"{_score_name(history)} rose by {points(gain)} in the last fifth of the epochs.{why}"
    yield Finding("note", "It was still improving when it stopped", text)


def _score_name(history: History) -> str:
    if np.isfinite(history.val_miou).any():
        return "The mean IoU of validation images"
    return f"{'Validation' if history.has_val else 'Training'} accuracy"


def _believable(files: RunFiles) -> Iterator[Finding]:
    """Mean confidence against accuracy: over-confident, under-confident, or honest."""
    table = files.evidence.calibration
    found = calibration(table) if table is not None else None
    if found is None:
        return
    gap, chance = found.confidence - found.accuracy, noise(found.accuracy, found.total)
    said = (
        f"On average it claims {percent(found.confidence)} and is right {percent(found.accuracy)}."
    )
    if gap > max(0.02, chance):
        text = f"{said} Read its percentages as a little too high; label smoothing often helps."
        yield Finding("note", "It is over-confident", text)
    elif -gap > max(0.02, chance):
        cause = " Label smoothing does that." if number(files.plan.get("smoothing")) > 0 else ""
        yield Finding("note", "It is under-confident", f"{said}{cause} It knows more than it says.")
    elif found.ece < 0.05:
        yield Finding("good", "Its confidence can be believed", said)


def _data(files: RunFiles) -> Iterator[Finding]:
    """The data check's first complaint, and how many more there are."""
    rows = files.data.get("findings")
    every = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    loud = [str(row.get("text")) for row in every if row.get("level") in ("error", "warning")]
    if loud:
        rest = f" {several(len(loud) - 1, 'more warning')} below." if len(loud) > 1 else ""
        text = f"{loud[0].rstrip('.')}.{rest}"
        yield Finding("warn", "The data check found something", text[:1].upper() + text[1:])


RULES: dict[str, tuple[Rule, ...]] = {
    "classify": (
        _trouble,
        labels.at_chance,
        labels.fit,
        _past_best,
        _still_rising,
        labels.test_below_val,
        labels.worst_class,
        _believable,
        labels.lopsided,
        _data,
        labels.few_images,
    ),
    "segment": (
        _trouble,
        masks.unsettled,
        masks.at_chance,
        masks.fit,
        masks.drowned,
        masks.blurred,
        masks.unwatched,
        _past_best,
        _still_rising,
        masks.test_below_val,
        masks.worst_class,
        _believable,
        _data,
        masks.few_images,
    ),
}


def _late_gain(column: Column) -> float:
    """The last fifth's highest value above the highest before it."""
    late = max(1, round(len(column) / 5))
    before, after = column[:-late], column[-late:]
    if not np.isfinite(before).any() or not np.isfinite(after).any():
        return 0.0
    return float(np.nanmax(after) - np.nanmax(before))


def _falls_to_nothing(history: History) -> bool:
    rates = history.step_lr if np.isfinite(history.step_lr).any() else history.lr
    known = rates[np.isfinite(rates)]
    return len(known) > 0 and bool(known[-1] < 0.1 * known.max())
