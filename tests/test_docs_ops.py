"""The operators' pages are true: tables, excerpts, examples and pictures are the code's own."""

import contextlib
import importlib
import io
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from hubel.engine import ops
from hubel.engine.ops import OPS

HERE = Path(__file__).parents[1] / "docs" / "ops"
SOURCE = Path(ops.__file__).parent
PAGES = sorted(HERE.glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXCERPT = re.compile(r"<!-- from: (\S+)(?: \S+)? -->\n\Z")
PRINTED = re.compile(r"^(?:# |.*print\(.*\)  # )(.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CHEAP = ("dense", "elementwise", "reductions")  # whose errors are measured again here


@pytest.fixture(scope="module")
def make():
    """docs/ops/make_pages.py and the modules beside it."""
    sys.path.insert(0, str(HERE))
    try:
        yield importlib.import_module("make_pages")
    finally:
        sys.path.remove(str(HERE))


def name(page):
    return page.stem


def blocks(page):
    """(file or None, source) of every Python block: an excerpt of a file, or an example."""
    text = page.read_text()
    for block in FENCE.finditer(text):
        mark = EXCERPT.search(text[: block.start()])
        if block[1] == "python":
            yield (mark[1] if mark else None), block[2]


def squashed(code):
    """Code without spaces, line breaks and trailing commas, which a formatter may move."""
    return re.sub(r",(?=[)\]}])", "", re.sub(r"\s+", "", code))


def errors(page, make):
    """Operator -> the error its row claims."""
    return make.claimed(page.read_text())


def test_every_family_has_exactly_one_page(make):
    listed = [family for families in make.PAGES.values() for family in families]
    assert len(listed) == len(set(listed))
    assert {op.family for op in OPS.values()} - make.INTERNAL == set(listed)
    assert {page.stem for page in PAGES} == {*make.PAGES, "README"}


def test_every_operator_is_in_a_table(make):
    found = [n for page in make.PAGES for n in errors(HERE / f"{page}.md", make)]
    public = {n for n, op in OPS.items() if op.family not in make.INTERNAL}
    assert sorted(found) == sorted(public)


def test_the_tables_are_the_registry(make):
    for page in make.PAGES:
        path = HERE / f"{page}.md"
        claimed = errors(path, make)
        assert make.table(page, claimed) in path.read_text(), f"run {make.__file__}"


@pytest.mark.parametrize("page", CHEAP)
def test_the_errors_hold(make, page):
    for operator, claim in errors(HERE / f"{page}.md", make).items():
        assert make.worst_error(OPS[operator]) < float(claim.removeprefix("<")), operator


def test_bounds_are_powers_of_ten(make):
    assert make.bound(0.0) == "< 1e-11"
    assert make.bound(2e-10) == "< 1e-9"
    assert make.bound(4e-10) == "< 1e-8"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_excerpts_stand_in_the_source(page):
    for file, excerpt in blocks(page):
        if file:
            source = (SOURCE / file).read_text()
            assert squashed(excerpt) in squashed(source), (
                f"{file} no longer has (run make_pages.py):\n{excerpt}"
            )


def test_excerpts_are_renewed_by_name(make):
    page = "<!-- from: conv.py Conv.macs -->\n```python\nold\n```\n<!-- made: begin -->\n" * 2
    assert "old" not in make.EXCERPT.sub(lambda m: m[1] + make.excerpt(m[2], m[3]), page)
    assert make.excerpt("conv.py", "Conv.macs").startswith("def macs(cls, shapes: Shapes")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples_print_what_they_say(page):
    space = {"__name__": "__main__"}
    examples = [source for file, source in blocks(page) if file is None]
    assert examples
    for source in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(source, str(page), "exec"), space)
        assert printed.getvalue().splitlines() == PRINTED.findall(source), page.name


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_pictures_exist(page):
    text = FENCE.sub("", page.read_text())
    for link in LINK.findall(text):
        file, _, anchor = link.partition("#")
        target = page.parent / file
        assert target.is_file(), link
        assert not anchor or f"\n## {anchor}\n" in target.read_text().lower(), link


def test_every_picture_is_small_and_shown(make):
    shown = {n for page in PAGES for n in LINK.findall(page.read_text()) if n.endswith(".png")}
    assert shown == {f"images/{n}" for n in make.PICTURES}
    assert {p.name for p in (HERE / "images").iterdir()} == set(make.PICTURES)
    for picture in (HERE / "images").iterdir():
        assert picture.stat().st_size < 60_000, picture


@pytest.mark.parametrize("picture", ["sliding.png", "graph.png", "through-time.png"])
def test_pictures_can_be_drawn(make, picture, tmp_path):
    make.PICTURES[picture](tmp_path / picture)
    with Image.open(tmp_path / picture) as drawn, Image.open(HERE / "images" / picture) as kept:
        assert drawn.size == kept.size
