"""The fully connected CRF against mean field with every pair of pixels, in NumPy."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from real_data import REAL
from scipy.ndimage import gaussian_filter, zoom
from torch.autograd import gradcheck

from hubel.errors import ModelError
from hubel.models.crf import DEEPLAB, PYDENSECRF_SAMPLE, DenseCRF, Smoothness, features

PHOTOS = REAL / "bsds500" / "images" / "test"
NORMS = ("symmetric", "after", "before", "none")
SETTINGS = [  # alpha, beta, gamma
    pytest.param((80, 13, 3), id="sample"),
    pytest.param((50, 3, 3), id="sharp colours"),
    pytest.param((6, 20, 1), id="near"),
    pytest.param((3, 40, 2), id="nearer"),
]


# Every pair of pixels ----------------------------------------------------------------------------


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def gaussian(points):
    return np.exp(-0.5 * ((points[:, None] - points[None]) ** 2).sum(-1))


def divided(kernel, how):
    sums = kernel.sum(1)
    if how == "symmetric":
        return kernel / np.sqrt(np.outer(sums, sums))
    if how == "after":
        return kernel / sums[:, None]
    return kernel / sums[None] if how == "before" else kernel


def by_hand(
    image, logits, thetas, w1=10.0, w2=3.0, how="symmetric", mu=None, steps=10, itself=True
):
    """Image (C, H, W), logits (K, H, W) -> Q (K, H, W), float64, n^2 products a step."""
    alpha, beta, gamma = thetas
    (c, h, w), k = image.shape, len(logits)
    places = np.indices((h, w)).reshape(2, -1).T.astype(np.float64)
    colours = image.reshape(c, -1).T.astype(np.float64)
    kernels = [
        w1 * divided(gaussian(np.hstack([places / alpha, colours / beta])), how),
        w2 * divided(gaussian(places / gamma), how),
    ]
    total = kernels[0] + kernels[1]
    if not itself:
        np.fill_diagonal(total, 0)
    mu = 1 - np.eye(k) if mu is None else mu
    unary = -logits.reshape(k, -1).T.astype(np.float64)
    q = softmax(-unary)
    for _ in range(steps):
        q = softmax(-unary - total @ q @ mu.T)
    return q.T.reshape(k, h, w)


def scene(h=20, w=24, k=4, seed=0, channels=3):
    """An image of k blurry patches, and noisy scores that half know them."""
    rng = np.random.default_rng(seed)
    labels = gaussian_filter(rng.normal(size=(k, h, w)), (0, 3, 3)).argmax(0)
    colours = rng.uniform(0, 255, (k, channels))[labels].transpose(2, 0, 1)
    image = np.clip(colours + rng.normal(0, 12, colours.shape), 0, 255).astype(np.uint8)
    logits = rng.normal(size=(k, h, w)) + 1.5 * (np.arange(k)[:, None, None] == labels)
    return image, logits, labels


def ours(image, logits, thetas, dtype=torch.float64, **options):
    alpha, beta, gamma = thetas
    crf = DenseCRF(theta_alpha=alpha, theta_beta=beta, theta_gamma=gamma, **options)
    scores = torch.from_numpy(logits).to(dtype)[None]
    return crf(torch.from_numpy(image)[None], scores)[0]


def weights_for(how):
    return {"w1": 0.02, "w2": 0.05} if how == "none" else {}  # sums of some hundred pixels


@pytest.mark.parametrize("thetas", SETTINGS)
@pytest.mark.parametrize("how", NORMS)
def test_exact_is_every_pair(thetas, how):
    image, logits, _ = scene()
    options = weights_for(how)
    for itself in (True, False):
        expected = by_hand(image, logits, thetas, how=how, itself=itself, **options)
        got = ours(image, logits, thetas, exact=True, normalise=how, itself=itself, **options)
        assert np.abs(got.exp().numpy() - expected).max() < 1e-6


def test_exact_in_single_precision():
    image, logits, _ = scene()
    expected = by_hand(image, logits, (80, 13, 3))
    got = ours(image, logits, (80, 13, 3), torch.float32, exact=True)
    assert got.dtype == torch.float32
    assert np.abs(got.exp().numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("thetas", SETTINGS)
@pytest.mark.parametrize("how", NORMS)
def test_the_lattice_is_near(thetas, how):
    """Ten steps may carry a pixel that hung in the balance over to another class."""
    options = weights_for(how)
    agreed, off = [], []
    for seed in range(3):
        image, logits, _ = scene(seed=seed)
        expected = by_hand(image, logits, thetas, how=how, **options)
        got = ours(image, logits, thetas, normalise=how, **options).exp().numpy()
        agreed.append((got.argmax(0) == expected.argmax(0)).mean())
        off.append(np.abs(got - expected).mean())
    assert min(agreed) > 0.97
    assert np.mean(agreed) > 0.985
    assert np.mean(off) < 0.01


def test_without_the_pixel_itself_the_lattice_is_near_too():
    image, logits, _ = scene()
    thetas = (6, 20, 1)
    expected = by_hand(image, logits, thetas, itself=False)
    got = ours(image, logits, thetas, itself=False).exp().numpy()
    assert (got.argmax(0) == expected.argmax(0)).mean() > 0.97


def test_any_compatibility():
    image, logits, _ = scene()
    mu = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0))) / 2  # neighbours in number
    expected = by_hand(image, logits, (6, 20, 1), mu=mu)
    got = ours(image, logits, (6, 20, 1), compatibility=torch.from_numpy(mu), exact=True)
    assert np.abs(got.exp().numpy() - expected).max() < 1e-6
    potts = ours(image, logits, (6, 20, 1), compatibility=1 - torch.eye(4).double())
    assert torch.allclose(potts, ours(image, logits, (6, 20, 1)), atol=1e-5)


def test_grey_images():
    image, logits, _ = scene(channels=1)
    expected = by_hand(image, logits, (6, 20, 1))
    exact = ours(image, logits, (6, 20, 1), exact=True)
    assert np.abs(exact.exp().numpy() - expected).max() < 1e-6
    near = ours(image, logits, (6, 20, 1)).exp().numpy()
    assert (near.argmax(0) == expected.argmax(0)).mean() > 0.97


# What it is for ----------------------------------------------------------------------------------


def test_noise_goes_and_edges_come_to_the_photo():
    image, logits, labels = scene(h=61, w=83, seed=2)
    before = (logits.argmax(0) == labels).mean()
    after = (ours(image, logits, (30, 20, 3)).argmax(0).numpy() == labels).mean()
    assert before < 0.75
    assert after > 0.97


def test_a_coarse_answer_on_a_real_photo():
    """Half of a photo by its brightness, known on every eighth pixel alone."""
    path = PHOTOS / "384022.jpg"
    if not path.is_file():
        pytest.skip("no BSDS500 at hand")
    with Image.open(path) as opened:
        photo = np.asarray(opened.convert("RGB")).transpose(2, 0, 1).copy()
    smooth = gaussian_filter(photo.mean(0), 2)
    labels = (smooth > np.median(smooth)).astype(int)
    coarse = zoom(labels[4::8, 4::8].astype(float), 8, order=1, grid_mode=True, mode="nearest")
    coarse = coarse[: labels.shape[0], : labels.shape[1]]
    photo, labels = (a[..., : coarse.shape[0], : coarse.shape[1]] for a in (photo, labels))
    logits = np.stack([0.5 - coarse, coarse - 0.5]) * 4
    after = ours(photo, logits, (20, 8, 1), torch.float32, w1=4, w2=1)
    wrong = [(a.argmax(0) != labels).mean() for a in (logits, after.numpy())]
    assert wrong[1] < 0.75 * wrong[0]


# Smoothness --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "theta"), [((150, 67), 3), ((1, 31), 2), ((70, 5), 40)])
def test_smoothness_is_the_whole_gaussian(size, theta):
    x = torch.randn(math.prod(size), 2, generator=torch.Generator().manual_seed(0)).double()
    got = Smoothness(size, theta, x)(x)
    places = np.indices(size).reshape(2, -1).T / theta
    expected = gaussian(places) @ x.numpy() if len(places) < 2000 else by_axes(x, size, theta)
    assert np.abs(got.numpy() - expected).max() < 1e-6 * np.abs(expected).max()


def by_axes(x, size, theta):
    """SciPy's, which divides by the sum of the whole bell."""
    planes = x.numpy().reshape(*size, -1)
    bell = np.exp(-0.5 * (np.arange(-9 * theta, 9 * theta + 1) / theta) ** 2).sum()
    smooth = gaussian_filter(planes, (theta, theta, 0), mode="constant", truncate=9)
    return (smooth * bell**2).reshape(len(x), -1)


