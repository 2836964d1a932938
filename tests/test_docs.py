"""The pages are true: their code runs, their commands parse, their numbers are the code's."""

import ast
import contextlib
import io
import itertools
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

import hubel
from hubel.api import list_models
from hubel.cli import app
from hubel.cli.words import plan_words
from hubel.data.augment import Augment
from hubel.data.findings import Finding
from hubel.data.sets import SETS
from hubel.errors import OptionError
from hubel.models.table import MODELS
from hubel.runs.report.outlines import OUTLINES
from hubel.training.plan import Masks, Optimiser, Plan, Schedule, make_plan
from hubel.training.recipes import recipe

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
ERRORS = ROOT / "docs" / "errors.md"
COMMAND = typer.main.get_command(app)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHOWN = re.compile(r"^ *print\(.*\) +# (.+)$", re.MULTILINE)
MARK = re.compile(r"<!-- (not run|file): (.+?) -->\n\Z")


def name(page):
    return page.name


def prose(page):
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def table(page, *columns):
    """Rows of the table whose head starts with these columns: lists of cells, marks taken off."""
    head = "| " + " | ".join(columns)
    lines = page.read_text().split(head, 1)[1].splitlines()[2:]
    rows = lines[: lines.index("")]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows]


def number(text):
    return float(text.replace(",", ""))


# Python -------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder with what the pages take for granted: photos/ and new.jpg."""
    draw = np.random.default_rng(0)
    for label, base in (("cat", 60), ("dog", 160)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(24):
            pixels = draw.integers(base - 50, base + 50, (24, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    Image.fromarray(pixels).resize((64, 48)).save(tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run_blocks(page, folder):
    """Run a page's Python blocks in order, in one namespace; what they say they print must come."""
    text, space = page.read_text(), {"__name__": "__main__"}
    for block in FENCE.finditer(text):
        kind, source = block.groups()
        if kind != "python":
            continue
        mark = MARK.search(text[: block.start()])
        if mark and mark[1] == "not run":
            continue
        if mark:
            (folder / mark[2]).write_text(source)
        lines = "\n" * text[: block.start()].count("\n")  # so that tracebacks show the page's line
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(lines + "\n" + source, str(page), "exec"), space)
        answer = ", ".join(printed.getvalue().splitlines())
        for promised in SHOWN.findall(source):
            assert promised.partition("...")[0] in answer, (
                f"{page.name}: {promised!r} in {answer!r}"
            )
    return space


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "runs.md"], ids=name)
def test_every_python_block_runs(page, desk):
    run_blocks(page, desk)


def test_the_weights_in_plain_pytorch_answer_as_hubel_does(desk):
    space = run_blocks(ROOT / "docs" / "runs.md", desk)
    (answer,) = hubel.load_run("runs/for-torch").predict(["new.jpg"])
    likeliest = float(space["probabilities"].max())
    assert answer.confidence == pytest.approx(likeliest, abs=1e-6)
    assert answer.label == space["card"]["classes"][int(space["probabilities"].argmax())]
    text = (ROOT / "docs" / "runs.md").read_text()
    for entry in (desk / "runs" / "for-torch").iterdir():
        assert f"`{entry.name}{'/' if entry.is_dir() else ''}`" in text


def test_a_block_that_is_wrong_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)  # 3\n```\n")
    with pytest.raises(AssertionError, match="'3' in '2'"):
        run_blocks(page, tmp_path)
    page.write_text("\n\n```python\nno_such_name\n```\n")
    with pytest.raises(NameError) as caught:
        run_blocks(page, tmp_path)
    assert caught.traceback[-1].lineno == 3  # counted from 0


# Links, commands, words ---------------------------------------------------------------------------


