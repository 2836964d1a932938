"""Putting a training together: size, channels and scale; how steps are run; what is remembered."""

import numpy as np
import torch
from made_sources import arrays, whole
from torch import nn

from hubel import session
from hubel.data.split import Split
from hubel.kinds.classify import choose_preprocess
from hubel.runs.remember import recall, remember, signature
from hubel.runs.weights import Card
from hubel.session import choose_speed, prepare
from hubel.training.distribute import Crew
from hubel.training.plan import make_plan
from hubel.training.speed import Choice

ALONE = Crew(0, 1, torch.device("cpu"))


def plan_of(**words):
    return make_plan(source="s", model="m", batch=8, **words)


def setting_of(**words):
    source, plan = arrays(), plan_of(**words)
    split = whole(source)
    card = Card(None, source.classes, choose_preprocess(plan, source, split, None))
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
