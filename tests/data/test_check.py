"""The whole check: each finding on data made to have it, none on sound data, truth on real data."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hubel.data.check import Findings, full_check, quick_check
from hubel.data.files import FileSource
from hubel.data.idx import read_idx_folder
from hubel.data.record import ArraySource
from hubel.data.split import Split, make_split
from hubel.errors import BrokenImage

FASHION = Path("/usr/share/datasets/fashion-mnist")


def random_source(targets, parts=None, *, classes=("cat", "dog"), shape=(1, 16, 16)) -> ArraySource:
    """Different random images with these targets and parts."""
    images = np.random.default_rng(0).integers(0, 256, (len(targets), *shape), dtype=np.uint8)
    parts = None if parts is None else np.array(parts, dtype="U5")
    targets = np.array(targets, np.int64)
    return ArraySource(images, targets, classes, name="made", origin="here", parts=parts)


def whole(source: ArraySource) -> Split:
    """The split of a source that gives every row its part."""
    return Split(source.rows("train"), source.rows("val"), source.rows("test"))


def texts(findings: Findings) -> dict[str, tuple[str, str]]:
    return {finding.code: (finding.level, finding.text) for finding in findings.findings}


def test_sound_data_has_no_findings() -> None:
    source = random_source([0, 1] * 50)
    split = make_split(source)
    for findings in (quick_check(source, split), full_check(source, split), full_check(source)):
        assert findings.findings == []
        assert (findings.images, findings.broken) == (100, 0)
        assert findings.classes == ["cat", "dog"]
        assert findings.sizes == {
            "height": [16, 16, 16],
            "width": [16, 16, 16],
            "grey": 100,
            "rgb": 0,
            "read": 100,
        }
    assert findings.counts == {"all": [50, 50]}
    assert quick_check(source, split).counts == {"train": [40, 40], "val": [5, 5], "test": [5, 5]}
    assert full_check(source).full
    assert not quick_check(source, split).full


def test_imbalance_starts_above_ten_to_one() -> None:
    even = random_source([0] * 200 + [1] * 20, ["train"] * 220)
    assert texts(quick_check(even, whole(even))) == {}
    uneven = random_source([0] * 210 + [1] * 20, ["train"] * 230)
    expected = "class 'cat' has 10.5 times as many training images as 'dog' (210 and 20)"
    assert texts(quick_check(uneven, whole(uneven))) == {"imbalance": ("warning", expected)}


def test_small_and_absent_classes() -> None:
    targets = [0] * 20 + [1] * 9 + [0] * 3 + [2] * 2
    parts = ["train"] * 29 + ["test"] * 5
    source = random_source(targets, parts, classes=("cat", "dog", "cow"))
    findings = quick_check(source, whole(source))
    said = [(f.level, f.code, f.text, f.names) for f in findings.findings]
    assert said == [
        ("error", "absent", "1 class has no images in train", ("cow",)),
        ("warning", "absent", "1 class has no images in test", ("dog",)),
        ("warning", "small", "1 class has fewer than 10 training images", ("dog: 9",)),
    ]
    assert findings.counts == {"train": [20, 9, 0], "test": [3, 0, 2]}


def test_no_training_images() -> None:
    source = random_source([0, 1] * 10, ["test"] * 20)
    assert texts(full_check(source)) == {"no-training": ("error", "there are no images in train")}


def test_flat_images_are_named() -> None:
    source = random_source([0, 1] * 20, shape=(3, 8, 8))
    source.images[3], source.images[8] = 0, 255
    finding = full_check(source).findings[0]
    assert (finding.level, finding.code) == ("warning", "flat")
    assert finding.text == "2 images are one colour all over"
    assert (finding.rows, finding.names) == ((3, 8), ("00003", "00008"))


@pytest.mark.parametrize("full", [False, True])
def test_exact_and_near_copies_across_parts(full: bool) -> None:
    source = random_source([0, 1] * 40, ["train"] * 60 + ["test"] * 20)
    source.images[70] = source.images[4]
    source.images[71] = source.images[5] // 4 * 3 + 20  # duller
    split = whole(source)
    findings = full_check(source, split) if full else quick_check(source, split)
    assert texts(findings) == {
        "leak": ("warning", "1 test image also stands in train"),
        "near-leak": ("warning", "1 test image nearly equals one in train"),
    }
    assert findings.findings[0].names == ("train/00004 = test/00010",)
    assert findings.findings[1].rows == (5, 71)


@pytest.fixture
def folder(tmp_path: Path) -> FileSource:
    """Twenty-four files: grey 20 x 30, but two RGB of 9 x 8; one truncated, one empty."""
    rng = np.random.default_rng(0)
    names = [f"{kind}/{number:02d}.png" for kind in ("cat", "dog") for number in range(12)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(tmp_path / name)
    for name in names[:2]:
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(tmp_path / name)
    body = (tmp_path / names[5]).read_bytes()
    (tmp_path / names[5]).write_bytes(body[:200])
    (tmp_path / names[20]).write_bytes(b"")
    targets = np.repeat([0, 1], 12)
    return FileSource(tmp_path, names, targets, ["cat", "dog"], name="two", origin=str(tmp_path))


def test_a_folder_of_mixed_and_broken_files(folder: FileSource) -> None:
    findings = full_check(folder)
    assert [finding.code for finding in findings.findings] == ["broken", "sizes", "channels"]
    broken = findings.findings[0]
    assert (broken.level, broken.text) == ("error", "2 images cannot be read")
    assert broken.rows == (5, 20)
    assert broken.names[0].startswith("cat/05.png: truncated")
    assert broken.names[1] == "dog/08.png: the file is empty (0 bytes)"
    assert findings.broken == 2
    assert texts(findings)["sizes"][1] == (
        "images have 2 sizes, from 9 x 8 to 20 x 30 pixels (height x width)"
    )
    assert texts(findings)["channels"][1] == "20 images are grey and 2 RGB"
    assert findings.sizes == {
        "height": [9, 20, 20],
        "width": [8, 30, 30],
        "grey": 20,
        "rgb": 2,
        "read": 22,
    }


def test_the_quick_check_reads_headers_and_hears_of_broken_bodies(folder: FileSource) -> None:
    split = make_split(folder)
    assert texts(quick_check(folder, split))["broken"] == ("error", "1 image cannot be read")
    images = torch.randint(1, 256, (24, 1, 20, 30), dtype=torch.uint8)
    images[[5, 20]] = 0
    met = {5: BrokenImage("cat/05.png", "truncated"), 20: BrokenImage("dog/08.png", "empty")}
    findings = quick_check(folder, split, images, met)
    assert texts(findings)["broken"] == ("error", "2 images cannot be read")
    assert "flat" not in texts(findings)
    assert findings.sizes["grey"] == 21  # sizes are the files', not those of `images`


def test_findings_survive_json(folder: FileSource) -> None:
    findings = full_check(folder)
    assert Findings.from_json(json.loads(json.dumps(findings.to_json()))) == findings


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"Fashion-MNIST not found at {FASHION}")
def test_fashion_mnist_as_it_is_and_with_ten_leaked_test_images() -> None:
    """It ships without exact copies since 2017; ten that are put back must be found, and named."""
    source = read_idx_folder(FASHION)
    assert quick_check(source, make_split(source)).findings == []
    leaked = np.arange(10) * 97
    source.images[60_000 + leaked] = source.images[leaked * 5]
    again = ArraySource(
        source.images,
        source.targets,
        source.classes,
        name="leaky",
        origin="here",
        parts=source.parts,
    )
    found = {f.text: f for f in quick_check(again, whole(again)).findings if f.code == "leak"}
    names = tuple(f"train/{5 * n:05d} = test/{n:05d}" for n in leaked)
    assert found["10 test images also stand in train"].names == names
