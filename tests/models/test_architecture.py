"""Architectures survive JSON and build the same net; a changed file is never built from."""

import json
import os

import pytest
import torch

from hubel.errors import ModelError
from hubel.models.architecture import Architecture

CODE = "from torch import nn\ndef make(classes):\n    return nn.Linear(2, classes)\n"


def again(architecture):
    return Architecture.from_json(json.loads(json.dumps(architecture.to_json())))


def test_named_model_comes_back_with_its_options():
    one = Architecture("compact", 7, 3, (20, 24), {"width": 6, "dropout": 0.1})
    other = again(one)
    assert other == one
    assert other.size == (20, 24)
    torch.manual_seed(3)
    first = one.build().state_dict()
    torch.manual_seed(3)
    second = other.build().state_dict()
    assert all(second[name].equal(value) for name, value in first.items())
    assert first["fc.weight"].shape == (7, 24)


def test_own_model_is_found_again_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    one = Architecture("net.py:make", 5, 1, (4, 4))
    assert one.file == str(tmp_path / "net.py")
    assert len(one.sha256) == 64
    monkeypatch.chdir(os.sep)
    assert again(one).build().out_features == 5
    assert again(one) == one


def test_changed_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(CODE)
    architecture = again(Architecture(f"{path}:make", 5, 1, (4, 4)))
    path.write_text(CODE + "\n")
    with pytest.raises(
        ModelError, match=r"the model's file has changed: .*net.py must have SHA-256"
    ):
        architecture.build()
    path.write_text(CODE)
    assert architecture.build().out_features == 5
    path.unlink()
    with pytest.raises(ModelError, match=r"the model's file is gone: .*net.py"):
        architecture.build()


def test_a_file_that_is_not_there_is_said_at_once(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        Architecture(f"{tmp_path}/net.py:make", 5, 1, (4, 4))


@pytest.mark.parametrize("lacking", ["file", "sha256"])
def test_a_stranger_cannot_have_a_file_run_whose_content_is_not_named(tmp_path, lacking):
    path = tmp_path / "nets.py"
    path.write_text("def make(): raise SystemExit")
    record = Architecture(f"{path}:make", 2, 1, (8, 8)).to_json()
    del record[lacking]
    with pytest.raises(ModelError, match="does not say which content the file had"):
        Architecture.from_json(record)


def test_a_stranger_cannot_call_a_known_function_with_words_of_his():
    record = {"name": f"{os.__file__}:popen", "classes": 2, "channels": 1, "size": [8, 8]}
    record |= {"file": os.__file__, "sha256": "0" * 64, "options": {"cmd": "true"}}
    with pytest.raises(ModelError, match="only 'dropout' may stand beside it, given 'cmd'"):
        Architecture.from_json(record)
