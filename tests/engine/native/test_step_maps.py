"""Nets that answer for every pixel: steps against autograd, unlabelled pixels, weights."""

import pytest
import torch
import torch.nn.functional as F
from native_kernel import some_tiles
from native_nets import Wired, assert_agrees, batch, conv, pixels, seeded
from torch import nn

from hubel.engine.native.graph import NotCovered
from hubel.engine.native.plan import Aim
from hubel.engine.native.step import compile_step
from hubel.errors import ModelError


def unet():
    """One level down and up again, batch norm, a skip, logits of each pixel."""

    def forward(m, x):
        wide = m.first(x)
        deep = m.up(m.deep(F.avg_pool2d(wide, 2)))
        return {"logits": m.last(torch.cat([wide, deep], 1))}

    return Wired(
        forward,
        first=nn.Sequential(conv(1, 4), nn.BatchNorm2d(4), nn.Tanh()),
        deep=nn.Sequential(conv(4, 6), nn.BatchNorm2d(6), nn.Tanh()),
        up=nn.ConvTranspose2d(6, 4, 2, 2),
        last=nn.Conv2d(8, 3, 1),
    )


def headed():
    """An auxiliary head that answers for every pixel too."""

    def forward(m, x):
        found = m.body(x)
        return {"logits": m.end(found), "aux1": m.side(x)}

    body = nn.Sequential(conv(1, 5), nn.Tanh())
    return Wired(forward, body=body, end=conv(5, 3, 1), side=conv(1, 3))


def folded():
    """A fully connected layer gives all pixels' logits, which are then folded into a map."""
    return nn.Sequential(nn.Flatten(), nn.Linear(80, 240), nn.Unflatten(1, (3, 8, 10)))


def small():
    """Its map is half as large as the image."""
    return nn.Sequential(conv(1, 5, stride=2), nn.Tanh(), nn.Conv2d(5, 3, 1))


@some_tiles
@pytest.mark.parametrize("make", [unet, headed, folded, small])
@pytest.mark.parametrize("n", [1, 5, 33])
def test_a_label_for_every_pixel(make, n, machine):
    model, (images, _) = seeded(make), batch(n, 1, 8, 10)
    side = (4, 5) if make is small else (8, 10)
    labels = pixels(n, *side, classes=3)
    scale = 1 / float(labels[:, 1][labels[:, 0] >= 0].sum())
    how = {"machine": machine, "threads": 2, "smoothing": 0.1, "scale": scale}
    step = assert_agrees(model, images, labels, auxiliary=0.5, **how)
    assert step.run(images, labels).logits.shape == (n, 3, *side)


def test_outputs_alone():
    model, (images, _) = seeded(unet).eval(), batch(7, 1, 8, 10)
    step = compile_step(model, images, aim=Aim(loss=False, backward=False))
    with torch.no_grad():
        torch.testing.assert_close(step.run(images).logits, model(images)["logits"])


def test_without_any_label_nothing_is_learnt():
    model, (images, _) = seeded(small), batch(4, 1, 8, 10)
    labels = pixels(4, 4, 5, classes=3)
    labels[:, 0] = -1
    step = compile_step(model, images, aim=Aim(loss=True, pixels=True))
    answer = step.run(images, labels, scale=0.0)
    assert (answer.loss, answer.hits, answer.norm) == (0, 0, 0)
    assert not any(gradient.any() for gradient in step.gradients.values())


@pytest.mark.parametrize(
    ("make", "aim", "words"),
    [
        (small, Aim(loss=True), r"a net that answers with shape \('N', 3, 4, 5\)"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(80, 3)),
            Aim(loss=True, pixels=True),
            r"a net that answers with shape \('N', 3\)",
        ),
        (
            lambda: Wired(
                lambda m, x: {"logits": m.end(x), "aux1": m.side(x)},
                end=conv(1, 3), side=conv(1, 3, stride=2),
            ),
            Aim(loss=True, pixels=True, auxiliary=1.0),
            "an auxiliary head of another shape",
        ),
    ],
)  # fmt: skip
def test_answers_that_do_not_go_with_the_labels_are_refused(make, aim, words):
    with pytest.raises(NotCovered, match=words):
        compile_step(make(), batch(4, 1, 8, 10)[0], aim=aim)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[:, 0], r"labels must be torch.float32 \(4, 2, 4, 5\) on the CPU"),
        (lambda t: t.double(), "labels must be torch.float32"),
        (lambda t: t[..., 1:], "labels must be torch.float32"),
        (lambda t: t + 3, "labels must lie from 0 to 2, given 2 to 5"),
    ],
)
def test_labels_that_do_not_fit_are_refused(change, words):
    model, (images, _) = seeded(small), batch(4, 1, 8, 10)
    step = compile_step(model, images, aim=Aim(loss=True, pixels=True))
    with pytest.raises(ModelError, match=words):
        step.run(images, change(pixels(4, 4, 5, classes=3)))
