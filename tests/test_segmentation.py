"""Labels for pixels from end to end: a net learns shapes, is stopped, resumed, judged and asked."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import hubel
from hubel import api
from hubel.assemble import assemble
from hubel.cli import run
from hubel.data.augment import Augment
from hubel.errors import ModelError, OptionError
from hubel.runs.drive import Interrupted
from hubel.runs.run import Run
from hubel.training.fit import Step

QUICK = ["--tune", "off", "-q", "--seed", "5"]
NARROW = ["--model", "unet_padded", "--options", "width=12,depth=2"]


def scene(draw, height, width):
    """A noisy image with a bright disc and a dark bar, and its mask: ground, disc, bar."""
    mask = np.zeros((height, width), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    y, x = draw.integers(8, height - 8), draw.integers(8, width - 8)
    mask[(rows - y) ** 2 + (columns - x) ** 2 < 49] = 1
    top = draw.integers(0, height - 4)
    mask[top : top + 4] = 2
    levels = np.array([110, 190, 40])[mask] + draw.normal(0, 25, mask.shape)
    return levels.clip(0, 255).astype(np.uint8), mask


def shapes(folder, count=24):
    """Images of two sizes, their masks and a class list."""
    draw = np.random.default_rng(1)
    for number in range(count):
        image, mask = scene(draw, 32, 40 if number % 3 else 52)
        for name, pixels in (("images", image), ("masks", mask)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")
    (folder / "classes.txt").write_text("ground 90 90 90\ndisc 250 200 0\nbar 0 60 160\n")
    return folder


@pytest.fixture(autouse=True)
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))


def weights(folder):
    return Run.open(folder).weights()[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_net_learns_shapes_and_paints_them_into_new_images(tmp_path, capsys):
    shapes(tmp_path / "shapes")
    words = ["--epochs", "12", "--batch", "8", "--size", "32", "--windows", "4", *NARROW, *QUICK]
    assert run(["train", "shapes", "--name", "a", "--augment", "flip,vflip", *words]) == 0
    assert run(["evaluate", "runs/a", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["metrics"]["test"]
    assert scores["miou"] > 0.85
    assert scores["pixel_accuracy"] > 0.95
    image, mask = scene(np.random.default_rng(77), 45, 61)
    Image.fromarray(image).save("new.png")
    assert run(["predict", "runs/a", "new.png", "--out", "painted"]) == 0
    found = np.asarray(Image.open("painted/new.png"))
    assert found.shape == mask.shape
    assert (found == mask).mean() > 0.93
    page = (tmp_path / "runs" / "a" / "report.html").read_text()
    assert "mean IoU" in page
    assert "disc" in page


def test_stopped_and_resumed_it_ends_in_the_same_bits(tmp_path):
    shapes(tmp_path / "shapes")
    words = {
        "task": "segment", "options": {"width": 4, "depth": 2}, "epochs": 2, "batch": 6, "seed": 3,
        "size": (24, 24), "fit": "same", "tune": "off", "checkpoint_steps": 1,
        "augment": Augment.parse("flip,rotate=20,scale=0.2,elastic=1,jitter=0.2"),
        "masks": {"windows": 2, "terms": ("cross-entropy", "dice"), "balance": "balanced",
                  "objects": "disc", "border": 5.0},
    }  # fmt: skip
    hubel.train("unet_padded", "shapes", name="whole", **words)

    def stop(event):
        if isinstance(event, Step) and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        hubel.train("unet_padded", "shapes", name="torn", tell=stop, **words)
    hubel.resume("runs/torn")
    assert same(weights("runs/whole"), weights("runs/torn"))
    plan = Run.open("runs/torn").config().plan
    assert plan.masks.weights is not None
    scores = Run.open("runs/torn").results()["metrics"]["test"]
    assert scores == Run.open("runs/whole").results()["metrics"]["test"]
    assert {"rand_f", "pixel_error"} <= scores.keys()


@pytest.mark.parametrize(
    "loss", [{}, {"weights": (0.01, 0.3)}, {"terms": ("dice",)}], ids=["plain", "balanced", "dice"]
)
def test_micro_batches_leave_the_same_loss(tmp_path, loss):
    """Pieces are weighted by what their loss is a mean over, however unevenly that is spread."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (16, 16, 16), dtype=np.uint8)
    masks = draw.integers(0, 2, (16, 16, 16), dtype=np.uint8)
    masks[::3, 2:] = 255
    masks[1::3, 3:] = 0
    masks[2::5] = 255
    steps = {}
    for accumulate in (1, 4):
        seen = steps.setdefault(accumulate, [])
        hubel.train(
            "unet", (images, masks), name=f"a{accumulate}", task="segment", fit="same",
            options={"width": 2, "depth": 1}, epochs=1, batch=8, tune="off", augment=Augment(),
            accumulate=accumulate, masks={"windows": 1, **loss}, val=0.0, test=0.0, dropout=0.0,
            tell=lambda e, seen=seen: seen.append(e.loss) if isinstance(e, Step) else None,
        )  # fmt: skip
    assert steps[1] == pytest.approx(steps[4], rel=1e-5)


