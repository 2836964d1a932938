"""`hubel summary` as it is typed, and `hubel.summary` as it is called."""

import json
import time

import pytest
import torch
from torch import nn

import hubel
from hubel.cli import run

OWN = """
from torch import nn

def make(classes, channels):
    layers = [nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, classes))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("summary")
    return hubel.train("softmax", "sample", out=out, epochs=1, tune="off", batch=200).folder


def said(capsys, *words):
    assert run(["summary", *words]) == 0
    return capsys.readouterr().out


def record(capsys, *words):
    return json.loads(said(capsys, *words, "--json"))


def test_a_named_model(capsys):
    text = said(capsys, "lenet5")
    lines = text.splitlines()
    assert lines[0] == "model lenet5, one image of 1x28x28"
    assert lines[1].split()[-1] == "time"
    assert "features.conv2" in lines[5]
    assert "14x14" in lines[5]
    assert "240,000" in lines[5]
    assert "%" in lines[5]
    assert "61,706 parameters (all trainable)" in text
    assert "classifier.fc1 holds 78 % of the parameters" in text


def test_a_large_net_without_times_costs_nothing(capsys):
    """Neither its 138 million weights are drawn nor its 15 thousand million products made."""
    chance = torch.get_rng_state()
    began = time.process_time()
    found = record(capsys, "vgg16", "--no-time")
    assert time.process_time() - began < 5
    assert torch.get_rng_state().equal(chance)
    assert (found["parameters"], found["macs"]) == (138_357_544, 15_470_264_320)
    fields = {row["layer"]: row["field"] for row in found["layers"]}
    assert fields["features.28"] == [196, 196]
    assert fields["features.30"] == [212, 212]
    assert found["milliseconds_per_image"] is None


def test_size_channels_classes_batch(capsys):
    words = ("resnet20", "--size", "48x64", "--channels", "1", "--classes", "7", "--batch", "3")
    found = record(capsys, *words, "--no-time")
    assert found["input"] == [3, 1, 48, 64]
    assert found["layers"][0]["macs"] == 3 * 48 * 64 * 16 * 9
    assert found["layers"][-1]["shape"] == [3, 7]
    square = record(capsys, "resnet20", "--size", "16", "--no-time")
    assert square["input"] == [1, 3, 16, 16]


def test_folded(capsys):
    text = said(capsys, "resnet110", "--depth", "1", "--no-time")
    assert [line.split()[0] for line in text.splitlines()[2:11]] == [
        "conv1", "bn1", "relu", "layer1", "layer2", "layer3", "avgpool", "flatten", "fc",
    ]  # fmt: skip
    assert "501x501" in text


def test_a_small_field_before_global_pooling_is_told(capsys):
    text = said(capsys, "compact", "--size", "64", "--no-time")
    assert "sees 30x30 of the 64x64 pixels" in text
    assert "of the last map" not in said(capsys, "compact", "--size", "28", "--no-time")


def test_a_net_of_ones_own(tmp_path, capsys):
    net = tmp_path / "net.py"
    net.write_text(OWN)
    found = record(capsys, f"{net}:make", "--size", "9x7", "--classes", "5")
    assert found["input"] == [1, 3, 9, 7]
    assert found["macs"] == 7 * 5 * 4 * 27 + 4 * 5
    assert found["milliseconds_per_image"] > 0


def test_a_run(trained, capsys):
    found = record(capsys, str(trained))
    assert found["input"] == [1, 1, 28, 28]
    assert (found["parameters"], found["macs"]) == (7850, 7840)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lenet4"], "unknown model 'lenet4': did you mean 'lenet5'"),
        (["lenet5", "--size", "3x4x5"], "--size takes pixels like 64 or 48x64"),
        (["lenet5", "--size", "4"], "at least 12 pixels"),
        (["lenet5", "--batch", "0"], "--batch"),
        (["lenet5", "--depth", "-1"], "--depth"),
        (["RUN", "--size", "30"], "cannot take images of 1x30x30"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(trained, capsys, words, message):
    assert run(["summary", *(str(trained) if w == "RUN" else w for w in words)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_a_module_in_python():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 6 * 4, 5)).double()
    found = hubel.summary(net, size=(8, 6), batch=2)
    assert found.shape == (2, 2, 8, 6)
    assert found.macs == 2 * (24 * 3 * 18 + 72 * 5)
    assert found.layers[0].bytes == 2 * 3 * 24 * 8
    assert found.title.startswith("Sequential, 2 images")


def test_a_module_whose_first_layer_takes_pixels():
    found = hubel.summary(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)), size=8, times=False)
    assert found.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "say how large its images are"),
        ({"size": 8, "channels": 5}, "Conv2d cannot take images of 5x8x8"),
        ({"size": (8, 8, 8)}, "size must be"),
        ({"size": 8, "batch": 0}, "batch must be a whole number"),
        ({"size": 8, "depth": 0}, "depth must be a whole number"),
    ],
)
def test_mistakes_in_python(words, message):
    with pytest.raises(hubel.HubelError, match=message):
        hubel.summary(nn.Conv2d(2, 3, 3), **words)
