"""`hubel predict` and `evaluate` with runs that label pixels: tables, files, refusals."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.cli import run

TINY = """
from torch import nn
def net(*, classes, channels, size):
    return nn.Conv2d(channels, classes, 3, padding=1)
"""
CLASSES = "ground 0 0 0\nred spot 200 0 0\n"
QUICK = ["--epochs", "1", "--batch", "8", "--tune", "off", "-q"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """20 images with masks in spots/, a run and a group trained on them; one on whole images."""
    desk = tmp_path_factory.mktemp("desk")
    draw = np.random.default_rng(0)
    for part in ("images", "masks"):
        (desk / "spots" / part).mkdir(parents=True)
    for number in range(20):
        mask = (draw.random((12, 15)) < 0.3).astype(np.uint8)
        image = (draw.integers(0, 120, mask.shape) + 100 * mask).astype(np.uint8)
        Image.fromarray(image).save(desk / "spots" / "images" / f"{number:02d}.png")
        Image.fromarray(mask).save(desk / "spots" / "masks" / f"{number:02d}.png")
        (desk / "labels" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(desk / "labels" / "ab"[number % 2] / f"{number:02d}.png")
    (desk / "spots" / "classes.txt").write_text(CLASSES)
    (desk / "tiny.py").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        patch.setenv("HUBEL_CACHE", str(desk / "cache"))
        patch.setattr("hubel.runs.report.page.write_report", lambda folder: None)
        masks = ["train", "spots", "--task", "segment", "--model", "tiny.py:net", *QUICK]
        assert run([*masks, "--name", "one"]) == 0
        assert run([*masks, "--name", "two", "--seeds", "2"]) == 0
        assert run(["train", "labels", "--model", "mlp", "--name", "labels", *QUICK]) == 0
    return desk


@pytest.fixture(autouse=True)
def at(desk, monkeypatch):
    monkeypatch.chdir(desk)
    monkeypatch.setenv("HUBEL_CACHE", str(desk / "cache"))


FILES = ["spots/images/00.png", "bad.jpg", "spots/images/01.png"]


@pytest.fixture
def broken(desk):
    (desk / "bad.jpg").write_text("no picture")
    yield
    (desk / "bad.jpg").unlink()


def shares(name):
    """Of the classes in a mask file."""
    pixels = np.asarray(Image.open(f"masks/{name}.png"))
    return {"ground": (pixels == 0).mean(), "red spot": (pixels == 1).mean()}


def test_masks_are_written_and_told_in_all_formats(broken, capsys):
    assert run(["predict", "runs/one", *FILES, "--out", "masks", "--format", "json"]) == 1
    first, bad, last = json.loads(capsys.readouterr().out)
    assert bad.keys() == {"file", "error"}
    assert [a["file"] for a in (first, last)] == FILES[::2]
    assert (first["height"], first["width"]) == (12, 15)
    assert first["areas"] == pytest.approx(shares("00"))
    assert first["mask"] == "masks/00.png"
    assert Image.open(first["overlay"]).size == (15, 12)

    assert run(["predict", "runs/one", *FILES, "--out", "masks", "--format", "csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == FILES
    assert float(rows[2]["red spot"]) == pytest.approx(shares("01")["red spot"], abs=1e-6)
    assert rows[1]["error"]
    assert rows[1]["red spot"] == ""

    assert run(["predict", "runs/one", *FILES, "--out", "masks"]) == 1
    table = capsys.readouterr().out
    assert re.search(
        rf"00\.png +15 x 12 +.*red spot {shares('00')['red spot']:.1%}.*masks/00\.png", table
    )
    assert "the file holds text" in table


def test_without_a_folder_nothing_is_written(desk, capsys):
    before = sorted(desk.rglob("*"))
    assert run(["predict", "runs/one", "spots/images", "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 21
    assert "red spot" not in out.splitlines()[1] or "ground" not in out.splitlines()[1]
    assert sorted(desk.rglob("*")) == before


def test_a_group_views_and_refining(desk, capsys):
    words = ["predict", "runs/two", "spots/images/02.png", "--out", "few", "--no-overlay"]
    assert run([*words, "--tta", "scales", "--refine", "crf:iterations=2", "--format", "json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert "overlay" not in answer
    assert {path.name for path in (desk / "few").iterdir()} == {"02.png", "classes.txt"}
    assert run(["predict", "runs/one", "runs/two", "spots/images/02.png"]) == 0


def test_evaluate(capsys):
    scores = {}
    for words in ([], ["--tta", "flip"], ["--refine", "superpixels"], ["spots"], ["runs/two"]):
        assert run(["evaluate", "runs/one", *words, "--json"]) == 0
        scores[" ".join(words)] = json.loads(capsys.readouterr().out)["metrics"]
    results = json.loads(Path("runs/one/results.json").read_text())["metrics"]
    assert scores[""]["test"] == pytest.approx(results["test"], abs=1e-6)
    assert scores["spots"].keys() == {"all"}
    told = [parts["test"]["loss"] for name, parts in scores.items() if name != "spots"]
    assert len(set(told)) == 4
    assert run(["evaluate", "runs/two"]) == 0
    assert "miou" in capsys.readouterr().out
    group = json.loads(Path("runs/two/group.json").read_text())["results"]
    assert group["ensemble"].keys() >= {"test"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/one", "spots/images", "--tta", "dense"], "allowed for masks: none, flip, scales"),
        (["runs/one", "spots/images", "--tta", "flop"], "did you mean 'flip'"),
        (["runs/one", "spots/images", "--refine", "crv"], "did you mean 'crf'"),
        (["runs/one", "spots/images", "--out", "spots/images"], "would overwrite .*00.png, one of"),
        (["runs/one", "spots/images", "--out", "spots/masks"],
         "was not written by 'hubel predict': give another folder"),
        (["runs/labels", "labels/a", "--out", "m"], "--out is for nets that label pixels"),
        (["runs/labels", "labels/a", "--refine", "crf"], "--refine is for nets that label pixels"),
        (["runs/labels", "labels/a", "--tta", "scales"], "unknown tta 'scales'"),
        (["runs/one", "runs/labels", "spots/images"], "do different things, classify and segment"),
    ],
)  # fmt: skip
def test_mistakes(words, message, desk, capsys):
    before = sorted(desk.rglob("*"))
    assert run(["predict", *words]) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err), captured.err
    assert captured.out == ""
    assert sorted(desk.rglob("*")) == before


def test_the_help_teaches(capsys):
    assert run(["predict", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--out masks/", "crf:w1=4", "scales", "classes.txt", "--no-overlay"):
        assert word in text, word
