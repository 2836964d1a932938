"""What to make of a classifier: rules about images that are named right or wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hubel.runs.report.finding import Finding, Fit, Tone, noise
from hubel.runs.report.folder import PARTS, RunFiles
from hubel.runs.report.measures import class_scores, confusions
from hubel.runs.report.score import guessing, headline, scores
from hubel.runs.report.words import count, number, percent, several

GAP = 0.05  # training this far above validation is overfitting worth a word


def at_chance(files: RunFiles) -> Iterator[Finding]:
    """No better than always naming the commonest class."""
    score, guess = headline(files), guessing(files)
    if score is None or guess is None or score.low is None or score.low > guess:
        return
    text = (
        f"Always naming the commonest class would be right {percent(guess)} of the time; the model "
        f"reaches {percent(score.value)}. Check the labels, then try a higher or a much lower "
        "learning rate."
    )
    yield Finding("warn", "It has not learned to tell the classes apart", text)


def fit(files: RunFiles) -> Iterator[Finding]:
    """Training against validation at the kept epoch: memorising, or hand in hand."""
    history, row = files.history, files.best
    if row is None or not len(history):
        return
    train, val = float(history.train_accuracy[row]), float(history.val_accuracy[row])
    if not np.isfinite(train - val):
        return
    shown = (
        f"At the kept epoch it names {percent(train)} of the training images right and "
        f"{percent(val)} of the validation images"
    )
    bearable = max(GAP, noise(val, files.size_of("val")))
    yield Fit(train, val, shown, "fewer", bearable, enough=0.9).verdict()


def test_below_val(files: RunFiles) -> Iterator[Finding]:
    """Test accuracy lower than validation by more than chance explains."""
    both = scores(files)
    if "test" not in both or "val" not in both:
        return
    test, val = both["test"], both["val"]
    chance = float(np.hypot(noise(test.value, test.total), noise(val.value, val.total)))
    drop = val.value - test.value
    if drop > max(0.01, chance):
        text = (
            f"{percent(val.value)} against {percent(test.value)}: more than chance explains. "
            "Either the test images differ in kind, or validation images resemble training images."
        )
        yield Finding("warn", "Test images are harder than validation images", text)


def worst_class(files: RunFiles) -> Iterator[Finding]:
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


def lopsided(files: RunFiles) -> Iterator[Finding]:
    """Accuracy is carried by the large classes."""
    score = headline(files)
    balanced = number(files.metrics(score.part).get("balanced_accuracy")) if score else np.nan
    if score and score.value - balanced > 0.05:
        text = (
            f"Counting every class alike, accuracy is {percent(balanced)} instead of "
            f"{percent(score.value)}: small classes are recognised less often."
        )
        yield Finding("warn", "Large classes carry the score", text)


def few_images(files: RunFiles) -> Iterator[Finding]:
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
