"""What to make of the run: at most six plain sentences, each computed, each with its cure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hubel.runs.report.folder import PARTS, RunFiles
from hubel.runs.report.history import Column, History
from hubel.runs.report.measures import Z95, calibration, class_scores, confusions
from hubel.runs.report.score import guessing, headline, scores
from hubel.runs.report.words import count, decimal, number, percent, points, several

Tone = Literal["good", "note", "warn"]
MOST = 6
GAP = 0.05  # training this far above validation is overfitting worth a word


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know: its `tone`, a short `title`, and a sentence or two of `text`."""

    tone: Tone
    title: str
    text: str


def findings(files: RunFiles) -> list[Finding]:
    """The most important first. A rule that has nothing to say says nothing."""
    found = [finding for rule in RULES for finding in rule(files)]
    return found[:MOST]


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


def _at_chance(files: RunFiles) -> Iterator[Finding]:
    """No better than always naming the commonest class."""
    score, guess = headline(files), guessing(files)
    if score is None or guess is None or score.low is None or score.low > guess:
        return
    text = (
        f"Always naming the commonest class would be right {percent(guess)} of the time; the model "
        f"reaches {percent(score.accuracy)}. Check the labels, then try a higher or a much lower "
        "learning rate."
    )
    yield Finding("warn", "It has not learned to tell the classes apart", text)


def _fit(files: RunFiles) -> Iterator[Finding]:
    """Training against validation at the kept epoch: memorising, or hand in hand."""
    history, row = files.history, files.best
    if row is None or not len(history):
        return
    train, val = history.train_accuracy[row], history.val_accuracy[row]
    gap, noise = train - val, _noise(val, files.size_of("val"))
    if not np.isfinite(gap):
        return
    shown = (
        f"At the kept epoch it names {percent(train)} of the training images right and "
        f"{percent(val)} of the validation images"
    )
    if gap > max(GAP, noise):
        text = (
            f"{shown}, {points(gap)} fewer. More data, augmentation, weight decay or dropout would "
            "narrow the gap."
        )
        yield Finding("warn", "It knows its training images too well (overfitting)", text)
    elif train < 0.9 and gap < GAP / 2:
        text = (
            f"{shown}. Nothing points to memorising, so a larger net, a longer "
            "training or gentler regularisation may still add to both."
        )
        yield Finding("note", "It has room to learn more (no overfitting yet)", text)
    else:
        text = f"{shown}. What it learned carries over to images it never saw."
        yield Finding("good", "Training and validation go hand in hand", text)


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
    """Validation accuracy was still climbing in the last fifth of the training."""
    history = files.history
    if len(history) < 4 or files.results.get("stopped", "finished") != "finished":
        return
    column = history.val_accuracy if history.has_val else history.train_accuracy
    size = files.size_of("val" if history.has_val else "train")
    gain = _late_gain(column)
    if not gain > max(0.005, _noise(column[-1], size)):
        return
    annealed = _falls_to_nothing(history)
    why = (
        " Part of that is the falling learning rate, yet a longer schedule is likely to gain."
        if annealed
        else " Train longer: the end of the curve is not flat."
    )
    which = "Validation" if history.has_val else "Training"
    text = f"{which} accuracy rose by {points(gain)} in the last fifth of the epochs.{why}"
    yield Finding("note", "It was still improving when it stopped", text)


def _worst_class(files: RunFiles) -> Iterator[Finding]:
    """The class recognised least often, and what it is taken for."""
    confusion = files.evidence.confusion
    if confusion is None or len(confusion) < 2 or not confusion.sum():
        return
    recall = class_scores(confusion).recall
    if not np.isfinite(recall).any() or np.nanmin(recall) >= 1:
        return
    worst = int(np.nanargmin(recall))
    only = np.zeros_like(confusion)
    only[worst] = confusion[worst]
    mistaken = confusions(only, 1)[0]
    name, other = files.name_of(worst), files.name_of(mistaken.predicted)
    text = (
        f"{percent(recall[worst])} of its {count(int(confusion[worst].sum()))} images are "
        f"recognised; {percent(mistaken.share)} are taken for “{other}”."
    )
    tone: Tone = "warn" if recall[worst] < 0.5 else "note"
    yield Finding(tone, f"“{name}” is the hardest class", text)


