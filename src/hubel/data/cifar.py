"""CIFAR-10 and CIFAR-100 in each form they come in: binary, "python version", PNG sprites.

A folder or a tar archive becomes a table of file names and bytes; one parser per form makes
images uint8 (N, 3, 32, 32) and labels of it. Archives are read member by member in memory:
nothing is ever written, so no member can place a file anywhere.

Formats: A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html. Sprites: a PNG 1024 pixels
wide with one image in each row, its pixels in reading order; all labels in one JSON list.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.data.arrays import Pair, source_from_arrays
from hubel.data.decode import decode
from hubel.data.record import ArraySource
from hubel.data.unpickle import restricted_load
from hubel.errors import DataError

PIXELS = 3 * 32 * 32
MAX_BYTES = 512 << 20  # of wanted members in one archive; the largest true one has 185 MB

CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
CIFAR100 = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()
)

Files = Mapping[str, bytes]


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
    parse: Callable[[tuple[str, ...], Files], Pair]
    labels: tuple[str, ...] = ()


def read_cifar(path: Path, name: str | None = None, origin: str | None = None) -> ArraySource:
    """CIFAR-10 or CIFAR-100 (fine labels) from a folder or a tar archive, in any form.

    Raises:
        DataError: no such file; none of the forms; a file missing, damaged or with a label out
            of range; a pickle that asks for more than CIFAR's hold.
    """
    form, files = _from_folder(path) if path.is_dir() else _from_archive(path)
    missing = [file for file in (*form.train, *form.test) if file not in files]
    if missing:
        raise DataError(f"{path}: {form.title} lacks {', '.join(missing)}")
    try:
        parts = {"train": form.parse(form.train, files), "test": form.parse(form.test, files)}
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return source_from_arrays(
        parts,
        titles={part: (f"{path}: {part} images", f"{path}: {part} labels") for part in parts},
        classes=form.classes,
        name=name or form.name,
        origin=origin or str(path),
    )


def is_cifar(path: Path) -> bool:
    """Whether a folder, or one just below it, holds the files of one of the forms."""
    return _find(path) is not None


def _form_of(names: Collection[str]) -> Form | None:
    return next((form for form in FORMS if all(sign in names for sign in form.signs)), None)


def _find(path: Path) -> tuple[Form, Path] | None:
    try:
        for folder in (path, *sorted(entry for entry in path.iterdir() if entry.is_dir())):
            form = _form_of({sign for sign in SIGNS if (folder / sign).is_file()})
            if form is not None:
                return form, folder
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    return None


def _no_form(path: Path) -> DataError:
    signs = ", ".join(" + ".join(form.signs) for form in FORMS)
    return DataError(f"{path} holds no CIFAR-10 or CIFAR-100; expected one of: {signs}")


def _from_folder(path: Path) -> tuple[Form, Files]:
    found = _find(path)
    if found is None:
        raise _no_form(path)
    form, folder = found
    files = [folder / name for name in (*form.train, *form.test, *form.labels)]
    return form, {file.name: file.read_bytes() for file in files if file.is_file()}


def _from_archive(path: Path) -> tuple[Form, Files]:
    folders: dict[PurePosixPath, dict[str, bytes]] = defaultdict(dict)
    try:
        for member, content in _members(path):
            folders[member.parent][member.name] = content
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: not a tar archive, or damaged ({error})") from None
    for files in folders.values():
        form = _form_of(files)
        if form is not None:
            return form, files
    raise _no_form(path)


def _members(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Path and content of those members that any form knows, in one pass."""
    wanted = {name for form in FORMS for name in (*form.train, *form.test, *form.signs, *form.labels)}
    total = 0
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.name not in wanted or not member.isfile():
                continue
            total += member.size
            if total > MAX_BYTES:
                raise DataError(f"{path}: more than {MAX_BYTES:,} bytes; no CIFAR is so large")
            file = archive.extractfile(member)
            assert file is not None  # None is for folders and devices
            yield name, file.read()


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
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{name}: 'labels' (or 'fine_labels') must be a list of whole numbers")
    if len(labels) != len(images):
        raise DataError(f"{name}: {len(images):,} images but {len(labels):,} labels")
    return images.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def _sprites(names: tuple[str, ...], files: Files) -> Pair:
    part = "test" if names[0].startswith("test") else "train"
    images = np.concatenate([_sprite(files[name], name) for name in names])
    spellings = [name for name in SPRITE_LABELS if name.startswith(part)]
    listed = next((name for name in spellings if name in files), None)
    if listed is None:
        raise DataError(f"no labels for the {part} images: expected {' or '.join(spellings)}")
    try:
        labels = np.array(json.loads(files[listed]), dtype=np.int64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{listed}: not a JSON list of whole numbers ({error})") from None
    return images, labels


def _sprite(content: bytes, name: str) -> NDArray[np.uint8]:
    """One PNG (3, N, 1024) as N images."""
    picture = decode(content, name)
    if picture.shape[0] != 3 or picture.shape[2] != 1024:
        raise DataError(f"{name}: (C, H, W) is {picture.shape}; expected (3, images, 1024)")
    return picture.transpose(1, 0, 2).reshape(-1, 3, 32, 32)


SPRITE_LABELS = tuple(f"{p}_{word}.json" for p in ("train", "test") for word in ("lables", "labels"))


def _batches(suffix: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """CIFAR-10's files: five of training images, one of test images."""
    return tuple(f"data_batch_{n}{suffix}" for n in range(1, 6)), (f"test_batch{suffix}",)


FORMS = (
    Form("CIFAR-10 (binary)", "cifar10", CIFAR10, ("data_batch_1.bin",), *_batches(".bin"), _binary10),
    Form("CIFAR-10 (python version)", "cifar10", CIFAR10, ("data_batch_1",), *_batches(""), _python),
    Form("CIFAR-100 (binary)", "cifar100", CIFAR100, ("train.bin",), ("train.bin",), ("test.bin",), _binary100),
    Form("CIFAR-100 (python version)", "cifar100", CIFAR100, ("train", "test", "meta"), ("train",), ("test",), _python),
    Form("CIFAR-10 (PNG sprites)", "cifar10", CIFAR10, ("data_batch_1.png",), *_batches(".png"), _sprites, SPRITE_LABELS),
)
SIGNS = frozenset(sign for form in FORMS for sign in form.signs)
