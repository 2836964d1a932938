"""Weights files: what goes in comes out, and nothing else is ever taken for one."""

import pickle

import pytest
import torch
from torch import nn

from hubel.data.preprocess import Preprocess
from hubel.errors import ModelError, RunError
from hubel.models.architecture import Architecture
from hubel.runs.weights import Card, fill, load_tensors, load_weights, save_tensors, save_weights

CARD = Card(
    Architecture("lenet5", 3, 1, (28, 28), {}),
    ("a", "b", "ü"),
    Preprocess(1, 28, 28, "stretch", (0.25,), (0.5,)),
)


def test_round_trip_with_card(tmp_path):
    weights = CARD.architecture.build().state_dict()
    save_weights(tmp_path / "w.safetensors", weights, CARD)
    found, card = load_weights(tmp_path / "w.safetensors")
    assert card == CARD
    assert found.keys() == weights.keys()
    assert all(found[name].equal(weights[name]) for name in weights)


def test_tied_weights_and_every_dtype(tmp_path):
    shared = torch.randn(3, 2)
    tensors = {"a": shared, "b": shared, "c": torch.arange(4), "d": torch.ones(2).bfloat16()}
    save_tensors(tmp_path / "t.safetensors", tensors, {"x": [1, None]})
    found, record = load_tensors(tmp_path / "t.safetensors")
    assert record == {"x": [1, None]}
    assert all(found[name].equal(t) and found[name].dtype == t.dtype for name, t in tensors.items())


def test_channels_last_weights_keep_their_values(tmp_path):
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    save_tensors(tmp_path / "t.safetensors", conv.state_dict(), {})
    assert load_tensors(tmp_path / "t.safetensors")[0]["weight"].equal(conv.weight)


class Attack:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle was run')",)


@pytest.mark.parametrize(
    "content",
    [b"", b"not weights at all", pickle.dumps(Attack()), b"\xff" * 64],
    ids=["empty", "text", "pickle", "huge header"],
)
def test_anything_else_is_refused(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunError, match="not a whole hubel file"):
        load_weights(path)


def test_cut_short(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, CARD.architecture.build().state_dict(), CARD)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match="not a whole hubel file"):
        load_weights(path)


def test_foreign_safetensors_say_what_is_missing(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(RunError, match="not a whole hubel file: 'hubel'"):
        load_weights(tmp_path / "w.safetensors")


def test_weights_of_another_architecture_are_refused():
    other = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"run x holds.*another architecture: missing 0\.bias"):
        fill(other, CARD.architecture.build().state_dict(), "run x")
    wider = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(2)}
    with pytest.raises(ModelError, match=r"0\.weight is \(3, 2\), the model's is \(2, 2\)"):
        fill(other, wider, "run x")


def test_names_that_are_not_as_many_as_the_nets_answers_are_refused(tmp_path):
    record = CARD.to_json() | {"classes": ["a", "b"]}
    save_tensors(tmp_path / "w.safetensors", CARD.architecture.build().state_dict(), record)
    with pytest.raises(RunError, match="it names 2 classes for a net of 3"):
        load_weights(tmp_path / "w.safetensors")
