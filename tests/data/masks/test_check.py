"""The check of masks: each finding on data made to have it, none on sound data, truth on real."""

import numpy as np
import pytest

from hubel.data.masks.check import check_masks, class_shares
from hubel.data.masks.open import open_masks
from hubel.data.masks.record import MaskArrays
from hubel.data.split import Split, make_split
from hubel.errors import BrokenImage, DataError

SIZE = (16, 20)


def source_of(masks, parts=None, classes=("sky", "road", "pole"), images=None):
    rng = np.random.default_rng(0)
    masks = np.asarray(masks, np.uint8)
    if images is None:
        images = rng.integers(0, 256, (len(masks), 1, *SIZE), dtype=np.uint8)
    parts = None if parts is None else np.array(parts, "U5")
    colours = ((0, 0, 0),) * len(classes)
    return MaskArrays(images, masks, classes, colours, name="made", parts=parts)


def thirds(count):
    """Masks with about as many pixels of each of three classes."""
    return np.random.default_rng(1).integers(0, 3, (count, *SIZE), dtype=np.uint8)


def whole(source):
    return Split(source.rows("train"), source.rows("val"), source.rows("test"))


def told(findings):
    return [(f.level, f.code, f.text) for f in findings.findings]


def test_sound_data_has_no_findings():
    source = source_of(thirds(30))
    split = make_split(source)
    for full in (False, True):
        findings = check_masks(source, split, full=full)
        assert findings.findings == []
        assert findings.full == full
        assert findings.counts == {"train": [24] * 3, "val": [3] * 3, "test": [3] * 3}
        assert (findings.images, findings.broken, findings.classes) == (
            30,
            0,
            ["sky", "road", "pole"],
        )
    assert check_masks(source).counts == {"all": [30] * 3}
    assert findings.sizes["read"] == 30


def test_absent_classes_by_part():
    masks = thirds(6)
    masks[:4][masks[:4] == 2] = 1
    masks[4:][masks[4:] == 0] = 1
    source = source_of(masks, ["train"] * 4 + ["test"] * 2)
    findings = check_masks(source, whole(source))
    assert told(findings)[:2] == [
        ("error", "absent", "1 class has no pixels in train"),
        ("warning", "no-training", "there are no images in val"),
    ]
    assert told(findings)[2] == ("warning", "absent", "1 class has no pixels in test")
    assert [f.names for f in findings.findings if f.code == "absent"] == [("pole",), ("sky",)]
    assert findings.counts == {"train": [4, 4, 0], "test": [0, 2, 2]}


def test_what_was_not_read_whole_is_a_note():
    masks = np.zeros((500, *SIZE), np.uint8)
    masks[:, 0] = 1
    masks[8, 5, 5] = 2
    source = source_of(masks)
    quick, full = check_masks(source), check_masks(source, full=True)
    assert told(quick) == [
        ("note", "absent", "1 class has no pixels in the 200 masks that were looked at"),
        ("note", "imbalance", "class 'sky' has 15 times as many training pixels as 'road'"),
    ]
    assert quick.counts == {"all": [200, 200, 0]}
    assert told(full)[0] == (
        "warning",
        "rare",
        "1 class has less than 0.1 % of the training pixels",
    )
    assert full.findings[0].names == ("pole: 0.00063 %",)


def test_imbalance_and_rare_classes():
    masks = np.zeros((10, *SIZE), np.uint8)
    masks[:, :4] = 1
    masks[0, 15, :3] = 2
    findings = check_masks(source_of(masks))
    assert told(findings) == [
        ("warning", "rare", "1 class has less than 0.1 % of the training pixels"),
        ("note", "imbalance", "class 'sky' has 799 times as many training pixels as 'pole'"),
    ]
    assert findings.findings[0].names == ("pole: 0.094 %",)
    assert findings.findings[1].names == ("sky: 75 %", "road: 25 %", "pole: 0.094 %")


def test_ignored_pixels_count_for_nothing():
    masks = thirds(8)
    masks[3] = 255
    masks[5, :, 1:] = 255
    source = source_of(masks)
    findings = check_masks(source)
    assert told(findings) == [
        ("warning", "unlabelled", "1 mask has no pixel with a label: all are ignored")
    ]
    assert (findings.findings[0].rows, findings.findings[0].names) == ((3,), ("00003",))
    assert findings.counts == {"all": [7, 7, 7]}


