"""Files are the old one or the new one, whatever happens in between."""

import errno
import math
import os

import pytest

from hubel.errors import RunError
from hubel.runs.files import read_json, replacing, write_json, write_text


def test_round_trip_and_nan_becomes_null(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1.5, math.nan, math.inf], "ö": "é"})
    assert read_json(tmp_path / "a.json") == {"x": [1.5, None, None], "ö": "é"}


def test_a_crash_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), replacing(path) as draft:
        draft.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_full_disk_is_said_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RunError, match=r"cannot write .*a\.txt: the disk is full"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_disk_for_real():
    with pytest.raises(RunError, match="the disk is full"), replacing(_Full()) as draft:
        draft.write_text("x" * 10_000)


class _Full:
    """A path whose draft is the device that is always full."""

    name = "full"

    def with_name(self, name):
        from pathlib import Path

        class Draft(type(Path())):
            def unlink(self, missing_ok=False):
                pass

        return Draft("/dev/full")

    def __str__(self):
        return "/dev/full"


def test_missing_and_damaged_json(tmp_path):
    with pytest.raises(RunError, match="missing"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        read_json(tmp_path / "bad.json")
