"""Class lists in each form that people keep them in, and each mistake by its name."""

import json

import pytest

from hubel.data.masks.classes import VOC, ClassList, Entry, find_classes, is_ignored, read_classes
from hubel.errors import DataError


def read(tmp_path, text, name="classes.txt"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_classes(tmp_path / name)


def told(classes):
    return [(e.name, e.value, e.colour) for e in classes.kept]


RED_AND_BLUE = [("road", 0, (255, 0, 0)), ("traffic light", 1, (0, 0, 255))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "road 255 0 0\ntraffic light 0 0 255\n"),
        ("classes.txt", "\ufeff# mine\nroad, 255, 0, 0  # grey\n\ntraffic light,0,0,255\n"),
        ("classes.txt", "road\t255\t0\t0\ntraffic light\t0\t0\t255"),
        ("label_colors.txt", "255 0 0\troad\n0 0 255\t\ttraffic light\n"),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nroad:255,0,0::\ntraffic light:0,0,255::",
        ),
        ("classes.csv", "name,r,g,b\nroad,255,0,0\ntraffic light,0,0,255\n"),
        ("classes.csv", "b;g;red;index;Name\n255;0;0;1;traffic light\n0;0;255;0;road\n"),
        (
            "classes.json",
            json.dumps(
                {
                    "categories": [
                        {"id": 0, "name": "road", "color": [255, 0, 0]},
                        {"id": 1, "name": "traffic light", "color": [0, 0, 255]},
                    ]
                }
            ),
        ),
    ],
)
def test_names_and_colours(tmp_path, name, text):
    classes = read(tmp_path, text, name)
    assert sorted(told(classes), key=lambda one: one[1]) == RED_AND_BLUE
    assert classes.coloured
    assert classes.origin == str(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "road\ntraffic light\n"),
        ("classes.csv", "class\nroad\ntraffic light\n"),
        ("_classes.csv", "Pixel Value, Class\n0, road\n1, traffic light\n"),
        ("labelmap.txt", "road:::\ntraffic light:::"),
        ("names.json", '["road", "traffic light"]'),
    ],
)
def test_names_alone(tmp_path, name, text):
    classes = read(tmp_path, text, name)
    assert told(classes) == [("road", 0, None), ("traffic light", 1, None)]
    assert not classes.coloured


@pytest.mark.parametrize(
    "name", ["ignore", "Void", "unlabeled", "Unlabelled", "border ignore", "_ignore_", "ignored"]
)
def test_what_is_not_judged_is_no_class(tmp_path, name):
    assert is_ignored(name)
    classes = read(tmp_path, f"sky\n{name} 9 8 7\nroad\n")
    assert told(classes) == [("sky", 0, None), ("road", 2, None)]
    (ignored,) = [entry for entry in classes.entries if entry.ignored]
    assert (ignored.value, ignored.colour) == (1, (9, 8, 7))


@pytest.mark.parametrize("name", ["avoid", "background", "ignore me", "devoid", ""])
def test_what_only_sounds_so(name):
    assert not is_ignored(name)


@pytest.mark.parametrize("line", ["border 224 224 192 ignore", "border,224,224,192,ignore"])
def test_the_word_ignore_behind_a_line(tmp_path, line):
    classes = read(tmp_path, f"a\nb\n{line}\n")
    assert [e.name for e in classes.kept] == ["a", "b"]
    assert classes.entries[2] == Entry("border ignore", 2, (224, 224, 192), ignored=True)


def test_labelme_counts_ignore_as_minus_one(tmp_path):
    classes = read(tmp_path, "__ignore__\n_background_\ncell\n")
    assert told(classes) == [("_background_", 0, None), ("cell", 1, None)]
    assert classes.entries[0].value == 255


def test_one_more_value_may_be_ignored(tmp_path):
    classes = read(tmp_path, "a\nb\nc\n")
    assert [e.name for e in classes.ignoring(1).kept] == ["a", "c"]
    assert [(e.value, e.ignored) for e in classes.ignoring(9).entries][-1] == (9, True)
    assert classes.ignoring(None) is classes
    with pytest.raises(DataError, match="at least two classes are needed, given only 'a'"):
        read(tmp_path, "a\nb").ignoring(1)


def test_found_beside_the_data(tmp_path):
    assert find_classes(tmp_path) is None
    (tmp_path / "codes.txt").write_text("x\ny")
    assert [e.name for e in find_classes(tmp_path).kept] == ["x", "y"]
    (tmp_path / "labelmap.txt").write_text("p:1,2,3::\nq:4,5,6::")
    assert [e.name for e in find_classes(tmp_path).kept] == ["p", "q"]


def test_voc():
    assert len(VOC.kept) == 21
    assert VOC.kept[15] == Entry("person", 15, (192, 128, 128))
    assert VOC.entries[-1] == Entry("void", 255, (224, 224, 192), ignored=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "classes.txt: at least two classes are needed, given none"),
        ("road\n", "at least two classes are needed, given only 'road'"),
        ("road\nvoid", "at least two classes are needed, given only 'road'"),
        ("road\nroad\n", "the class name 'road' stands twice"),
        ("a\nroad,1,2\n", r"line 2: expected name, name r g b, .*, given 'road,1,2'"),
        ("a\nroad 1 2 256", "line 2: a colour is three numbers 0..255, given 1 2 256"),
        ("a\nroad:1,2,999::", "line 2: a colour is three numbers 0..255, given 1 2 999"),
        ("\n".join(f"c{n}" for n in range(256)), "256 classes; allowed: at most 255"),
        ("\n".join(f"c{n}" for n in range(300)), "300 classes; allowed: at most 255"),
    ],
)
def test_wrong_lines(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "classes.csv is empty; expected a header with the column name"),
        ("r,g,b\n1,2,3", r"no column 'name'; expected: name, and of index, .*; given: r,g,b"),
        ("name,r,g,b\na,1,2,3\n,4,5,6", "row 2: no name; every row needs one"),
        ("name,r,g,b\na,1,2,", "row 1: a colour is three numbers 0..255, given 1 2 "),
        ("name,index\na,x\nb,1", "row 1: index 'x' is not a whole number from 0"),
        ("name,index\na,1\nb,1", "'a' and 'b' both have index 1"),
        ("name,index\na,1\nb,256", "class 'b' has index 256; allowed: 0..255"),
    ],
)
def test_wrong_rows(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text, "classes.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("{}", 'expected COCO\'s "categories" or a list of names'),
        ("[1, 2]", "category 0: expected a name or a record with id and name, given 1"),
        ('[{"id": "x", "name": "a"}]', "category 0: id 'x' is not a whole number"),
        ('[{"name": "a", "color": [1, 2]}]', "category 0: a colour is three numbers"),
    ],
)
def test_wrong_records(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text, "classes.json")


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt cannot be read \(No such file"):
        read_classes(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="is not UTF-8 text; expected a class list: name, name r"):
        read_classes(tmp_path / "bytes.txt")


def test_a_list_can_be_given_as_it_is():
    assert ClassList((Entry("a", 3), Entry("b", 7)), "mine").kept[1].value == 7
