"""What masks mean: guessed from what occurs in them, or by a list."""

import numpy as np
import pytest

from hubel.data.masks.classes import VOC, ClassList, Entry
from hubel.data.masks.codec import GREY, Raw
from hubel.data.masks.palette import pack, voc_palette
from hubel.data.masks.scan import LEAST_MASKS, MOST_MASKS, Seen, choose, scan
from hubel.errors import BrokenImage, DataError


def values(*numbers, palette=None):
    pixels = np.array([numbers], np.int32 if max(numbers) > 255 else np.uint8)
    if palette is None:
        return Raw(pixels, False, GREY)
    return Raw(pixels, False, pack(np.array(palette, np.uint8)), own=True)


def colours(*triples):
    return Raw(pack(np.array([triples], np.uint8)), True, GREY)


def chosen(*raws, classes=None, ignore=None):
    seen = Seen(masks=len(raws))
    for raw in raws:
        seen.add(raw, raw.used())
    return choose(seen, classes, ignore, "data")


def names(*words, coloured=None):
    entries = [Entry(w, v, coloured[v] if coloured else None) for v, w in enumerate(words)]
    return ClassList(tuple(entries), "list")


def test_black_and_white_are_two_classes():
    codec = chosen(values(0, 255), values(0, 0))
    assert codec.classes == ("0", "255")
    assert codec.table[[0, 255, 1]].tolist() == [0, 1, -1]
    assert codec.colours == voc_palette(2)


def test_else_255_is_ignored_and_all_up_to_the_greatest_are_classes():
    codec = chosen(values(0, 4, 255), values(1))
    assert codec.classes == ("0", "1", "2", "3", "4")
    assert codec.table[[0, 4, 255, 5]].tolist() == [0, 4, 255, -1]


@pytest.mark.parametrize(
    ("ignore", "classes", "table"),
    [
        (4, ("0", "1", "2", "3"), [0, 3, 255, 255]),
        (0, ("1", "2", "3", "4"), [255, 2, 3, 255]),
        (9, ("0", "1", "2", "3", "4"), [0, 3, 4, 255]),
    ],
)
def test_one_more_value_is_ignored(ignore, classes, table):
    codec = chosen(values(0, 1, 3, 4, 255), ignore=ignore)
    assert codec.classes == classes
    assert codec.table[[0, 3, 4, 255]].tolist() == table


def test_colours_without_a_list_are_the_classes():
    codec = chosen(colours((255, 0, 0), (0, 0, 0)), colours((0, 0, 255)))
    assert codec.classes == ("#000000", "#0000ff", "#ff0000")
    assert codec.colours == ((0, 0, 0), (0, 0, 255), (255, 0, 0))
    assert codec.translate(colours((255, 0, 0), (0, 0, 255)), "m").tolist() == [[2, 1]]


def test_grey_saved_as_colour_is_read_by_value():
    codec = chosen(colours((0, 0, 0), (2, 2, 2)))
    assert codec.classes == ("0", "1", "2")
    assert codec.translate(colours((2, 2, 2), (1, 1, 1)), "m").tolist() == [[2, 1]]
    with pytest.raises(BrokenImage, match="colour #020201 at row 0, column 0 is no class"):
        codec.translate(colours((2, 2, 1)), "m")


def test_two_names_take_black_and_white():
    codec = chosen(values(0, 255), classes=names("ground", "cell"))
    assert codec.table[[0, 255, 1]].tolist() == [0, 1, -1]
    assert chosen(values(0, 1, 255), classes=names("ground", "cell")).table[255] == 255
    assert chosen(values(0, 255), classes=names("ground", "cell"), ignore=255).table[255] == 255


def test_a_palette_gives_the_colours():
    codec = chosen(values(0, 1, palette=[(9, 9, 9), (1, 2, 3)] + [(0, 0, 0)] * 254))
    assert codec.colours == ((9, 9, 9), (1, 2, 3))
    ramp = [(v, v, v) for v in range(256)]
    assert chosen(values(0, 1, palette=ramp)).colours == voc_palette(2)


def test_a_lists_colours_come_first():
    palette = [(9, 9, 9)] * 256
    given = ((1, 1, 1), (2, 2, 2))
    codec = chosen(values(0, 1, palette=palette), classes=names("a", "b", coloured=given))
    assert codec.colours == given
    assert codec.flat == "value"


