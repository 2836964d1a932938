"""Names: every one builds what it promises, at every size it promises, and says no clearly."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from named_nets import CLASSIFIERS, SEGMENTERS, SMALL, every, logits, shape
from torch import nn

from hubel.errors import ModelError
from hubel.models.names import build, catalogue, default_side, smallest
from hubel.models.table import MODELS

NAMES = sorted(MODELS)


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_size_from_the_smallest_up_works(name, data):
    answers_at_any_size(name, data)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name not in SMALL])
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_any_size_from_the_smallest_up_works_for_larger_nets(name, data):
    answers_at_any_size(name, data)


def answers_at_any_size(name, data):
    least = MODELS[name].smallest
    height, width = (data.draw(st.integers(side, max(45, side + 30))) for side in least)
    channels, classes = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    with torch.device("cpu" if name in SMALL else "meta"):
        net = build(name, classes=classes, channels=channels, size=(height, width))
        found = logits(net.eval()(torch.randn(2, channels, height, width)))
    assert found.shape == (2, classes)
    assert found.is_meta or torch.isfinite(found).all()


@pytest.mark.parametrize("name", SEGMENTERS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_segmentation_nets_answer_for_every_pixel_of_any_image(name, data):
    height, width, built = (data.draw(st.integers(1, 75)) for _ in range(3))
    channels, classes = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    with torch.device("meta"):
        net = build(name, classes=classes, channels=channels, size=(built, built))
        images = torch.randn(2, channels, height, width)
        answers = net(images)
        for answer in answers.values() if isinstance(answers, dict) else [answers]:
            assert answer.shape[:2] == (2, classes)
        assert net.eval()(images).shape == (2, classes, height, width)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [0, 1])
def test_one_pixel_less_than_the_smallest_is_refused(name, axis):
    size = list(smallest(name))
    with torch.device("meta"):
        assert build(name, classes=2, channels=1, size=tuple(size)) is not None
        size[axis] -= 1
        vanished = not size[axis]
        message = "must be a whole number of at least 1" if vanished else "needs images at least"
        with pytest.raises(ModelError, match=message):
            build(name, classes=2, channels=1, size=tuple(size))


@pytest.mark.parametrize("name", SMALL)
def test_seed_decides_the_weights(name):
    def weights(seed):
        torch.manual_seed(seed)
        net = build(name, classes=3, channels=1, size=(max(28, smallest(name)[0]),) * 2)
        return torch.cat([p.flatten() for p in net.parameters()])

    assert weights(1).equal(weights(1))
    assert not weights(1).equal(weights(2))


# The other VGGs differ in depth alone, and take three seconds each.
BETWEEN = {"vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in BETWEEN else [])
        for name in CLASSIFIERS
    ],
)
def test_forward_and_backward_reach_every_parameter(name):
    """Two images of the usual size, or of 64 pixels."""
    torch.manual_seed(1)
    _, channels, *size = shape(name)
    net = build(name, classes=5, channels=channels, size=tuple(size))
    every(net(torch.randn(shape(name)))).backward()
    for path, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, path
        assert torch.isfinite(parameter.grad).all(), path


def test_unknown_name_answers_with_the_nearest():
    with pytest.raises(
        ModelError, match=r"unknown model 'lenet': did you mean 'lenet5'\?.*softmax"
    ):
        build("lenet", classes=10, channels=1, size=(28, 28))
    with pytest.raises(ModelError, match=r"'file\.py:function' for a model of your own"):
        build("lenet", classes=10, channels=1, size=(28, 28))


def test_unknown_option_answers_with_what_the_model_takes():
    shape = {"classes": 10, "channels": 1, "size": (28, 28)}
    with pytest.raises(
        ModelError, match=r"option of compact 'widht': did you mean 'width'\? .*drop"
    ):
        build("compact", **shape, widht=3)
    with pytest.raises(ModelError, match="lenet5 takes no options, given 'dropout'"):
        build("lenet5", **shape, dropout=0.1)


def test_options_reach_the_model():
    shape = {"classes": 10, "channels": 1, "size": (28, 28)}
    net = build("mlp", **shape, dropout=0.3)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3]


def test_without_a_size_it_is_the_one_the_model_was_made_for():
    assert build("softmax", classes=2, channels=1).fc.in_features == 28 * 28
    assert build("net32", classes=2, channels=3).classifier.fc1.in_features == 400


def test_wrong_numbers_are_named():
    with pytest.raises(ModelError, match="classes must be a whole number of at least 1, given 0"):
        build("mlp", classes=0, channels=1, size=(28, 28))
    with pytest.raises(ModelError, match=r"size must be \(height, width\) in pixels, given 28"):
        build("mlp", classes=2, channels=1, size=28)


def test_catalogue_counts_without_touching_chance():
    before = torch.get_rng_state()
    counts = {row.entry.name: row.parameters for row in catalogue()}
    assert torch.get_rng_state().equal(before)
    assert counts.keys() == MODELS.keys()
    assert {row.parameters for row in catalogue(100) if row.entry.name == "softmax"} == {78_500}


def test_default_side_of_known_and_other_models():
    assert default_side("lenet5") == 28
    assert default_side("net32") == 32
    assert default_side("photos.py:net") == default_side("MyNet") == 64


def test_families_are_imported_only_when_asked_for():
    code = (
        "import sys, hubel.models.names; print(*[m for m in sys.modules if 'models.resnet' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