def test_trained_bodies_go_in_and_learn_slowly(tmp_path):
    shapes(tmp_path / "shapes")
    torch.manual_seed(0)
    body = hubel.build("compact", classes=4, channels=1)
    torch.save(body.state_dict(), "compact.pth")
    words = {"task": "segment", "epochs": 1, "batch": 8, "tune": "off", "masks": {"windows": 1}}
    found = hubel.train(
        "fcn16s", "shapes", body="compact", weights="compact.pth", name="b", head_epochs=0,
        body_rate=0.01, size=(32, 40), fit="stretch", optimiser={"name": "sgd", "lr": 1e-6},
        **words,
    )  # fmt: skip
    theirs, ours = body.state_dict(), weights("runs/b")
    shared = [name for name in ours if name.startswith("body.") and name.endswith("weight")]
    assert shared
    for name in shared:
        assert torch.allclose(ours[name], theirs[name.removeprefix("body.")], atol=1e-4)
    assert found.metrics["test"].keys() >= {"miou"}
    again = hubel.train("fcn16s", "shapes", weights="runs/b", body="compact", name="c",
                        size=(32, 40), fit="stretch", **words)  # fmt: skip
    assert Run.open(again.folder).config().card.origin["head"] == "kept"


def test_what_does_not_fit_is_said_before_any_training(tmp_path, capsys):
    shapes(tmp_path / "shapes")

    def said(*words):
        assert run(["train", "shapes", "--task", "segment", *QUICK, *words]) == 2
        return capsys.readouterr().err

    assert "resnet20 is a net to classify with; to segment" in said("--model", "resnet20")
    assert re.search("by a classifier of your choice: --body", said("--weights", "imagenet"))
    assert re.search(r"class.*'cell'", said("--objects", "cell"))
    assert "say which class they are of (--objects cell)" in said("--border", "10")
    assert re.search(r"needs the size .*--size 240x320", said("--fit", "stretch"))
    assert "mixup" in said("--augment", "mixup=0.2")
    assert re.search(r"body.*'resnet19'.*resnet1", said("--model", "fcn8s", "--body", "resnet19"))
    assert "width=16,norm=false" in said("--options", "width")
    assert re.search("gone.txt.*(no such|not|cannot)", said("--classes", "gone.txt"))
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_size_alone_is_that_of_windows(tmp_path):
    """As the guide has it: images keep their scale unless another fit is asked for."""
    shapes(tmp_path / "shapes", 6)
    for words, fit in (({}, "same"), ({"fit": "stretch"}, "stretch")):
        said = {"task": "segment", "size": (16, 24), **words}
        setting, _ = assemble("unet_padded", "shapes", said, lambda event: None)
        preprocess = setting.card.preprocess
        assert (preprocess.fit, preprocess.height, preprocess.width) == (fit, 16, 24)
        assert setting.plan.fit == fit


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_of_broken_pairs_does_not_spoil_a_training(part, tmp_path):
    shapes(tmp_path / "all", 10)
    for number, file in enumerate(sorted((tmp_path / "all").glob("*/*.png"))):
        own = {0: "val", 1: "test"}.get(number % 10, "train")
        place = tmp_path / "shapes" / file.parent.name / own / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place)
    (mask,) = (tmp_path / "shapes" / "masks" / part).iterdir()
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(mask)
    words = {"options": {"width": 2, "depth": 1}, "epochs": 1, "batch": 4, "tune": "off"}
    found = hubel.train("unet_padded", "shapes", max_broken=0.5, masks={"windows": 1}, **words)
    assert found.metrics.keys() == {"train", "val", "test"} - {part}
    assert any(f"left out: masks/{part}/{mask.name}: the mask is 3 x 3" in n for n in found.notices)


