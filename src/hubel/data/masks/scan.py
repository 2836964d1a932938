"""From a look at some masks, and a class list where there is one, to their `Codec`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubel.data.masks.classes import ClassList, Entry
from hubel.data.masks.codec import NO_CLASS, VALUES, By, Codec, Raw
from hubel.data.masks.palette import Colour, packed, unpacked, voc_palette
from hubel.data.masks.record import IGNORE, MOST_CLASSES
from hubel.data.survey import in_threads
from hubel.errors import BrokenImage, DataError

MOST_MASKS = 200
LEAST_MASKS = 20
MOST_PIXELS = 100_000_000  # looked at: about a second on two cores
MOST_KEPT = 4_096  # colours of one kind that are remembered; more is a photo anyway
HINT = "give a class list with their colours (classes.txt: name r g b)"


@dataclass
class Seen:
    """What occurs in the masks looked at.

    Attributes:
        values: of files that hold values.
        meant: (value, colour 0xRRGGBB) of those, by each file's palette.
        colours: 0xRRGGBB of files that hold colours.
        palette: the first palette of a file's own, uint32 (256,).
        looked, masks: how many were looked at, and how many there are.
    """

    values: set[int] = field(default_factory=set)
    meant: set[tuple[int, int]] = field(default_factory=set)
    colours: set[int] = field(default_factory=set)
    palette: NDArray[np.uint32] | None = None
    looked: int = 0
    masks: int = 0

    def add(self, raw: Raw, used: NDArray[np.integer[Any]]) -> None:
        """One more mask, whose different pixels are `used`."""
        self.looked += 1
        few = set(used[:MOST_KEPT].tolist())
        if raw.coloured:
            self.colours |= few if len(self.colours) <= MOST_KEPT else set()
            return
        self.values |= few
        self.meant |= {(v, int(raw.palette[v])) for v in few if 0 <= v < VALUES}
        if raw.own and self.palette is None:
            self.palette = raw.palette

    def grey(self) -> set[int] | None:
        """The values of coloured files whose channels are all equal; None if one is not."""
        values = {colour & 255 for colour in self.colours}
        return (
            values
            if all(v * 0x010101 in self.colours for v in values)
            and len(values) == len(self.colours)
            else None
        )


def scan(read: Callable[[int], Raw], masks: int) -> Seen:
    """Look at up to 200 of the masks, evenly spaced; at fewer where they are large.

    Args:
        read: the mask at a position; may raise BrokenImage, which is passed over.
        masks: how many there are.

    Raises:
        BrokenImage: none of them can be read.
    """
    order = np.linspace(0, masks - 1, min(masks, MOST_MASKS)).astype(int)
    first = _try(read, 0)
    if isinstance(first, Raw):
        most = max(LEAST_MASKS, min(MOST_MASKS, MOST_PIXELS // max(1, first.pixels.size)))
        order = np.linspace(0, masks - 1, min(masks, most)).astype(int)
    seen = Seen(masks=masks)
    error: BrokenImage | None = None

    def look(place: int) -> tuple[Raw, NDArray[np.integer[Any]]] | BrokenImage:
        raw = _try(read, int(order[place]))
        return raw if isinstance(raw, BrokenImage) else (_head(raw), raw.used())

    for _, found in in_threads(look, len(order)):
        if isinstance(found, BrokenImage):
            error = error or found
        else:
            seen.add(*found)
    if error is not None and not seen.looked:
        raise error
    return seen


def choose(seen: Seen, classes: ClassList | None, ignore: int | None, where: str) -> Codec:
    """What the masks' pixels mean.

    Without a list: only 0 and 255 are two classes; else 255 is ignored and the classes are 0 to
    the greatest value; coloured masks have a class for each colour.

    A list's classes are found by value; coloured masks by the list's colours. Masks of values go
    by colour too where their palette has the list's colours at other places, or where the values
    are no indices of the list but greys of it. Two classes without index 255 also take masks of 0
    and 255.

    Args:
        seen: what occurs in them.
        classes: the list, if there is one.
        ignore: one more value that is ignored.
        where: the data, for messages.

    Raises:
        DataError: too many colours or values, coloured masks and a list without colours; fewer
            than two classes.
    """
    if ignore is not None and not 0 <= ignore <= IGNORE:
        raise DataError(f"ignore is a value of mask pixels, 0..255; given {ignore}")
    listed = (classes or _guess(seen, ignore, where)).ignoring(ignore)
    table = _table(listed, seen, ignore)
    named = _named(listed) if listed.coloured else {}
    flat, rgb = _by(seen, table, named, listed, where)
    keys = np.array(sorted(named), np.uint32)
    return Codec(
        classes=tuple(entry.name for entry in listed.kept),
        colours=_colours(listed, seen),
        table=table,
        keys=keys,
        codes=np.array([named[key] for key in keys.tolist()], np.int16),
        flat=flat,
        rgb=rgb,
        origin=listed.origin,
    )


def _try(read: Callable[[int], Raw], row: int) -> Raw | BrokenImage:
    try:
        return read(row)
    except BrokenImage as error:
        return error


def _head(raw: Raw) -> Raw:
    """Without its pixels, which need not wait in memory."""
    return Raw(raw.pixels[:0], raw.coloured, raw.palette, raw.own)


def _guess(seen: Seen, ignore: int | None, where: str) -> ClassList:
    """A list of what occurs."""
    origin = f"{where} has no class list, and these occur in "
    looked = f"{seen.looked:,} of its {seen.masks:,} masks"
    origin += "its masks" if seen.looked == seen.masks else looked
    grey = seen.grey()
    if grey is None:
        return ClassList(tuple(_of_colours(seen, ignore, where)), origin)
    values = (seen.values | grey) - {ignore}
    if values <= {0, IGNORE} and IGNORE in values:
        return ClassList(tuple(Entry(str(value), value) for value in sorted(values)), origin)
    top = max(values - {IGNORE}, default=-1)
    if top >= MOST_CLASSES:
        raise DataError(
            f"{where}: mask values run up to {top}; allowed: classes 0..254, and 255 for pixels "
            "that are ignored (are these instance numbers?)"
        )
    entries = [Entry(str(value), value) for value in range(top + 1) if value != ignore]
    return ClassList(tuple(entries), origin)


def _of_colours(seen: Seen, ignore: int | None, where: str) -> list[Entry]:
    if ignore is not None:
        raise DataError(
            f"{where}: ignore={ignore} is a value, but its masks are coloured; "
            f"{HINT} and the word ignore behind one"
        )
    if seen.values:
        raise DataError(f"{where}: some masks are coloured, others hold values; {HINT}")
    if len(seen.colours) > MOST_CLASSES:
        least = "at least " if len(seen.colours) > MOST_KEPT else ""
        raise DataError(
            f"{where}: the masks have {least}{len(seen.colours):,} colours; allowed: at most "
            f"{MOST_CLASSES} (are these photos, or were the masks saved with smooth edges?); "
            f"else {HINT}"
        )
    colours = sorted(seen.colours)
    return [Entry(f"#{colour:06x}", n, unpacked(colour)) for n, colour in enumerate(colours)]


def _table(listed: ClassList, seen: Seen, ignore: int | None) -> NDArray[np.int16]:
    """int16 (256,): the class of each value."""
    table = np.full(VALUES, NO_CLASS, np.int16)
    table[IGNORE] = IGNORE
    for entry in listed.entries:
        if entry.ignored:
            table[entry.value] = IGNORE
    kept = [entry.value for entry in listed.kept]
    table[kept] = np.arange(len(kept))
    values = (seen.values | (seen.grey() or set())) - {ignore}
    taken = any(entry.value == IGNORE for entry in listed.entries)
    if len(kept) == 2 and not taken and values <= {kept[0], IGNORE} and IGNORE in values:
        table[kept[1]] = NO_CLASS
        table[IGNORE] = 1
    return table


def _named(listed: ClassList) -> dict[int, int]:
    """Colour 0xRRGGBB -> class."""
    named: dict[int, int] = {}
    names: dict[int, str] = {}
    kept = [entry.name for entry in listed.kept]
    for entry in listed.entries:
        if entry.colour is not None:
            key = packed(entry.colour)
            if key in named:
                raise DataError(
                    f"{listed.origin}: {names[key]!r} and {entry.name!r} both have the colour "
                    f"#{key:06x}"
                )
            names[key] = entry.name
            named[key] = IGNORE if entry.ignored else kept.index(entry.name)
    return named


def _by(
    seen: Seen, table: NDArray[np.int16], named: dict[int, int], listed: ClassList, where: str
) -> tuple[By, By]:
    """How masks of values, and how coloured masks are read."""
    flat: By = "value"
    if named and seen.meant and all(colour in named for _, colour in seen.meant):
        agree = all(table[value] == named[colour] for value, colour in seen.meant)
        flat = "value" if agree or _greys_are_values(seen, table) else "colour"
    grey = seen.grey()
    if not seen.colours or (named and all(colour in named for colour in seen.colours)):
        return flat, "colour" if named else "value"
    if grey is not None:
        fits = all(table[value] != NO_CLASS for value in grey)
        return flat, "value" if fits or not named else "colour"
    if not named:
        raise DataError(
            f"{where}: the masks are coloured, but {listed.origin} has no colour for "
            f"{_uncoloured(listed)}; {HINT}"
        )
    return flat, "colour"


def _greys_are_values(seen: Seen, table: NDArray[np.int16]) -> bool:
    """Grey files whose values are all indices of the list are meant as such."""
    return seen.palette is None and all(
        value < VALUES and table[value] != NO_CLASS for value in seen.values
    )


def _uncoloured(listed: ClassList) -> str:
    names = [entry.name for entry in listed.kept if entry.colour is None]
    return f"{names[0]!r}" + (f" and {len(names) - 1} more classes" if len(names) > 1 else "")


def _colours(listed: ClassList, seen: Seen) -> tuple[Colour, ...]:
    """The list's colours, else those of the masks' palette, else VOC's."""
    usual = voc_palette()
    own = seen.palette
    if own is not None and all(c == v * 0x010101 for v, c in seen.meant if v != IGNORE):
        own = None  # a palette of greys says nothing
    colours = []
    for place, entry in enumerate(listed.kept):
        written = usual[place] if own is None else unpacked(int(own[entry.value]))
        colours.append(entry.colour or written)
    return tuple(colours)
