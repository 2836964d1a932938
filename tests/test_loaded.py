"""A run taken up alone: its answers are its net's, on its own parts and on other images."""

import numpy as np
import pytest
import torch

from hubel import api, loaded
from hubel.data.record import ArraySource
from hubel.errors import OptionError


def shades(count=60, seed=0):
    draw = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    images = draw.integers(0, 150, (count, 1, 8, 8), dtype=np.uint8) + np.uint8(60) * targets[
        :, None, None, None
    ].astype(np.uint8)
    return ArraySource(images, targets, ("dark", "light"), name="shades", origin="made here")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    result = api.train("mlp", shades(), out=tmp_path, name="r", epochs=2, batch=16, tune="off")
    return loaded.load_run(result.folder)


def test_scores_on_other_images_are_those_of_the_net(run):
    other = shades(seed=1)
    with torch.no_grad():
        x = run.card.preprocess.normalise(torch.from_numpy(other.images))
        chances = run.model(x).double().softmax(dim=1).numpy()
    found = run.evaluate(other)["all"]
    assert found["accuracy"] == (chances.argmax(axis=1) == other.targets).mean()
    loss = -np.log(chances[np.arange(60), other.targets]).mean()
    assert found["loss"] == pytest.approx(loss, rel=1e-5)


def test_evaluation_leaves_the_net_in_eval_mode(run):
    for tta in ("none", "flip", "ten-crop", "dense"):
        run.evaluate(shades(seed=1), tta=tta)
        assert not any(module.training for module in run.model.modules()), tta


def test_a_net_without_a_run_needs_data(run):
    net = loaded.LoadedNet(run.model, run.card)
    with pytest.raises(OptionError, match="no data of their own"):
        net.evaluate()
    assert net.evaluate(shades(seed=1)) == run.evaluate(shades(seed=1))
