"""Sources of images with masks: samples, sizes that differ, hashes, splits, and pickling."""

import pickle

import numpy as np
import pytest
from PIL import Image

from hubel.data.folds import fold_split
from hubel.data.masks.open import open_masks
from hubel.data.masks.record import IGNORE, MaskArrays, MaskSource
from hubel.data.record import ArraySource
from hubel.data.split import Split, make_split
from hubel.errors import BrokenImage, DataError

MASK = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)


@pytest.fixture
def pair(plant):
    return plant({"images/a.png": (2, 3), "masks/a.png": MASK})


def noise(count, seed=0, shape=(1, 6, 5)):
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 2, (count, *shape[1:]), dtype=np.uint8)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8), masks


def arrays(count, **options):
    return MaskArrays(*noise(count), ("a", "b"), ((0, 0, 0), (1, 1, 1)), **options)


def test_a_sample(pair):
    source = open_masks(pair)
    assert isinstance(source, MaskSource)
    assert source.kind == "masks"
    assert ArraySource.kind == "labels"
    sample = source[0]
    assert (sample.image.shape, sample.image.dtype) == ((3, 2, 3), np.uint8)
    assert np.array_equal(sample.target, MASK)
    assert (sample.target.dtype, sample.id) == (np.uint8, "images/a.png")
    assert np.array_equal(source.mask(0), MASK)
    assert source.size(0) == (3, 2, 3)
    assert source.targets.tolist() == [0]
    assert source.parts.tolist() == [""]
    assert source.where == str(pair.resolve())
    assert IGNORE == 255


def test_a_mask_of_another_size(plant):
    root = plant({"images/a.png": (4, 6), "masks/a.png": MASK})
    source = open_masks(root)
    message = (
        r"^masks/a\.png: the mask is 2 x 3, its image images/a\.png is 4 x 6 \(height x width, "
        r"upright\); they must be equal$"
    )
    for read in (source.__getitem__, source.mask):
        with pytest.raises(BrokenImage, match=message):
            read(0)


def test_an_image_turned_by_exif(plant, tmp_path):
    plant({"masks/a.png": MASK})
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "images/a.jpg", exif=exif)
    with pytest.raises(BrokenImage, match=r"the mask is 2 x 3, its image .* is 3 x 2"):
        open_masks(tmp_path).mask(0)


def test_a_damaged_image_and_a_damaged_mask(plant):
    root = plant({"images/a.png": (2, 3), "masks/a.png": MASK, "masks/b.png": MASK})
    plant({"images/b.png": (2, 3)})
    source = open_masks(root)
    (root / "images/a.png").write_bytes(b"")
    (root / "masks/b.png").write_bytes((root / "masks/b.png").read_bytes()[:50])
    with pytest.raises(BrokenImage, match=r"images/a\.png: the file is empty"):
        source[0]
    with pytest.raises(BrokenImage, match=r"masks/b\.png: "):
        source[1]


def test_hashes_cover_both(plant, tmp_path):
    files = {"images/a.png": (2, 3), "masks/a.png": MASK}
    first = open_masks(plant(files, tmp_path / "one"))
    root = tmp_path / "two"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    (root / "images/z.png").write_bytes((tmp_path / "one/images/a.png").read_bytes())
    (root / "masks/z.png").write_bytes((tmp_path / "one/masks/a.png").read_bytes())
    second = open_masks(root)
    assert second.hashes() == first.hashes()
    assert second.fingerprint() == first.fingerprint()
    plant({"masks/z.png": MASK[::-1]}, root)
    third = open_masks(root)
    assert third.hashes() != first.hashes()
    assert third.image_hashes() == first.image_hashes()


def test_files_that_are_gone_hash_as_their_names(plant):
    root = plant({f"{kind}/{n}.png": MASK for kind in ("images", "masks") for n in "ab"})
    source = open_masks(root)
    for kind in ("images", "masks"):
        for name in "ab":
            (root / kind / f"{name}.png").unlink()
    assert len(set(source.hashes().tolist())) == 2


def test_arrays():
    images, masks = noise(3)
    source = arrays(3)
    assert np.array_equal(source[2].image, images[2])
    assert np.array_equal(source[2].target, masks[2])
    assert source.size(1) == (1, 6, 5)
    assert source[1].id == "00001"
    assert len(set(source.hashes().tolist())) == 3
    changed = arrays(3)
    changed.masks[1, 0, 0] ^= 1
    assert (changed.hashes() == source.hashes()).tolist() == [True, False, True]
    assert (changed.image_hashes() == source.image_hashes()).all()


def test_arrays_of_other_sizes():
    images, masks = noise(3)
    with pytest.raises(DataError, match=r"given \(3, 1, 6, 5\) and \(3, 6, 4\)"):
        MaskArrays(images, masks[..., :4], ("a", "b"), ((0, 0, 0), (1, 1, 1)))


def test_sources_pickle(pair):
    source = open_masks(pair)
    source.hashes()
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy[0].target, MASK)
    assert copy.fingerprint() == source.fingerprint()
    assert np.array_equal(pickle.loads(pickle.dumps(arrays(2)))[1].image, arrays(2)[1].image)


def test_a_split_does_not_look_for_classes():
    """All targets are 0, of several classes: no class is short of images."""
    source = arrays(20)
    split = make_split(source, val=0.1, test=0.2)
    assert [len(split.rows(part)) for part in ("train", "val", "test")] == [14, 2, 4]
    again = Split.from_json(split.to_json(source), source)
    assert np.array_equal(again.numbers(), split.numbers())
    with pytest.raises(
        DataError, match="^arrays has 1 image: it needs 2 different ones to be both"
    ):
        make_split(arrays(1))


def test_masks_of_one_picture_stay_on_one_side():
    """Several people drew masks of each picture: none of them may judge what another taught."""
    images, masks = noise(60)
    images = images[np.arange(60) // 3]
    source = MaskArrays(images, masks, ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    assert len(set(source.hashes().tolist())) == 60
    for seed in range(4):
        split = make_split(source, val=0.2, test=0.2, seed=seed)
        held = fold_split(source, (1, 4), val=0.2, seed=seed)
        for cut in (split, held):
            parts = [set((rows // 3).tolist()) for rows in (cut.train, cut.val, cut.test)]
            assert sum(map(len, parts)) == 20
            assert all(parts)
        assert len(split.val) == len(split.test) == 12
        assert len(held.test) == 15
    one = MaskArrays(images[:3], masks[:3], ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(DataError, match="3 images, all equal: it needs 2 different ones"):
        make_split(one)


def test_folds_do_not_either():
    split = fold_split(arrays(10), (2, 5), val=0.25)
    assert [len(split.rows(part)) for part in ("train", "val", "test")] == [6, 2, 2]
    with pytest.raises(DataError, match="^arrays has 2 different images: with 2 folds 1 would be"):
        fold_split(arrays(2), (1, 2), val=0.5)
