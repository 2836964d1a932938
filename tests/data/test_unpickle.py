"""The restricted reader: CIFAR's pickles pass, every other pickle is refused before it acts."""

import collections
import decimal
import functools
import operator
import os
import pickle
import pickletools
import struct
import subprocess
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubel.data.unpickle import restricted_load
from hubel.errors import DataError

DATA = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)


def python2_batch(data=DATA, labels=(6, 9)):
    """Protocol 2 as Python 2's cPickle wrote CIFAR's batches: byte strings, a raw array."""

    def text(word):
        return b"U" + bytes([len(word)]) + word

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R(K\1"
        + b"J" + struct.pack("<i", data.shape[0])
        + b"J" + struct.pack("<i", data.shape[1]) + b"\x86"
        + b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNN"
        + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T" + struct.pack("<i", data.nbytes)
        + data.tobytes() + b"tb"
    )  # fmt: skip
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\2}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def test_what_python_2_wrote():
    data = python2_batch()
    reference = pickle.loads(data, encoding="latin1")  # the oracle agrees that this is a pickle
    got = restricted_load(data, "batch")
    assert set(got) == {"data", "labels"}
    np.testing.assert_array_equal(got["data"], reference["data"])
    assert got["labels"] == [6, 9]


@pytest.mark.parametrize("protocol", range(5))
def test_what_python_3_writes(protocol):
    value = {b"data": DATA, "f": np.asfortranarray(DATA), b"labels": [3, 4], "b": b"\xff\0", "n": 1}
    got = restricted_load(pickle.dumps(value, protocol), "batch")
    np.testing.assert_array_equal(got[b"data"], DATA)
    np.testing.assert_array_equal(got["f"], DATA)
    assert {k: v for k, v in got.items() if k in ("b", "n")} == {"b": b"\xff\0", "n": 1}


class Bad:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Bad(os.system, "touch pwned"), "(posix|nt).system"),
        (Bad(eval, "open('pwned', 'w')"), "(builtins|__builtin__).eval"),
        (Bad(subprocess.Popen, ["touch", "pwned"]), "(subprocess|commands).Popen"),
        (Bad(getattr, [], "append"), "(builtins|__builtin__).getattr"),
        (Bad(operator.attrgetter, "x"), "operator.attrgetter"),
        (functools.partial(print), "functools.partial"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (decimal.Decimal(1), "decimal.Decimal"),
        (np.float64(1), "numpy.*scalar"),
        ({1, 2}.__class__, "(builtins|__builtin__).set"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_other_objects_are_refused_by_name(value, name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"data": DATA, "labels": [value]}, protocol)
    message = f"data_batch_1: file refused: it asks for the Python object '{name}'; allowed: dict"
    with pytest.raises(DataError, match=message):
        restricted_load(data, "data_batch_1")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("dtype", ["i8", "f4", "O", "U3", "V8"])
def test_other_arrays_are_refused(dtype):
    with pytest.raises(DataError, match=r"refused: an array of type .*; allowed: .*uint8"):
        restricted_load(pickle.dumps(np.zeros(3, dtype), 2), "x")


def test_outside_objects_and_other_codecs_are_refused():
    with pytest.raises(DataError, match="file refused: it asks for the outside object 'db'"):
        restricted_load(b"\x80\2U\2dbQ.", "x")
    with pytest.raises(DataError, match="bytes written as 'zip'; allowed: latin1"):
        restricted_load(b"c_codecs\nencode\n(Vabc\nVzip\ntR.", "x")


def test_stand_ins_cannot_be_changed_by_a_pickle():
    for name in ("cnumpy\nndarray\n", "cnumpy\ndtype\n", "c_codecs\nencode\n"):
        for state in (b"}U\1aK\1s", b"N}U\1aK\1s\x86"):  # for __dict__, and for setattr
            with pytest.raises(DataError, match="damaged pickle"):
                restricted_load(b"\x80\2" + name.encode() + state + b"b.", "x")
    np.testing.assert_array_equal(restricted_load(python2_batch(), "x")["data"], DATA)


def test_a_number_in_the_file_does_not_fill_the_memory():
    tracemalloc.start()
    try:
        assert restricted_load(b"\x80\2]r\xff\xff\xff\xff.", "x") == []  # memo place 2^32 - 1
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_an_array_that_lies_about_its_shape():
    data = python2_batch().replace(struct.pack("<i", 3072), struct.pack("<i", 3073), 1)
    with pytest.raises(DataError, match=r"array of shape \(2, 3073\) with 6144 bytes"):
        restricted_load(data, "x")


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1)
)
def test_damage_is_an_error_of_ours(changes):
    data = bytearray(python2_batch(DATA[:, :3072]))
    head = data.index(b"T") + 5  # the pickle's own bytes; the pixels follow
    for place, value in changes:
        data[int(place * head)] = value
    with suppress(DataError):
        restricted_load(bytes(data), "x")


def test_the_hand_written_pickle_is_one():
    *_, (last, _, place) = pickletools.genops(python2_batch())
    assert last.name == "STOP"
    assert place == len(python2_batch()) - 1
