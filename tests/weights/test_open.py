"""The one door to weights: words, files and runs; and nets filled from them."""

import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

import hubel
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.errors import HubelError, OptionError, RunError, WeightsError
from hubel.models.architecture import Architecture
from hubel.runs.weights import Card, save_weights
from hubel.weights import open as module
from hubel.weights.open import load_net, open_weights
from hubel.weights.published import Published, imagenet_classes, weights_folder

NAME, CLASSES = "resnet20", ("cat", "dog", "owl")
CARD = Card(
    Architecture(NAME, 3, 1, (24, 20), {}),
    CLASSES,
    Preprocess(1, 24, 20, "stretch", (0.4,), (0.2,)),
)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "hubel"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


def state_of(name=NAME, seed=1, **words):
    torch.manual_seed(seed)
    return hubel.build(
        name, **{"classes": 3, "channels": 1, "size": (24, 20), **words}
    ).state_dict()


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def holds(net, state):
    return all(tensor.equal(state[name]) for name, tensor in net.state_dict().items())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of resnet20 on grey 24x20 images of three classes."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 1, 24, 20), dtype=np.uint8)
    source = ArraySource(images, np.arange(60) % 3, CLASSES, name="noise", origin="here")
    out = tmp_path_factory.mktemp("runs")
    return hubel.train(NAME, source, out=out, name="one", epochs=1, batch=16, tune="off").folder


# Files


@pytest.mark.parametrize("kind", ["pth", "old.pth", "safetensors", "card"])
def test_our_state_dict_comes_back_equal(tmp_path, kind):
    path, state = tmp_path / f"w.{kind}", state_of()
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "card":
        save_weights(path, state, CARD)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "pth")
    net = hubel.build(NAME, classes=3, channels=1, weights=path)
    assert holds(net, state)
    assert net.training
    assert holds(hubel.build(NAME, classes=3, channels=1, weights=str(path)), state)


def test_a_file_without_a_card_says_nothing_of_classes(tmp_path):
    torch.save(state_of(classes=10, channels=3), tmp_path / "w.pth")
    opened = open_weights(tmp_path / "w.pth", NAME)
    assert opened.card is None
    assert opened.where == str(tmp_path / "w.pth")
    assert holds(hubel.build(NAME, weights="w.pth"), opened.named)  # the ten of its paper


def test_classes_channels_and_size_come_from_the_card(tmp_path):
    save_weights(tmp_path / "w.safetensors", state_of(), CARD)
    net = hubel.build(NAME, weights="w.safetensors")
    assert net.fc.out_features == 3
    assert net.conv1.in_channels == 1
    card = dataclasses.replace(CARD, architecture=Architecture("mlp", 3, 1, (24, 20), {}))
    save_weights(tmp_path / "m.safetensors", state_of("mlp"), card)
    assert holds(hubel.build("mlp", weights="m.safetensors"), state_of("mlp"))


def test_what_is_said_goes_before_the_card(tmp_path):
    save_weights(tmp_path / "w.safetensors", state_of(), CARD)
    with pytest.raises(
        WeightsError, match="answers with 3 classes, the net with 4: ask for a new he"
    ):
        hubel.build(NAME, classes=4, weights="w.safetensors")
    with pytest.raises(WeightsError, match=r"\(16, 1, 3, 3\) for conv1.weight \(16, 3, 3, 3\)"):
        hubel.build(NAME, channels=3, weights="w.safetensors")


def test_a_new_head(tmp_path):
    state = state_of()
    torch.save(state, tmp_path / "w.pth")
    torch.manual_seed(5)
    net = hubel.build(NAME, classes=4, channels=1, weights="w.pth", head="new")
    torch.manual_seed(5)
    blank = hubel.build(NAME, classes=4, channels=1)
    assert net.fc.weight.equal(blank.fc.weight)
    assert net.conv1.weight.equal(state["conv1.weight"])
    with pytest.raises(OptionError, match="unknown head 'gnu': allowed: keep, new"):
        hubel.build(NAME, classes=4, weights="w.pth", head="gnu")


