"""A net fed with its own answer: each round sees four times as far, with no more weights.

Pinheiro, Collobert 2014, "Recurrent convolutional neural networks for scene labeling": one small
net f maps the image and the answer of the round before (nothing, in the first) to scores. Every
round shares f's weights and sees the image at a coarser scale, so that errors of the first, which
sees 25 x 25 pixels, are mended by the next from 121 x 121. f: convolution of 8x8, tanh, 2x2 pool,
twice, then scores by 1x1. All rounds answer for the truth in training.

The paper runs f on strided maps and moves the image pixel by pixel to get every score. Here all
places are computed at once, which gives the same numbers: instead of a stride, all that follows
looks twice as far apart, and round r begins at a rate of 4^r. Where this differs: an answer is fed
back as probabilities, not scores; a later round sees the image's mean over one pixel a side more
than its rate; borders are mirrored; all rounds train at once, not one after the other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hubel.models.check import whole
from hubel.models.dense import DenseConv2d, DensePool2d
from hubel.models.margin import Pair, framed

KERNEL = 8
RATE = 4  # by which a round is coarser than the one before: two pools
REACH = 12  # pixels to each side that a round sees, at rate 1: 7 + 1 + 14 + 2 in all


class Recurrent(nn.Module):
    """float (N, C, H, W) of any size -> logits (N, classes, H, W), of the last round.

    In training mode: {"logits": the last round's, "aux1": the first's, ...}, all alike in shape.

    Args:
        rounds: how often f works.
        width: maps of the first convolution; the second has twice as many.
    """

    def __init__(self, *, classes: int, channels: int, rounds: int, width: int) -> None:
        super().__init__()
        self.classes, self.rounds = classes, rounds
        self.conv1 = DenseConv2d(channels + classes, width, KERNEL)
        self.tanh1, self.pool1 = nn.Tanh(), DensePool2d()
        self.conv2 = DenseConv2d(width, 2 * width, KERNEL)
        self.tanh2, self.pool2 = nn.Tanh(), DensePool2d()
        self.score = nn.Conv2d(2 * width, classes, 1)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """float (N, C, H, W) -> logits (N, classes, H, W)."""
        answers: list[Tensor] = []
        count, _, height, width = images.shape
        fed = images.new_zeros(count, self.classes, height, width)
        for number in range(self.rounds):
            rate = RATE**number
            answers.append(self.once(torch.cat([blurred(images, rate), fed], dim=1), rate))
            fed = answers[-1].softmax(dim=1)
        if not self.training:
            return answers[-1]
        earlier = {f"aux{number}": a for number, a in enumerate(answers[:-1], start=1)}
        return {"logits": answers[-1], **earlier}

    def once(self, x: Tensor, rate: int) -> Tensor:
        """f at a rate: image and answer (N, C + classes, H, W) -> scores (N, classes, H, W)."""
        x = framed(x, REACH * rate)
        x = self.pool1(self.tanh1(self.conv1(x, rate)), rate)
        x = self.pool2(self.tanh2(self.conv2(x, 2 * rate)), 2 * rate)
        return self.score(x)  # type: ignore[no-any-return]


def blurred(images: Tensor, rate: int) -> Tensor:
    """(N, C, H, W) -> the mean around every pixel of (rate + 1)^2 pixels; as it is at rate 1."""
    if rate == 1:
        return images
    return F.avg_pool2d(framed(images, rate // 2), rate + 1, 1)


def recurrent(
    *, classes: int, channels: int, size: Pair, rounds: int = 2, width: int = 25
) -> Recurrent:
    """The recurrent net."""
    return Recurrent(
        classes=classes,
        channels=channels,
        rounds=whole("rounds", rounds),
        width=whole("width", width),
    )
