"""What to make of a net that labels pixels: rules about areas, their outlines, rare classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hubel.runs.report.finding import Finding, Fit, Tone
from hubel.runs.report.folder import PARTS, RunFiles, record
from hubel.runs.report.measures import area_scores, confusions
from hubel.runs.report.score import guessing, headline, scores, spread
from hubel.runs.report.words import number, percent, several

GAP = 0.1  # of mean IoU: small classes swing by as much from part to part
LOST = 0.1  # IoU below this: the class is as good as not found
LAG = 0.15  # of the pixels, between training and being judged on the same images
RARE = 0.03  # of the pixels
FOUND, BLURRED = 0.5, 0.7  # areas are found; outlines are worse than that share of them
FEW = 10  # images
NAMED = 4  # classes in one sentence


def at_chance(files: RunFiles) -> Iterator[Finding]:
    """No better than calling every pixel the commonest class."""
    score, guess = headline(files), guessing(files)
    if score is None or guess is None or score.value > guess + 0.01:
        return
    text = (
        f"Calling every pixel the commonest class would give a mean IoU of {percent(guess)}; the "
        f"model reaches {percent(score.value)}. Check that masks belong to their images, then "
        "train longer or try another learning rate."
    )
    yield Finding("warn", "It has not learned to tell the classes apart", text)


def unsettled(files: RunFiles) -> Iterator[Finding]:
    """Far worse on its training images when judged than while it learned from them: batch norm
    then answers by running averages, which a short training leaves behind."""
    row, after = files.best, number(files.metrics("train").get("pixel_accuracy"))
    if row is None or not files.history.train_accuracy[row] - after > LAG:
        return
    text = (
        f"While it learned it named {percent(files.history.train_accuracy[row])} of the training "
        f"pixels right, judged afterwards {percent(after)}. The averages of batch norm, which it "
        "is judged by, need some hundred steps: train longer, with smaller batches or more "
        "windows (--windows)."
    )
    yield Finding("warn", "Its normalisation has not settled", text)


def fit(files: RunFiles) -> Iterator[Finding]:
    """The finished net on training and on validation images: memorising, or hand in hand."""
    train, val = (number(files.metrics(part).get("miou")) for part in ("train", "val"))
    shown = (
        f"The kept weights reach a mean IoU of {percent(train)} on training images and "
        f"{percent(val)} on validation images"
    )
    blank = [*at_chance(files), *unsettled(files)]  # then the two say nothing of memorising
    if np.isfinite(train - val) and not blank:
        yield Fit(train, val, shown, "less", GAP, enough=0.8).verdict()


def drowned(files: RunFiles) -> Iterator[Finding]:
    """Classes that are never named, or rare and hardly ever found."""
    lost = _lost(files)
    if not lost:
        return
    confusion = files.evidence.confusion
    assert confusion is not None
    areas, called = area_scores(confusion), confusion.sum(axis=0)
    never, hardly = [k for k in lost if not called[k]], [k for k in lost if called[k]]
    said = []
    if never:
        said.append(f"No pixel was called {_listed(files, never, areas.share, 'of all pixels')}.")
    if hardly:
        said.append(f"Their IoU is next to nothing: {_listed(files, hardly, areas.iou)}.")
    title = (
        f"{several(len(never), 'class is', 'classes are')} never named"
        if never
        else f"{several(len(hardly), 'rare class is', 'rare classes are')} hardly found"
    )
    yield Finding("warn", title, " ".join([*said, _cure(files)]))


def blurred(files: RunFiles) -> Iterator[Finding]:
    """Areas are found, their outlines are not."""
    score = headline(files)
    met = number(files.metrics(score.part).get("boundary_f")) if score else np.nan
    if score is None or score.value < FOUND or not met < BLURRED * score.value:
        return
    text = (
        f"Mean IoU is {percent(score.value)}, but the boundary F is {percent(met)}: lines between "
        "classes are met less often than their insides. Skips from fine layers (unet, fcn8s), "
        "images at a larger size, or a CRF over the answers draw sharper lines."
    )
    yield Finding("warn", "It finds the areas but blurs their outlines", text)


def unwatched(files: RunFiles) -> Iterator[Finding]:
    """Without validation images nobody saw it overfit, or when it was best."""
    if len(files.history) and not files.history.has_val and not files.size_of("val"):
        text = (
            "So the weights with the lowest training loss were kept, and nothing tells whether "
            "it only memorised. Set some images aside: --val 0.1."
        )
        yield Finding("warn", "There was no validation part", text)


def test_below_val(files: RunFiles) -> Iterator[Finding]:
    """A test score further below validation than images differ by chance."""
    both, each = scores(files), spread(files)
    if "test" not in both or "val" not in both:
        return
    test, val = both["test"].value, both["val"].value
    chance = each.half * np.sqrt(2) if each is not None and files.evidence.part == "test" else 0.0
    if val - test > np.nanmax([GAP / 2, chance]):
        text = (
            f"A mean IoU of {percent(val)} against {percent(test)}: more than chance explains. "
            "Either the test images differ in kind, or validation images resemble training images."
        )
        yield Finding("warn", "Test images are harder than validation images", text)


def worst_class(files: RunFiles) -> Iterator[Finding]:
    """The class with the lowest IoU of those that are found at all, and what it is taken for."""
    confusion = files.evidence.confusion
    if confusion is None or not confusion.sum():
        return
    areas = area_scores(confusion)
    iou = np.where(areas.share > 0, areas.iou, np.nan)
    iou[_lost(files)] = np.nan
    if np.isfinite(iou).sum() < 2:
        return
    worst = int(np.nanargmin(iou))
    only = np.zeros_like(confusion)
    only[worst] = confusion[worst]
    mistaken = confusions(only, 1)
    if not mistaken:
        return
    taken, name = mistaken[0], files.name_of(worst)
    text = (
        f"Its IoU is {percent(iou[worst])}: {percent(areas.accuracy[worst])} of its pixels are "
        f"recognised, {percent(taken.share)} are taken for “{files.name_of(taken.predicted)}”; "
        f"and of the pixels called “{name}”, {percent(areas.precision[worst])} are."
    )
    tone: Tone = "warn" if iou[worst] < 0.3 else "note"
    title = f"“{name}” is the hardest class"
    if _lost(files):
        title = f"Of the other classes, “{name}” is the hardest"
    yield Finding(tone, title, text)


def few_images(files: RunFiles) -> Iterator[Finding]:
    """So few images were judged that the score is a rough one."""
    score = headline(files)
    if score is not None and score.total is not None and score.total < FEW:
        text = (
            f"{several(score.total, 'image')}: however many pixels they have, other images may "
            "score quite differently. Folds (--folds 5) judge every image once."
        )
        yield Finding("note", f"Few {PARTS[score.part]} images, a rough score", text)


def _lost(files: RunFiles) -> list[int]:
    """Classes that occur but are never named, or are rare and next to never found; the most
    frequent first."""
    confusion = files.evidence.confusion
    if confusion is None or not confusion.sum():
        return []
    areas, silent = area_scores(confusion), confusion.sum(axis=0) == 0
    lost = (areas.share > 0) & (silent | ((areas.iou < LOST) & (areas.share < RARE)))
    return sorted(np.flatnonzero(lost).tolist(), key=lambda k: -areas.share[k])


def _listed(
    files: RunFiles, classes: Sequence[int], shares: NDArray[np.float64], of: str = ""
) -> str:
    """“pole” (1.0 % of all pixels), “sign” (0.3 %) and 2 more."""
    ends = [f" {of}", *[""] * len(classes)] if of else [""] * len(classes)
    pairs = zip(classes[:NAMED], ends, strict=False)
    named = [f"“{files.name_of(k)}” ({percent(shares[k])}{end})" for k, end in pairs]
    rest = [f"{len(classes) - NAMED} more"] if len(classes) > NAMED else []
    *most, last = [*named, *rest]
    return f"{', '.join(most)} and {last}" if most else last


def _cure(files: RunFiles) -> str:
    """What has not been tried yet against rare classes being drowned by large ones."""
    plan = record(files.plan, "masks")
    terms = plan.get("terms") or ["cross-entropy"]
    cures = []
    if plan.get("balance", "none") == "none":
        cures.append("weigh rare classes more (--balance inverse-log)")
    if "dice" not in terms:
        cures.append("add a loss that counts every class alike (--loss cross-entropy,dice)")
    if not cures:
        return "Longer training, or more images that show such classes, would help."
    text = ", or ".join(cures)
    return f"{text[0].upper()}{text[1:]}; and train long enough: rare classes come last."
