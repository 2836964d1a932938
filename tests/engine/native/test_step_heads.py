"""Nets that answer with auxiliary heads beside their logits."""

import pytest
import torch
from native_kernel import some_tiles
from native_nets import assert_agrees, reference, seeded, small_images
from torch import nn

from hubel.engine.native.graph import NotCovered
from hubel.engine.native.plan import Aim
from hubel.engine.native.step import compile_step


class Headed(nn.Module):
    """An auxiliary head on a map that the rest reads too, another on one that nothing else does;
    in eval mode logits alone."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.AvgPool2d(2))
        self.end, self.aux1 = nn.Linear(150, 5), nn.Linear(150, 5)
        self.side = nn.Sequential(nn.Flatten(), nn.Linear(144, 5))

    def forward(self, x):
        found = self.body(x).flatten(1)
        logits = self.end(found)
        if not self.training:
            return {"logits": logits}
        return {"aux2": self.side(x), "logits": logits, "aux1": self.aux1(found).tanh()}


@some_tiles
@pytest.mark.parametrize("shares", [False, True])
def test_auxiliary_heads(machine, shares):
    model, (images, labels) = seeded(Headed), small_images(33)
    if shares:
        labels = torch.randn(33, 5).softmax(1)
    how = {"machine": machine, "threads": 2, "smoothing": 0.1}
    step = assert_agrees(model, images, labels, auxiliary=0.3, **how)
    assert {"aux1.weight", "side.1.bias"} <= set(step.parameters)
    step = assert_agrees(model.eval(), images, labels, auxiliary=0.3, **how)
    assert not any(name.startswith(("aux1", "side")) for name in step.parameters)


def test_a_head_without_weight_learns_nothing():
    model, (images, labels) = seeded(Headed), small_images(9)
    step = compile_step(model, images, aim=Aim(loss=True), threads=1)
    assert step.run(images, labels).loss == pytest.approx(
        reference(model, images, labels).loss, rel=1e-5
    )
    assert not any(name.startswith(("aux1", "side")) for name in step.parameters)


def test_heads_of_other_classes_are_refused():
    model = seeded(Headed)
    model.aux1 = nn.Linear(150, 4)
    with pytest.raises(NotCovered, match="an auxiliary head of another shape"):
        compile_step(model, small_images(9)[0], aim=Aim(loss=True, auxiliary=0.3), threads=1)
