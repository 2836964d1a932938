"""A run taken up alone: its answers are its net's, on its own parts and on other images."""

import numpy as np
import pytest
import torch
from PIL import Image

from hubel import api, loaded
from hubel.data.masks.open import open_masks
from hubel.data.record import ArraySource
from hubel.errors import OptionError
from hubel.session import Notice
from hubel.together import ensemble


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


# Masks --------------------------------------------------------------------------------------------

TINY = """
from torch import nn
def net(*, classes, channels, size):
    return nn.Conv2d(channels, classes, 3, padding=1)
"""


def stripes(count=24, seed=0):
    """Bright columns of 12 x 15 pixels, at the left more often; the second class."""
    draw = np.random.default_rng(seed)
    masks = (draw.random((count, 12, 15)) < np.linspace(0.6, 0.1, 15)).astype(np.uint8)
    images = draw.integers(0, 150, masks.shape, dtype=np.uint8) + 60 * masks
    return open_masks((images[:, None].astype(np.uint8), masks))


@pytest.fixture(scope="module")
def labelling(tmp_path_factory):
    """A run that labels pixels."""
    folder = tmp_path_factory.mktemp("masks")
    (folder / "tiny.py").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBEL_CACHE", str(folder / "cache"))
        patch.setattr("hubel.runs.report.page.write_report", lambda run: run / "report.html")
        result = api.train(
            f"{folder / 'tiny.py'}:net", stripes(), task="segment", out=folder, name="r", epochs=1,
            batch=8, tune="off",
        )  # fmt: skip
    return loaded.load_run(result.folder)


def pixel_chances(run, images):
    with torch.no_grad():
        x = run.card.preprocess.normalise(torch.from_numpy(np.ascontiguousarray(images)))
        return run.model(x).double().softmax(dim=1).numpy()


def test_pixel_scores_on_other_images_are_those_of_the_net(labelling):
    other = stripes(seed=1)
    plain = pixel_chances(labelling, other.images)
    mirrored = pixel_chances(labelling, other.images[..., ::-1])[..., ::-1]
    for tta, chances in (("none", plain), ("flip", (plain + mirrored) / 2)):
        found = labelling.evaluate(other, tta=tta)["all"]
        assert found["pixel_accuracy"] == (chances.argmax(axis=1) == other.masks).mean()
        true = np.take_along_axis(chances, other.masks[:, None].astype(int), axis=1)
        assert found["loss"] == pytest.approx(-np.log(true).mean(), rel=1e-5)
    refined = labelling.evaluate(stripes(seed=1), refine="superpixels")["all"]
    assert refined["pixel_accuracy"] != found["pixel_accuracy"]


def test_masks_of_files(labelling, tmp_path):
    image = stripes(seed=1).images[:1]
    Image.fromarray(image[0, 0]).save(tmp_path / "x.png")
    (found,) = labelling.predict([tmp_path / "x.png"], out=tmp_path / "masks")
    expected = pixel_chances(labelling, image)[0].argmax(axis=0)
    np.testing.assert_array_equal(found.mask, expected)
    np.testing.assert_array_equal(np.asarray(Image.open(found.mask_file)), expected)
    (flipped,) = labelling.predict([tmp_path / "x.png"], tta="flip", refine="crf:iterations=0")
    both = pixel_chances(labelling, image) + pixel_chances(labelling, image[..., ::-1])[..., ::-1]
    np.testing.assert_array_equal(flipped.mask, both[0].argmax(axis=0))


def test_words_about_masks_are_refused_by_a_classifier(run, tmp_path):
    with pytest.raises(OptionError, match="--refine is for nets that label pixels"):
        run.evaluate(shades(), refine="crf")
    with pytest.raises(OptionError, match="--out is for nets that label pixels"):
        run.predict([], out=tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


def test_what_cannot_be_judged_is_told(labelling, tmp_path):
    for number in range(14):
        for name in ("images", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = getattr(stripes(seed=2), name)[number].reshape(12, 15)
            if name == "masks" and number < 12:
                pixels = pixels[:5]
            Image.fromarray(pixels).save(tmp_path / name / f"{number:02d}.png")
    alone = ensemble([labelling.run.folder])
    for judged in (labelling, alone):
        told = []
        scores = judged.evaluate(tmp_path, tell=told.append)["all"]
        said = [e.text for e in told if isinstance(e, Notice) and e.level == "warning"]
        assert said[0].startswith("left out: masks/00.png: the mask is 5 x 15")
        assert said[10:] == ["and 2 more are left out"]
        kept = stripes(seed=2)
        chances = pixel_chances(labelling, kept.images[12:14])
        right = (chances.argmax(axis=1) == kept.masks[12:14]).mean()
        assert scores["pixel_accuracy"] == right
