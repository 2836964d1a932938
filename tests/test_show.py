"""The terminal: notices to standard error, results to standard output, a bar only on a terminal."""

import io
import json

import pytest
from rich.console import Console

from hubel.session import Notice, Stage
from hubel.show import Display, group_table, print_table, scores_table
from hubel.training.fit import Epoch, Step

RECORD = {
    "run": "runs/x-1",
    "report": "runs/x-1/report.html",
    "seconds": 12.3,
    "images_per_second": 456.7,
    "metrics": {"test": {"accuracy": 0.875, "loss": 0.4}, "train": {"accuracy": 0.9, "loss": 0.2}},
}


def step(number):
    return Step(number, 100, 0, 2, 0.5, 0.1, 1.0, 16)


@pytest.fixture
def terminal(monkeypatch):
    """A display on a made-up terminal of 80 columns, and what it wrote."""
    written = io.StringIO()

    def console(**words):
        return Console(file=written, force_terminal=True, width=80, **{**words, "stderr": False})

    monkeypatch.setattr("hubel.show.Console", console)
    return Display(), written


def test_off_a_terminal_there_is_no_bar(capsys):
    with Display() as display:
        for number in range(1, 4):
            display(step(number))
        display(Stage("reading images", 5, 10))
        display(Notice("mind the [gap]", "warning"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "! mind the [gap]\n"


def test_quiet_says_nothing(capsys):
    with Display(quiet=True) as display:
        display(Notice("psst"))
    display.result(RECORD)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_machine_gets_one_object_with_null_for_nan(capsys):
    Display(machine=True).result({**RECORD, "seconds": float("nan")})
    assert json.loads(capsys.readouterr().out)["seconds"] is None


def test_people_get_a_table_the_report_and_what_to_do_next(capsys):
    Display().result(RECORD)
    text = capsys.readouterr().out
    assert text.index("train") < text.index("test")
    assert "87.5%" in text
    assert "0.400" in text
    assert "runs/x-1/report.html" in text
    assert "hubel predict runs/x-1" in text


def test_the_bar_tells_epoch_loss_and_validation(terminal):
    display, written = terminal
    with display:
        display(step(1))
        scores = {"accuracy": 0.5}
        display(Epoch(0, 1, scores, {"accuracy": 0.75}, 0.1, 1.0, True))
        display._next_look = 0.0
        display(step(50))
    text = written.getvalue()
    assert "epoch 1/2" in text
    assert "loss 0.500" in text
    assert "val 75.0%" in text


GROUP = {
    "group": "runs/g",
    "kind": "seeds",
    "part": "test",
    "members": {"seed-0": {"accuracy": 0.8, "loss": 0.5}, "seed-1": {"accuracy": 0.9, "loss": 0.4}},
    "intervals": {
        "accuracy": {"mean": 0.85, "std": 0.07, "low": 0.8, "high": 0.9, "count": 2},
        "loss": {"mean": 0.45, "std": 0.07, "low": 0.33, "high": 0.57, "count": 2},
    },
    "ensemble": {"test": {"accuracy": 0.875, "loss": 0.41}},
    "report": "runs/g/report.html",
}


def test_a_group_is_told_member_by_member(capsys):
    table = group_table(GROUP)
    assert [str(column.header) for column in table.columns] == ["test", "accuracy", "loss"]
    assert [list(column.cells) for column in table.columns] == [
        ["seed-0", "seed-1", "mean ± 95 %", "ensemble, test"],
        ["80.0%", "90.0%", "85.0% ± 5.0", "87.5%"],
        ["0.500", "0.400", "0.450 ± 0.120", "0.410"],
    ]
    Display().result(GROUP)
    assert "hubel predict runs/g" in capsys.readouterr().out
    Display(machine=True).result(GROUP)
    assert json.loads(capsys.readouterr().out)["kind"] == "seeds"


def test_steps_between_two_looks_cost_nothing(terminal, monkeypatch):
    display, _ = terminal
    looks = []
    monkeypatch.setattr(display, "_step", looks.append)
    for number in range(1, 1000):
        display(step(number))
    assert len(looks) <= 2


def test_table_of_a_pipe_is_not_cut(capsys):
    print_table(["a"], [["x" * 150]])
    assert "x" * 150 in capsys.readouterr().out


def test_scores_missing_in_a_part_are_dashes():
    table = scores_table({"train": {"accuracy": 1.0, "top5": 1.0}, "test": {"accuracy": 0.5}})
    assert list(table.columns[2].cells) == ["100.0%", "-"]
