"""Evidence to disk and back, whole, in part, and broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hubel.errors import RunError
from hubel.runs.report.evidence import Evidence, Filters


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b)


def test_all_comes_back(tmp_path: Path, made_evidence: Callable[..., Evidence]) -> None:
    evidence = made_evidence(5, channels=3)
    evidence.absent["costs"] = "not measured"
    evidence.save(tmp_path)
    assert same(Evidence.load(tmp_path), evidence)


def test_parts_may_be_missing(tmp_path: Path) -> None:
    evidence = Evidence(filters=Filters(np.ones((2, 1, 3, 3)), "conv1"))
    evidence.save(tmp_path)
    loaded = Evidence.load(tmp_path)
    assert same(loaded, evidence)
    assert loaded.mistakes is None


def test_no_files_are_no_evidence(tmp_path: Path) -> None:
    assert same(Evidence.load(tmp_path), Evidence())


def test_numpy_numbers_in_cost_rows(tmp_path: Path) -> None:
    Evidence(costs=[{"macs": np.int64(7), "milliseconds": float("nan")}]).save(tmp_path)
    assert Evidence.load(tmp_path).costs == [{"macs": 7, "milliseconds": None}]


def test_broken_arrays_are_named(tmp_path: Path, made_evidence: Callable[..., Evidence]) -> None:
    made_evidence(3).save(tmp_path)
    path = tmp_path / "evidence.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"evidence\.npz: evidence cannot be read"):
        Evidence.load(tmp_path)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    Evidence().save(tmp_path)
    np.savez(tmp_path / "evidence.npz", confusion=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RunError, match="allow_pickle"):
        Evidence.load(tmp_path)


def test_saving_leaves_no_drafts(tmp_path: Path) -> None:
    Evidence().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evidence.json", "evidence.npz"]


def test_images_of_several_sizes_come_back(
    tmp_path: Path, mask_evidence: Callable[..., Evidence]
) -> None:
    evidence = mask_evidence(3, sizes=((7, 11), (13, 5), (4, 4)), channels=1)
    evidence.save(tmp_path)
    loaded = Evidence.load(tmp_path)
    assert same(loaded, evidence)
    assert loaded.cases is not None
    assert {case.truth.shape for case in loaded.cases} == {(7, 11), (13, 5), (4, 4)}
    assert loaded.features is not None
    assert loaded.features.layers[0].size == (60, 67)


def test_evidence_written_before_masks_is_read(
    tmp_path: Path, made_evidence: Callable[..., Evidence]
) -> None:
    """Feature maps then had no size of their own, and there were no cases."""
    made_evidence(2).save(tmp_path)
    names = json.loads((tmp_path / "evidence.json").read_text())
    assert "cases" not in names
    for layer in names["features"]:
        del layer["size"]
    (tmp_path / "evidence.json").write_text(json.dumps(names))
    loaded = Evidence.load(tmp_path)
    assert loaded.cases is loaded.each is loaded.boundary is None
    assert loaded.features is not None
    assert loaded.features.layers[0].size is None
