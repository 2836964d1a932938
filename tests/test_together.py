"""Runs taken up together: whose classes, which images, and what the views change."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hubel import api
from hubel.data.masks.record import MaskArrays
from hubel.data.record import ArraySource
from hubel.deploy.views import enlarged
from hubel.errors import DataError, OptionError, RunError
from hubel.together import LoadedEnsemble, ensemble, load_run, take_up

pytestmark = pytest.mark.usefixtures("short_reports")
QUICK = {"epochs": 1, "batch": 16, "tune": "off"}


def stripes(classes=("plain", "striped"), seed=0, count=80):
    draw = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    images = draw.integers(0, 120, (count, 1, 16, 16), dtype=np.uint8)
    images[targets == 1, :, 4:8, :9] += 60  # left of the middle: a mirror is another picture
    if classes[0] == "striped":
        targets = 1 - targets
    return ArraySource(images, targets, classes, name="stripes", origin="made here")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on one split, one whose split is another, one that counts the classes otherwise."""
    out = tmp_path_factory.mktemp("runs")
    words = {"a": {}, "b": {"seed": 1, "split_seed": 0}, "other": {"seed": 2}, "turned": {}}
    for name, own in words.items():
        data = stripes(("striped", "plain")) if name == "turned" else stripes()
        api.train("lenet5", data, out=out, name=name, **QUICK, **own)
    api.train("softmax", stripes(("cat", "dog")), out=out, name="pets", **QUICK)
    return out


def chances(run, images):
    """Probabilities of raw images by a run's net, by class name."""
    loaded = api.load_run(run)
    with torch.no_grad():
        x = loaded.card.preprocess.normalise(torch.from_numpy(images))
        found = loaded.model(x).softmax(dim=1).double().numpy()
    return {name: found[:, k] for k, name in enumerate(loaded.card.classes)}


def test_on_the_split_they_share(runs):
    source = stripes()
    both = ensemble([runs / "a", api.load_run(runs / "b")])
    rows = both.members[0].run.split(source).test
    striped = sum(chances(runs / name, source.images[rows])["striped"] for name in "ab") / 2
    truth = source.targets[rows]
    found = both.own_scores(source)
    assert found.keys() == {"train", "val", "test"}
    assert found["test"]["accuracy"] == pytest.approx(((striped > 0.5) == truth).mean())
    right = np.where(truth == 1, striped, 1 - striped)
    assert found["test"]["loss"] == pytest.approx(-np.log(right).mean())


def test_parts_that_an_ensemble_does_not_have(runs):
    both = ensemble([runs / "a", runs / "b"])
    with pytest.raises(OptionError, match="unknown part 'vall': did you mean 'val'"):
        both.evaluate(parts=["vall"])
    with pytest.raises(OptionError, match="other data is judged as a whole"):
        both.evaluate(stripes(seed=5), parts=["val"])
    with pytest.raises(OptionError, match="folds are judged on what each held out"):
        replace(both, folds=True).evaluate(parts=["val"])


def test_other_splits_are_refused_but_not_on_other_data(runs):
    both = ensemble([runs / "a", runs / "other"])
    with pytest.raises(DataError, match=r"not trained on one split.*--split-seed"):
        both.own_scores(stripes())
    assert both.evaluate(stripes(seed=5))["all"]["accuracy"] > 0


def test_classes_are_matched_by_name_on_other_data(runs):
    images, targets = stripes(seed=5).images, stripes(seed=5).targets
    striped = sum(chances(runs / name, images)["striped"] for name in ("a", "turned")) / 2
    right = np.where(targets == 1, striped, 1 - striped)
    for order in (("a", "turned"), ("turned", "a")):
        for classes in (("plain", "striped"), ("striped", "plain")):
            found = ensemble([runs / name for name in order]).evaluate(stripes(classes, seed=5))
            assert found["all"]["loss"] == pytest.approx(-np.log(right).mean(), rel=1e-5)
            assert found["all"]["accuracy"] == pytest.approx((right > 0.5).mean())


def test_files_are_answered_by_the_average(runs, tmp_path):
    image = stripes(seed=5).images[:1]
    Image.fromarray(image[0, 0]).save(tmp_path / "x.png")
    expected = sum(chances(runs / name, image)["striped"][0] for name in ("a", "turned")) / 2
    (answer,) = ensemble([runs / "a", runs / "turned"]).predict([tmp_path / "x.png"])
    assert dict(answer.top)["striped"] == pytest.approx(expected)


