"""The native step where every pixel has a label: against the task's own loss, in training too."""

import copy

import numpy as np
import pytest
import torch
from crew_training import masks
from torch import nn

from hubel import api
from hubel.data.masks.record import IGNORE
from hubel.engine.native.graph import NotCovered
from hubel.tasks.segment import Segment
from hubel.training.distribute import Crew
from hubel.training.native import Compiled, NativePass, disagreement, has_half
from hubel.training.speed import Choice

CLASSES, COLOURS = ("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 255, 0))
TIGHT = (1e-5, 1e-6, 1e-5)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path_factory.mktemp("cache")))


def net(stride=1):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=stride, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1)
    )


def images_and_labels(n=6):
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (n, 9, 12), generator=draw)
    labels[torch.rand(n, 9, 12, generator=draw) < 0.3] = IGNORE
    labels[0] = IGNORE
    return torch.randn(n, 1, 9, 12, generator=draw), labels


def weighted(labels):
    draw = torch.Generator().manual_seed(2)
    return torch.stack([labels.float(), torch.rand(labels.shape, generator=draw) * 3], dim=1)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("map_of_weights", [False, True])
@pytest.mark.parametrize(
    "words", [{}, {"smoothing": 0.2}, {"weights": (0.5, 2.0, 1.3)}, {"weights": (1.0, 0.0, 2.0)}]
)
def test_loss_hits_and_gradients_are_the_tasks(words, map_of_weights, stride):
    task, model = Segment(CLASSES, COLOURS, **words), net(stride)
    images, labels = images_and_labels()
    targets = weighted(labels) if map_of_weights else labels
    compiled = Compiled(model, task)
    step = compiled(images, targets)
    answer = compiled.run(step, images, targets)
    theirs = copy.deepcopy(model)
    outputs = theirs(images)
    loss = task.total(outputs, targets)
    loss.backward()
    assert answer.loss == pytest.approx(loss.item(), rel=1e-6)
    assert answer.hits == int(task.hits(outputs, targets))
    assert disagreement(step, answer, theirs, loss.item(), TIGHT) is None
    assert answer.logits.shape == outputs.shape


@pytest.mark.skipif(not has_half(), reason="the processor has no bfloat16 products")
def test_in_bfloat16():
    """Its first step is held against PyTorch's, as in a training: `Compiled` would refuse."""
    images, labels = images_and_labels(32)
    compiled = Compiled(net(), Segment(CLASSES, COLOURS), half=True)
    answer = compiled.run(compiled(images, labels), images, labels)
    plain = Compiled(net(), Segment(CLASSES, COLOURS))
    exact = plain.run(plain(images, labels), images, labels)
    assert answer.loss == pytest.approx(exact.loss, rel=0.01)
    assert answer.loss != exact.loss


def test_without_a_label_the_loss_is_0():
    images, labels = images_and_labels()
    labels[:] = IGNORE
    compiled = Compiled(net(), Segment(CLASSES, COLOURS))
    answer = compiled.run(compiled(images, labels), images, labels)
    assert (answer.loss, answer.hits, answer.norm) == (0, 0, 0)


def test_pieces_of_a_batch_add_up_to_it():
    """By what each has of the labelled pixels, as `Update` shares them out."""
    task, (images, labels) = Segment(CLASSES, COLOURS), images_and_labels()
    crew = Crew(0, 1, torch.device("cpu"))
    whole, parts = net(), net()
    NativePass(whole, task, crew, False, 6)(images, labels, 1.0, True)
    by_parts, total = NativePass(parts, task, crew, False, 2), float(task.mass(labels))
    for start in (0, 2, 4):
        x, t = images[start : start + 2], labels[start : start + 2]
        by_parts(x, t, float(task.mass(t)) / total, start == 4)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"terms": ("cross-entropy", "dice")}, "a loss of cross-entropy and dice"),
        ({"weights": (1.0, 1.0, 2.0), "smoothing": 0.1}, "class weights with label smoothing"),
    ],
)
def test_losses_that_are_not_compiled_are_told(words, said):
    with pytest.raises(NotCovered, match=said):
        Compiled(net(), Segment(CLASSES, COLOURS, **words))


def trained(folder, engine, **more):
    losses = []
    words = {"batch": 8, "epochs": 2, "augment": {"flip": True}, "device": "cpu", "tune": "off"}
    words |= {"options": {"width": 4, "depth": 1}, "masks": {"windows": 2}, "engine": engine}
    result = api.train(
        "unet_padded", masks(), out=folder, **(words | more),
        tell=lambda event: losses.append(getattr(event, "loss", None)),
    )  # fmt: skip
    return result, np.array([loss for loss in losses if loss is not None])


def test_a_segmentation_is_trained_by_the_native_step(tmp_path):
    ours, found = trained(tmp_path / "a", "native")
    theirs, expected = trained(tmp_path / "b", "torch")
    assert ours.choices["native"]
    assert not theirs.choices["native"]
    assert len(found) == len(expected) > 5
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    ours, theirs = (result.metrics["val"] for result in (ours, theirs))
    assert ours["pixel_accuracy"] == pytest.approx(theirs["pixel_accuracy"], abs=0.03)


def test_another_loss_is_trained_in_pytorch_and_said(tmp_path):
    result, _ = trained(
        tmp_path, "native", epochs=1, masks={"windows": 2, "terms": ("cross-entropy", "dice")}
    )
    assert not result.choices["native"]
    assert "cannot do a loss of cross-entropy and dice" in " ".join(result.notices)


def test_segmentations_are_measured_both_ways(tmp_path):
    """By itself it takes what is faster; that the native step was tried is said."""
    result, _ = trained(tmp_path, "auto", epochs=1, tune="on")
    assert "native step" in " ".join(result.notices)
    assert isinstance(Choice(**{k: v for k, v in result.choices.items() if k != "device"}), Choice)
