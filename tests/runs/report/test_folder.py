"""The run folder as the report reads it: what is missing, torn or strange."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hubel.errors import RunError
from hubel.runs.report.folder import read_run

Make = Callable[..., Path]


def test_a_whole_folder(made_run: Make) -> None:
    files = read_run(made_run(classes=["cat", "dog"]))
    assert files.classes == ["cat", "dog"]
    assert files.size_of("test") == 2000
    assert files.metrics("test")["accuracy"] == 0.8
    assert files.unread == []


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run folder is needed .*, given .*nowhere"):
        read_run(tmp_path / "nowhere")


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no config\.json, results\.json or metrics\.jsonl"):
        read_run(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "results.json", "data.json", "evidence.json"])
def test_a_torn_file_is_named_and_left_out(made_run: Make, name: str) -> None:
    folder = made_run()
    (folder / name).write_text('{"plan": {"mod')
    files = read_run(folder)
    assert len(files.unread) == 1
    assert Path(name).stem in files.unread[0]


def test_a_file_of_another_kind_counts_as_empty(made_run: Make) -> None:
    folder = made_run()
    (folder / "config.json").write_text("[1, 2]")
    (folder / "results.json").write_text('{"metrics": [1]}')
    files = read_run(folder)
    assert files.plan == {}
    assert files.metrics("test") == {}
    assert files.classes == ["0", "1"]  # from the confusion matrix


def test_the_flag_in_the_log_beats_the_results(made_run: Make) -> None:
    log = [{"kind": "epoch", "epoch": e, "step": e, "best": e < 2} for e in range(4)]
    assert read_run(made_run(log=log, results={"best_epoch": 3})).best == 1


def test_the_results_name_the_best_epoch_where_the_log_does_not(made_run: Make) -> None:
    log = [{"kind": "epoch", "epoch": e, "step": e} for e in range(4)]
    assert read_run(made_run(log=log, results={"best_epoch": 3})).best == 3


def test_a_class_beyond_the_names_is_its_number(made_run: Make) -> None:
    assert read_run(made_run(classes=["cat", "dog"])).name_of(7) == "7"
