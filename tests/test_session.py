"""Putting a training together: size, channels and scale; how steps are run; what is remembered."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hubel import session
from hubel.data.files import FileSource
from hubel.data.folder import read_folder
from hubel.data.record import ArraySource
from hubel.data.split import Split
from hubel.errors import DataError
from hubel.runs.remember import recall, remember, signature
from hubel.runs.weights import Card
from hubel.session import choose_preprocess, choose_speed, prepare
from hubel.training.distribute import Crew
from hubel.training.plan import make_plan
from hubel.training.speed import Choice

ALONE = Crew(0, 1, torch.device("cpu"))


def plan_of(**words):
    return make_plan(source="s", model="m", batch=8, **words)


def arrays(channels=1, height=20, width=24, count=40):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    return ArraySource(images, np.arange(count) % 2, ("a", "b"), name="s", origin="s")


def whole(source):
    rows = np.arange(len(source))
    return Split(train=rows[:30], val=rows[30:35], test=rows[35:])


def photos(folder, sizes, mode="RGB"):
    for number, size in enumerate(sizes):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, 40 * (number % 5)).save(path)
    return read_folder(folder)


def test_small_images_of_one_size_are_taken_as_they_are():
    source = arrays()
    found = choose_preprocess(plan_of(), source, whole(source), default_side=32)
    assert (found.channels, found.height, found.width) == (1, 20, 24)
    pixels = source.images[:30] / 255
    assert found.mean[0] == pytest.approx(pixels.mean(), abs=1e-4)
    assert found.std[0] == pytest.approx(pixels.std(), abs=1e-4)


def test_the_mean_is_of_training_images_alone():
    source = arrays()
    source.images[30:] = 255
    found = choose_preprocess(plan_of(), source, whole(source), 32)
    assert found.mean[0] == pytest.approx((source.images[:30] / 255).mean(), abs=1e-4)


def test_large_or_mixed_images_come_to_the_models_size(tmp_path):
    mixed = photos(tmp_path / "mixed", [(50, 40), (40, 50)] * 10)
    large = photos(tmp_path / "large", [(90, 70)] * 20)
    for source in (mixed, large):
        split = Split(np.arange(12), np.arange(12, 16), np.arange(16, 20))
        for usual, side in ((28, 64), (96, 96)):
            found = choose_preprocess(plan_of(), source, split, default_side=usual)
            assert (found.channels, found.height, found.width) == (3, side, side)


@pytest.mark.parametrize(
    ("smallest", "size"),
    [((1, 1), (20, 24)), ((20, 24), (20, 24)), ((21, 1), (64, 64)), ((1, 25), (64, 64))],
)
def test_small_images_are_enlarged_for_a_model_that_takes_none_so_small(smallest, size):
    source = arrays()
    found = choose_preprocess(plan_of(), source, whole(source), 32, smallest)
    assert (found.height, found.width) == size
    larger = choose_preprocess(plan_of(), source, whole(source), 224, (63, 63))
    assert (larger.height, larger.width) == (224, 224)


def test_the_plans_size_wins_and_grey_stays_grey(tmp_path):
    source = photos(tmp_path, [(50, 40)] * 20, mode="L")
    split = Split(np.arange(12), np.arange(12, 16), np.arange(16, 20))
    found = choose_preprocess(plan_of(size=(16, 24)), source, split, 48)
    assert (found.channels, found.height, found.width) == (1, 16, 24)


def test_constant_images_do_not_divide_by_zero():
    source = arrays()
    source.images[:] = 7
    assert choose_preprocess(plan_of(), source, whole(source), 32).std[0] > 0


def test_nothing_readable(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    source = FileSource(tmp_path, ["a.png"] * 4, np.zeros(4), ("a", "b"), name="f", origin="f")
    split = Split(np.arange(4), np.empty(0, np.int64), np.empty(0, np.int64))
    with pytest.raises(DataError, match=r"none of the first 4 training images can be read: a\.png"):
        choose_preprocess(plan_of(), source, split, 32)


def setting_of(**words):
    source, plan = arrays(), plan_of(**words)
    split = whole(source)
    card = Card(None, source.classes, choose_preprocess(plan, source, split, 32))
    return prepare(plan, source, split, card, ALONE)


def test_parts_are_judged_unshuffled_and_whole():
    setting = setting_of()
    rows = torch.cat([b.rows for b in setting.judge("train").batches()])
    assert rows.tolist() == list(range(30))
    spread = torch.cat([b.rows for b in setting.judge("train", most=4).batches()])
    assert spread.tolist() == [0, 9, 19, 29]
    empty = Split(np.arange(40), np.empty(0, np.int64), np.empty(0, np.int64))
    bare = prepare(setting.plan, setting.source, empty, setting.card, ALONE)
    assert bare.judge("val") is None
    assert bare.feeds.val is None


def test_a_choice_is_measured_once_and_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path))
    calls = []
    chosen = Choice("bf16", True, False, "fastest")
    monkeypatch.setattr(session, "measure", lambda *a, **k: calls.append(k) or chosen)
    net = nn.Sequential(nn.Flatten(), nn.Linear(480, 2))
    assert choose_speed(setting_of(), net) == chosen
    assert choose_speed(setting_of(), net) == chosen
    assert len(calls) == 1
    other = nn.Sequential(nn.Flatten(), nn.Linear(480, 3), nn.Linear(3, 2))
    choose_speed(setting_of(), other)
    choose_speed(setting_of(precision="fp32"), net)
    assert len(calls) == 3


def test_tune_off_measures_nothing(monkeypatch):
    monkeypatch.setattr(session, "measure", None)
    net = nn.Sequential(nn.Flatten(), nn.Linear(480, 2))
    assert choose_speed(setting_of(tune="off"), net).precision == "fp32"
    assert choose_speed(setting_of(tune="off", precision="bf16"), net).precision == "bf16"


def test_memory_survives_damage_and_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "c"))
    key = signature(nn.Linear(2, 2), (1, 2), torch.device("cpu"), "auto")
    assert recall(key) is None
    remember(key, Choice(why="x"))
    assert recall(key) == Choice(why="x")
    (tmp_path / "c" / "choices.json").write_text("{")
    assert recall(key) is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "file" / "c"))
    remember(key, Choice())
    assert recall(key) is None