def test_features_by_hand():
    image = torch.tensor([[[10.0, 20.0], [30.0, 40.0]]])
    expected = torch.tensor([[0, 0, 1], [0, 0.5, 2], [0.5, 0, 3], [0.5, 0.5, 4]])
    assert torch.equal(features(image, 2, 10), expected)


# The module --------------------------------------------------------------------------------------


def photo_and_logits(n=1, k=3, h=5, w=6, dtype=torch.float64):
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, h, w), generator=chance, dtype=torch.uint8)
    return images, torch.randn(n, k, h, w, generator=chance, dtype=dtype)


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"normalise": "after", "itself": False}])
def test_gradients_reach_the_scores(options):
    images, logits = photo_and_logits(k=2, h=3, w=4)
    crf = DenseCRF(theta_alpha=3, theta_beta=60, theta_gamma=1, w1=1, w2=1, iterations=3, **options)
    assert gradcheck(lambda z: crf(images, z), logits.requires_grad_())


def test_images_do_not_mix():
    images, logits = photo_and_logits(n=3)
    crf = DenseCRF()
    together = crf(images, logits)
    alone = [crf(images[i : i + 1], logits[i : i + 1]) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_answers_are_log_probabilities_whatever_comes_in():
    images, logits = photo_and_logits(k=4)
    crf = DenseCRF()
    whole = crf(images, logits)
    assert torch.allclose(whole.exp().sum(1), torch.ones(1, 5, 6).double())
    assert torch.allclose(crf(images.float(), logits), whole)
    assert torch.allclose(crf(images, logits.float()).double(), whole, atol=1e-3)
    assert crf(images, logits.half()).dtype == torch.float32
    assert torch.allclose(crf(images, logits + 7), whole)  # energies up to a constant


def test_nothing_to_do_leaves_the_scores():
    images, logits = photo_and_logits()
    for options in ({"iterations": 0}, {"w1": 0, "w2": 0}):
        assert torch.allclose(DenseCRF(**options)(images, logits), logits.log_softmax(1))


def test_a_forbidden_class_stays_forbidden():
    images, logits = photo_and_logits()
    logits[:, 1] = -math.inf
    refined = DenseCRF()(images, logits)
    assert bool((refined[:, 1] == -math.inf).all())
    assert not bool(refined.isnan().any())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (131, 1)])
