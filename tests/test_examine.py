"""`hubel check` and `hubel look` as they are typed."""

import json

import numpy as np
import pytest
from PIL import Image

import hubel
from hubel.cli import run

NET = """
import torch
from torch import nn

class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2
    @staticmethod
    def backward(ctx, dy):
        return dy * FACTOR

class Double(nn.Module):
    def forward(self, x):
        return Wrong.apply(x)

def make(classes, channels):
    layers = [nn.Conv2d(channels, 4, 3), Double(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, classes))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examine")
    result = hubel.train("lenet5", "sample", out=folder, epochs=1, tune="off", batch=200)
    data = hubel.load_data("sample")
    Image.fromarray(data[3].image[0]).save(folder / "new.png")
    return result.folder, folder / "new.png"


def test_a_named_model_is_proven(capsys):
    assert run(["check", "softmax"]) == 0
    said = capsys.readouterr().out
    assert "from finite differences, fine" in said
    assert said.strip().endswith("gradients are right")


def test_a_run_is_proven(trained, capsys):
    assert run(["check", str(trained[0]), "--no-differences", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fine"]
    assert found["borrowed"] == []
    assert len(found["verdicts"]) == 11


@pytest.mark.parametrize(("factor", "code"), [(2.0, 0), (2.002, 3)])
def test_a_layer_of_ones_own_is_proven_or_not(tmp_path, capsys, factor, code):
    net = tmp_path / "net.py"
    net.write_text(NET.replace("FACTOR", str(factor)))
    assert run(["check", f"{net}:make", "--input", "1x9x7", "--classes", "3"]) == code
    said = capsys.readouterr().out
    assert "borrowed from autograd: Wrong" in said
    assert ("WRONG" in said) == (code == 3)


def test_coverage_lists_the_operators(capsys):
    assert run(["check", "resnet20", "--coverage"]) == 0
    said = capsys.readouterr().out
    assert "batch_norm" in said
    assert "0 operators borrowed" in said
    assert run(["check", "resnet20", "--coverage", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["operators"]["conv"] == 19


def test_a_pass_is_laid_open(trained, tmp_path, capsys):
    folder, image = trained
    page = tmp_path / "look.html"
    assert run(["look", str(folder), str(image), "--label", "Dress", "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "gradients of the loss for Dress" in said
    assert "features.conv2" in said
    text = page.read_text()
    assert text.count('<div class="op">') == 13
    assert "data:image/png" in text
    assert "http" not in text


def test_a_pass_as_json(trained, capsys):
    folder, image = trained
    assert run(["look", str(folder), str(image), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["operators"]) == 13
    assert found["loss"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "lenet4"], "unknown model 'lenet4': did you mean 'lenet5'"),
        (
            ["check", "lenet5", "--input", "3x32"],
            "--input is channels x height x width, as 3x32x32",
        ),
        (["check", "net.py:make"], "say what net.py:make takes: --input CxHxW"),
        (["check", "lenet5", "--input", "1x4x4"], "at least"),
        (["look", "RUN", "IMAGE", "--label", "dres"], "unknown class 'dres': did you mean 'Dress'"),
        (["look", "RUN", "missing.png"], "missing.png"),
        (["look", "nowhere", "IMAGE"], "nowhere"),
        (["look", "RUN", "IMAGE", "--html", "no/such/folder/x.html"], "no/such/folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(trained, capsys, words, message):
    words = [
        str(trained[0]) if w == "RUN" else str(trained[1]) if w == "IMAGE" else w for w in words
    ]
    assert run(words) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


def test_a_broken_image_is_one_line(trained, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(np.arange(9, dtype=np.uint8).tobytes())
    assert run(["look", str(trained[0]), str(bad)]) == 2
    assert "bad.png" in capsys.readouterr().err


def test_nets_that_answer_with_a_dict_are_proven_too(capsys):
    """By what training adds up: auxiliary heads, LeCun's garbage term."""
    assert run(["check", "lenet5_1998", "--no-differences"]) == 0
    assert capsys.readouterr().out.strip().endswith("all 13 gradients are right")
    words = ["check", "googlenet_2014", "--coverage", "--input", "3x79x79", "--json"]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["operators"]["cross_entropy"] == 3
    assert found["borrowed"] == {}


def test_a_run_of_a_net_that_answers_with_a_dict_is_laid_open(tmp_path, trained, capsys):
    result = hubel.train("lenet5_1998", "sample", out=tmp_path, epochs=1, tune="off", batch=500)
    assert run(["look", str(result.folder), str(trained[1]), "--label", "Dress"]) == 0
    assert "softplus" in capsys.readouterr().out
