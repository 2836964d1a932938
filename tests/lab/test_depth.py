"""The depth experiment: it trains what is missing, goes on, judges its claims, and draws."""

import json

import numpy as np
import pytest
from PIL import Image

from hubel import api
from hubel.data.record import ArraySource
from hubel.errors import OptionError
from hubel.lab import depth as module
from hubel.lab.depth import depth
from hubel.runs.run import Run

SMALL = {"depths": (20, 32), "seeds": 2, "epochs": 1, "batch": 8, "tune": "off", "device": "cpu"}


@pytest.fixture(scope="module")
def data():
    """Bright and dark squares of 8x8 pixels: enough to train on for a moment."""
    chance = np.random.default_rng(0)
    targets = np.arange(40) % 2
    images = chance.integers(0, 90, (40, 3, 8, 8), dtype=np.uint8) + (targets * 120)[
        :, None, None, None
    ].astype(np.uint8)
    parts = np.where(np.arange(40) < 30, "train", "test")
    return ArraySource(images, targets, ("dark", "bright"), name="squares", origin="", parts=parts)


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("lab")
    return out, depth(data, out=out, **SMALL)


def test_every_net_is_trained_with_every_seed_and_drawn(first):
    out, found = first
    assert list(found.errors) == ["plain20", "resnet20", "plain32", "resnet32"]
    assert all(len(parts[part]) == 2 for parts in found.errors.values() for part in parts)
    assert all(len(run) == 1 for runs in found.curves.values() for run in runs)
    assert len(found.claims) == 4
    picture = np.asarray(Image.open(found.picture).convert("L"))
    assert picture.std() > 10
    assert json.loads((out / "depth.json").read_text())["errors"] == found.errors
    plan = Run.open(out / "plain32-seed1").config().plan
    assert (plan.seed, plan.optimiser.momentum_form, plan.schedule.name) == (
        1, "velocity", "one-cycle",
    )  # fmt: skip


def test_again_it_trains_nothing_and_finds_the_same(first, data, monkeypatch):
    out, found = first
    monkeypatch.setattr(api, "train", lambda *_, **__: pytest.fail("trained again"))
    assert depth(data, out=out, **SMALL).errors == found.errors


def test_a_net_that_is_missing_is_trained_alone(first, data, monkeypatch):
    out, found = first
    run = out / "resnet20-seed1"
    run.rename(out / "elsewhere")
    trained = []
    real = api.train
    monkeypatch.setattr(
        api, "train", lambda *words, **k: trained.append(k["name"]) or real(*words, **k)
    )
    again = depth(data, out=out, **SMALL)
    assert trained == ["resnet20-seed1"]
    assert again.errors == found.errors  # the same seed, the same weights


def test_claims_hold_where_intervals_do_not_touch():
    errors = {
        "plain20": {"train": [0.10, 0.11, 0.12], "test": [0.2, 0.2, 0.2]},
        "plain56": {"train": [0.30, 0.31, 0.32], "test": [0.2, 0.2, 0.2]},
        "resnet20": {"train": [0.10, 0.11, 0.12], "test": [0.20, 0.22, 0.24]},
        "resnet56": {"train": [0.10, 0.12, 0.13], "test": [0.11, 0.13, 0.15]},
    }
    told = {claim.text: claim.holds for claim in module._claims(errors, (20, 56))}
    assert told == {
        "plain nets: 56 layers have more train error than 20": True,
        "residual nets: 20 layers have more train error than 56": False,
        "plain nets: 56 layers have more test error than 20": False,  # equal is not worse
        "residual nets: 20 layers have more test error than 56": False,  # 0.17..0.27 and 0.08..0.18
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"depths": (20, 21)}, r"two or more of 20, 32, 44, 56, 110, given \[20, 21\]"),
        ({"depths": (20, 20)}, "two or more"),
        ({"seeds": 1}, "2 seeds or more, given 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(data, tmp_path, words, message):
    with pytest.raises(OptionError, match=message):
        depth(data, out=tmp_path, **(SMALL | words))
