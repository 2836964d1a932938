"""The whole page: every section, nothing from outside, nothing unescaped, small and soon done."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hubel.errors import RunError
from hubel.runs.report.evidence import Evidence, Features
from hubel.runs.report.folder import read_run
from hubel.runs.report.outlines import LABELS, MASKS
from hubel.runs.report.page import HERE, write_report
from hubel.runs.report.sections import UNFINISHED, sections

Make = Callable[..., Path]
VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "a & b's {{ 7*7 }} $x^2$"]


class Page(HTMLParser):
    """What a browser would make of the page: its tags, ids, text by section; strict on nesting."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.section = self.doctype = ""
        self.feed(html)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_decl(self, decl: str) -> None:
        self.doctype = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> gives an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()
        self.section = "" if tag == "section" else self.section

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text[self.section] = self.text.get(self.section, "") + data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == name]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def real(trained_run: Path) -> Page:
    return page_of(trained_run)


def test_every_section_is_there_and_filled(real: Page) -> None:
    ids = [attrs["id"] for attrs in real.all("section")]
    assert real.doctype == "doctype html"
    assert ids == [outline.id for outline in LABELS]
    assert not any("absent" in (attrs.get("class") or "") for attrs in real.all("p"))
    links = {attrs["href"] for attrs in real.all("a")}
    assert links == {"#top", *(f"#{name}" for name in ids)}


def test_the_headline(real: Page, trained_run: Path) -> None:
    accuracy = json.loads((trained_run / "results.json").read_text())["metrics"]["test"]["accuracy"]
    head = real.text[""].replace("\u202f", " ")
    assert f"{100 * accuracy:.1f} %" in head
    assert "of 1,000 test images named right" in head
    assert "95 % interval" in head


def test_nothing_comes_from_outside(trained_run: Path) -> None:
    html = write_report(trained_run).read_text(encoding="utf-8")
    words = re.sub(r"base64,[\w+/=]+", "", html)
    assert not re.search(r"https?:|//[a-z]|@import|<link|<script|<iframe|file:/", words)
    for attrs in Page(html).all("img"):
        assert (attrs["src"] or "").startswith("data:image/png;base64,")
    assert not re.search(r"url\((?!#)", words)