def test_greys_of_the_list_that_are_no_indices():
    given = ((0, 0, 0), (128, 128, 128), (200, 200, 200))
    codec = chosen(values(0, 128, 200), classes=names("a", "b", "c", coloured=given))
    assert codec.translate(values(200, 0, 128), "m").tolist() == [[2, 0, 1]]


def test_an_ignored_colour():
    classes = ClassList(
        (
            *names("a", "b", coloured=((0, 0, 0), (1, 2, 3))).entries,
            Entry("void", 9, (4, 4, 4), ignored=True),
        ),
        "list",
    )
    codec = chosen(colours((4, 4, 4), (1, 2, 3)), classes=classes)
    assert codec.translate(colours((4, 4, 4), (1, 2, 3)), "m").tolist() == [[255, 1]]


def test_voc_by_value_and_by_colour():
    assert chosen(values(0, 15, 255, palette=voc_palette()), classes=VOC).flat == "value"
    codec = chosen(colours((192, 128, 128), (224, 224, 192)), classes=VOC)
    assert codec.translate(colours((192, 128, 128), (224, 224, 192)), "m").tolist() == [[15, 255]]


photo = Raw(np.arange(300, dtype=np.uint32)[None] * 7, True, GREY)


@pytest.mark.parametrize(
    ("raws", "options", "message"),
    [
        ([photo], {}, r"data: the masks have 300 colours; allowed: at most 255 \(are these photos"),
        (
            [photo],
            {"classes": names("a", "b")},
            r"data: the masks are coloured, but list has no "
            r"colour for 'a' and 1 more classes; give a class list with their colours",
        ),
        (
            [colours((1, 2, 3), (0, 0, 0))],
            {"ignore": 1},
            "ignore=1 is a value, but its masks are coloured; give a class list",
        ),
        ([colours((1, 2, 3)), values(0, 1)], {}, "some masks are coloured, others hold values"),
        (
            [values(0, 0)],
            {},
            r"data has no class list, and these occur in its masks: at least two "
            r"classes are needed, given only '0'",
        ),
        ([values(255)], {}, "at least two classes are needed, given only '255'"),
        (
            [values(0, 3000)],
            {},
            r"mask values run up to 3000; allowed: classes 0\.\.254, .* \(are "
            "these instance numbers",
        ),
        ([values(0, 1)], {"ignore": 256}, r"ignore is a value of mask pixels, 0\.\.255; given 256"),
        ([values(0, 1)], {"ignore": -1}, "given -1"),
        (
            [values(0, 1)],
            {"classes": names("a", "b", coloured=((1, 1, 1), (1, 1, 1)))},
            "list: 'a' and 'b' both have the colour #010101",
        ),
    ],
)
def test_what_cannot_be_told(raws, options, message):
    with pytest.raises(DataError, match=message):
        chosen(*raws, **options)


def test_few_of_many_masks_are_looked_at():
    asked = []

    def read(row):
        asked.append(row)
        return values(0, row % 7)

    seen = scan(read, 10_000)
    assert (seen.looked, seen.masks) == (MOST_MASKS, 10_000)
    assert {0, 9_999} <= set(asked)
    assert len(asked) == MOST_MASKS + 1
    assert seen.values == set(range(7))
    codec = choose(seen, None, None, "data")
    with pytest.raises(
        BrokenImage,
        match=r"value 7 .*0\.\.6, ignored: 255 \(data has no class list,"
        r" and these occur in 200 of its 10,000 masks\)",
    ):
        codec.translate(values(7), "m")


def test_fewer_are_looked_at_where_they_are_large():
    large = Raw(np.zeros((3000, 3000), np.uint8), False, GREY)
    assert scan(lambda row: large, 1_000).looked == LEAST_MASKS


def test_broken_ones_are_passed_over_unless_all_are():
    def read(row):
        if row != 3:
            raise BrokenImage(f"{row}.png", "empty")
        return values(0, 1)

    assert scan(read, 5).values == {0, 1}
    with pytest.raises(BrokenImage, match=r"0\.png: empty"):
        scan(read, 3)
