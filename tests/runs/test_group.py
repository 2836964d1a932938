"""The group's folder: made, found, listed, and never thrown away with work in it."""

import json

import pytest

from hubel.errors import RunError
from hubel.runs.group import Group, Member, group_lines, is_group, list_groups
from hubel.runs.run import Run

SOURCE = {"name": "photos", "origin": "here", "where": None}
MEMBERS = (Member("seed-0", {"seed": 0}), Member("seed-1", {"seed": 1}))


def make(out, name=None):
    return Group.create(out, name, "seeds", "nets/mine.py:net", SOURCE, {"epochs": 3}, MEMBERS)


def finish_runs(group):
    for member in group.members:
        run = group.run(member)
        run.folder.mkdir()
        (run.folder / "results.json").write_text('{"metrics": {}}')


def test_what_was_decided_comes_back(tmp_path):
    group = make(tmp_path)
    assert group.folder.name == "photos-net-seeds-1"
    assert make(tmp_path).folder.name == "photos-net-seeds-2"
    assert Group.open(group.folder) == group
    assert is_group(group.folder)
    assert not is_group(tmp_path)
    record = json.loads((group.folder / "group.json").read_text())
    assert record["environment"]["command"]


def test_finished_is_who_has_results(tmp_path):
    group = make(tmp_path)
    with pytest.raises(RunError, match="is not finished: go on with 'hubel resume"):
        group.runs()
    finish_runs(group)
    assert [run.name for run in group.runs()] == ["seed-0", "seed-1"]
    assert not group.finished
    with pytest.raises(RunError, match="is not finished"):  # its members are, it was never judged
        group.results()
    group.finish({"part": "test"})
    assert group.finished
    assert group.results() == {"part": "test"}
    assert Group.open(group.folder) == group


def test_only_an_empty_group_is_discarded(tmp_path):
    group, other = make(tmp_path), make(tmp_path)
    group.discard()
    assert not group.folder.exists()
    (other.folder / "seed-1").mkdir()
    other.discard()
    assert other.folder.exists()
    other.clear(MEMBERS[1])
    other.clear(MEMBERS[0])  # was never there
    assert not (other.folder / "seed-1").exists()


def test_a_damaged_record_is_said_so(tmp_path):
    group = make(tmp_path)
    (group.folder / "group.json").write_text('{"kind": "seeds"}')
    with pytest.raises(RunError, match=r"group\.json is damaged: KeyError"):
        Group.open(group.folder)
    (group.folder / "group.json").write_text("{")
    with pytest.raises(RunError, match=r"group\.json is damaged"):
        Group.open(group.folder)
    assert list_groups(tmp_path) == []


def test_lines_for_the_list_of_runs(tmp_path):
    group = make(tmp_path, "g")
    (line,) = group_lines(tmp_path)
    assert (line["name"], line["data"], line["epochs"]) == ("g", "photos", "0/2 seeds")
    assert line["status"].startswith("stopped")
    finish_runs(group)
    group.finish({"part": "test", "intervals": {"accuracy": {"mean": 0.5}}})
    (line,) = group_lines(tmp_path)
    assert (line["epochs"], line["status"], line["test"], line["val"]) == (
        "2/2 seeds", "finished", 0.5, None,
    )  # fmt: skip


def test_a_group_of_masks_is_listed_by_mean_iou(tmp_path):
    group = make(tmp_path, "g")
    finish_runs(group)
    spans = {"pixel_accuracy": {"mean": 0.9}, "miou": {"mean": 0.5}}
    group.finish({"part": "test", "intervals": spans})
    assert group_lines(tmp_path)[0]["test"] == 0.5


def test_a_group_is_no_run(tmp_path):
    group = make(tmp_path, "g")
    (group.folder / "seed-0").mkdir()
    (group.folder / "seed-0" / "config.json").write_text("{}")
    with pytest.raises(RunError, match="g is a group of runs: give one of them: seed-0"):
        Run.open(group.folder)
