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

    It is spared torchvision's detour through a Pillow image.
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.images, self.labels = images, labels
        some = images[:2000] / 255
        self.mean = torch.tensor(some.mean((0, 2, 3)), dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(some.std((0, 2, 3)), dtype=torch.float32).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.images[index]).float() / 255
        return (image - self.mean) / self.std, int(self.labels[index])