def anchors(page):
    """The names under which GitHub links to a page's headings."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_resolves(page):
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def command_lines(page):
    """(line, whole): commands in fenced blocks are whole, those in running text may be cut."""
    for kind, block in FENCE.findall(page.read_text()):
        if kind in ("", "sh", "text"):
            for line in block.splitlines():
                found = re.match(r"(?:torchrun .* -m )?(hubel .*)", line)
                if found:
                    yield found[1].partition(" #")[0], True
    for line in re.findall(r"`(hubel [^`]+)`", prose(page)):
        yield line, False


def parse(line, *, whole=True):
    """Take a command line apart as the command would; the words of a plan must be good ones."""
    command, words = COMMAND, shlex.split(line)[1:]
    while words and words[0] in getattr(command, "commands", ()):
        command, words = command.commands[words[0]], words[1:]
    if not words or words[0] in ("--help", "--version"):
        return
    if hasattr(command, "commands"):  # the word after it is no command: let it complain
        command.resolve_command(typer.Context(command), words)
    try:
        values = command.make_context("hubel", list(words)).params
    except typer.TyperException as error:
        if whole or "Missing argument" not in str(error):
            raise
        return
    if command.name in ("train", "tune-lr"):
        make_plan(source="", model="compact", **plan_words(values))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_line_is_one(page):
    for line, whole in command_lines(page):
        parse(line, whole=whole)


def test_a_command_line_that_is_wrong_fails():
    with pytest.raises(typer.TyperException, match="No such option"):
        parse("hubel train photos/ --epoch 3")
    with pytest.raises(typer.TyperException, match="No such command"):
        parse("hubel trian photos/")
    with pytest.raises(OptionError, match="schedule.name"):
        parse("hubel train --schedule cosinus")
    assert sum(1 for page in PAGES for _ in command_lines(page)) > 20


def test_every_flag_in_the_text_exists():
    flags = {flag for command in walk(COMMAND) for p in command.params for flag in p.opts}
    for page in DOCS:
        said = re.findall(r"`(--[a-z][a-z0-9-]*)", prose(page))
        assert set(said) <= flags | {"--help"}, page.name


def walk(command):
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from walk(below)


def test_every_word_of_a_plan_is_explained():
    text = "".join(page.read_text() for page in DOCS)
    for record in (Plan, Optimiser, Schedule, Masks):
        for field in record.model_fields:
            assert f"`{field}`" in text or f"`--{field.replace('_', '-')}`" in text, field
    for word in Augment.model_fields:
        assert re.search(rf"\| `{word}[`=]", text), word
    for option in COMMAND.commands["train"].params:
        flag = next((name for name in option.opts if name.startswith("--")), None)
        assert flag is None or f"`{flag}`" in text, flag


def test_every_public_name_is_explained():
    text = (ROOT / "docs" / "python.md").read_text()
    for public in hubel.__all__:
        assert f"`{public}`" in text, public


# Numbers and names --------------------------------------------------------------------------------


def test_the_table_of_models_is_true():
    rows = {row[0]: row for row in table(ROOT / "docs" / "models.md", "name", "what it is for")}
    assert rows.keys() == MODELS.keys()
    for model in list_models():
        _, _, parameters, macs, shape, smallest = rows[model["name"]]
        assert number(parameters) == model["parameters"]
        assert number(macs) == model["macs"]
        assert shape == model["input"]
        assert smallest == "{}x{}".format(*MODELS[model["name"]].smallest)


def test_the_table_of_recipes_is_true():
    source = hubel.load_data("sample")
    for row in table(ROOT / "docs" / "training.md", "model", "images per step"):
        model, batch, optimiser, rate, decay, smoothing, seen = row
        words = recipe(model, source, number(seen) / 10, 28)
        assert words["epochs"] == 10
        assert words["batch"] == number(batch)
        assert words["optimiser"]["name"] == optimiser
        assert words["optimiser"]["lr"] == number(rate)
        assert words["optimiser"].get("weight_decay", 0) == number(decay)
        assert words["smoothing"] == number(smoothing)


def test_names_and_findings_and_sections_are_all_there():
    data = ROOT / "docs" / "data.md"
    assert {row[0] for row in table(data, "name", "what")} == SETS.keys()
    codes = re.search(r"code: which check found it: (.+?)\.", Finding.__doc__, re.DOTALL)[1]
    told = {code for row in table(data, "finding", "level") for code in row[0].split(", ")}
    assert told == set(re.split(r"[,;]\s+(?:of masks also )?", codes))
    page = (ROOT / "docs" / "runs.md").read_text()
    for outline in itertools.chain.from_iterable(OUTLINES.values()):
        assert f"**{outline.title}" in page, outline.title


def test_the_pictures_are_drawn(tmp_path):
    script = runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))
    for picture, draw in script["PICTURES"].items():
        assert (ROOT / "docs" / "images" / picture).exists()
        if picture == "lr-range.png":  # half a minute on a busy machine
            continue
        try:
            draw(tmp_path / picture)
        except script["AbsentError"]:
            assert picture == "heatmap.png"  # the only one made from data that may be absent
            continue
        with Image.open(tmp_path / picture) as image:
            assert image.width >= 700


# Error messages -----------------------------------------------------------------------------------


def source_strings():
    """Every string in the source as the literal pieces between its placeholders."""
    for path in sorted((ROOT / "src" / "hubel").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                pieces = [""]
                for part in node.values:
                    if isinstance(part, ast.Constant):
                        pieces[-1] += part.value
                    else:
                        pieces.append("")
                yield pieces
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield [node.value]


def says(pieces, message):
    """Whether a string with these literal pieces can read like `message`, which may be cut short.

    Ten letters in common are asked for; twenty where the cut lies inside a placeholder, for then
    nothing proves that what follows the last common letter fits.
    """
    if not message.startswith(pieces[0][: len(message)]):
        return False
    place = common = 0
    for piece in pieces:
        found = message.find(piece, place)
        if found < 0:
            tail = message[place:]
            cut = next((n for n in range(len(piece), 0, -1) if tail.endswith(piece[:n])), 0)
            return common + cut >= (10 if cut else 20)
        place, common = found + len(piece), common + len(piece)
    return common >= 10 and (place == len(message) or not pieces[-1])


def test_every_quoted_message_is_in_the_source():
    strings = [pieces for pieces in source_strings() if sum(map(len, pieces)) >= 10]
    messages = re.findall(r"^- `([^`]+)` -$|^- `([^`]+)` - ", ERRORS.read_text(), re.MULTILINE)
    messages = [first or second for first, second in messages]
    assert len(messages) == ERRORS.read_text().count("\n- `")
    messages.remove(said_by_pydantic())
    unheard = [m for m in messages if not any(says(pieces, m) for pieces in strings)]
    assert unheard == []


def said_by_pydantic():
    with pytest.raises(OptionError) as caught:
        make_plan(source="", model="", optimiser={"name": "sdg"})
    return str(caught.value)


@pytest.mark.parametrize(
    ("message", "true"),
    [
        ("device 'cuda' is not here: allowed on this machine: auto, cpu", True),
        ("device 'cuda' is not here: allowed", True),
        ("device 'cuda' is not there: allowed on this machine: auto, cpu", False),
        ("cuda is not here", False),
    ],
)
def test_a_message_that_nobody_says_is_found_out(message, true):
    pieces = ["device ", " is not here: allowed on this machine: ", ""]
    assert says(pieces, message) == true
