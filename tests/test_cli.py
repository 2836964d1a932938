"""The command: words in, one line out for every mistake, one JSON object where asked."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from hubel.cli import run

QUICK = ["--epochs", "2", "--batch", "16", "--tune", "off"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """2 classes x 30 grey PNGs of 16x16, told apart by a bright stripe."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    draw = np.random.default_rng(0)
    for row in range(60):
        pixels = draw.integers(0, 120, (16, 16), dtype=np.uint8)
        name = "striped" if row % 2 else "plain"
        if row % 2:
            pixels[4:8] += 100
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{row:02d}.png")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert run(["train", str(photos), "--out", str(out), "--name", "one", *QUICK, "-q"]) == 0
    words = ["--out", str(out), "--name", "two", "--lr", "0.01", *QUICK, "-q"]
    assert run(["train", str(photos), *words]) == 0
    return out


def test_help_is_instant_and_imports_nothing_heavy():
    script = (
        "import sys, time; start = time.process_time()\n"
        "from hubel.cli import run; run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "print('heavy:', heavy, file=sys.stderr)\n"
        "print(time.process_time() - start, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy, seconds = done.stderr.splitlines()
    assert heavy == "heavy: set()"
    assert float(seconds) < 1  # 0.1 s alone; the test machine may be busy
    assert "hubel train" in done.stdout


@pytest.mark.parametrize(
    "command", ["train", "resume", "evaluate", "predict", "runs", "compare", "report", "models",
                "tune-lr", "data", "data check", "data get", "data list"],
)  # fmt: skip
def test_every_command_has_help(command, capsys):
    assert run([*command.split(), "--help"]) == 0
    assert "Usage: hubel" in capsys.readouterr().out


def test_train_with_json_prints_one_object_and_nothing_else(photos, capsys):
    assert run(["train", str(photos), "--json", *QUICK]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {"run", "seconds", "images_per_second", "metrics", "choices"} <= record.keys()
    assert set(record["metrics"]) == {"train", "val", "test"}
    assert record["run"] == "runs/photos-compact-1"
    assert os.path.exists(record["report"])


def test_every_flag_reaches_the_plan(photos, tmp_path):
    words = {
        "epochs": 1, "batch": 12, "optimiser": "rmsprop", "lr": 0.002, "momentum": 0.5,
        "beta2": 0.9, "eps": 1e-6, "mu": 0.03, "weight-decay": 0.01, "decay": "decoupled",
        "schedule": "step", "warmup": 0.1, "milestones": "0.3,0.6", "factor": 0.5, "wait": 2,
        "final": 0.1, "rates": "1,0.5", "smoothing": 0.05, "dropout": 0.1, "clip": 2.0,
        "accumulate": 2, "ema": 0.9,
        "patience": 3, "augment": "flip,shift=2", "size": "16x20", "fit": "pad", "val": 0.2,
        "test": 0.2, "seed": 7, "device": "cpu", "precision": "fp32", "tune": "off",
        "engine": "torch", "workers": 0, "checkpoint-seconds": 5.0, "checkpoint-steps": 3,
        "max-broken": 0.5, "momentum-form": "velocity", "split-seed": 4, "options": "width=8",
    }  # fmt: skip
    flags = [part for name, value in words.items() for part in (f"--{name}", str(value))]
    assert run(["train", str(photos), "-q", "--name", "r", "--decay-all", *flags]) == 0
    plan = json.loads((tmp_path / "runs" / "r" / "config.json").read_text())["plan"]
    assert plan["optimiser"] == {
        "name": "rmsprop", "lr": 0.002, "momentum": 0.5, "momentum_form": "velocity", "beta2": 0.9,
        "eps": 1e-6, "mu": 0.03, "weight_decay": 0.01, "decay": "decoupled", "decay_all": True,
    }  # fmt: skip
    assert plan["schedule"] == {
        "name": "step", "warmup": 0.1, "milestones": [0.3, 0.6], "factor": 0.5, "wait": 2,
        "final": 0.1, "rates": [1.0, 0.5],
    }  # fmt: skip
    assert plan["augment"] == {
        "flip": True, "shift": 2, "rotate": 0.0, "scale": 0.0, "erase": 0, "jitter": 0.0,
        "mixup": 0.0, "vflip": False, "elastic": 0.0,
    }  # fmt: skip
    assert plan["options"] == {"width": 8}
    for name, value in words.items():
        key = name.replace("-", "_")
        if key in plan and not isinstance(plan[key], dict) and key != "size":
            assert plan[key] == value, name
    assert plan["size"] == [16, 20]


def test_every_field_of_the_plan_has_a_flag(capsys):
    from hubel.cli.words import MASKS, OPTIMISER, SCHEDULE
    from hubel.training.plan import Masks, Optimiser, Plan, Schedule

    assert set(OPTIMISER.values()) == set(Optimiser.model_fields)
    assert set(SCHEDULE.values()) == set(Schedule.model_fields)
    assert set(MASKS.values()) == set(Masks.model_fields) - {"weights", "border_sigma"}
    run(["train", "--help"])
    text = capsys.readouterr().out
    for field in Plan.model_fields:
        if field not in ("source", "model", "optimiser", "schedule", "masks"):
            assert f"--{field.replace('_', '-')}" in text, field


def test_evaluate_predict_report(trained, photos, capsys):
    assert run(["evaluate", str(trained / "one"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["metrics"]
    results = json.loads((trained / "one" / "results.json").read_text())["metrics"]
    assert scores["test"] == pytest.approx(results["test"], abs=1e-6)
    assert run(["evaluate", str(trained / "one"), "--part", "val", "--json"]) == 0
    only = json.loads(capsys.readouterr().out)["metrics"]
    assert only == {"val": pytest.approx(scores["val"], abs=1e-6)}
    assert run(["evaluate", str(trained / "one"), "--part", "vall"]) == 2
    assert "unknown part 'vall': did you mean 'val'" in capsys.readouterr().err
    assert run(["evaluate", str(trained / "one"), str(photos), "--part", "val"]) == 2
    assert "other data is judged as a whole" in capsys.readouterr().err
    assert run(["evaluate", str(trained / "one"), str(photos)]) == 0
    assert "all" in capsys.readouterr().out
    assert run(["report", str(trained / "one")]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")


def test_predict_in_all_formats_with_a_broken_file(trained, photos, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_text("no picture")
    files = [str(photos / "plain" / "00.png"), str(tmp_path / "bad.jpg")]
    assert run(["predict", str(trained / "one"), *files, "--format", "json"]) == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert good["label"] in ("plain", "striped")
    assert len(good["top"]) == 2
    assert bad["label"] is None
    assert bad["error"]
    assert run(["predict", str(trained / "one"), *files, "--format", "csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == files
    assert rows[0]["label"] == good["label"]
    assert rows[1]["error"]
    assert run(["predict", str(trained / "one"), str(photos)]) == 0
    assert "00.png" in capsys.readouterr().out


@pytest.fixture(scope="module")
def groups(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("groups")
    words = ["train", str(photos), "--model", "softmax", "--out", str(out), "-q", *QUICK]
    assert run([*words, "--seeds", "2", "--seed", "5", "--name", "s"]) == 0
    assert run([*words, "--folds", "2", "--name", "f"]) == 0
    return out


def test_seeds_and_folds_make_groups(groups, capsys):
    assert sorted(p.name for p in (groups / "s").iterdir()) == [
        "group.json", "report.html", "seed-5", "seed-6",
    ]  # fmt: skip
    assert (groups / "f" / "fold-2" / "weights.safetensors").exists()
    assert run(["runs", "--out", str(groups), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["name"], r["epochs"], r["status"]) for r in rows] == [
        ("s", "2/2 seeds", "finished"), ("f", "2/2 folds", "finished"),
    ]  # fmt: skip
    assert run(["report", str(groups / "s")]) == 0
    assert capsys.readouterr().out.strip() == str(groups / "s" / "report.html")
    assert run(["resume", str(groups / "s")]) == 2
    assert "is finished: 'hubel evaluate" in capsys.readouterr().err


def test_a_group_is_evaluated_and_predicts_as_an_ensemble(groups, photos, capsys):
    results = json.loads((groups / "s" / "group.json").read_text())["results"]
    assert run(["evaluate", str(groups / "s"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["metrics"]
    assert scores["test"] == pytest.approx(results["ensemble"]["test"], abs=1e-6)
    assert run(["evaluate", str(groups / "f")]) == 0
    assert "out-of-fold" in capsys.readouterr().out
    members = [str(groups / "s" / name) for name in ("seed-5", "seed-6")]
    assert run(["evaluate", *members, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == scores
    assert run(["evaluate", *members, str(photos), "--tta", "flip", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["metrics"]) == {"all"}
    image = str(photos / "plain" / "00.png")
    assert run(["predict", str(groups / "s"), image, "--format", "json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert run(["predict", *members, image, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [one]
    assert run(["predict", members[0], image, "--tta", "ten-crop", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) != [one]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "s", "--tta", "flop"], "unknown tta 'flop': did you mean 'flip'"),
        (["evaluate", "s", "no-such", "photos"], "no run at no-such|unknown run 'no-such'"),
        (["predict", "s", "s/seed-5"], "predict takes images after the runs, given s, s/seed-5"),
        (["check", "s"], "s is a group of runs: give one of them: seed-5, seed-6"),
        (["train", "--seeds", "3", "--folds", "3"], "give seeds or folds, not both"),
        (["train", "--fold", "2of5"], "--fold takes one fold of several, as 1/5, given '2of5'"),
        (["train", "--fold", "6/5"], "fold must be one of two or more, as 1/5, given 6/5"),
    ],
)
def test_mistakes_with_groups(words, message, groups, monkeypatch, capsys):
    import re

    monkeypatch.chdir(groups)
    assert run(words) == 2
    assert re.search(message, capsys.readouterr().err)


def test_runs_and_compare(trained, capsys):
    assert run(["runs", "--out", str(trained), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["name"], r["epochs"], r["status"]) for r in rows] == [
        ("one", "2/2", "finished"), ("two", "2/2", "finished"),
    ]  # fmt: skip
    assert run(["compare", str(trained / "one"), str(trained / "two")]) == 0
    text = capsys.readouterr().out
    assert "optimiser.lr" in text
    assert "0.01" in text
    assert "batch" not in text
    assert run(["runs", "--out", "none"]) == 0
    assert "hubel train" in capsys.readouterr().out


def test_models_and_data(photos, capsys):
    assert run(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["lenet5"]["parameters"] == 61_706
    assert rows["lenet5"]["macs"] == 416_520  # 25x6x28^2 + 150x16x10^2 + 400x120 + 120x84 + 84x10
    assert run(["models"]) == 0
    assert "resnet20" in capsys.readouterr().out
    assert run(["data", "list", "--json"]) == 0
    assert "fashion-mnist" in capsys.readouterr().out
    assert run(["data", "check", str(photos)]) == 0
    assert "60 images of 2 classes" in capsys.readouterr().out


def test_data_check_exits_1_for_broken_files(photos, tmp_path, capsys):
    for name in "ab":
        (tmp_path / "d" / name).mkdir(parents=True)
        for k in range(3):
            pixels = np.random.default_rng(k).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "d" / name / f"{k}.png")
    (tmp_path / "d" / "a" / "broken.png").write_bytes(b"")
    assert run(["data", "check", str(tmp_path / "d")]) == 1
    text = capsys.readouterr().out
    assert "broken.png" in text
    assert run(["data", "check", str(tmp_path / "d"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["broken"] == 1


def test_tune_lr(photos, capsys):
    assert run(["tune-lr", str(photos), "--steps", "40", "--batch", "16", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert 1e-6 < record["suggested"] < 10
    assert os.path.getsize(record["picture"]) > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "no such command 'trian': did you mean train?"),
        (["train", "--epoch", "3"], "no such option --epoch: did you mean --epochs?"),
        (["train", "--epochs", "many"], r"'--epochs': .*valid integer.*, given 'many'"),
        (["train", "--epochs", "0"], "epochs: .*greater than or equal to 1, given 0"),
        (["train", "no/such"], "no data set or path called 'no/such'"),
        (["train", "fashion-mnits"], "did you mean 'fashion-mnist'"),
        (["train", "--model", "lenet"], "unknown model 'lenet': did you mean 'lenet5'"),
        (["train", "--optimiser", "adamm"], "optimiser.name: .*given 'adamm'"),
        (["train", "--augment", "flop"], "did you mean 'flip'"),
        (["train", "--size", "64by64"], "--size takes pixels like 64 or 48x64"),
        (["train", "--milestones", "a,b"], "--milestones takes numbers"),
        (["train", "--device", "cuda:99"], "device 'cuda:99' is not here"),
        (["train", "--model", "compact", "--batch", "1"], "batch norm cannot learn from one image"),
        (["train", "--model", "none.py:net"], "none.py"),
        (["evaluate", "runs/none"], "no run at runs/none"),
        (["resume", "runs/none"], "no run at runs/none"),
        (["predict", "runs/none", "x.jpg"], "no run at runs/none"),
        (["compare", "one"], "compare takes two runs or more, given 1"),
        (["data", "get", "minst"], "did you mean 'mnist'"),
        (["predict"], "Missing"),
    ],
)
def test_mistakes_exit_2_with_one_line(words, message, capsys, tmp_path):
    assert run(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("hubel: ")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    import re

    assert re.search(message, lines[0]), lines[0]
    assert not (tmp_path / "runs").exists()


def test_a_fault_of_ours_exits_1_and_shows_itself(monkeypatch, capsys):
    monkeypatch.setattr("hubel.api.list_models", lambda: 1 / 0)
    assert run(["models"]) == 1
    text = capsys.readouterr().err
    assert "ZeroDivisionError" in text
    assert "please report it" in text


def test_ctrl_c_saves_and_says_how_to_go_on(photos, tmp_path):
    command = [sys.executable, "-m", "hubel", "train", str(photos), "--name", "r", "--batch", "16",
               "--epochs", "5000", "--tune", "off"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    log = tmp_path / "runs" / "r" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.stat().st_size):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped and saved at step" in text
    assert "hubel resume runs/r" in text
    assert "Traceback" not in text


def test_a_closed_pipe_is_quiet():
    done = subprocess.run(
        f"{sys.executable} -m hubel models | head -1", shell=True, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
