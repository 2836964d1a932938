"""A map-style Dataset with transforms, as PyTorch's documentation teaches it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset


class Images(Dataset[Any]):
    """What torchvision's data sets with ToTensor() and Normalize() give: float32 (C, H, W), label.

    It is spared torchvision's detour through a Pillow image. With `shift` as with
    RandomCrop(side, padding=shift) and RandomHorizontalFlip() before them.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], shift: int = 0
    ) -> None:
        self.images, self.labels, self.shift = images, labels, shift
        some = images[:2000] / 255
        self.mean = torch.tensor(some.mean((0, 2, 3)), dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(some.std((0, 2, 3)), dtype=torch.float32).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.images[index])
        if self.shift:
            image = self._augmented(image)
        image = image.float() / 255
        return (image - self.mean) / self.std, int(self.labels[index])

    def _augmented(self, image: Tensor) -> Tensor:
        (_, height, width), far = image.shape, 2 * self.shift + 1
        padded = torch.nn.functional.pad(image, [self.shift] * 4)
        top, left, flip = (int(torch.randint(n, ())) for n in (far, far, 2))
        image = padded[:, top : top + height, left : left + width]
        return image.flip(-1) if flip else image
