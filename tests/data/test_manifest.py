"""Manifests: every way people write CSV, and each mistake with its line."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hubel.data.manifest import read_manifest
from hubel.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "sub dir/c,d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 3), 9).save(tmp_path / name)
    return tmp_path


def written(folder, text, name="list.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def test_path_label_split(folder):
    text = 'path,label,split\na.png,dog,train\nb.png,cat,Validation\n"sub dir/c,d.png",dog,\n'
    source = read_manifest(written(folder, text))
    assert source.name == "list"
    assert source.classes == ("cat", "dog")
    assert source.targets.tolist() == [1, 0, 1]
    assert source.parts.tolist() == ["train", "val", ""]
    assert list(source.ids) == ["a.png", "b.png", "sub dir/c,d.png"]
    assert source[2].image.shape == (1, 3, 4)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_line_ends_and_byte_order_mark(folder, delimiter, end, encoding):
    rows = [["Label ", "note", " PATH"], ["é10", "x", "a.png"], [], ["é9", "", "b.png"]]
    text = end.join(delimiter.join(row) for row in rows)
    source = read_manifest(written(folder, text, "list.tsv", encoding))
    assert source.classes == ("é9", "é10")
    assert list(source.ids) == ["a.png", "b.png"]


def test_paths_may_be_absolute(folder):
    text = f"path,label\n{folder / 'a.png'},x\nb.png,y\n"
    (folder / "lists").mkdir()
    with pytest.raises(DataError, match=r"line 3: no such file: b\.png; paths are relative to"):
        read_manifest(written(folder / "lists", text))
    source = read_manifest(written(folder / "lists", text.replace("\nb", "\n../b")))
    assert source[0].image.shape == source[1].image.shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,x\nb.png,\n", "line 3: no label; every row needs a path and a label"),
        ("path,label\na.png,x\nb.png\n", "line 3: no label"),
        ("path,label\n\n\n,x\n", "line 4: no path"),
        ("path,label\na.png,x\nsub dir/c,d.png,y\n", r"line 3: 3 fields, the header names 2 \(a"),
        ("path,label\nx.png,x\na.png,y\nz.png,y", r"line 2: no such file: x\.png \(and 1 more\)"),
        ("path,label\na.png,x\nsub dir,y\n", "line 3: no such file: sub dir"),
        ("path,label,split\na.png,x,trian\n", "line 2: unknown split 'trian': did you mean 'train"),
        ("path,label\na.png,x\nb.png,y\na.png,y\n", r"a\.png stands on lines 2 and 4"),
        ("path,label\na.png,x\nb.png,x\n", "at least two classes are needed, given only 'x'"),
        ("path,label\n", "lists no images"),
        ("", "no column 'path'; expected: path,label or path,label,split; given: nothing"),
        ("a.png,x\nb.png,y\n", r"no column 'path'.* given: a\.png,x"),
        ("path,class\na.png,x\n", "no column 'label'"),
        ('path,label\n"a.png,x\n', "line 2: not CSV"),
        ('path,label\n"a.png"z,x\n', "line 2: not CSV"),
    ],
)
def test_mistakes_have_their_line(folder, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(written(folder, text))
    assert "\n" not in str(caught.value)


def test_other_encodings_and_missing_files(folder):
    path = written(folder, "path,label\na.png,caf\xe9\nb.png,x\n", encoding="latin-1")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_manifest(path)
    with pytest.raises(DataError, match=r"gone\.csv cannot be read \(No such file"):
        read_manifest(folder / "gone.csv")


LETTERS = st.characters(exclude_categories=["Cs", "Cc"])
WORD = st.text(LETTERS, min_size=1, max_size=9).filter(str.strip)


@settings(max_examples=80, deadline=None)
@given(
    labels=st.lists(WORD, min_size=2, max_size=6),
    split=st.sampled_from(["train", "val", "test", ""]),
    delimiter=st.sampled_from(",;\t"),
)
def test_what_the_csv_module_writes_is_read(tmp_path_factory, labels, split, delimiter):
    folder = tmp_path_factory.mktemp("csv")
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["path", "label", "split"])
        for number, label in enumerate(labels):
            (folder / f"{number}.png").touch()
            writer.writerow([f"{number}.png", label, split])
    stripped = [label.strip() for label in labels]
    if len(set(stripped)) < 2:
        with pytest.raises(DataError, match="at least two classes"):
            read_manifest(folder / "list.csv")
        return
    source = read_manifest(folder / "list.csv")
    assert [source.classes[target] for target in source.targets] == stripped
    assert set(source.parts.tolist()) == {split}


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("csv") / "list.csv"
    path.write_bytes(b"path,label,split\n" + data)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)