def test_any_size(size):
    images, logits = photo_and_logits(h=size[0], w=size[1])
    assert DenseCRF()(images, logits).shape == logits.shape


def test_half_precision_around_it_does_not_matter():
    images, logits = photo_and_logits(dtype=torch.float32)
    expected = DenseCRF()(images, logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(DenseCRF()(images, logits), expected)


def test_the_published_settings():
    crf = DenseCRF(**PYDENSECRF_SAMPLE)
    assert repr(crf) == repr(DenseCRF())
    assert (crf.w1, crf.theta_alpha, crf.theta_beta) == (10, 80, 13)
    assert (crf.w2, crf.theta_gamma) == (3, 3)
    assert DEEPLAB.items() <= PYDENSECRF_SAMPLE.items()
    assert not list(crf.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"theta_beta": 0}, "theta_beta is a number above 0, given 0"),
        ({"w1": math.nan}, "w1 is a finite number, given nan"),
        ({"iterations": 2.5}, "iterations is a whole number from 0 up, given 2.5"),
        ({"normalise": "symetric"}, "did you mean 'symmetric'"),
        ({"compatibility": torch.ones(2, 3)}, r"matrix \(K, K\), given torch.float32 \(2, 3\)"),
    ],
)
def test_settings_are_checked(options, words):
    with pytest.raises(ModelError, match=words):
        DenseCRF(**options)


@pytest.mark.parametrize(
    ("images", "logits", "options", "words"),
    [
        ((3, 4, 4), (1, 2, 4, 4), {}, r"images are \(N, C, H, W\)"),
        ((1, 3, 4, 5), (1, 2, 4, 4), {}, "differ in number or size"),
        ((2, 3, 4, 4), (1, 2, 4, 4), {}, "differ in number or size"),
        ((1, 3, 0, 4), (1, 2, 0, 4), {}, "a pixel, a channel and a class"),
        ((1, 3, 4, 4), (1, 2, 4, 4), {"compatibility": torch.eye(3)}, "is of 3 classes"),
        ((1, 3, 65, 64), (1, 2, 65, 64), {"exact": True}, "up to 4,096 pixels, given 4,160"),
    ],
)
def test_shapes_are_checked(images, logits, options, words):
    with pytest.raises(ModelError, match=words):
        DenseCRF(**options)(torch.zeros(images), torch.zeros(logits))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-1.0, "undo the normalising"),
        (256.0, "undo the normalising"),
        (0.9, "multiply them by 255"),
    ],
)
def test_colours_are_checked(value, words):
    with pytest.raises(ModelError, match=words):
        DenseCRF()(torch.full((1, 3, 4, 4), value), torch.zeros(1, 2, 4, 4))


def test_scores_are_floating():
    with pytest.raises(ModelError, match="given torch.int64"):
        DenseCRF()(torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4, dtype=torch.int64))
