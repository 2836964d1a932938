"""The fully connected CRF: every pixel pulls at every other, and edges follow the photo.

Krähenbühl and Koltun 2011, "Efficient inference in fully connected CRFs with Gaussian edge
potentials"; what DeepLab (Chen et al. 2015) and Noh et al. 2015 put after their nets. The energy is
sum_i U(x_i) + sum_{i<j} mu(x_i, x_j) k(i, j), with pixels at p and of colour I, and

  k(i, j) = w1 exp(-|p_i - p_j|^2 / 2 alpha^2 - |I_i - I_j|^2 / 2 beta^2)     appearance
          + w2 exp(-|p_i - p_j|^2 / 2 gamma^2)                                smoothness

Mean field starts at Q = softmax(-U) and repeats Q = softmax(-U - mu K Q). The appearance kernel is
filtered on the permutohedral lattice, which is off by about 2 % after normalisation; smoothness is
separable, and exact. All of it is plain PyTorch, differentiable with respect to the scores; a photo
of 500x500 pixels with 21 classes takes a second or two of one CPU core.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hubel.engine.bridge import bridge
from hubel.engine.ops.lattice import Lattice, LatticeFilter
from hubel.errors import ModelError, unknown

Normalise = Literal["symmetric", "after", "before", "none"]
Filter = Callable[[Tensor], Tensor]  # (P, K) -> (P, K), P = H W pixels in rows

# The settings in pydensecrf's published sample; they mean what they do with its normalisation,
# "symmetric".
PYDENSECRF_SAMPLE = {
    "w1": 10.0, "theta_alpha": 80.0, "theta_beta": 13.0, "w2": 3.0, "theta_gamma": 3.0,
}  # fmt: skip
DEEPLAB = {"w2": 3.0, "theta_gamma": 3.0}  # fixed there; the others searched on 100 images

EXACT_PIXELS = 4096  # a dense kernel of more takes over 128 MB in float64
TINY = 1e-20  # pydensecrf's guard of a division
REACH = 6  # standard deviations; beyond, a Gaussian is below 2e-8
BAND = 64  # lines of a banded matrix product: a quarter faster than 128, 24 gains nothing

lattice_filter = bridge(LatticeFilter)


class DenseCRF(nn.Module):
    """(images, scores) -> log-probabilities after mean field. It has nothing to learn.

    What the weights mean depends on `normalise`, with D the row sums of a kernel:

    - "symmetric": D^-1/2 K D^-1/2 (Krähenbühl and Koltun 2013; pydensecrf's default). All pixels
      like it together pull with about w1, in nats, against the logits: w1 = 10 outvotes e^10 : 1.
    - "after": D^-1 K, a weighted mean of what the others believe (the paper's own code of 2011).
    - "before": K D^-1, every pixel hands out the same total pull.
    - "none": K as the formula has it. w1 is the pull of one single pixel, and totals grow with
      alpha^2: weights that suit the others are thousands of times too large here.

    The formula leaves i = j out. pydensecrf leaves it in, and so does this; with `itself=False`
    the share of a pixel in its own message is taken off (D counts it either way; on the lattice
    it is known to some 5 % on average).

    Args:
        w1, theta_alpha, theta_beta: appearance: weight, pixels, units of colour of 0 .. 255.
        w2, theta_gamma: smoothness: weight, pixels. A weight of 0 switches its kernel off.
        compatibility: mu float (K, K), symmetric as a rule; by default Potts, 1 off the diagonal.
        iterations: of mean field; the paper's 10 as a rule.
        exact: the appearance kernel as a dense matrix; images of up to 4,096 pixels.

    Raises `ModelError` for a number or word that is not allowed.
    """

    def __init__(
        self,
        w1: float = 10.0,
        theta_alpha: float = 80.0,
        theta_beta: float = 13.0,
        w2: float = 3.0,
        theta_gamma: float = 3.0,
        *,
        compatibility: Tensor | None = None,
        iterations: int = 10,
        normalise: Normalise = "symmetric",
        itself: bool = True,
        exact: bool = False,
    ) -> None:
        super().__init__()
        self.w1, self.w2 = _finite("w1", w1), _finite("w2", w2)
        self.theta_alpha = _finite("theta_alpha", theta_alpha, positive=True)
        self.theta_beta = _finite("theta_beta", theta_beta, positive=True)
        self.theta_gamma = _finite("theta_gamma", theta_gamma, positive=True)
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
            raise ModelError(f"iterations is a whole number from 0 up, given {iterations!r}")
        if normalise not in get_args(Normalise):
            raise ModelError(unknown("normalise", normalise, get_args(Normalise)))
        self.iterations, self.normalise = iterations, normalise
        self.itself, self.exact = itself, exact
        self.compatibility: Tensor | None
        self.register_buffer("compatibility", _compatible(compatibility))

    def forward(self, images: Tensor, logits: Tensor) -> Tensor:
        """Images uint8 or float 0 .. 255 (N, C, H, W), logits (N, K, H, W) -> log Q (N, K, H, W).

        Any C. For energies U = -log p give -U. The answer is float32 (float64 for float64 logits)
        on the logits' device; where that is neither a CPU nor CUDA, the work is done on the CPU.
        Raises `ModelError` for shapes that do not fit, colours that are not 0 .. 255, and
        images too large for `exact`.
        """
        self._check(images, logits)
        home = logits.device if logits.device.type in ("cpu", "cuda") else torch.device("cpu")
        scores = logits.to(home, torch.promote_types(logits.dtype, torch.float32))
        with torch.autocast(home.type, enabled=False):
            pairs = zip(images.to(home, scores.dtype), scores, strict=True)
            refined = [self._refine(image, score) for image, score in pairs]
        return torch.stack(refined).to(logits.device)

    def _refine(self, image: Tensor, logits: Tensor) -> Tensor:
        """One image (C, H, W), logits (K, H, W) -> log Q (K, H, W)."""
        unary = logits.flatten(1).T.contiguous()
        with torch.no_grad():
            kernels = self._kernels(image)
        score = unary
        for _ in range(self.iterations):
            score = unary + self._message(kernels, score.softmax(1))
        return score.log_softmax(1).T.reshape(logits.shape)

    def _message(self, kernels: list[tuple[float, Filter]], beliefs: Tensor) -> Tensor | float:
        """-mu K Q. Under Potts that is +K Q, as a constant for all classes changes nothing."""
        pull = sum(weight * kernel(beliefs) for weight, kernel in kernels)
        if self.compatibility is None or not isinstance(pull, Tensor):
            return pull
        return -pull @ self.compatibility.to(pull).T

    def _kernels(self, image: Tensor) -> list[tuple[float, Filter]]:
        """(weight, normalised filter) of each kernel that is on."""
        size = (image.size(1), image.size(2))
        ones = image.new_ones(size[0] * size[1], 1)
        kernels = []
        if self.w1:
            apply, own = self._appearance(image)
            kernels.append((self.w1, _normalised(apply, own, ones, self.normalise, self.itself)))
        if self.w2:
            smooth = Smoothness(size, self.theta_gamma, ones)
            kernels.append((self.w2, _normalised(smooth, ones, ones, self.normalise, self.itself)))
        return kernels

    def _appearance(self, image: Tensor) -> tuple[Filter, Tensor]:
        """The filter, and the weight of each pixel on itself (P, 1)."""
        points = features(image, self.theta_alpha, self.theta_beta)
        if self.exact:
            apart = torch.cdist(points.double(), points.double())
            dense = torch.exp(-apart.square() / 2).to(image)
            return (lambda x: dense @ x), image.new_ones(len(points), 1)
        lattice = Lattice(points)
        return (lambda x: lattice_filter(x, lattice=lattice)), lattice.diagonal()[:, None]

    def _check(self, images: Tensor, logits: Tensor) -> None:
        shapes = f"given {tuple(images.shape)} and {tuple(logits.shape)}"
        if images.dim() != 4 or logits.dim() != 4:
            raise ModelError(f"images are (N, C, H, W) and logits (N, K, H, W), {shapes}")
        places = (0, 2, 3)
        if [images.size(i) for i in places] != [logits.size(i) for i in places]:
            raise ModelError(f"images and logits differ in number or size: {shapes}")
        if not images.numel() or not logits.numel():
            raise ModelError(f"a CRF needs a pixel, a channel and a class at least, {shapes}")
        if not logits.is_floating_point():
            raise ModelError(f"logits are floating numbers, given {logits.dtype}")
        if self.compatibility is not None and len(self.compatibility) != logits.size(1):
            n = len(self.compatibility)
            raise ModelError(f"the compatibility is of {n} classes, {shapes}")
        pixels = logits.size(2) * logits.size(3)
        if self.exact and pixels > EXACT_PIXELS:
            raise ModelError(
                f"exact=True takes images of up to {EXACT_PIXELS:,} pixels, given {pixels:,}: "
                "leave it out, and the lattice filters in seconds"
            )
        _check_colours(images)

    def extra_repr(self) -> str:
        return (
            f"w1={self.w1:g}, theta_alpha={self.theta_alpha:g}, theta_beta={self.theta_beta:g}, "
            f"w2={self.w2:g}, theta_gamma={self.theta_gamma:g}, iterations={self.iterations}, "
            f"normalise={self.normalise!r}, itself={self.itself}, exact={self.exact}"
        )


def features(image: Tensor, alpha: float, beta: float) -> Tensor:
    """Pixels as points of the appearance kernel: (C, H, W) -> (H W, 2 + C): row and column in
    alphas, channels in betas."""
    h, w = image.shape[1:]
    rows, columns = (torch.arange(n, dtype=image.dtype, device=image.device) for n in (h, w))
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).view(-1, 2)
    return torch.cat([places / alpha, image.flatten(1).T / beta], 1)


class Smoothness:
    """The Gaussian of standard deviation theta pixels over an image, to rounding.

    y = A X B^T with one matrix for rows and one for columns, multiplied band by band: beyond six
    deviations they are 0.
    """

    def __init__(self, size: tuple[int, int], theta: float, like: Tensor) -> None:
        self.size = size
        self.rows, self.columns = (_bands(n, theta, like) for n in size)

    def __call__(self, x: Tensor) -> Tensor:
        """(H W, K) -> (H W, K)."""
        h, w = self.size
        v = _along(self.rows, x.reshape(h, -1)).view(h, w, -1)
        v = _along(self.columns, v.transpose(0, 1).reshape(w, -1)).view(w, h, -1)
        return v.transpose(0, 1).reshape(h * w, -1)


def _along(bands: list[tuple[slice, Tensor]], v: Tensor) -> Tensor:
    return torch.cat([band @ v[read] for read, band in bands])


def _bands(n: int, theta: float, like: Tensor) -> list[tuple[slice, Tensor]]:
    """(which lines are read, (lines written, lines read) weights), from the first line on."""
    lines = torch.arange(n, dtype=torch.float64)
    reach = math.ceil(REACH * theta)
    bands = []
    for start in range(0, n, BAND):
        read = slice(max(start - reach, 0), min(start + BAND + reach, n))
        apart = (lines[start : start + BAND, None] - lines[read]) / theta
        bands.append((read, torch.exp(-apart.square() / 2).to(like)))
    return bands


def _normalised(apply: Filter, own: Tensor, ones: Tensor, how: str, itself: bool) -> Filter:
    """The filter with its sums (P, 1) divided out; `own` (P, 1): of pixels on themselves."""
    sums = ones if how == "none" else apply(ones).clamp(min=TINY)
    before = {"symmetric": sums.rsqrt(), "before": 1 / sums}.get(how, ones)
    after = {"symmetric": sums.rsqrt(), "after": 1 / sums}.get(how, ones)
    if itself:
        return lambda x: after * apply(before * x)
    alone = after * own * before
    return lambda x: after * apply(before * x) - alone * x


def _finite(name: str, value: float, *, positive: bool = False) -> float:
    if not math.isfinite(value) or (positive and value <= 0):
        allowed = "a number above 0" if positive else "a finite number"
        raise ModelError(f"{name} is {allowed}, given {value!r}")
    return float(value)


def _compatible(matrix: Tensor | None) -> Tensor | None:
    if matrix is None:
        return None
    if matrix.dim() != 2 or matrix.size(0) != matrix.size(1) or not matrix.is_floating_point():
        given = f"{matrix.dtype} {tuple(matrix.shape)}"
        raise ModelError(f"the compatibility is a floating matrix (K, K), given {given}")
    return matrix.detach().clone()


def _check_colours(images: Tensor) -> None:
    """A normalised photo would have all its colours alike, and edges of no photo."""
    if images.dtype == torch.uint8:
        return
    low, high = (float(v) for v in images.aminmax())
    if not (low >= 0 and high <= 255):
        raise ModelError(f"colours are 0 to 255, given {low:g} to {high:g}: undo the normalising")
    if images.is_floating_point() and 0 < high <= 1:
        raise ModelError(f"colours are 0 to 255, given {low:g} to {high:g}: multiply them by 255")
