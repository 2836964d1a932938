"""Losses over pixels: cross-entropy, dice, focal. Pixels without a label add nothing at all.

All read one thing, `Pixels`; each is a function of it and of log p, and gives a scalar.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hubel.tasks.segmentation.read import labelled, resample, split


@dataclass(frozen=True, eq=False)
class Pixels:
    """The truth at the places of the logits (N, K, h, w).

    Attributes:
        labels: int64 (N, 1, h, w), class 0 where there is none.
        known: bool (N, 1, h, w), where there is one.
        balance: (N, 1, h, w), the weight of the pixel's class; None where all classes weigh 1.
        map: (N, 1, h, w), the pixel's own weight (U-Net's map); None where there is none.
    """

    labels: Tensor
    known: Tensor
    balance: Tensor | None
    map: Tensor | None

    @classmethod
    def of(cls, targets: Tensor, z: Tensor, weights: tuple[float, ...] | None) -> Pixels:
        """What targets (N, H, W) or (N, 2, H, W) say at the places of logits z (N, K, h, w)."""
        labels, own = split(targets)
        size = (z.shape[2], z.shape[3])
        labels = resample(labels, size)[:, None]
        known = labelled(labels)
        labels = labels.masked_fill(~known, 0)
        balance = None if weights is None else z.new_tensor(weights)[labels]
        own = None if own is None else resample(own, size)[:, None].to(z.dtype)
        return cls(labels, known, balance, own)

    def weigh(self, losses: Tensor) -> Tensor:
        """Losses (N, 1, h, w) times the weight of the true class."""
        return losses if self.balance is None else losses * self.balance

    def mean(self, losses: Tensor) -> Tensor:
        """Of losses (N, 1, h, w), class weights c in them, and map m: sum(m losses) / sum(c).

        The sums are over the labelled pixels. So class weights alone give PyTorch's weighted mean,
        and a map alone the mean of m l (Ronneberger et al. 2015 sum; the mean keeps the learning
        rate's meaning whatever the size). 0 where no pixel is labelled.
        """
        losses = losses.masked_fill(~self.known, 0)
        if self.map is not None:
            losses = losses * self.map
        mass = self.mass()
        return losses.sum() / (mass + (mass == 0))

    def mass(self) -> Tensor:
        """What `mean` divides by: the labelled pixels, each by its class's weight."""
        if self.balance is None:
            return self.known.sum()
        return self.balance.masked_fill(~self.known, 0).sum()

    def told(self) -> Tensor:
        """float32 (N, 2, h, w): each pixel's label, -1 where there is none, and its weight."""
        weights = torch.ones_like(self.known, dtype=torch.float32)
        for more in (self.balance, self.map):
            weights = weights if more is None else weights * more
        return torch.cat([self.labels.masked_fill(~self.known, -1).float(), weights], dim=1)


def cross_entropy(
    log_p: Tensor, pixels: Pixels, weights: tuple[float, ...] | None, smoothing: float
) -> Tensor:
    """Mean of -sum_k y_k log p_k over the labelled pixels, in nats; see `Pixels.mean`.

    By `gather`, for PyTorch's own has no deterministic form for maps on CUDA; as fast on a CPU.

    Args:
        log_p: float (N, K, h, w).
        weights: per class, as in `pixels`; they weigh what smoothing spreads too, as in PyTorch.
        smoothing: share s of the target that is spread over all classes: (1 - s) y + s / K.
    """
    loss = pixels.mean(pixels.weigh(-log_p.gather(1, pixels.labels)))
    if smoothing == 0:
        return loss
    each = -log_p if weights is None else -log_p * log_p.new_tensor(weights)[:, None, None]
    return (1 - smoothing) * loss + smoothing * pixels.mean(each.mean(dim=1, keepdim=True))


def focal(log_p: Tensor, pixels: Pixels, gamma: float) -> Tensor:
    """Mean of -(1 - p)^gamma log p of the true class (Lin et al. 2017) over the labelled pixels.

    Their alpha are the class weights. They divide by the number of boxes that hold something; a
    pixel always is something, so this is a mean, and gamma = 0 is the cross-entropy.

    Args:
        log_p: float (N, K, h, w).
    """
    true = log_p.gather(1, pixels.labels)
    return pixels.mean(pixels.weigh((-torch.expm1(true)) ** gamma * -true))


def dice(log_p: Tensor, pixels: Pixels) -> Tensor:
    """1 - 2 sum(p g) / (sum(p^2) + sum(g^2)) (Milletari et al. 2016), p probability, g truth 0/1.

    The sums are over an image's labelled pixels; the mean is over the classes that occur in it,
    then over the images with a label. 0 where there are none. Weights do not enter: the quotient
    weighs every class alike by itself.

    Args:
        log_p: float (N, K, h, w).
    """
    p = log_p.exp().masked_fill(~pixels.known, 0)
    owners = pixels.labels.flatten(1)  # (N, h w)
    nothing = p.new_zeros(p.shape[:2])
    area = nothing.scatter_add(1, owners, pixels.known.flatten(1).to(p.dtype))  # (N, K)
    both = nothing.scatter_add(1, owners, p.gather(1, pixels.labels).flatten(1))
    present = area > 0
    whole = (p * p).sum(dim=(2, 3)) + area
    lost = (1 - 2 * both / whole.masked_fill(~present, 1)).masked_fill(~present, 0)
    image = lost.sum(dim=1) / present.sum(dim=1).clamp(min=1)
    return image.sum() / present.any(dim=1).sum().clamp(min=1)
