"""Any file to plain tensors: every form that weights come in, and every way a file can be bad."""

import argparse
import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from hubel.data.preprocess import Preprocess
from hubel.errors import WeightsError
from hubel.models.architecture import Architecture
from hubel.runs.weights import Card, save_weights
from hubel.weights.fit import put_into
from hubel.weights.read import KINDS, read_tensors

LEGACY = {"zip": {}, "pickle": {"_use_new_zipfile_serialization": False}}
FORMS = pytest.mark.parametrize("form", LEGACY)
QUIET = pytest.mark.filterwarnings("ignore")  # torch has opinions on pickles' protocols
REFUSED = "wants more than tensors, which is refused, since it could run any code"


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def saved(value, form="zip"):
    """What torch.save writes, in today's form or in the one before PyTorch 1.6."""
    stream = io.BytesIO()
    torch.save(value, stream, **LEGACY[form])
    return stream.getvalue()


def read(folder, content):
    path = folder / "w.bin"
    path.write_bytes(content)
    return read_tensors(path)


def same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].equal(tensor)
        assert found[name].dtype == tensor.dtype


def safetensors(header, data=b""):
    """A file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one_number(metadata=None, dtype="F32", count=1, data=bytes(4)):
    tensor = {"dtype": dtype, "shape": [count], "data_offsets": [0, len(data)]}
    return safetensors({"__metadata__": metadata or {}, "a": tensor}, data)


# What is read


@FORMS
def test_a_state_dict_of_torch(tmp_path, form):
    content = saved(net().state_dict(), form)
    found = read(tmp_path, content)
    same(found.named, net().state_dict())
    assert found.card is None
    assert found.sha256 == hashlib.sha256(content).hexdigest()


def test_safetensors_without_a_card(tmp_path):
    save_file(net().state_dict(), tmp_path / "w.bin", metadata={"format": "pt"})
    found = read_tensors(tmp_path / "w.bin")
    same(dict(sorted(found.named.items())), dict(sorted(net().state_dict().items())))
    assert found.card is None


def test_safetensors_with_hubels_card(tmp_path):
    made = Architecture("lenet5", 2, 1, (28, 28), {})
    card = Card(made, ("a", "ü"), Preprocess(1, 28, 28, "crop", (0.2,), (0.3,), kept=0.875))
    save_weights(tmp_path / "w.bin", net().state_dict(), card)
    found = read_tensors(tmp_path / "w.bin")
    assert Card.from_json(found.card) == card
    assert found.named.keys() == net().state_dict().keys()


@FORMS
@pytest.mark.parametrize(
    "around",
    [
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"model": state, "args": ["--lr", "0.1"]},
        lambda state: {"net": {"state_dict": state}},
        lambda state: {"model": {"model": {"weights": state}}, "step": 7},
        lambda state: {"state_dict": OrderedDict(state), "note": None},
    ],
)
def test_a_state_dict_inside_a_checkpoint(tmp_path, form, around):
    same(read(tmp_path, saved(around(net().state_dict()), form)).named, net().state_dict())


def test_what_is_no_tensor_is_left_out(tmp_path):
    state = net().state_dict() | {"version": 3, "note": "x"}
    same(read(tmp_path, saved(state)).named, net().state_dict())


def test_parameters_and_views_are_tensors_too(tmp_path):
    grid = torch.arange(6.0).reshape(2, 3)
    state = {"a": nn.Parameter(grid), "b": grid.t(), "c": grid[:, 1]}
    same({k: t.detach() for k, t in read(tmp_path, saved(state)).named.items()}, state)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.module."],
)
@pytest.mark.parametrize("form", ["zip", "safetensors"])
def test_wrappers_prefixes_do_not_keep_weights_from_their_net(tmp_path, prefix, form):
    state = {prefix + name: tensor for name, tensor in net().state_dict().items()}
    if form == "zip":
        torch.save(state, tmp_path / "w.bin")
    else:
        save_file(state, tmp_path / "w.bin")
    other = net()
    nn.init.zeros_(other[0].weight)
    put_into(other, read_tensors(tmp_path / "w.bin").named, "w.bin")
    assert other[0].weight.equal(net()[0].weight)


def test_a_real_wrapper(tmp_path):
    torch.save(nn.DataParallel(net()).state_dict(), tmp_path / "w.bin")
    found = read_tensors(tmp_path / "w.bin").named
    assert list(found) != list(net().state_dict())
    put_into(net(), found, "w.bin")


class Holder(nn.Module):
    """A net whose own names all begin as a wrapper's would."""

    def __init__(self):
        super().__init__()
        self.model = net()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_net_that_calls_its_part_model_keeps_its_names(tmp_path, prefix):
    torch.save({prefix + k: t for k, t in Holder().state_dict().items()}, tmp_path / "w.bin")
    other = Holder()
    nn.init.zeros_(other.model[0].weight)
    put_into(other, read_tensors(tmp_path / "w.bin").named, "w.bin")
    assert other.model[0].weight.equal(net()[0].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", ["zip", "pickle", "safetensors"])
def test_other_precisions_go_into_a_float32_net(tmp_path, dtype, form):
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in net().state_dict().items()}
    if form == "safetensors":
        save_file(state, tmp_path / "w.bin")
    else:
        (tmp_path / "w.bin").write_bytes(saved(state, form))
    other = net()
    nn.init.zeros_(other[3].weight)
    put_into(other, read_tensors(tmp_path / "w.bin").named, "w.bin")
    assert all(p.dtype == torch.float32 for p in other.parameters())
    assert other[3].weight.equal(net()[3].weight.to(dtype).float())


