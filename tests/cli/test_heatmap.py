"""`hubel heatmap`: a picture, a table or one JSON object, and one line for every mistake."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import hubel
from hubel.cli import run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run on 2 classes of 20x20 colour images, red or green in the middle; and its folder."""
    folder = tmp_path_factory.mktemp("heat")
    draw = np.random.default_rng(0)
    for row in range(80):
        pixels = draw.integers(0, 90, (20, 20, 3), dtype=np.uint8)
        pixels[5:15, 5:15, row % 2] += 150
        path = folder / "photos" / ("red", "green")[row % 2] / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    words = [
        "--epochs",
        "6",
        "--batch",
        "16",
        "--tune",
        "off",
        "-q",
        "--name",
        "one",
        "--size",
        "20",
    ]
    out = ["--out", str(folder / "runs")]
    assert run(["train", str(folder / "photos"), "--model", "net32", *words, *out]) == 0
    return folder


@pytest.fixture
def scene(made, tmp_path, monkeypatch):
    """A photo of 40x60 with a green patch around (45, 20); commands run beside it."""
    pixels = np.random.default_rng(1).integers(0, 90, (40, 60, 3), dtype=np.uint8)
    pixels[15:25, 40:50, 1] += 150
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    monkeypatch.chdir(tmp_path)
    return str(made / "runs" / "one"), "scene.png"


def test_one_json_object_and_a_picture(scene, capsys, tmp_path):
    assert run(["heatmap", *scene, "--json", "--class", "green"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["photo"] == record["fed"] == [40, 60]
    assert (record["window"], record["stride"]) == ([20, 20], [4, 4])
    assert record["windows"] == [6, 11]
    (green,) = record["classes"]
    assert green["class"] == "green"
    assert abs(green["x"] - 45) <= 8
    assert abs(green["y"] - 20) <= 8
    with Image.open(tmp_path / "heatmap.png") as picture:
        assert picture.format == "PNG"
    loaded = hubel.load_run(scene[0])  # the net itself, on that very window
    y, x = int(green["y"]) - 10, int(green["x"]) - 10
    pixels = np.asarray(Image.open("scene.png"))[y : y + 20, x : x + 20].transpose(2, 0, 1)
    fed = loaded.card.preprocess.normalise(torch.from_numpy(pixels.copy()[None]))
    with torch.no_grad():
        own = float(loaded.model(fed).softmax(1)[0, loaded.card.classes.index("green")])
    assert green["probability"] == pytest.approx(own, abs=1e-4)


def test_a_table_says_what_was_done_to_the_photo(scene, capsys, tmp_path):
    assert run(["heatmap", *scene, "--scale", "2", "--top", "1", "--out", "two.png"]) == 0
    said = capsys.readouterr().out
    assert "the photo of 40x60 was enlarged to 80x120" in said
    assert "16x26 windows of 20x20 pixels, one every 4 down, 4 right" in said
    assert "picture: two.png" in said
    assert (tmp_path / "two.png").stat().st_size > 10_000
    assert run(["heatmap", *scene, "--size", "10"]) == 0
    assert "was reduced to 20x30" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--class", "gren"], "did you mean 'green'?"),
        (["--scale", "0"], "a scale is a number above 0, given 0"),
        (["--scale", "2", "--size", "30"], "not both"),
        (["--out", "nowhere/at/all.png"], "cannot write"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_are_one_line(scene, capsys, words, said):
    assert run(["heatmap", *scene, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_photo_that_is_none(scene, capsys):
    assert run(["heatmap", scene[0], "nothing.jpg"]) == 2
    assert "nothing.jpg: no such file" in capsys.readouterr().err