def test_auxiliary_heads_only_where_they_are_asked_for(tmp_path):
    state = state_of("googlenet", channels=3, size=(32, 32))
    torch.save(state, tmp_path / "w.pth")
    words = {"classes": 3, "size": (32, 32), "weights": "w.pth"}
    assert hubel.build("googlenet", **words).aux1 is None
    assert holds(hubel.build("googlenet", aux=True, **words), state)
    few = {name: tensor for name, tensor in state.items() if not name.startswith("aux")}
    torch.save(few, tmp_path / "w.pth")
    assert holds(hubel.build("googlenet", **words), few)
    with pytest.raises(WeightsError, match=r"missing: aux1\..*with the options"):
        hubel.build("googlenet", aux=True, **words)
    assert hubel.build("googlenet", classes=3, size=(32, 32)).aux1 is not None  # to train by


def test_other_options_pass_through(tmp_path):
    torch.save(state_of("mobilenet_v2", channels=3), tmp_path / "w.pth")
    net = hubel.build("mobilenet_v2", classes=3, dropout=0.7, weights="w.pth")
    assert net.classifier[0].p == 0.7


OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))

    def forward(self, images):
        return self.model(images)
"""


def test_a_model_of_ones_own_whose_names_look_like_a_wrappers(tmp_path):
    """All its keys begin with "model."; its run is taken up, and fills the net by its name."""
    (tmp_path / "own.py").write_text(OWN)
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 9, 9), dtype=np.uint8)
    source = ArraySource(images, np.arange(40) % 3, CLASSES, name="noise", origin="here")
    words = {"out": tmp_path / "runs", "name": "r", "epochs": 1, "batch": 16, "tune": "off"}
    state = hubel.train("own.py:Net", source, **words).model.state_dict()
    assert set(state) == {f"model.{n}.{p}" for n in (0, 3) for p in ("weight", "bias")}
    for what in ("runs/r", "runs/r/weights.safetensors"):
        assert holds(hubel.build("own.py:Net", weights=what), state)
    assert holds(hubel.load_run("runs/r").model, state)
    with pytest.raises(
        WeightsError, match=r"is of a net made by code: hubel\.build\(NAME, weights="
    ):
        hubel.load_run("runs/r/weights.safetensors")


def test_a_cards_words_never_run_code(tmp_path):
    """A stranger's file that names a function of Python's own library, and what to call it with."""
    mark = tmp_path / "was_run"
    record = CARD.to_json()
    for file, digest in ((None, None), (os.__file__, sha256_of(Path(os.__file__)))):
        record["architecture"] = record["architecture"] | {
            "name": f"{os.__file__}:popen",
            "options": {"cmd": f"touch {mark}"},
            "file": file,
            "sha256": digest,
        }
        metadata = {"hubel": json.dumps(record)}
        save_file(state_of(), tmp_path / "w.safetensors", metadata=metadata)
        with pytest.raises(WeightsError, match="does not say what its weights are of"):
            hubel.load_run("w.safetensors")
        with pytest.raises(WeightsError, match="does not say what its weights are of"):
            hubel.build(NAME, classes=3, channels=1, weights="w.safetensors")
    time.sleep(0.1)
    assert not mark.exists()


# Runs


def test_a_run(run):
    opened = open_weights(run, NAME)
    assert opened.card.classes == CLASSES
    assert opened.card.origin == {"run": "one"}
    net = hubel.build(NAME, weights=run)
    assert holds(net, hubel.load_run(run).model.state_dict())
    assert (net.conv1.in_channels, net.fc.out_features) == (1, 3)


def test_a_run_by_a_path_that_does_not_show_its_name(run, monkeypatch):
    monkeypatch.chdir(run)
    assert open_weights(".", NAME).card.origin == {"run": "one"}
    assert open_weights("checkpoints/..", NAME).card.origin == {"run": "one"}


def test_a_runs_file_names_itself_and_its_hash(run):
    path = run / "weights.safetensors"
    digest = sha256_of(path)
    assert open_weights(path, NAME).card.origin == {"file": "weights.safetensors", "sha256": digest}


def test_a_runs_file_alone_predicts(run, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.full((30, 30), 99, np.uint8)).save(path)
    of_file = hubel.load_run(run / "weights.safetensors")
    assert of_file.predict([path]) == hubel.load_run(run).predict([path])
    with pytest.raises(OptionError, match="no run's have no data of their own: say which"):
        of_file.evaluate()


def test_weights_of_a_file_judge_other_data_as_their_run_does(run):
    images = np.random.default_rng(5).integers(0, 256, (30, 1, 24, 20), dtype=np.uint8)
    targets = np.arange(30) % 3
    source = ArraySource(images, targets, CLASSES, name="other", origin="here")
    of_run = hubel.load_run(run).evaluate(source)
    turned = ArraySource(images, 2 - targets, CLASSES[::-1], name="other", origin="here")
    of_file = hubel.load_run(run / "weights.safetensors").evaluate(turned)
    assert of_file["all"] == pytest.approx(of_run["all"])


def test_weights_in_an_ensemble_are_refused(run):
    with pytest.raises(OptionError, match="an ensemble is of runs, and .* is a net without one"):
        hubel.ensemble([run, run / "weights.safetensors"])


def test_a_folder_that_is_no_run_and_a_checkpoint(tmp_path, run):
    with pytest.raises(RunError, match="is no whole run folder"):
        open_weights(tmp_path, NAME)
    checkpoint = next((run / "checkpoints").glob("*.safetensors"))
    with pytest.raises(WeightsError, match="does not say what its weights are of: 'architecture'"):
        open_weights(checkpoint, NAME)


# Words


def test_a_word_wins_over_a_folder_of_that_name(tmp_path):
    """Who keeps the images of ImageNet in ./imagenet still means the weights by the word."""
    (tmp_path / "imagenet").mkdir()
    with pytest.raises(WeightsError, match="resnet18:imagenet1k_v1 are not on this machine"):
        open_weights("imagenet", "resnet18")
    with pytest.raises(RunError, match="no whole run folder"):
        open_weights("./imagenet", "resnet18")


def test_a_run_whose_name_begins_like_a_word_is_a_run(run, monkeypatch, tmp_path):
    (tmp_path / "imagenet-1").symlink_to(run)
    assert open_weights("imagenet-1", NAME).card.classes == CLASSES


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("imagenet", "no weights are known for that name: 'resnet20'; allowed: alexnet"),
        ("imagenet22k", "no weights are known for that name"),
        ("imagenett", "no weights are known for that name"),
        ("imagnet", "no such file of weights: imagnet"),
        ("gone.pth", "no such file of weights: gone.pth"),
        ("runs/gone", "no such file of weights: runs/gone"),
        ("x" * 5000, "cannot read the weights xxx.*File name too long"),
    ],
)
def test_what_is_not_there(what, message):
    with pytest.raises(WeightsError, match=message) as error:
        hubel.build(NAME, weights=what)
    assert "\n" not in str(error.value)


@pytest.fixture
def row(monkeypatch):
    """resnet20's weights, published as a file that is in nobody's cache yet; and its content."""
    path = weights_folder() / "resnet20-x.pth"
    path.parent.mkdir(parents=True)
    words = {"classes": 1000, "channels": 3, "size": (32, 32)}
    torch.save({f"module.{k}": t for k, t in state_of(**words).items()}, path)
    digest = sha256_of(path)
    feed = Preprocess(3, 40, 40, "crop", (0.5,) * 3, (0.25,) * 3, kept=0.8)
    made = Published(
        NAME, "imagenet1k_v1", path.name, digest[:8], 1.1, 9.0, 20.0, feed, "BSD-3-Clause"
    )
    monkeypatch.setattr(module, "PUBLISHED", (made,))
    monkeypatch.setattr("hubel.weights.published.PUBLISHED", (made,))
    return made


def test_published_weights_bring_their_card(row):
    opened = open_weights("imagenet", NAME)
    digest = sha256_of(row.get_here())
    assert opened.card.classes == imagenet_classes()
    assert opened.card.preprocess == row.preprocess
    assert opened.card.architecture == Architecture(NAME, 1000, 3, (40, 40), {})
    assert opened.card.origin == {
        "weights": "resnet20:imagenet1k_v1",
        "file": "resnet20-x.pth",
        "sha256": digest,
        "licence": "BSD-3-Clause",
    }
    net = hubel.build(NAME, weights="imagenet")
    assert holds(net, state_of(classes=1000, channels=3, size=(32, 32)))


def test_a_published_file_anywhere_is_known_by_its_hash(row, tmp_path):
    expected = open_weights("imagenet", NAME).card
    row.get_here().rename(tmp_path / "renamed.bin")
    assert open_weights("renamed.bin", NAME).card == expected
    assert load_net("renamed.bin")[1] == expected
    content = bytearray((tmp_path / "renamed.bin").read_bytes())
    content[-1] ^= 1  # in the archive's comment length or past its data: another file
    (tmp_path / "changed.bin").write_bytes(bytes(content))
    with pytest.raises(WeightsError, match="does not say what net it is of|not a whole file"):
        load_net("changed.bin")


def test_a_name_alone_is_a_net_to_use(row, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.full((50, 60, 3), 99, np.uint8)).save(path)
    for name in (NAME, f"{NAME}:imagenet1k_v1"):
        net = hubel.load_run(name)
        assert not net.model.training
        found = net.predict([path])[0]
        assert found.label in imagenet_classes()
        assert len(found.top) == 5
    with pytest.raises(WeightsError, match=r"unknown weights of resnet20 'v9'"):
        hubel.load_run(f"{NAME}:v9")


def test_a_file_that_does_not_say_its_net_tells_the_way(tmp_path):
    torch.save(state_of(), tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"what net it is of: hubel\.build\(NAME, weights='w\.pth'"
    ):
        hubel.load_run("w.pth")


def test_a_card_without_an_architecture_tells_the_way_too(tmp_path):
    save_weights(
        tmp_path / "w.safetensors", state_of(), dataclasses.replace(CARD, architecture=None)
    )
    with pytest.raises(WeightsError, match=r"hubel\.build\(NAME, weights="):
        hubel.load_run("w.safetensors")
    assert holds(hubel.build(NAME, weights="w.safetensors"), state_of())


def test_what_is_no_net_is_left_to_others(tmp_path):
    assert load_net(tmp_path) is None
    assert load_net(tmp_path / "gone") is None
    with pytest.raises(RunError, match="no run at"):
        hubel.load_run("gone")


# Cards of any content


PATHS = [
    (),
    *((key,) for key in ("architecture", "classes", "preprocess", "origin")),
    *(("architecture", key) for key in ("name", "classes", "channels", "size", "options", "file")),
    *(
        ("preprocess", key)
        for key in ("channels", "height", "fit", "mean", "std", "kept", "filter")
    ),
]
JUNK = st.sampled_from([None, 3, -1, 0.5, "x", "", [], [1, "a"], {}, {"a": 1}, True, "a.py:b"])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PATHS), JUNK)
def test_a_card_with_anything_in_it_is_taken_or_refused_in_words(tmp_path_factory, path, junk):
    record = json.loads(json.dumps(CARD.to_json()))
    if path:
        inner = record if len(path) == 1 else record[path[0]]
        inner[path[-1]] = junk
    else:
        record = junk
    file = tmp_path_factory.getbasetemp() / "card.safetensors"
    save_file({"a": torch.ones(1)}, file, metadata={"hubel": json.dumps(record)})
    try:
        open_weights(file, NAME)
        load_net(file)
    except HubelError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert "\n" not in refusal