def test_an_image_in_two_parts_is_a_leak_whatever_its_mask():
    images = np.random.default_rng(0).integers(0, 256, (8, 1, *SIZE), dtype=np.uint8)
    images[6] = images[1]
    images[3] = images[2]
    masks = thirds(8)
    masks[3] = masks[2]
    source = source_of(masks, ["train"] * 5 + ["val"] + ["test"] * 2, images=images)
    findings = check_masks(source, whole(source))
    assert told(findings) == [
        ("warning", "labels", "1 image has more than one mask"),
        ("warning", "leak", "1 test image also stands in train"),
        ("note", "copies", "1 image repeats another one in train"),
    ]
    assert findings.findings[0].names == ("train/00001 = test/00000",) == findings.findings[1].names


def test_broken_pairs_and_sizes(plant):
    mask = np.array([[0, 1]] * 2, np.uint8)
    files = {f"images/{n}.png": (2, 2) for n in range(4)} | {
        f"masks/{n}.png": mask for n in range(4)
    }
    root = plant(files | {"images/4.png": (4, 6), "masks/4.png": np.ones((4, 6), np.uint8)})
    plant({"images/2.png": (3, 2)})
    source = open_masks(root)
    (root / "images/3.png").write_bytes(b"")
    heard = []
    for full in (False, True):
        findings = check_masks(source, full=full, progress=lambda *at: heard.append(at))
        assert findings.findings[0].text == "2 pairs cannot be used"
        assert findings.findings[0].names == (
            "images/2.png (masks/2.png): the mask is 2 x 2, its image images/2.png is 3 x 2 "
            "(height x width, upright); they must be equal",
            "images/3.png: the file is empty (0 bytes)",
        )
        assert findings.findings[0].rows == (2, 3)
        assert findings.broken == 2
        assert findings.findings[-1].text == (
            "images have 2 sizes, from 2 x 2 to 4 x 6 pixels (height x width)"
        )
        assert findings.sizes["read"] == 3
    assert heard == [(n, 5) for n in range(1, 6)] * 2
    known = check_masks(source, broken={0: BrokenImage("images/0.png", "seen before")})
    assert known.findings[0].rows == (0, 2, 3)


def test_shares():
    masks = np.zeros((4, *SIZE), np.uint8)
    masks[:, :4] = 1
    masks[3] = 255
    source = source_of(masks)
    shares = class_shares(source, np.arange(4))
    assert shares.dtype == np.float64
    assert shares.tolist() == [0.75, 0.25, 0.0]
    masks[2] = 2
    assert class_shares(source_of(masks), [0, 1, 2]).tolist() == pytest.approx([0.5, 1 / 6, 1 / 3])
    assert class_shares(source_of(masks), [2, 0, 1], most=1).tolist() == [0, 0, 1]
    with pytest.raises(DataError, match="made: no pixel of 1 mask has a label"):
        class_shares(source, [3])
    with pytest.raises(DataError, match="made: no pixel of 0 masks has a label"):
        class_shares(source, [])


def test_shares_pass_over_broken_pairs(plant):
    mask = np.array([[0, 1]], np.uint8)
    root = plant(
        {"images/a.png": (1, 2), "masks/a.png": mask, "images/b.png": (5, 5), "masks/b.png": mask}
    )
    assert class_shares(open_masks(root), [0, 1]).tolist() == [0.5, 0.5]


def test_camvid(real):
    """By counting pixels one by one: road is the largest class, bicyclist the smallest."""
    source = open_masks(real("camvid"), ignore=11)
    train = source.rows("train")
    shares = class_shares(source, train, most=40)
    counts = np.zeros(11)
    for row in train[np.linspace(0, 366, 40).astype(int)]:
        mask = source[int(row)].target
        counts += [(mask == k).sum() for k in range(11)]
    assert np.allclose(shares, counts / counts.sum())
    assert (shares.argmax(), shares.argmin()) == (3, 10)
    findings = check_masks(source, make_split(source))
    assert {f.code for f in findings.findings} <= {"imbalance", "rare", "absent"}
    assert findings.sizes["height"] == [360, 360, 360]