def _believable(files: RunFiles) -> Iterator[Finding]:
    """Mean confidence against accuracy: over-confident, under-confident, or honest."""
    table = files.evidence.calibration
    found = calibration(table) if table is not None else None
    if found is None:
        return
    gap, noise = found.confidence - found.accuracy, _noise(found.accuracy, found.total)
    said = (
        f"On average it claims {percent(found.confidence)} and is right {percent(found.accuracy)}."
    )
    if gap > max(0.02, noise):
        text = f"{said} Read its percentages as a little too high; label smoothing often helps."
        yield Finding("note", "It is over-confident", text)
    elif -gap > max(0.02, noise):
        cause = " Label smoothing does that." if number(files.plan.get("smoothing")) > 0 else ""
        yield Finding("note", "It is under-confident", f"{said}{cause} It knows more than it says.")
    elif found.ece < 0.05:
        yield Finding("good", "Its confidence can be believed", said)


def _test_below_val(files: RunFiles) -> Iterator[Finding]:
    """Test accuracy lower than validation by more than chance explains."""
    both = scores(files)
    if "test" not in both or "val" not in both:
        return
    test, val = both["test"], both["val"]
    noise = float(np.hypot(_noise(test.accuracy, test.total), _noise(val.accuracy, val.total)))
    drop = val.accuracy - test.accuracy
    if drop > max(0.01, noise):
        text = (
            f"{percent(val.accuracy)} against {percent(test.accuracy)}: more than chance explains. "
            "Either the test images differ in kind, or validation images resemble training images."
        )
        yield Finding("warn", "Test images are harder than validation images", text)


def _data(files: RunFiles) -> Iterator[Finding]:
    """The data check's first complaint, and how many more there are."""
    rows = files.data.get("findings")
    every = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    loud = [str(row.get("text")) for row in every if row.get("level") in ("error", "warning")]
    if loud:
        rest = f" {several(len(loud) - 1, 'more warning')} below." if len(loud) > 1 else ""
        text = f"{loud[0].rstrip('.')}.{rest}"
        yield Finding("warn", "The data check found something", text[:1].upper() + text[1:])


def _lopsided(files: RunFiles) -> Iterator[Finding]:
    """Accuracy is carried by the large classes."""
    score = headline(files)
    balanced = number(files.metrics(score.part).get("balanced_accuracy")) if score else np.nan
    if score and score.accuracy - balanced > 0.05:
        text = (
            f"Counting every class alike, accuracy is {percent(balanced)} instead of "
            f"{percent(score.accuracy)}: small classes are recognised less often."
        )
        yield Finding("warn", "Large classes carry the score", text)


def _few_images(files: RunFiles) -> Iterator[Finding]:
    """So few images were judged that the score is a rough one."""
    score = headline(files)
    if score is None or score.low is None or score.high is None or score.total is None:
        return
    if score.high - score.low > 0.06:
        text = (
            f"With {several(score.total, 'image')}, the true accuracy may lie anywhere between "
            f"{percent(score.low)} and {percent(score.high)}: small differences mean nothing."
        )
        yield Finding("note", f"Few {PARTS[score.part]} images, a rough score", text)


RULES: tuple[Callable[[RunFiles], Iterator[Finding]], ...] = (
    _trouble,
    _at_chance,
    _fit,
    _past_best,
    _still_rising,
    _test_below_val,
    _worst_class,
    _believable,
    _lopsided,
    _data,
    _few_images,
)


def _noise(accuracy: float, total: int | None) -> float:
    """Half the 95 % interval of an accuracy measured on `total` images; 0 where unknown."""
    if not total or not np.isfinite(accuracy):
        return 0.0
    share = min(1.0, max(0.0, accuracy))
    return Z95 * float(np.sqrt(share * (1 - share) / total))


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