# What is refused, and runs nothing


class Shell:
    """A pickle that runs a command when it is read carelessly."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


class Writer:
    """The same, by a function of Python's that leads to no module with a telling name."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


def deep(hostile):
    return {"state_dict": {"weight": torch.ones(2), "more": [hostile]}}


@FORMS
@pytest.mark.parametrize("kind", [Shell, Writer])
@pytest.mark.parametrize("where", [lambda hostile: hostile, deep])
def test_a_hostile_pickle_is_refused_and_nothing_is_run(tmp_path, form, kind, where):
    mark = tmp_path / "was run"
    content = saved(where(kind(mark.with_name("was_run"))), form)
    with pytest.raises(WeightsError, match=REFUSED) as error:
        read(tmp_path, content)
    assert not list(tmp_path.glob("was*"))
    assert "\n" not in str(error.value)
    assert {"Shell": "system", "Writer": "exec"}[kind.__name__] in str(error.value)
    if form == "pickle":  # the attack is a real one
        torch.load(io.BytesIO(content), weights_only=False)
        assert list(tmp_path.glob("was*"))


@QUIET
def test_a_hostile_plain_pickle_is_refused_and_nothing_is_run(tmp_path):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        content = pickle.dumps({"weight": Shell(tmp_path / "run")}, protocol)
        with pytest.raises(WeightsError):
            read(tmp_path, content)
    assert not (tmp_path / "run").exists()


@FORMS
def test_a_whole_module_is_refused_with_what_to_do(tmp_path, form):
    with pytest.raises(WeightsError, match=rf"{REFUSED} \(torch\.nn\.modules.*state_dict\(\) inst"):
        read(tmp_path, saved(net(), form))


@pytest.mark.parametrize("extra", [argparse.Namespace(lr=1), Path("x"), {"s": {Holder}}])
def test_other_objects_beside_the_tensors_are_refused(tmp_path, extra):
    with pytest.raises(WeightsError, match=REFUSED):
        read(tmp_path, saved({"state_dict": net().state_dict(), "extra": extra}))


# What is damaged, or something else


@FORMS
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.8, 0.99, 1.0])
def test_cut_short(tmp_path, form, share):
    content = saved(net().state_dict(), form)
    cut = content[: min(int(len(content) * share), len(content) - 1)]
    with pytest.raises(WeightsError, match=r"w\.bin is no.* file of weights") as error:
        read(tmp_path, cut)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.8, 0.99, 1.0])
