"""PyTorch's own samples of its operators: how many ran, that all are right, what is borrowed."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("expecttest", reason="PyTorch's samples need it")


def counted(*most):
    script = Path(__file__).with_name("opinfo_samples.py")
    done = subprocess.run(
        [sys.executable, script, *most], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: SimpleNamespace(**count) for name, count in found.items()}


@pytest.fixture(scope="module")
def counts():
    """Of every operator five samples, from all over its list."""
    return counted("5")


def all_right(counts):
    """How many samples there are, and of them how many are rules of ours alone."""
    wrong = {name: count.wrong[:2] for name, count in counts.items() if count.wrong}
    assert wrong == {}
    ours = {n: c for n, c in counts.items() if not c.borrowed and c.refused < c.ran}
    total = sum(c.ran - c.refused for c in counts.values())
    alone = sum(c.ran - c.refused for c in ours.values())
    print(f"{len(counts)} operators, {total} samples; by rules of ours alone {len(ours)}, {alone}")
    assert len(ours) > 280
    return total, alone


def test_samples_of_every_operator_are_right(counts):
    total, alone = all_right(counts)
    assert total > 1_500
    assert alone > 800


@pytest.mark.slow
def test_every_sample_of_every_operator_is_right():
    """The figures of the documentation: at least so many, whatever the release of PyTorch adds."""
    total, alone = all_right(counted())
    assert total > 12_000
    assert alone > 4_000


@pytest.mark.parametrize(
    "name",
    [
        "nn.functional.conv1d", "nn.functional.conv2d", "nn.functional.conv3d",
        "nn.functional.conv_transpose2d", "nn.functional.max_pool2d", "nn.functional.avg_pool2d",
        "nn.functional.adaptive_avg_pool2d", "nn.functional.adaptive_max_pool2d",
        "nn.functional.linear", "matmul", "nn.functional.relu", "nn.functional.gelu",
        "softmax", "log_softmax", "nn.functional.cross_entropy", "nn.functional.batch_norm",
        "nn.functional.layer_norm", "nn.functional.group_norm", "nn.functional.instance_norm",
        "nn.functional.local_response_norm", "nn.functional.embedding",
        "nn.functional.binary_cross_entropy_with_logits", "nn.functional.huber_loss",
        "nn.functional.interpolate.nearest", "nn.functional.interpolate.bilinear",
        "nn.functional.interpolate.bicubic", "nn.functional.pad.reflect", "stack", "permute",
        "nn.functional.max_unpool2d", "nn.functional.pixel_shuffle", "mean", "sum", "var", "amax",
    ],
)  # fmt: skip
def test_what_convolutional_nets_are_made_of_borrows_nothing(counts, name):
    assert counts[name].ran
    assert counts[name].borrowed == []
    assert counts[name].refused == 0