def test_other_classes_nothing_at_all_and_a_lone_path(runs):
    with pytest.raises(DataError, match="'cat' is known to one and not to another"):
        ensemble([runs / "a", runs / "pets"])
    with pytest.raises(OptionError, match="a list of one run or more"):
        ensemble([])
    with pytest.raises(OptionError, match="a list of one run or more"):
        ensemble("runs/a")
    assert isinstance(take_up([str(runs / "a"), str(runs / "b")]), LoadedEnsemble)
    assert isinstance(take_up([str(runs / "a")]), api.LoadedRun)
    with pytest.raises(RunError, match="no such|unknown run|no run"):
        load_run(runs / "nobody")


# Views --------------------------------------------------------------------------------------------


def test_flip_on_a_run_is_the_mean_over_the_mirror(runs):
    source = stripes(seed=5)
    mirrored = np.ascontiguousarray(source.images[..., ::-1])
    pair = [chances(runs / "a", images)["striped"] for images in (source.images, mirrored)]
    striped = (pair[0] + pair[1]) / 2
    right = np.where(source.targets == 1, striped, 1 - striped)
    run = api.load_run(runs / "a")
    found = run.evaluate(source, tta="flip")["all"]
    assert found["loss"] == pytest.approx(-np.log(right).mean(), rel=1e-5)
    plain = run.evaluate(stripes(seed=5))["all"]
    assert plain["loss"] != pytest.approx(found["loss"], rel=1e-3)
    assert not run.model.training


def test_ten_crop_is_cut_from_the_image_itself(runs, tmp_path):
    """A photo of 90 x 90 goes to 18 x 18 (16 / 0.875) at once, never by way of 16 x 16."""
    draw = np.random.default_rng(1)
    photo = draw.integers(0, 256, (90, 90), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "x.png")
    larger = np.asarray(Image.fromarray(photo).resize((18, 18), Image.Resampling.BILINEAR))
    crops = [larger[t : t + 16, s : s + 16] for t, s in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))]
    views = np.stack([v for crop in crops for v in (crop, crop[:, ::-1])])[:, None]
    expected = chances(runs / "a", np.ascontiguousarray(views))["striped"].mean()
    run = api.load_run(runs / "a")
    assert enlarged(run.card.preprocess).height == 18
    (answer,) = run.predict([tmp_path / "x.png"], tta="ten-crop")
    assert dict(answer.top)["striped"] == pytest.approx(expected, abs=1e-6)
    data = ArraySource(photo[None, None], np.array([1]), ("plain", "striped"), name="x", origin="x")
    scores = run.evaluate(data, tta="ten-crop")["all"]
    assert scores["loss"] == pytest.approx(-np.log(expected), rel=1e-5)
    both = ensemble([runs / "a", runs / "a"])
    assert both.evaluate(data, tta="ten-crop")["all"]["loss"] == pytest.approx(scores["loss"])
    (together,) = both.predict([tmp_path / "x.png"], tta="ten-crop")
    assert dict(together.top) == pytest.approx(dict(answer.top))


def test_dense_averages_the_scores_of_every_window(runs, tmp_path):
    """`softmax` on 18 x 18: nine windows of 16 x 16, through the net itself one by one."""
    photo = np.random.default_rng(2).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "x.png")
    larger = np.asarray(Image.fromarray(photo).resize((18, 18), Image.Resampling.BILINEAR))
    run = api.load_run(runs / "pets")
    x = run.card.preprocess.normalise(torch.from_numpy(larger.copy())[None, None])
    with torch.no_grad():
        sides = [
            torch.stack([run.model(side[..., t : t + 16, s : s + 16])[0]
                         for t in range(3) for s in range(3)]).mean(dim=0).softmax(dim=0)
            for side in (x, x.flip(3))
        ]  # fmt: skip
    (answer,) = run.predict([tmp_path / "x.png"], tta="dense")
    expected = ((sides[0] + sides[1]) / 2).tolist()
    assert dict(answer.top) == pytest.approx(dict(zip(("cat", "dog"), expected, strict=True)))


def test_an_unknown_view(runs):
    with pytest.raises(OptionError, match="unknown tta 'flop': did you mean 'flip'"):
        api.load_run(runs / "a").predictor(tta="flop")


# Masks --------------------------------------------------------------------------------------------

TINY = """
from torch import nn
def net(*, classes, channels, size):
    return nn.Conv2d(channels, classes, 3, padding=1)
"""


def spots(seed=0, classes=("ground", "spot"), count=24, brighter=0):
    draw = np.random.default_rng(seed)
    masks = (draw.random((count, 12, 15)) < np.linspace(0.6, 0.1, 15)).astype(np.uint8)
    images = (draw.integers(0, 150, masks.shape) + 60 * masks + brighter).astype(np.uint8)
    colours = ((0, 0, 0), (200, 0, 0))
    if classes[0] == "spot":
        masks, colours = 1 - masks, colours[::-1]
    return MaskArrays(images[:, None], masks, classes, colours, name="spots")