def test_safetensors_cut_short(tmp_path, share):
    save_file(net().state_dict(), tmp_path / "w")
    content = (tmp_path / "w").read_bytes()
    with pytest.raises(WeightsError, match=r"w\.bin is no"):
        read(tmp_path, content[: min(int(len(content) * share), len(content) - 1)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no file of weights; allowed: a .safetensors file, or a state dict"),
        (b"weights = 3\n", "is no file of weights"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), r"is an HDF5 \(Keras\) file; allowed"),
        (saved([torch.ones(2)]), "holds a list, no state dict"),
        (saved(torch.ones(2)), "holds a Tensor, no state dict"),
        (saved({}), "holds no tensor"),
        (saved({"state_dict": {"a": 1}}), "holds no tensor"),
        (safetensors({}), "holds no tensor"),
        (safetensors(b"{nonsense"), "is not a whole safetensors file"),
        (struct.pack("<Q", 2**63) + b"{", "is not a whole safetensors file"),
        (one_number({"hubel": "{"}), "is not a whole safetensors file"),
        (one_number({"hubel": "[" * 100_000}), "is not a whole safetensors file"),
        (one_number({"hubel": "1" * 10_000}), "is not a whole safetensors file"),
        (saved({"a": torch.empty(2, device="meta")}), "a is no plain tensor: .* on meta"),
        (saved({"a": torch.eye(2).to_sparse()}), "a is no plain tensor: sparse_coo"),
        (saved({"a": torch.ones(2) * 1j}), "a is no plain tensor: strided, complex64"),
        (
            saved({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}),
            "a is no plain tensor: strided, qint8",
        ),
        (one_number(dtype="F8_E4M3", count=4), "a is no plain tensor: strided, float8_e4m3fn"),
    ],
)
def test_other_content(tmp_path, content, message):
    with pytest.raises(WeightsError, match=message) as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)


@QUIET
def test_other_archives(tmp_path):
    """A zip of something else, as .npz and .keras are, and TorchScript."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("config.json", "{}")
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.ReLU()), script)
    for content in (stream.getvalue(), script.getvalue()):
        with pytest.raises(WeightsError, match="is not a whole file of weights"):
            read(tmp_path, content)


@FORMS
def test_a_dict_that_holds_itself_ends(tmp_path, form):
    inner = {}
    inner["model"] = inner
    with pytest.raises(WeightsError, match="holds no tensor"):
        read(tmp_path, saved(inner, form))


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(WeightsError, match=r"no such file of weights: .*gone\.pth"):
        read_tensors(tmp_path / "gone.pth")
    with pytest.raises(WeightsError, match="cannot read the weights .*Is a directory"):
        read_tensors(tmp_path)


def test_every_kind_that_is_taken_can_be_copied_into_float32():
    for dtype in KINDS:
        assert torch.zeros(3).copy_(torch.ones(3).to(dtype)).tolist() == [1, 1, 1]


# Any bytes


BEGINNINGS = st.sampled_from(
    [
        b"",
        b"PK\x03\x04",
        b"\x80\x02",
        b"\x80\x04\x95",
        struct.pack("<Q", 80) + b"{",
        *(
            content[:length]
            for content in map(saved, ({}, {"a": torch.ones(3)}))
            for length in (40, 200)
        ),
        *(saved({"a": torch.ones(3)}, "pickle")[:length] for length in (30, 90, 200, 400)),
    ]
)


def refused_or_read(folder, content):
    """Whether it was refused. Whatever else happens is a fault."""
    try:
        read(folder, content)
    except WeightsError:
        return True
    return False


@QUIET
@settings(max_examples=300, deadline=2000)
@given(BEGINNINGS, st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(tmp_path_factory, beginning, rest):
    refused_or_read(tmp_path_factory.getbasetemp(), beginning + rest)


WHOLE = {
    "zip": saved({"a": torch.ones(3)}),
    "pickle": saved({"a": torch.ones(3)}, "pickle"),
    "safetensors": one_number({"hubel": json.dumps({"classes": ["a", "b"]})}),
}


@QUIET
@settings(max_examples=300, deadline=2000)
@given(st.sampled_from(list(WHOLE)), st.data())
def test_a_file_with_any_few_bytes_changed_is_refused_or_read(tmp_path_factory, form, data):
    content = bytearray(WHOLE[form])
    places = st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)
    for place in data.draw(places):
        content[place] = data.draw(st.integers(0, 255))
    refused_or_read(tmp_path_factory.getbasetemp(), bytes(content))


@settings(max_examples=100, deadline=2000)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=6,
    )
)
def test_any_json_as_a_card_is_read_as_it_is(tmp_path_factory, record):
    content = one_number({"hubel": json.dumps(record)})
    found = read(tmp_path_factory.getbasetemp(), content)
    assert json.dumps(found.card) == json.dumps(record)