def test_images_and_masks_are_no_classes(tmp_path, capsys):
    shapes(tmp_path / "shapes", 4)
    assert run(["train", "shapes", "-q"]) == 2
    assert "shapes holds images and masks: --task segment" in capsys.readouterr().err


def test_wrong_words_from_python():
    images = np.random.default_rng(0).integers(0, 255, (12, 8, 8), dtype=np.uint8)
    masks = np.tile(np.uint8([0, 1]), (12, 8, 4))
    with pytest.raises(OptionError, match="dropout is given by itself, not among the options"):
        hubel.train("unet", (images, masks), options={"dropout": 0.1})
    with pytest.raises(ModelError, match="unet.*'heigth'|option.*'heigth'"):
        hubel.train("unet", (images, masks), options={"heigth": 1})
    with pytest.raises(OptionError, match="a loss stands twice in dice,dice"):
        hubel.train("unet", (images, masks), masks={"terms": ("dice", "dice")})


def test_the_data_check_reads_every_mask(tmp_path, capsys):
    shapes(tmp_path / "shapes", 6)
    assert run(["data", "check", "shapes", "--task", "segment"]) == 0
    text = capsys.readouterr().out
    assert "6 images of 3 classes" in text
    Image.new("L", (3, 3)).save("shapes/masks/spare.png")
    assert run(["data", "check", "shapes", "--task", "segment"]) == 0
    assert "1 mask without an image was left out" in capsys.readouterr().err
    wrong = np.asarray(Image.open("shapes/masks/04.png")).copy()
    wrong[3, 5] = 9
    Image.fromarray(wrong).save("shapes/masks/04.png")
    assert run(["data", "check", "shapes", "--task", "segment"]) == 1
    text = capsys.readouterr().out
    assert re.search(r"04\.png.*9", text)


def test_a_run_is_laid_open_and_summed_up(tmp_path, capsys):
    shapes(tmp_path / "shapes", 12)
    assert run(["train", "shapes", "--name", "a", "--epochs", "1", "--windows", "1", "--batch",
                "4", *NARROW, *QUICK]) == 0  # fmt: skip
    assert run(["summary", "runs/a"]) == 0
    assert "parameters" in capsys.readouterr().out
    looked = api_look("runs/a", "shapes/images/00.png")
    assert looked.guessed in ("ground", "disc", "bar")
    assert 0 < looked.confidence <= 1
    assert api_look("runs/a", "shapes/images/00.png", label="disc").label == "disc"
    assert run(["runs"]) == 0
    assert re.search(r"\d\.\d+%", capsys.readouterr().out)


def api_look(*words, **named):
    from hubel.examine import look_at

    return look_at(*words, **named)


def test_seeds_are_trained_and_judged_together(tmp_path, capsys):
    shapes(tmp_path / "shapes", 16)
    words = ["--epochs", "1", "--windows", "1", "--batch", "4", "--seeds", "2", "--json"]
    assert run(["train", "shapes", *words, *NARROW, "--tune", "off"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["ensemble"]["test"]["miou"] > 0
    assert record["intervals"]["miou"]["count"] == 2


def test_no_net_is_named_for_a_task(tmp_path):
    shapes(tmp_path / "shapes", 12)
    found = hubel.train(data="shapes", task="segment", epochs=1, tune="off", batch=4,
                        options={"width": 2, "depth": 1}, masks={"windows": 1})  # fmt: skip
    assert Run.open(found.folder).config().plan.model == "unet_padded"
    assert isinstance(api.load_run(found.folder).card.colours, tuple)
