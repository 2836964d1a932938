"""The forms that CIFAR-10 and CIFAR-100 come in: binary, "python version", PNG sprites.

Each parser takes the files of one part, as bytes, and makes images uint8 (N, 3, 32, 32) and
labels (N,) of them.

Formats: A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html. Sprites: a PNG 1024 pixels
wide with one image in each row, its pixels in reading order; all labels in one JSON list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.data.arrays import Pair
from hubel.data.class_names import CIFAR10, CIFAR100
from hubel.data.decode import decode
from hubel.data.unpickle import restricted_load
from hubel.errors import DataError

PIXELS = 3 * 32 * 32

Files = Mapping[str, bytes]
Parser = Callable[[tuple[str, ...], Files], Pair]  # (names of a part's files, all files)


@dataclass(frozen=True, slots=True)
class Form:
    """One way in which a CIFAR is laid out in files.

    Attributes:
        title, name: for messages, and for the source.
        classes: class names.
        signs: files by which the form is known; all of them must be there.
        train, test: files with the images of each part, in order.
        parse: (a part's files, all files) -> (images, labels).
        labels: files of labels apart from the images, under any of these names.
    """

    title: str
    name: str
    classes: tuple[str, ...]
    signs: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]
    parse: Parser
    labels: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """All files that must be there."""
        return (*self.train, *self.test)

    @property
    def files(self) -> frozenset[str]:
        """All files that may belong to the form."""
        return frozenset((*self.images, *self.labels, *self.signs))


def _joined(pairs: list[Pair]) -> Pair:
    return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])


def _binary(names: tuple[str, ...], files: Files, label_bytes: int) -> Pair:
    """Records of one label (CIFAR-100: coarse, then fine) and 3 x 32 x 32 bytes, red first."""
    size = label_bytes + PIXELS
    pairs = []
    for name in names:
        if not files[name] or len(files[name]) % size:
            raise DataError(
                f"{name} has {len(files[name]):,} bytes; expected a multiple of {size:,}, "
                "the size of one image with its label"
            )
        records = np.frombuffer(files[name], dtype=np.uint8).reshape(-1, size)
        pairs.append((records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1]))
    return _joined(pairs)


def _binary10(names: tuple[str, ...], files: Files) -> Pair:
    return _binary(names, files, label_bytes=1)


def _binary100(names: tuple[str, ...], files: Files) -> Pair:
    return _binary(names, files, label_bytes=2)


def _python(names: tuple[str, ...], files: Files) -> Pair:
    """Pickled dicts: `data` uint8 (N, 3072), red first, and `labels` or `fine_labels`."""
    return _joined([_python_batch(restricted_load(files[name], name), name) for name in names])


def _python_batch(batch: Any, name: str) -> Pair:
    fields = batch if isinstance(batch, dict) else {}
    # Python 3 writes the keys as bytes where it copied a Python 2 file with encoding="bytes".
    fields = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in fields.items()}
    images, labels = fields.get("data"), fields.get("fine_labels", fields.get("labels"))
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != PIXELS:
        raise DataError(f"{name}: 'data' must be uint8 (N, {PIXELS})")
    targets = _whole_numbers(labels, name)
    if len(targets) != len(images):
        raise DataError(f"{name}: {len(images):,} images but {len(targets):,} labels")
    return images.reshape(-1, 3, 32, 32), targets


def _whole_numbers(labels: Any, name: str) -> NDArray[np.int64]:
    small = range(-(1 << 31), 1 << 31)  # what is out of the classes' range is said later
    if not isinstance(labels, list) or not all(type(n) is int and n in small for n in labels):
        raise DataError(f"{name}: the labels must be a list of whole numbers")
    return np.array(labels, dtype=np.int64)


def _sprites(names: tuple[str, ...], files: Files) -> Pair:
    part = "test" if names[0].startswith("test") else "train"
    images = np.concatenate([_sprite(files[name], name) for name in names])
    spellings = [name for name in SPRITE_LABELS if name.startswith(part)]
    listed = next((name for name in spellings if name in files), None)
    if listed is None:
        raise DataError(f"no labels for the {part} images: expected {' or '.join(spellings)}")
    return images, _whole_numbers(_json(files[listed]), listed)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _sprite(content: bytes, name: str) -> NDArray[np.uint8]:
    """One PNG (3, N, 1024) as N images."""
    picture = decode(content, name)
    if picture.shape[0] != 3 or picture.shape[2] != 1024:
        raise DataError(f"{name}: (C, H, W) is {picture.shape}; expected (3, images, 1024)")
    return picture.transpose(1, 0, 2).reshape(-1, 3, 32, 32)


SPRITE_LABELS = tuple(
    f"{part}_{word}.json" for part in ("train", "test") for word in ("lables", "labels")
)


def _ten(title: str, suffix: str, parse: Parser, labels: tuple[str, ...] = ()) -> Form:
    """A form of CIFAR-10: five files of training images, one of test images."""
    train = tuple(f"data_batch_{number}{suffix}" for number in range(1, 6))
    test = (f"test_batch{suffix}",)
    return Form(f"CIFAR-10 ({title})", "cifar10", CIFAR10, train[:1], train, test, parse, labels)


def _hundred(title: str, suffix: str, parse: Parser, *more_signs: str) -> Form:
    """A form of CIFAR-100: one file of training images, one of test images."""
    train, test = f"train{suffix}", f"test{suffix}"
    signs = (train, test, *more_signs)
    return Form(f"CIFAR-100 ({title})", "cifar100", CIFAR100, signs, (train,), (test,), parse)


FORMS = (
    _ten("binary", ".bin", _binary10),
    _ten("python version", "", _python),
    _ten("PNG sprites", ".png", _sprites, SPRITE_LABELS),
    _hundred("binary", ".bin", _binary100),
    _hundred("python version", "", _python, "meta"),
)
SIGNS = frozenset(sign for form in FORMS for sign in form.signs)


def form_of(names: Collection[str]) -> Form | None:
    """The form whose signs are all among the names of files."""
    return next((form for form in FORMS if all(sign in names for sign in form.signs)), None)
