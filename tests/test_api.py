"""The whole line, from images to predictions, through the public verbs, on data made here."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hubel import api
from hubel.data.record import ArraySource
from hubel.errors import DataError, HubelError, ModelError, OptionError, RunError, TrainingError
from hubel.session import Notice
from hubel.training.fit import Epoch, Step

pytestmark = pytest.mark.usefixtures("own_cache")
QUICK = {"epochs": 2, "batch": 16, "tune": "off"}


def stripes(count=120, classes=("plain", "striped"), seed=0):
    draw = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    images = draw.integers(0, 120, (count, 1, 16, 16), dtype=np.uint8)
    images[targets == 1, :, 4:8] += 100
    return ArraySource(images, targets, classes, name="stripes", origin="made here")


@pytest.fixture
def photos(tmp_path):
    """A folder of 2 classes x 40 colour PNGs of 20x24, and one file that is no image."""
    source = stripes(80)
    for row in range(80):
        path = tmp_path / "photos" / source.classes[source.targets[row]] / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.repeat(source.images[row].transpose(1, 2, 0), 3, axis=2)
        Image.fromarray(pixels).resize((24, 20)).save(path)
    (tmp_path / "photos" / "plain" / "zz_broken.jpg").write_text("no picture")
    return tmp_path / "photos"


def test_from_images_to_predictions(tmp_path, photos):
    heard = []
    result = api.train("compact", photos, out=tmp_path / "runs", tell=heard.append, epochs=8,
                       batch=16, tune="off")  # fmt: skip
    assert result.folder == tmp_path / "runs" / "photos-compact-1"
    assert set(result.metrics) == {"train", "val", "test"}
    assert result.metrics["train"]["accuracy"] > 0.9
    assert sum(isinstance(e, Epoch) for e in heard) == 8
    assert any(isinstance(e, Step) for e in heard)
    said = [e.text for e in heard if isinstance(e, Notice)]
    assert any("zz_broken.jpg" in text for text in said)
    for name in ("config.json", "environment.json", "split.json", "data.json", "metrics.jsonl",
                 "weights.safetensors", "results.json", "report.html"):  # fmt: skip
        assert (result.folder / name).stat().st_size > 0, name
    page = result.report.read_text()
    assert "striped" in page
    run = api.load_run(result.folder)
    striped = sorted((photos / "striped").iterdir())[:6]
    found = run.predict([*striped, photos / "plain" / "zz_broken.jpg"])
    assert [p.label for p in found[:6]].count("striped") >= 5
    assert found[6].label is None
    assert "zz_broken.jpg" in found[6].file
    assert found[6].error
    assert sum(p for _, p in found[0].top) == pytest.approx(1, abs=1e-5)
    again = run.evaluate()
    for part in ("val", "test"):
        assert again[part] == pytest.approx(result.metrics[part], abs=1e-6)


def test_results_are_plain_json(tmp_path):
    result = api.train("softmax", stripes(), out=tmp_path, **QUICK)
    record = json.loads((result.folder / "results.json").read_text())
    assert record["metrics"]["test"]["accuracy"] == result.metrics["test"]["accuracy"]
    assert {"seconds", "images_per_second", "choices", "best_epoch", "stopped"} <= record.keys()


@pytest.mark.parametrize("name", ["softmax", "mlp", "lenet5", "net32", "resnet20", "compact"])
def test_every_model_trains(tmp_path, name):
    result = api.train(name, stripes(48), out=tmp_path, **QUICK)
    assert np.isfinite(result.metrics["test"]["loss"])
    assert len(api.load_run(result.folder).predict([])) == 0


def test_same_words_same_bits_other_seed_other_weights(tmp_path):
    def weights(seed):
        result = api.train("lenet5", stripes(), out=tmp_path, seed=seed, **QUICK)
        return torch.cat([p.flatten() for p in result.model.parameters()])

    assert weights(3).equal(weights(3))
    assert not weights(3).equal(weights(4))


def test_a_module_of_ones_own(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    result = api.train(net, stripes(), out=tmp_path, **QUICK)
    assert result.model is net
    with pytest.raises(ModelError, match=r"made by hand \(Sequential\): give it again as model="):
        api.load_run(result.folder)
    blank = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    run = api.load_run(result.folder, model=blank)
    assert run.model[1].weight.equal(net[1].weight)
    other = nn.Sequential(nn.Flatten(), nn.Linear(256, 2, bias=False))
    with pytest.raises(ModelError, match="another architecture"):
        api.load_run(result.folder, model=other)


def test_a_function_in_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def net(classes, channels):\n"
        "    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(2),\n"
        "                         nn.Flatten(), nn.Linear(16, classes))\n"
    )
    result = api.train(f"{file}:net", stripes(), out=tmp_path / "runs", **QUICK)
    assert result.folder.name == "stripes-net-1"
    assert api.load_run(result.folder).card.architecture.name.endswith("mine.py:net")
    file.write_text(file.read_text() + "# changed\n")
    with pytest.raises(ModelError, match="has changed"):
        api.load_run(result.folder)


def test_other_data_is_matched_by_class_name(tmp_path):
    result = api.train("lenet5", stripes(), out=tmp_path, epochs=6, batch=16, tune="off")
    run = api.load_run(result.folder)
    turned = stripes(60, seed=1)
    turned.targets, turned.classes = 1 - turned.targets, ("striped", "plain")
    expected = run.evaluate(stripes(60, seed=1))
    assert run.evaluate(turned)["all"] == pytest.approx(expected["all"])
    with pytest.raises(DataError, match=r"class 'dotted' .* not one of the run's: plain, striped"):
        run.evaluate(stripes(60, classes=("plain", "dotted")))


def test_resume_of_a_finished_run_says_so(tmp_path):
    result = api.train("softmax", stripes(), out=tmp_path, **QUICK)
    with pytest.raises(RunError, match="is finished: 'hubel evaluate"):
        api.resume(result.folder, data=stripes())


def test_resume_with_other_images_is_refused(tmp_path):
    def stop(event):
        if isinstance(event, Step) and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.train("softmax", stripes(), out=tmp_path, name="r", tell=stop, **QUICK)
    with pytest.raises(DataError):
        api.resume(tmp_path / "r", data=stripes(seed=9))
    turned = stripes()
    turned.targets = 1 - turned.targets
    with pytest.raises(DataError, match="their labels or class names have changed"):
        api.resume(tmp_path / "r", data=turned)
    assert api.resume(tmp_path / "r", data=stripes()).metrics["test"]


def test_too_many_broken_images_stop_with_the_list(tmp_path, photos):
    for path in sorted((photos / "plain").iterdir())[:6]:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(TrainingError, match=r"7 of 81 images are broken.*5%.*00\.png.*"):
        api.train("softmax", photos, out=tmp_path / "runs", **QUICK)
    result = api.train("softmax", photos, out=tmp_path / "runs", max_broken=0.2, **QUICK)
    assert sum("left out" in note for note in result.notices) == 7


def test_divergence_keeps_state_and_batch(tmp_path):
    with pytest.raises(TrainingError, match=r"diverged at step \d+.*diverged\.safetensors"):
        api.train(
            "mlp", stripes(), out=tmp_path, name="r", smoothing=0.0,
            optimiser={"name": "sgd", "lr": 1e30, "momentum_form": "pytorch"},
            schedule={"name": "constant"}, **QUICK,
        )  # fmt: skip
    assert (tmp_path / "r" / "diverged.safetensors").exists()
    assert list((tmp_path / "r" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"model": "lenet"}, ModelError, "unknown model 'lenet': did you mean 'lenet5'"),
        ({"epoch": 3}, OptionError, "unknown option 'epoch': did you mean 'epochs'"),
        ({"optimiser": {"name": "adamm"}}, OptionError, "adamm"),
        ({"device": "cuda:99"}, OptionError, "device 'cuda:99' is not here"),
        ({"data": "fashion-mnits"}, DataError, "did you mean 'fashion-mnist'"),
        ({"data": "no/such/folder"}, DataError, "no data set or path called"),
        ({"model": "lenet5", "size": (8, 8)}, ModelError, "at least 12"),
        ({"model": "compact", "batch": 1}, OptionError, "batch norm cannot learn from one image"),
        ({"name": "../x"}, RunError, "letters, digits"),
        ({"model": nn.Linear(3, 3)}, ModelError, "cannot take images"),
        ({"model": nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten())}, ModelError, "par"),
        ({"model": nn.Flatten()}, ModelError, r"\(2, 2\) logits.*it gave \(2, 256\)"),
    ],
)  # fmt: skip
def test_mistakes_are_said_in_one_line_and_leave_no_run(tmp_path, words, error, message):
    words = {"model": "softmax", "data": stripes(), **QUICK, **words}
    with pytest.raises(error, match=message) as raised:
        api.train(out=tmp_path / "runs", **words)
    assert isinstance(raised.value, HubelError)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("runs/*"))


def test_one_class_only(tmp_path):
    source = stripes()
    source.targets[:] = 0
    with pytest.raises(DataError):
        api.train("softmax", source, out=tmp_path, **QUICK)


def test_tune_lr_finds_a_rate_that_trains_and_draws_it(tmp_path):
    found = api.tune_lr("lenet5", stripes(), out=tmp_path / "lr.png", steps=60, batch=16)
    assert 1e-4 < found.suggested < 1
    assert found.suggested <= found.highest
    assert Image.open(found.picture).size[0] > 600
    assert len(found.rates) == len(found.losses) > 20


def test_callers_switches_and_chance_are_left_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    api.train("softmax", stripes(), out=tmp_path, **QUICK)
    assert torch.rand(3).equal(expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_loaded_source_is_found_again(tmp_path, photos, monkeypatch):
    """The run remembers where the data was opened from, not how it was handed over."""
    monkeypatch.chdir(tmp_path)
    data = api.load_data("photos")
    result = api.train("softmax", data, out=tmp_path / "runs", max_broken=0.2, **QUICK)
    monkeypatch.chdir(tmp_path / "runs")
    again = api.load_run(result.folder).evaluate()
    assert again["test"] == pytest.approx(result.metrics["test"], abs=1e-6)


def test_arrays_must_be_given_again(tmp_path):
    source = stripes()
    pair = (source.images, source.targets)
    result = api.train("softmax", pair, out=tmp_path, **QUICK)
    run = api.load_run(result.folder)
    with pytest.raises(RunError, match="trained on images given in Python .*give them again"):
        run.evaluate()
