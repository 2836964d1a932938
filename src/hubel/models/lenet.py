"""LeNet-5 and its colour twin: two convolutions with pooling, then three fully connected layers.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition", in
the form used today. What differs from the paper: max pooling instead of trained averages, ReLU
instead of the scaled tanh, every map of the second convolution sees all six of the first (the
paper links 60 of the 96 pairs), and a softmax instead of radial basis outputs.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from hubel.models.geometry import map_size

PAPER_SIDE = 32  # the paper centres its 28x28 digits on 32x32; smaller sides get that border here


class LeNet(nn.Module):
    """conv 6 maps, pool, conv 16 maps, pool, 120 - 84 - classes; kernels 5x5, pools 2x2.

    Args:
        padding: of the first convolution, (rows, columns).

    Raises `ModelError` where `size` leaves no pixel after the last pool.
    """

    def __init__(
        self,
        name: str,
        *,
        classes: int,
        channels: int,
        size: tuple[int, int],
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, 6, 5, padding=padding),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(6, 16, 5),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
            )
        )
        height, width = map_size(name, self.features, size)
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                fc1=nn.Linear(16 * height * width, 120),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84),
                relu4=nn.ReLU(),
                fc3=nn.Linear(84, classes),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) -> logits (N, classes)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def lenet5(*, classes: int, channels: int, size: tuple[int, int]) -> LeNet:
    """LeNet-5. Sides below 32 are padded by 2, so 28x28 and 32x32 both give 400 features."""
    rows, columns = (2 if side < PAPER_SIDE else 0 for side in size)
    return LeNet("lenet5", classes=classes, channels=channels, size=size, padding=(rows, columns))


def net32(*, classes: int, channels: int, size: tuple[int, int]) -> LeNet:
    """The lectures' net for CIFAR-10: the same layers on 32x32 colour images, never padded."""
    return LeNet("net32", classes=classes, channels=channels, size=size)