def test_it_is_accessible(real: Page) -> None:
    assert real.all("html")[0]["lang"] == "en"
    assert all("alt" in attrs for attrs in real.all("img"))
    assert all(attrs.get("aria-label") for attrs in real.all("svg"))
    assert all("scope" in attrs for attrs in real.all("th"))
    ids = [attrs["id"] for _, attrs in real.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = {attrs["aria-labelledby"] for attrs in real.all("section")}
    assert named <= set(ids)


def test_it_is_small_and_soon_done(trained_run: Path) -> None:
    began = time.process_time()
    path = write_report(trained_run)
    assert time.process_time() - began < 10  # 1 s on one core of its own
    assert path.stat().st_size < 1_000_000


def test_hostile_names_stay_text(made_run: Make, made_evidence: Callable[..., Evidence]) -> None:
    evidence = made_evidence(3)
    evidence.absent["filters"] = HOSTILE[0]
    evidence.filters = None
    evidence.costs = [{"layer": HOSTILE[1], "kind": HOSTILE[0], "macs": 3}]
    folder = made_run(
        classes=HOSTILE, evidence=evidence, plan={"model": HOSTILE[0], "source": HOSTILE[1]},
        findings=[{"level": HOSTILE[0], "text": HOSTILE[1], "names": HOSTILE}],
        results={"notices": HOSTILE, "choices": {"device": HOSTILE[0], "why": HOSTILE[1]}},
    )  # fmt: skip
    page = page_of(folder)
    assert not page.all("script")
    assert not any("onerror" in attrs for _, attrs in page.tags)
    for name in HOSTILE:
        assert name in page.text["confusion"]
    assert HOSTILE[0] in page.text["filters"]


def test_many_hostile_names(made_run: Make, made_evidence: Callable[..., Evidence]) -> None:
    names = [f"{HOSTILE[k % 3]} {k}" for k in range(100)]
    page = page_of(made_run(classes=names, evidence=made_evidence(100)))
    assert not page.all("script")
    assert names[42] in page.text["confusion"]


@pytest.mark.parametrize(
    ("classes", "size", "channels", "epochs"),
    [(2, 28, 1, 1), (10, 32, 3, 12), (100, 224, 3, 1000), (24, 64, 1, 2), (25, 65, 3, 3)],
)
def test_all_sizes_of_runs(
    made_run: Make,
    made_evidence: Callable[..., Evidence],
    made_log: Callable[..., Any],
    classes: int,
    size: int,
    channels: int,
    epochs: int,
) -> None:
    evidence = made_evidence(classes, size=size, channels=channels)
    names = [f"the class with the rather long name of number {k}" for k in range(classes)]
    folder = made_run(classes=names, evidence=evidence, log=made_log(epochs))
    page = page_of(folder)
    assert names[-1] in page.text["confusion"]
    sides = [int(attrs["width"] or 0) for attrs in page.all("img")]
    assert max(sides) <= 160
    assert (folder / "report.html").stat().st_size < 3_000_000


def test_pictures_of_pure_noise_stay_below_the_limit(
    made_run: Make, made_evidence: Callable[..., Evidence]
) -> None:
    rng = np.random.default_rng(0)
    evidence = made_evidence(10, size=224, channels=3)
    features = evidence.features
    assert features is not None
    evidence.features = Features(features.images, features.layers * 9)
    for piece in (evidence.mistakes, evidence.samples, evidence.batch, evidence.features):
        piece.images[:] = rng.integers(0, 256, piece.images.shape)  # type: ignore[union-attr]
    folder = made_run(classes=[str(k) for k in range(10)], evidence=evidence)
    began = time.process_time()
    assert write_report(folder).stat().st_size < 3_000_000
    assert time.process_time() - began < 20  # 3 s on one core of its own


PIECES = [
    "confusion", "calibration", "mistakes", "samples", "batch", "filters", "features", "costs",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_a_missing_piece_says_so(
    made_run: Make, made_evidence: Callable[..., Evidence], piece: str
) -> None:
    evidence = made_evidence(2)
    setattr(evidence, piece, None)
    files = read_run(made_run(evidence=evidence))
    outlines = {o.id: o for o in LABELS}
    for section in sections(files):
        assert (section.body is None) == (outlines[section.id].piece == piece)
        assert bool(section.absent) == (section.body is None)
    assert page_of(files.path).open == []


def test_a_given_reason_is_told(made_run: Make) -> None:
    evidence = Evidence(absent={"filters": "the first layer has no filters to draw"})
    page = page_of(made_run(evidence=evidence))
    assert "Left out: the first layer has no filters to draw." in page.text["filters"]


def test_no_mistakes_is_good_news(made_run: Make) -> None:
    evidence = Evidence(part="test", confusion=np.diag([9, 9]))
    page = page_of(made_run(evidence=evidence))
    assert "every image was named right" in page.text["mistakes"]


def test_a_run_cut_short(made_run: Make) -> None:
    folder = made_run()
    for name in ("results.json", "evidence.json", "evidence.npz", "data.json"):
        (folder / name).unlink()
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "step", "ep')
    page = page_of(folder)
    assert "The run is not finished" in page.text["reading"]
    assert UNFINISHED in page.text["confusion"]
    assert "There is no test score" in page.text[""]


def test_the_log_alone_makes_a_page(made_run: Make) -> None:
    folder = made_run()
    for path in folder.iterdir():
        if path.name != "metrics.jsonl":
            path.unlink()
    assert "Learning curves" in page_of(folder).text["curves"]


def test_numbers_that_are_none(made_run: Make, made_log: Callable[..., Any]) -> None:
    log = made_log(3)
    log[-1]["train"] = {"loss": math.nan, "accuracy": math.nan}
    log[-1]["val"] = {"loss": None}
    metrics = {"test": {"accuracy": math.nan, "loss": math.inf, "ece": None}}
    page = page_of(made_run(log=log, metrics=metrics))
    told = " ".join(page.text.values())
    assert "The loss stopped being a number at step 30" in told
    assert not re.search(r"\bnan\b", told.split("How to repeat")[0])


def test_no_run_no_page(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_old_page_stays_until_the_new_one_is_whole(made_run: Make) -> None:
    folder = made_run()
    assert write_report(folder) == folder / "report.html"
    before = set(folder.iterdir())
    write_report(folder)
    assert set(folder.iterdir()) == before


# Of nets that label pixels -----------------------------------------------------------------


STREET = ["road", "sky & <clouds>", "car", "pole"]


def test_masks_have_every_section_of_their_own(made_run: Make) -> None:
    page = page_of(made_run(masks=True, classes=STREET))
    ids = [attrs["id"] for attrs in page.all("section")]
    assert ids == [outline.id for outline in MASKS]
    assert not any("absent" in (attrs.get("class") or "") for attrs in page.all("p"))
    assert {attrs["href"] for attrs in page.all("a")} == {"#top", *(f"#{name}" for name in ids)}
    head = page.text[""].replace("\u202f", " ")
    for words in ("60.0 %", "mean IoU on 9 test images", "80.0 % of the pixels are named right",
                  "Student’s t over 9 images"):  # fmt: skip
        assert words in head, words
    assert "Wilson" not in head
    assert STREET[1] in page.text["areas"]
    assert STREET[1] in page.text["overlays"]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_case_shows_all_its_layers(
    made_run: Make, mask_evidence: Callable[..., Evidence], channels: int
) -> None:
    evidence = mask_evidence(4, channels=channels)
    page = page_of(made_run(masks=True, classes=STREET, evidence=evidence))
    told = [attrs["alt"] or "" for attrs in page.all("img")]
    for layer in ("image", "truth", "prediction", "where wrong", "uncertainty"):
        assert sum(alt.startswith(f"{layer} of test/") for alt in told) == 9, layer


def test_a_page_of_masks_is_whole_and_small(
    made_run: Make, mask_evidence: Callable[..., Evidence]
) -> None:
    """Eighteen of the largest cases there may be, of pure noise: the worst there is to keep."""
    evidence = mask_evidence(4, sizes=((360, 270), (270, 360)))
    assert evidence.cases is not None
    evidence.cases = evidence.cases * 2
    folder = made_run(masks=True, classes=STREET, evidence=evidence)
    html = write_report(folder).read_text(encoding="utf-8")
    assert len(html) < 6_000_000
    words = re.sub(r"base64,[\w+/=]+", "", html)
    assert not re.search(r"https?:|//[a-z]|@import|<link|<script|<iframe|file:/", words)
    page = Page(html)
    for attrs in page.all("img"):
        assert re.match(r"data:image/(png|jpeg);base64,", attrs["src"] or "")
    assert all("alt" in attrs for attrs in page.all("img"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_hostile_names_of_masks_stay_text(made_run: Make) -> None:
    page = page_of(made_run(masks=True, classes=HOSTILE))
    assert not page.all("script")
    assert not any("onerror" in attrs for _, attrs in page.tags)
    for section in ("overlays", "areas", "confusion", "batch"):
        assert HOSTILE[0] in page.text[section], section


@pytest.mark.parametrize(
    "piece", ["confusion", "calibration", "cases", "batch", "filters", "features", "costs"]
)
def test_a_missing_piece_of_masks_says_so(
    made_run: Make, mask_evidence: Callable[..., Evidence], piece: str
) -> None:
    evidence = mask_evidence(4)
    setattr(evidence, piece, None)
    files = read_run(made_run(masks=True, classes=STREET, evidence=evidence))
    outlines = {o.id: o for o in MASKS}
    for section in sections(files):
        assert (section.body is None) == (outlines[section.id].piece == piece)
        assert bool(section.absent) == (section.body is None)
    assert page_of(files.path).open == []


def test_masks_without_a_validation_part_or_an_end(
    made_run: Make, mask_log: Callable[..., Any]
) -> None:
    log = [row | {"val": None} for row in mask_log([0.3, 0.4])]
    folder = made_run(masks=True, classes=STREET, log=log, count={"train": 9, "test": 9})
    assert "Mean IoU of validation images" not in page_of(folder).text["curves"]
    for name in ("results.json", "evidence.json", "evidence.npz", "data.json"):
        (folder / name).unlink()
    page = page_of(folder)
    assert "No score yet" in page.text[""]
    assert UNFINISHED in page.text["overlays"]


def test_a_run_of_an_unknown_task_still_has_a_page(made_run: Make) -> None:
    page = page_of(made_run(card={"task": "caption"}))
    assert [attrs["id"] for attrs in page.all("section")] == [outline.id for outline in LABELS]


def luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "muted", "train", "val", "good", "bad"])
@pytest.mark.parametrize("paper", ["paper", "raised"])
def test_text_stands_out(scheme: str, ink: str, paper: str) -> None:
    """WCAG 2.1, success criterion 1.4.3: contrast of at least 4.5 to 1."""
    style = (HERE / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root\s*\{(.*?)\}", style, re.DOTALL)
    block = blocks[scheme == "dark"]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    high, low = sorted((luminance(colours[ink]), luminance(colours[paper])), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5
