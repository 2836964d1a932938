"""Labels made to follow the photo's edges: a CRF or superpixels after the net.

Each way is a module around the net, so whatever predicts or evaluates with a net does so with it.
Settings stand in the word: "crf", "crf:w1=4,alpha=50,beta=5", "superpixels:scale=200".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hubel.data.preprocess import Preprocess
from hubel.errors import ModelError, OptionError, unknown
from hubel.models.crf import DenseCRF
from hubel.models.tiles import logarithm, probabilities
from hubel.tasks.segmentation.superpixels import superpixels

REFINE = ("none", "crf", "superpixels")
CRF = {
    "w1": "w1", "alpha": "theta_alpha", "beta": "theta_beta", "w2": "w2", "gamma": "theta_gamma",
    "iterations": "iterations",
}  # fmt: skip
# What is taken where nothing is said; pydensecrf's sample (w1=10, alpha=80, beta=13, w2=3, gamma=3)
# overrules a net that is not very sure, and makes its answer worse.
USUAL = {"w1": 4.0, "theta_alpha": 67.0, "theta_beta": 3.0, "w2": 3.0, "theta_gamma": 1.0}
SUPERPIXELS = ("scale", "sigma", "least")
WHOLE_NUMBERS = ("iterations", "least")


def refined(model: nn.Module, preprocess: Preprocess, refine: str) -> nn.Module:
    """The net with what comes after it.

    Args:
        model: normalised images (N, C, H, W) -> logits (N, K, H, W).
        preprocess: which brings the images' colours back.
        refine: "none"; "crf", by `hubel.models.crf.DenseCRF`, with w1, alpha, beta (appearance:
            weight, pixels, colour), w2, gamma (smoothness: weight, pixels) and iterations;
            "superpixels", by Felzenszwalb and Huttenlocher 2004, with scale, sigma and least.

    Raises `OptionError` for other words, settings and values.
    """
    name, _, words = refine.partition(":")
    if name not in REFINE:
        raise OptionError(unknown("refine", name, REFINE))
    if name == "none":
        if words:
            raise OptionError(f"refine 'none' takes no settings, given {words!r}")
        return model
    if name == "superpixels":
        return BySuperpixels(model, preprocess, **_settings(name, words, SUPERPIXELS))
    said = {CRF[key]: value for key, value in _settings(name, words, tuple(CRF)).items()}
    settings: dict[str, Any] = {**USUAL, **said}
    try:
        crf = DenseCRF(**settings)
    except ModelError as error:
        raise OptionError(f"refine {refine!r}: {error}") from None
    return ByCRF(model, preprocess, crf)


class ByCRF(nn.Module):
    """Normalised images (N, C, H, W) -> log probabilities (N, K, H, W) after mean field."""

    def __init__(self, model: nn.Module, preprocess: Preprocess, crf: DenseCRF) -> None:
        super().__init__()
        self.model, self.preprocess, self.crf = model, preprocess, crf
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        z = logarithm(probabilities(self.model(images), size))
        found: Tensor = self.crf(self.preprocess.denormalise(images), z)
        return found


class BySuperpixels(nn.Module):
    """Normalised images (N, C, H, W) -> log probabilities (N, K, H, W): means over superpixels.

    The likeliest class is that of `hubel.tasks.segmentation.superpixels.vote`.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Preprocess,
        *,
        scale: float = 100.0,
        sigma: float = 0.8,
        least: int = 20,
    ) -> None:
        """Raises `OptionError` unless scale > 0, sigma >= 0 and least >= 1."""
        super().__init__()
        if not (scale > 0 and sigma >= 0 and least >= 1):
            raise OptionError(
                "superpixels take scale above 0, sigma from 0 and least from 1 on; given "
                f"{scale}, {sigma} and {least}"
            )
        self.model, self.preprocess = model, preprocess
        self.scale, self.sigma, self.least = scale, sigma, least
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        chances = probabilities(self.model(images), size)
        pixels = self.preprocess.denormalise(images).cpu().numpy()
        for image, own in zip(pixels, chances, strict=True):
            pieces = superpixels(image, scale=self.scale, sigma=self.sigma, least=self.least)
            own.copy_(_evened(own, torch.from_numpy(pieces).to(own.device)))
        return logarithm(chances)


def _evened(chances: Tensor, pieces: Tensor) -> Tensor:
    """Probabilities (K, H, W), each replaced by its mean over its piece (H, W)."""
    owners = pieces.flatten()
    count = int(owners.max()) + 1
    sums = chances.new_zeros(len(chances), count).index_add_(1, owners, chances.flatten(1))
    means = sums / owners.bincount(minlength=count).clamp(min=1)
    return means[:, owners].view_as(chances)


def _settings(name: str, words: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    """The numbers of "w1=4,alpha=50". Raises `OptionError`."""
    found: dict[str, Any] = {}
    for word in filter(None, words.split(",")):
        key, value = (part.strip() for part in word.partition("=")[::2])
        if key not in allowed:
            raise OptionError(unknown(f"setting of {name}", key, allowed))
        try:
            found[key] = int(value) if key in WHOLE_NUMBERS else float(value)
        except ValueError:
            kind = "a whole number" if key in WHOLE_NUMBERS else "a number"
            raise OptionError(f"{name}: {key} is {kind}, given {word.strip()!r}") from None
    return found
