"""Trainings that begin from trained weights: what is kept, what is new, and what the run says."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import hubel
from hubel.data.record import ArraySource
from hubel.errors import ModelError, OptionError, WeightsError
from hubel.runs.run import Run
from hubel.training.fit import Step

pytestmark = pytest.mark.usefixtures("short_reports")
QUICK = {"batch": 32, "tune": "off", "augment": {}}


def part(classes, rows=slice(0, 250), names=None):
    """Images of the bundled sample that are of these classes, 14 x 14, called by `names`."""
    data = hubel.load_data("sample")
    kept = np.flatnonzero(np.isin(data.targets, classes))[rows]
    targets = np.array([classes.index(t) for t in data.targets[kept]])
    names = names or [data.classes[c] for c in classes]
    images = data.images[kept][:, :, ::2, ::2]
    return ArraySource(images, targets, tuple(names), name="part", origin="the sample")


BEFORE, OTHER = [0, 1, 5, 8], [7, 9, 2]  # T-shirt, trousers, sandal, bag; sneaker, boot, pullover


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """resnet20 after two epochs on four classes."""
    out = tmp_path_factory.mktemp("before")
    return hubel.train("resnet20", part(BEFORE), out=out, name="before", epochs=2, **QUICK).folder


@pytest.fixture(scope="module")
def trained(run):
    return Run.open(run).weights()[0]


def states(folder):
    opened = Run.open(folder)
    return opened.weights()[0], opened.config()


def moved(before, after):
    return {name for name in after if not after[name].equal(before[name])}


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# From a run


def test_other_classes_get_a_new_head_over_a_frozen_body(tmp_path, run, trained):
    data = part(OTHER)
    words = {"weights": run, "freeze": "body", "epochs": 20, "optimiser": {"lr": 0.03}}
    result = hubel.train("resnet20", data, out=tmp_path, name="r", **words, **QUICK)
    after, config = states(result.folder)
    assert moved(trained, {k: t for k, t in after.items() if k[:3] != "fc."}) == set()
    assert after["fc.weight"].shape == (3, 64)
    assert config.card.origin == {"run": "before", "head": "new"}
    assert config.card.preprocess == Run.open(run).config().card.preprocess
    assert config.plan.weights == str(run)
    chance = max(np.bincount(data.targets)) / len(data)
    assert result.metrics["train"]["accuracy"] > chance + 0.2
    picture = tmp_path / "boot.png"
    Image.fromarray(data.images[0, 0]).save(picture)
    found = hubel.load_run(result.folder).predict([picture])[0]
    assert {name for name, _ in found.top} == set(data.classes)


def test_the_same_classes_keep_their_head(tmp_path, run, trained):
    result = hubel.train(
        "resnet20", part(BEFORE, slice(250, 500)), out=tmp_path, name="r",
        weights=str(run), freeze="layer3", epochs=1, optimiser={"lr": 1e-12}, **QUICK,
    )  # fmt: skip
    after, config = states(result.folder)
    assert config.card.origin == {"run": "before", "head": "kept"}
    torch.testing.assert_close(after["fc.weight"], trained["fc.weight"], rtol=0, atol=1e-9)


def test_the_same_classes_in_another_order_are_other_classes(tmp_path, run, trained):
    turned = part(BEFORE[::-1])
    result = hubel.train(
        "resnet20", turned, out=tmp_path, name="r", weights=run, freeze="body", epochs=1, **QUICK
    )
    after, config = states(result.folder)
    assert config.card.origin["head"] == "new"
    assert (after["fc.weight"] - trained["fc.weight"]).abs().max() > 0.1


def test_origins_add_up(tmp_path, run):
    words = {"out": tmp_path, "epochs": 1, "freeze": "body", **QUICK}
    first = hubel.train("resnet20", part(OTHER), weights=run, name="first", **words)
    second = hubel.train("resnet20", part(OTHER), weights=first.folder, name="second", **words)
    assert states(second.folder)[1].card.origin == {"run": "first", "head": "kept"}
    path = second.folder / "weights.safetensors"
    third = hubel.train("resnet20", part(BEFORE), weights=path, name="third", **words)
    digest = sha256_of(path)
    expected = {"run": "first", "file": "weights.safetensors", "sha256": digest, "head": "new"}
    assert states(third.folder)[1].card.origin == expected


# From a file


@pytest.mark.parametrize(("classes", "head"), [(BEFORE, "kept"), (OTHER, "new")])
def test_a_file_without_a_card_decides_by_the_number_of_classes(tmp_path, trained, classes, head):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": {f"module.{k}": t for k, t in trained.items()}}, path)
    result = hubel.train(
        "resnet20", part(classes), out=tmp_path, weights=path, freeze="body", epochs=1, **QUICK
    )
    after, config = states(result.folder)
    assert config.card.origin == {"file": str(path), "head": head}
    assert moved(trained, after if head == "kept" else {}) <= {"fc.weight", "fc.bias"}
    assert after["layer3.2.conv2.weight"].equal(trained["layer3.2.conv2.weight"])


@pytest.mark.parametrize("cut", [2, 13])
def test_an_interrupted_training_goes_on_without_the_file(tmp_path, run, cut):
    """Stopped while the head learns alone, or when all of it does: bit for bit as unbroken."""
    path = tmp_path / "w.safetensors"
    path.write_bytes((run / "weights.safetensors").read_bytes())
    words = {"weights": path, "epochs": 3, "head_epochs": 1, "checkpoint_steps": 1, **QUICK}

    def stop(event):
        if isinstance(event, Step) and event.step == cut:
            raise KeyboardInterrupt

    data = part(OTHER)
    whole = hubel.train("resnet20", data, out=tmp_path, name="whole", **words)
    with pytest.raises(KeyboardInterrupt):
        hubel.train("resnet20", data, out=tmp_path, name="broken", tell=stop, **words)
    path.unlink()
    result = hubel.resume(tmp_path / "broken", data=data)
    expected, config = states(whole.folder)
    found, other = states(result.folder)
    assert moved(expected, found) == set()
    assert other.card == config.card
    assert other.card.origin["file"] == "w.safetensors"
    assert result.metrics == whole.metrics


# What the plan makes of it


def plan_of(tmp_path, **words):
    def stop(event):
        if isinstance(event, Step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hubel.train("resnet20", part(OTHER), out=tmp_path, name="r", tell=stop, tune="off", **words)
    return Run.open(tmp_path / "r").config()


def test_trained_weights_have_a_recipe_of_their_own(tmp_path, run):
    plan = plan_of(tmp_path, weights=run).plan
    assert (plan.head_epochs, plan.body_rate, plan.optimiser.name) == (1, 0.1, "adamw")


def test_a_frozen_body_has_no_share_and_nothing_to_thaw(tmp_path, run):
    plan = plan_of(tmp_path, weights=run, freeze="body").plan
    assert (plan.head_epochs, plan.body_rate, plan.freeze) == (0, 1.0, "body")


def test_a_single_epoch_is_for_all_of_the_net(tmp_path, run):
    assert plan_of(tmp_path, weights=run, epochs=1).plan.head_epochs == 0


def test_head_epochs_are_held_against_the_recipes_epochs(tmp_path, run):
    """The recipe gives these few images 20 epochs: 15 of the head alone leave five."""
    plan = plan_of(tmp_path, weights=run, head_epochs=15).plan
    assert (plan.head_epochs, plan.epochs) == (15, 20)


def test_images_are_fed_as_the_weights_were_but_for_what_is_asked(tmp_path, run):
    theirs = Run.open(run).config().card.preprocess
    found = plan_of(tmp_path, weights=run, size=(20, 22), fit="pad").card
    assert (found.preprocess.height, found.preprocess.width) == (20, 22)
    assert (found.preprocess.mean, found.preprocess.std) == (theirs.mean, theirs.std)
    assert found.preprocess.fit == "pad"


def test_colour_images_come_to_a_grey_net_in_grey(tmp_path, run):
    grey = part(OTHER)
    colour = ArraySource(
        grey.images.repeat(3, axis=1), grey.targets, grey.classes, name="part", origin="here"
    )
    words = {"weights": run, "freeze": "body", "epochs": 1, **QUICK}
    result = hubel.train("resnet20", colour, out=tmp_path, **words)
    assert states(result.folder)[1].card.preprocess.channels == 1


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"weights": "gone.pth"}, WeightsError, "no such file of weights: gone.pth"),
        ({"weights": "imagenet"}, WeightsError, "no weights are known for that name"),
        ({"model": "lenet5"}, WeightsError, "before does not fit: .* is of another net"),
        ({"model": "resnet32"}, WeightsError, "before does not fit: .* is of another net"),
        ({"freeze": "layer9"}, ModelError, "unknown layer to freeze up to 'layer9'"),
        ({"freeze": "fc"}, ModelError, "freezing up to 'fc' leaves nothing to learn"),
        ({"freeze": "body", "head_epochs": 1}, OptionError, "a frozen body takes no head_epochs"),
        ({"freeze": "body", "body_rate": 0.5}, OptionError, "a frozen body takes .* no body_rate"),
        ({"head_epochs": 3, "epochs": 3}, OptionError, r"head_epochs \(3\) must stay below epoch"),
        ({"body_rate": 0}, OptionError, "body_rate: .*greater than 0, given 0"),
        ({"weights": 3}, OptionError, "weights: .*string, given 3"),
    ],
)  # fmt: skip
def test_mistakes_are_said_in_one_line_and_leave_no_run(tmp_path, run, words, error, message):
    words = {"model": "resnet20", "weights": run, **words}
    with pytest.raises(error, match=message) as raised:
        hubel.train(data=part(OTHER), out=tmp_path / "runs", **words, **QUICK)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("runs/*"))


# Other nets


def test_a_module_of_ones_own_is_filled_from_a_file(tmp_path):
    def net(classes):
        return nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)),
        )

    torch.manual_seed(0)
    before = {name: tensor.clone() for name, tensor in net(7).state_dict().items()}
    torch.save(before, tmp_path / "w.pth")
    words = {"weights": tmp_path / "w.pth", "freeze": "body", "epochs": 2, **QUICK}
    result = hubel.train(net(3), part(OTHER), out=tmp_path, **words)
    after, config = states(result.folder)
    assert moved(before, {k: t for k, t in after.items() if k[0] != "5"}) == set()
    assert config.card.origin == {"file": str(tmp_path / "w.pth"), "head": "new"}


def test_auxiliary_heads_are_not_built_for_trained_weights(tmp_path):
    """googlenet at 32 pixels: a file of torchvision's kind has them, a fine-tuned net does not."""
    torch.manual_seed(0)
    net = hubel.build("googlenet", classes=3, channels=1, size=(32, 32))
    torch.save(net.state_dict(), tmp_path / "w.pth")
    words = {"weights": tmp_path / "w.pth", "freeze": "body", "epochs": 1, "size": (32, 32)}
    data = part(OTHER, slice(0, 60))
    result = hubel.train("googlenet", data, out=tmp_path, name="r", **words, **QUICK)
    after, config = states(result.folder)
    assert not any(name.startswith("aux") for name in after)
    assert config.card.architecture.options == {"aux": False}
    assert after["conv1.conv.weight"].equal(net.conv1.conv.weight)
    assert len(hubel.load_run(result.folder).evaluate(part(OTHER, slice(60, 90)))) == 1


def test_lenet_as_printed_takes_its_own_weights_for_other_digits(tmp_path):
    words = {"out": tmp_path, "epochs": 1, **QUICK}
    first = hubel.train("lenet5_1998", part(BEFORE, slice(0, 100)), name="a", **words)
    for number, classes in enumerate((BEFORE, OTHER)):
        data = part(classes, slice(100, 200))
        found = hubel.train(
            "lenet5_1998", data, name=f"b{number}", weights=first.folder, freeze="body", **words
        )
        after, config = states(found.folder)
        assert config.card.origin["head"] == ("kept", "new")[number]
        assert after["c5.weight"].equal(states(first.folder)[0]["c5.weight"])
        assert after["output.codes"].shape == (len(classes), 84)
