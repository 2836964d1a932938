"""A label for every pixel: what the net is fed, what the data decides, what it must answer."""

import numpy as np
import pytest
import torch
from torch import nn

from hubel.data.mask_feed import MaskFeed
from hubel.data.masks.open import open_masks
from hubel.data.masks.record import IGNORE
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.data.split import Split
from hubel.errors import BrokenImage, DataError, ModelError, OptionError
from hubel.kinds import segment
from hubel.kinds.kind import must_fit
from hubel.tasks.segment import Segment
from hubel.training.distribute import Crew
from hubel.training.plan import make_plan

ALONE = Crew(0, 1, torch.device("cpu"))


def plan_of(**words):
    said = {"source": "s", "model": "m", "task": "segment", "batch": 4, "fit": "same", **words}
    return make_plan(**said)


def squares(count=12, height=40, width=56, channels=3):
    """Bright squares on dark ground, and their masks: 10 % of the pixels, or none."""
    draw = np.random.default_rng(3)
    images = draw.integers(0, 60, (count, channels, height, width), dtype=np.uint8)
    masks = np.zeros((count, height, width), np.uint8)
    for number in range(count):
        top, left = draw.integers(0, height - 15), draw.integers(0, width - 15)
        images[number, :, top : top + 15, left : left + 15] += 150
        masks[number, top : top + 15, left : left + 15] = 1
    return open_masks((images, masks))


def whole(source):
    rows = np.arange(len(source))
    return Split(train=rows[:8], val=rows[8:10], test=rows[10:])


def fed(source, **words):
    return segment.choose_preprocess(plan_of(**words), source, whole(source), None)


def test_images_of_one_small_size_are_taken_whole_at_their_own_scale():
    source = squares()
    found = fed(source)
    assert (found.channels, found.height, found.width, found.fit) == (3, 40, 56, "same")
    pixels = np.stack([source[row].image for row in range(8)]) / 255
    assert found.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), abs=1e-4)
    assert found.std == pytest.approx(pixels.std(axis=(0, 2, 3)), abs=1e-4)


def test_large_images_are_learnt_from_in_windows():
    found = fed(squares(count=10, height=330, width=200, channels=1))
    assert (found.channels, found.height, found.width) == (1, 256, 200)


def test_the_plans_size_and_fit_win():
    assert fed(squares(), size=(32, 24)).height == 32
    padded = fed(squares(), size=(32, 24), fit="pad")
    assert (padded.height, padded.width, padded.fit) == (32, 24, "pad")


def test_what_cannot_be_fed():
    with pytest.raises(OptionError, match="fit 'crop' would leave the border without labels"):
        fed(squares(), fit="crop", size=(32, 32))
    with pytest.raises(OptionError, match=r"fit 'stretch' needs the size .* \(--size 240x320\)"):
        fed(squares(), fit="stretch")


def test_trained_weights_keep_their_scale_of_values():
    source = squares(channels=1)
    theirs = Preprocess(3, 224, 224, "crop", (0.5,) * 3, (0.2,) * 3, 0.875, "bicubic")
    found = segment.choose_preprocess(plan_of(), source, whole(source), theirs)
    assert (found.channels, found.mean, found.height, found.fit) == (3, (0.5,) * 3, 40, "same")


def test_windows_cover_the_image_and_make_the_epoch_long_enough():
    source = squares(count=10, height=330, width=400)
    words = segment.usual(plan_of(), source, whole(source), fed(source))
    assert words["masks"]["windows"] == 12  # 8 images: 96 windows an epoch at least
    many = np.resize(np.arange(8), 200)
    split = Split(many, np.arange(8, 9), np.arange(9, 10))
    assert segment.usual(plan_of(), source, split, fed(source))["masks"]["windows"] == 2


def test_windows_are_counted_by_the_usual_image_though_the_first_is_broken(monkeypatch):
    source = squares(count=10, height=330, width=400)
    known = fed(source)

    def size(row):
        if row == 0:
            raise BrokenImage("0", "is broken")
        return (3, 1024, 2048) if row % 3 else (3, 9, 9)  # of rows 1 to 7 two are small

    def refuse(row):
        raise BrokenImage("0", "is broken")

    monkeypatch.setattr(source, "size", size)
    monkeypatch.setattr(type(source), "__getitem__", lambda self, row: refuse(row))
    words = segment.usual(plan_of(), source, whole(source), known)
    assert words["masks"]["windows"] == 1024 * 2048 / 256**2


