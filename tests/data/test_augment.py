"""Augmentation against slow loops over images, SciPy's affine transform, Pillow's enhancers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.ndimage import affine_transform, map_coordinates
from scipy.stats import kstest

from hubel.data.augment import ALWAYS, BENDS, DRAWS, Augment, named
from hubel.errors import OptionError
from hubel.training.plan import make_plan

FILL = torch.tensor([10, 20, 30], dtype=torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The table of chance that an augmentation of `count` images with this seed uses."""
    table = Augment(vflip=True).chances(range(count), seed).numpy()
    return dict(zip(DRAWS, table, strict=True))


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def smooth(height: int, width: int) -> np.ndarray:
    """One grey image of waves a few pixels long, away from 0 and 255."""
    y, x = np.mgrid[:height, :width]
    return np.round(120 + 60 * np.sin(x / 4 + 1) * np.cos(y / 5)).astype(np.uint8)


def apply(text: str, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    augment, fill = Augment.parse(text), FILL[: images.shape[1]]
    return augment.moved(images, augment.chances(range(len(images)), seed), fill)


# ---------------------------------------------------------------- words


numbers = st.floats(0, 1, exclude_max=True)


@given(
    st.builds(
        Augment,
        flip=st.booleans(),
        vflip=st.booleans(),
        shift=st.integers(0, 1024),
        rotate=st.floats(0, 180),
        scale=numbers,
        elastic=st.floats(0, 100),
        erase=st.integers(0, 1024),
        jitter=numbers,
        mixup=st.floats(0, 1e6),
    )
)
def test_parse_is_the_inverse_of_str(augment: Augment) -> None:
    assert Augment.parse(str(augment)) == augment


def test_words() -> None:
    assert Augment.parse("flip, shift=4,rotate=10") == Augment(flip=True, shift=4, rotate=10)
    assert str(Augment(flip=True, shift=4, rotate=10)) == "flip,shift=4,rotate=10"
    assert str(Augment(vflip=True, elastic=2.5)) == "vflip,elastic=2.5"
    assert str(Augment()) == "none"
    assert Augment.parse("none") == Augment()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flop", "unknown augmentation 'flop': did you mean 'flip'. allowed: elastic, erase, flip"),
        ("", "unknown augmentation '': allowed"),
        ("flip,none", "'none' stands alone"),
        ("flip,flip", "'flip' is given twice in 'flip,flip'"),
        ("flip=2", "'flip' takes no number, given 'flip=2'"),
        ("vflip=2", "'vflip' takes no number, given 'vflip=2'"),
        ("elastic=200", "'elastic' must be less than or equal to 100, given 200"),
        ("shift", "'shift' needs a whole number, as in shift=4, given 'shift'"),
        ("shift=2.5", "'shift' needs a whole number, as in shift=4, given 'shift=2.5'"),
        ("rotate=x", "'rotate' needs a number, as in rotate=0.5, given 'rotate=x'"),
        ("shift=-1", "'shift' must be greater than or equal to 0, given -1"),
        ("rotate=200", "'rotate' must be less than or equal to 180, given 200"),
        ("scale=1", "'scale' must be less than 1, given 1"),
        ("jitter=nan", "'jitter' must be a finite number, given nan"),
        ("mixup=inf", "'mixup' must be a finite number, given inf"),
    ],
)
def test_wrong_words_are_named_on_one_line(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Augment.parse(text)
    assert "\n" not in str(caught.value)


def test_a_plan_names_the_nearest_augmentation() -> None:
    with pytest.raises(OptionError, match=r"did you mean 'augment\.rotate'"):
        make_plan(source="a", model="mlp", augment={"rotat": 5})


# ---------------------------------------------------------------- geometry


def test_nothing_on_gives_the_same_tensor() -> None:
    images = noise(3, 3, 7, 5)
    assert apply("mixup=0.5", images) is images


@pytest.mark.parametrize("words", ["flip", "shift=2", "flip,shift=3", "shift=9"])
@pytest.mark.parametrize("channels", [1, 3])
def test_flip_and_shift_equal_a_loop_over_images(words: str, channels: int) -> None:
    images = noise(40, channels, 7, 5)
    augment, chance = Augment.parse(words), drawn(40)
    reach = augment.shift
    expected = []
    for n, image in enumerate(images.numpy()):
        padded = np.empty((channels, 7 + 2 * reach, 5 + 2 * reach), np.uint8)
        padded[:] = FILL[:channels, None, None].numpy()
        padded[:, reach : reach + 7, reach : reach + 5] = image
        top = int(chance["top"][n] * (2 * reach + 1))
        left = int(chance["left"][n] * (2 * reach + 1))
        crop = padded[:, top : top + 7, left : left + 5]
        expected.append(crop[:, :, ::-1] if augment.flip and chance["flip"][n] < 0.5 else crop)
    assert np.array_equal(apply(words, images).numpy(), np.stack(expected))


def test_vflip_mirrors_half_of_the_images_up_down() -> None:
    images = noise(2000, 1, 5, 4)
    out = apply("vflip", images)
    mirrored = (out == images.flip(2)).flatten(1).all(1)
    assert torch.equal(out[~mirrored], images[~mirrored])
    assert abs(mirrored.float().mean() - 0.5) < 0.045  # four standard errors
    across = (apply("flip", images) == images.flip(3)).flatten(1).all(1)
    both = (mirrored & across).float().mean()
    assert abs(both - 0.25) < 0.04  # one does not tell the other


@pytest.mark.parametrize("words", ["flip", "shift=3", "flip,shift=3", "flip,vflip,shift=2"])
def test_an_affine_without_turn_equals_the_gather(words: str) -> None:
    images = noise(40, 3, 11, 6)
    assert torch.equal(apply(words + ",rotate=1e-6", images), apply(words, images))


def expected_warp(image: np.ndarray, augment: Augment, chance: dict, n: int) -> np.ndarray:
    """SciPy's bilinear affine transform, in pixels (row, column) about the centre."""
    angle = math.radians(augment.rotate * (2 * chance["angle"][n] - 1))
    zoom = 1 + augment.scale * (2 * chance["zoom"][n] - 1)
    mirror = -1 if augment.flip and chance["flip"][n] < 0.5 else 1
    steps = [int(chance[way][n] * (2 * augment.shift + 1)) - augment.shift for way in DRAWS[1:3]]
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    matrix = turn @ np.diag([1, mirror]) / zoom
    centre = (np.array(image.shape) - 1) / 2
    offset = centre + steps - matrix @ centre
    # Pixels half outside mix with the fill there ("grid-constant"), as grid_sample has it.
    return affine_transform(
        image.astype(float), matrix, offset, order=1, mode="grid-constant", cval=float(FILL[0])
    )


@pytest.mark.parametrize(
    "words", ["rotate=30", "scale=0.4", "rotate=180", "flip,shift=3,rotate=25,scale=0.3"]
)
def test_rotate_and_scale_equal_scipy(words: str) -> None:
    image = smooth(23, 31)
    images = torch.from_numpy(image).expand(16, 1, 23, 31)
    augment, chance = Augment.parse(words), drawn(16)
    warped = apply(words, images).numpy()[:, 0]
    for n in range(16):
        expected = expected_warp(image, augment, chance, n).clip(0, 255)
        assert np.abs(warped[n] - expected).max() <= 0.51  # rounding to a byte, and float32


@pytest.mark.parametrize("words", ["elastic=3", "flip,vflip,shift=3,rotate=25,scale=0.3,elastic=2"])
def test_elastic_equals_scipy(words: str) -> None:
    """The affine part as above, and a field that PyTorch interpolates in two dimensions."""
    image = smooth(23, 31)
    augment = Augment.parse(words)
    draws = named(augment.chances(range(16), 0))
    warped = apply(words, torch.from_numpy(image).expand(16, 1, 23, 31)).numpy()[:, 0]
    vectors = augment.elastic * torch.special.ndtri(torch.stack([draws[b] for b in BENDS], 1))
    field = torch.nn.functional.interpolate(
        vectors.view(16, 2, 3, 3), (23, 31), mode="bicubic", align_corners=True
    ).numpy()
    centre = np.array([11.0, 15.0])[:, None, None]
    for n in range(16):
        angle = math.radians(augment.rotate * (2 * float(draws["angle"][n]) - 1))
        zoom = 1 + augment.scale * (2 * float(draws["zoom"][n]) - 1)
        mirrors = [
            -1 if on and draws[name][n] < 0.5 else 1
            for name, on in (("vflip", augment.vflip), ("flip", augment.flip))
        ]
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        steps = [int(draws[d][n] * (2 * augment.shift + 1)) - augment.shift for d in DRAWS[1:3]]
        places = np.mgrid[:23, :31] - centre
        places = np.einsum("ij,jhw->ihw", turn @ np.diag(mirrors) / zoom, places) + centre
        places += np.array(steps)[:, None, None] + field[n, ::-1]
        expected = map_coordinates(
            image.astype(float), places, order=1, mode="grid-constant", cval=float(FILL[0])
        )
        assert np.abs(warped[n] - expected.clip(0, 255)).max() <= 0.52


def test_bends_are_normal_and_as_wide_as_asked() -> None:
    augment = Augment(elastic=10)
    bend = augment.motion(named(augment.chances(range(400), 0))).bend
    assert bend is not None
    assert bend.shape == (400, 2, 3, 3)
    assert kstest(bend.flatten().numpy(), "norm", (0, 10)).pvalue > 0.001
    correlated = np.corrcoef(bend.flatten(1).numpy().T) - np.eye(18)
    assert np.abs(correlated).max() < 0.22  # of 153 pairs, 4.4 standard errors


def test_the_least_and_the_greatest_draw_bend_by_something_finite() -> None:
    draws = dict.fromkeys(DRAWS, torch.tensor([0.0, 1 - 2.0**-24]))
    bend = Augment(elastic=1).motion(draws).bend
    assert bend is not None
    assert bend[0].unique().item() == pytest.approx(-5.42, abs=0.01)
    assert bend[1].unique().item() == pytest.approx(5.29, abs=0.02)


def test_every_shift_and_both_sides_come_equally_often() -> None:
    ramp = torch.arange(100, 132, dtype=torch.uint8)
    images = ramp.expand(20_000, 1, 32, 32)
    out = apply("flip,shift=2", images)[:, 0, 16]
    flipped = out[:, 20] < out[:, 10]
    assert abs(flipped.float().mean() - 0.5) < 0.015  # four standard errors
    column = torch.where(flipped, 31 - 16, 16)
    steps = torch.bincount(out[:, 16].long() - 100 - column + 2, minlength=5)
    expected = 20_000 / 5
    assert ((steps - expected) ** 2 / expected).sum() < 18.5  # chi-square, 4 degrees, p = 0.001


def test_angles_and_zooms_fill_their_range_evenly() -> None:
    """A bright dot beside the centre shows where it went."""
    image = np.zeros((65, 65), np.uint8)
    image[32, 48:51] = 255
    y, x = torch.meshgrid(torch.arange(65) - 32.0, torch.arange(65) - 32.0, indexing="ij")
    images = torch.from_numpy(image).expand(4000, 1, 65, 65)
    augment = Augment(rotate=40, scale=0.5)
    out = augment.moved(images, augment.chances(range(4000), 0), torch.zeros(1).byte())
    weight = out[:, 0].float() / out[:, 0].float().sum((1, 2), keepdim=True)
    across, down = (weight * x).sum((1, 2)), (weight * y).sum((1, 2))
    angle, zoom = torch.rad2deg(torch.atan2(down, across)), torch.hypot(across, down) / 17
    for values, low, high in ((angle, -40, 40), (zoom, 0.5, 1.5)):
        share = ((values - low) / (high - low)).sort().values
        gap = (share - torch.linspace(0, 1, 4000)).abs().max()
        assert gap < 1.95 / math.sqrt(4000)  # Kolmogorov-Smirnov, p = 0.001


# ---------------------------------------------------------------- colour, erase


def test_the_centre_of_the_square_may_be_any_pixel() -> None:
    images = torch.full((6000, 3, 9, 6), 200, dtype=torch.uint8)
    out, chance = apply("erase=4", images), drawn(6000)
    gone = (out == FILL.view(3, 1, 1)).all(1)
    assert torch.equal((out == 200).all(1), ~gone)
    rows, columns = np.mgrid[:9, :6]
    for n in range(0, 6000, 10):
        y, x = int(chance["y"][n] * 9), int(chance["x"][n] * 6)
        square = (rows >= y - 2) & (rows < y + 2) & (columns >= x - 2) & (columns < x + 2)
        assert np.array_equal(gone[n].numpy(), square)
    # Mean area: rows kept of 4 for centres 0..8 are 2 3 4 4 4 4 4 4 3, columns 2 3 4 4 4 3.
    assert gone.float().sum((1, 2)).mean() == pytest.approx(32 / 9 * 20 / 6, rel=0.02)


def test_an_erased_square_wholly_inside_has_its_full_area() -> None:
    images = torch.full((500, 1, 40, 40), 200, dtype=torch.uint8)
    area = (apply("erase=5", images) == FILL[0]).sum((1, 2, 3))
    assert area.max() == 25
    assert area.min() >= 9  # centred on a corner pixel


@pytest.mark.parametrize(
    ("row", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_each_jitter_equals_pillow(row: str, enhancer: type) -> None:
    images = noise(6, 3, 13, 9)
    draws = {name: torch.full((6,), 0.5) for name in DRAWS} | {row: torch.linspace(0, 0.99, 6)}
    out = Augment(jitter=0.4)._recolour(images, draws).numpy()
    for n in range(6):
        factor = 1 + 0.4 * (2 * float(draws[row][n]) - 1)
        picture = Image.fromarray(images[n].permute(1, 2, 0).numpy())
        expected = np.asarray(enhancer(picture).enhance(factor)).transpose(2, 0, 1)
        # Pillow rounds the grey it blends with to a byte, and cuts fractions off.
        assert np.abs(out[n].astype(int) - expected).max() <= 2


def test_jitter_varies_within_its_bounds_and_leaves_grey_without_saturation() -> None:
    flat = torch.full((4000, 1, 2, 2), 100, dtype=torch.uint8)
    out = apply("jitter=0.3", flat).float()
    assert out.min() >= 70
    assert out.max() <= 130
    assert out.mean() == pytest.approx(100, abs=1.2)  # four standard errors
    grey = noise(50, 1, 6, 6)
    colour = apply("jitter=0.3", grey.expand(50, 3, 6, 6).contiguous())
    assert (colour.int() - apply("jitter=0.3", grey).int()).abs().max() <= 1


# ---------------------------------------------------------------- mixup


def test_mixup_blends_images_and_targets_alike() -> None:
    images = torch.randn(8, 2, 3, 3, generator=seeded(3))
    targets = torch.arange(8)
    mixed, soft = Augment(mixup=1.0).mix(images, targets, 8, seeded())
    share, given = soft.diagonal(), soft - torch.diag(soft.diagonal())
    partner = torch.where(given.amax(1) > 0, given.argmax(1), targets)  # some keep themselves
    lam = float(share[partner != targets][0])
    assert 0 < lam < 1
    torch.testing.assert_close(mixed, lam * images + (1 - lam) * images[partner])
    own, others = torch.eye(8), torch.eye(8)[partner]
    torch.testing.assert_close(soft, lam * own + (1 - lam) * others)
    assert sorted(partner.tolist()) == list(range(8))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_shares_follow_beta(alpha: float) -> None:
    from scipy.stats import beta, kstest

    pair = torch.tensor([[[[0.0]]], [[[1.0]]]])
    generator, shares = seeded(), []
    while len(shares) < 1500:
        mixed, _ = Augment(mixup=alpha).mix(pair, torch.tensor([0, 1]), 2, generator)
        if mixed[1] != 1 or mixed[0] != 0:  # a permutation that swaps the two
            shares.append(1 - float(mixed[0]))
    # With probability 1/2 the two swap; a share of exactly 1 looks as if they did not.
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 0.001


def test_mixup_off_gives_one_hot_targets() -> None:
    images = torch.randn(4, 1, 2, 2)
    same, soft = Augment().mix(images, torch.tensor([2, 0, 1, 2]), 3, seeded())
    assert same is images
    assert soft.dtype == torch.float32
    assert soft.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


# ---------------------------------------------------------------- chance


EVERYTHING = "flip,shift=2,rotate=15,scale=0.2,erase=3,jitter=0.3"


@pytest.mark.parametrize(
    "words",
    ["flip,shift=2", "rotate=15", "erase=3", "jitter=0.2", "vflip", "elastic=2", EVERYTHING],
)
def test_the_generator_alone_decides_and_the_input_stays(words: str) -> None:
    images = noise(12, 3, 9, 8)
    before = images.clone()
    first, again, other = apply(words, images), apply(words, images), apply(words, images, seed=1)
    assert first.dtype == torch.uint8
    assert first.shape == images.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)


def test_a_further_augmentation_leaves_the_draws_of_the_others() -> None:
    images = noise(30, 3, 9, 8)
    plain, erased = apply("flip,shift=2", images), apply("flip,shift=2,erase=3", images)
    kept = (erased != FILL.view(3, 1, 1)).any(1, keepdim=True).expand_as(plain)
    assert torch.equal(plain[kept], erased[kept])


@pytest.mark.parametrize("later", ["vflip", "elastic=2", "vflip,elastic=2"])
def test_later_words_leave_all_earlier_draws_as_they_were(later: str) -> None:
    first = Augment.parse("flip,mixup=0.4").chances(range(7), 3)
    both = Augment.parse(f"flip,mixup=0.4,{later}").chances(range(7), 3)
    assert first.shape == (len(ALWAYS), 7)
    assert both.shape == (len(DRAWS), 7)
    assert torch.equal(both[: len(ALWAYS)], first)
    assert len(both.unique()) > 0.9 * both.numel()  # no row is drawn twice


def test_an_image_is_moved_by_its_place_alone() -> None:
    images = noise(9, 3, 8, 7).repeat(2, 1, 1, 1)
    augment = Augment.parse("flip,vflip,shift=2,elastic=1")
    whole = augment.moved(images, augment.chances(range(30, 48), 5), FILL)
    part = augment.moved(images[3:8], augment.chances(range(33, 38), 5), FILL)
    other = augment.moved(images[1::2], augment.chances(range(31, 48, 2), 5), FILL)
    assert torch.equal(whole[3:8], part)
    assert torch.equal(whole[1::2], other)
    assert not (whole[:9] == whole[9:]).flatten(1).all(1).any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    "words", ["flip,vflip,shift=2,erase=3", EVERYTHING, EVERYTHING + ",vflip,elastic=2"]
)
def test_cuda_sees_the_same_augmentation(words: str) -> None:
    images = torch.from_numpy(smooth(32, 24)).expand(64, 3, 32, 24).contiguous()
    on_cpu, on_gpu = apply(words, images), apply(words, images.cuda())
    assert on_gpu.is_cuda
    assert (on_cpu.int() - on_gpu.cpu().int()).abs().max() <= (0 if "rotate" not in words else 1)