@pytest.fixture(scope="module")
def labelling(tmp_path_factory):
    """Two runs on one split that know mean and deviation otherwise and count classes otherwise;
    two folds; one run that takes images otherwise."""
    out = tmp_path_factory.mktemp("masks")
    (out / "tiny.py").write_text(TINY)
    net = f"{out / 'tiny.py'}:net"
    words = {**QUICK, "task": "segment", "batch": 8, "out": out, "split_seed": 0}
    api.train(net, spots(), name="a", **words)
    api.train(net, spots(brighter=40, classes=("spot", "ground")), name="b", seed=1, **words)
    api.train(net, spots(), name="c", fit="stretch", size=(8, 8), **words)
    for fold in (1, 2):
        api.train(net, spots(), name=f"fold-{fold}", fold=(fold, 2), **words)
    return out


def pixel_chances(run, images):
    """Probabilities of the class "spot" in raw images by a run's net: (N, H, W)."""
    loaded = api.load_run(run)
    with torch.no_grad():
        x = loaded.card.preprocess.normalise(torch.from_numpy(np.ascontiguousarray(images)))
        found = loaded.model(x).softmax(dim=1).double().numpy()
    return found[:, loaded.card.classes.index("spot")]


def test_masks_are_averaged_pixel_by_pixel(labelling, tmp_path):
    source = spots(seed=5)
    spot = sum(pixel_chances(labelling / name, source.images) for name in "ab") / 2
    mirrored = source.images[..., ::-1]
    flipped = sum(pixel_chances(labelling / name, mirrored) for name in "ab")[..., ::-1] / 2
    ways = [api.load_run(labelling / name).card.preprocess for name in "ab"]
    assert ways[0].mean != ways[1].mean
    Image.fromarray(source.images[0, 0]).save(tmp_path / "x.png")
    for tta, chance in (("none", spot), ("flip", (spot + flipped) / 2)):
        for order in ("ab", "ba"):
            both = ensemble([labelling / name for name in order])
            found = both.evaluate(spots(seed=5), tta=tta)["all"]
            assert found["pixel_accuracy"] == ((chance > 0.5) == source.masks).mean()
            right = np.where(source.masks == 1, chance, 1 - chance)
            assert found["loss"] == pytest.approx(-np.log(right).mean(), rel=1e-4)
            (answer,) = both.predict([tmp_path / "x.png"], tta=tta, out=tmp_path / order)
            place = both.classes.index("spot")
            np.testing.assert_array_equal(answer.mask == place, chance[0] > 0.5)
            assert (tmp_path / order / "x.png").exists()


def test_masks_on_the_split_they_share(labelling):
    both = ensemble([labelling / "a", labelling / "a"])
    alone = api.load_run(labelling / "a").evaluate(spots())["all"]
    found = both.own_scores(spots())
    assert found.keys() == {"train", "val", "test"}
    rows = both.members[0].run.split(spots()).test
    spot = pixel_chances(labelling / "a", spots().images[rows])
    assert found["test"]["pixel_accuracy"] == ((spot > 0.5) == spots().masks[rows]).mean()
    assert found["test"]["pixel_accuracy"] != alone["pixel_accuracy"]


def test_masks_of_folds_are_judged_by_who_never_saw_them(labelling):
    members = tuple(api.load_run(labelling / f"fold-{fold}") for fold in (1, 2))
    found = LoadedEnsemble(members, folds=True).own_scores(spots())
    source, right = spots(), 0
    for number, member in enumerate(members, start=1):
        rows = member.run.split(source).test
        spot = pixel_chances(labelling / f"fold-{number}", source.images[rows])
        right += ((spot > 0.5) == source.masks[rows]).sum()
    assert found.keys() == {"out-of-fold"}
    assert found["out-of-fold"]["pixel_accuracy"] == right / source.masks.size


def test_masks_that_cannot_be_averaged(labelling, runs):
    with pytest.raises(DataError, match="do different things, classify and segment"):
        ensemble([runs / "a", labelling / "a"])
    both = ensemble([labelling / "a", labelling / "c"])
    for ask in (both.predictor, lambda: both.evaluate(spots())):
        with pytest.raises(DataError, match="prepare images in different ways"):
            ask()
    with pytest.raises(OptionError, match="allowed for masks: none, flip, scales"):
        ensemble([labelling / "a"]).evaluate(spots(), tta="dense")
    with pytest.raises(OptionError, match="--refine is for nets that label pixels"):
        ensemble([runs / "a"]).evaluate(stripes(), refine="crf")