def test_a_class_list_is_found_again_from_anywhere(tmp_path, monkeypatch):
    """And the ignored value, whether the plan says them or whoever opened the data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("ground\nsquare\n")
    pixels = squares()
    said = plan_of(masks={"classes": "list.txt", "ignore": 7})
    for source, plan in (
        (segment.open_data((pixels.images, pixels.masks), said, None), said),
        (open_masks((pixels.images, pixels.masks), classes="list.txt", ignore=7), plan_of()),
    ):
        found = segment.settle(plan, source, whole(source))
        assert (found.masks.classes, found.masks.ignore) == (str(tmp_path / "list.txt"), 7)
        assert segment.settle(found, source, whole(source)) == found


def test_class_weights_come_from_the_training_masks_and_stay_in_the_plan():
    source = squares()
    plan = segment.settle(plan_of(masks={"balance": "balanced"}), source, whole(source))
    share = np.mean([source[row].target for row in range(8)])
    ratio = plan.masks.weights[1] / plan.masks.weights[0]
    assert ratio == pytest.approx((1 - share) / share, rel=1e-6)
    assert segment.settle(plan, source, whole(source)) == plan
    assert segment.settle(plan_of(), source, whole(source)).masks.weights is None


def test_weights_and_objects_must_be_of_these_classes():
    source = squares()
    with pytest.raises(OptionError, match=r"one per class \(2\), given 3"):
        segment.settle(plan_of(masks={"weights": (1, 1, 1)}), source, whole(source))
    with pytest.raises(OptionError, match="no class called 'cell'|unknown class 'cell'"):
        segment.settle(plan_of(masks={"objects": "cell"}), source, whole(source))


def test_the_task_is_what_the_plan_says():
    source = squares()
    card = segment.card(source, fed(source))
    masks = {"terms": ("dice", "focal"), "objects": "1", "weights": (1.0, 2.0)}
    task = segment.task(card, plan_of(masks=masks))
    assert task == Segment(
        source.classes, source.colours, ("dice", "focal"), (1.0, 2.0), objects="1"
    )


def test_feeds_learn_from_windows_and_judge_whole_images():
    source = squares()
    plan = plan_of(size=(16, 16), masks={"windows": 3, "objects": "1", "border": 10.0})
    card = segment.card(source, segment.choose_preprocess(plan, source, whole(source), None))
    task = segment.task(card, plan)
    store = segment.open_store(plan, card, source, ALONE.device, lambda done, of: None)
    train = segment.training_feed(plan, task, store, np.arange(8), ALONE)
    batch = next(train.batches())
    assert isinstance(train, MaskFeed)
    assert len(train) == 3 * 8 // 4
    assert batch.images.shape == (4, 3, 16, 16)
    assert batch.targets.shape == (4, 2, 16, 16)  # label and weight
    judged = next(segment.feed(plan, task, store, np.arange(8), ALONE).batches())
    assert judged.images.shape == (8, 3, 40, 56)


def test_a_net_must_answer_for_every_pixel():
    source = squares()
    card = segment.card(source, fed(source))
    must_fit(segment, nn.Conv2d(3, 2, 3, padding=1), card)
    with pytest.raises(ModelError, match=r"\(2, 2, 40, 56\) logits, one per class for every pixel"):
        must_fit(segment, nn.Conv2d(3, 2, 3), card)


def test_labels_of_whole_images_are_no_masks():
    images = np.zeros((4, 1, 8, 8), np.uint8)
    labels = ArraySource(images, np.arange(4) % 2, ("a", "b"), name="digits", origin="d")
    with pytest.raises(DataError, match="digits has a label for every image, not for every pixel"):
        segment.open_data(labels, plan_of(), None)


def test_other_data_is_matched_by_class_name():
    source, other = squares(), squares()
    card = segment.card(source, fed(source))
    other.classes = ("1", "0")
    matched = segment.match(other, card)
    assert matched.classes == ("0", "1")
    assert (matched[0].target == 1 - other[0].target).all()
    other.classes = ("1", "sky")
    with pytest.raises(DataError, match="class 'sky' of .* is not one of the run's: 0, 1"):
        segment.match(other, card)


def test_pixels_without_a_label_stay_without_when_classes_are_matched():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    masks = np.tile(np.array([0, 1, 1, 0, 255, 1, 0, 1], np.uint8), (3, 8, 1))
    source = open_masks((images, masks))
    card = segment.card(source, Preprocess(3, 8, 8, "same", (0.5,) * 3, (0.5,) * 3))
    matched = segment.match(open_masks((images, masks)), card)
    assert (matched[0].target == masks[0]).all()
    assert (matched[0].target == IGNORE).any()
