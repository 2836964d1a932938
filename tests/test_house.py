"""The house holds: rooms import from their left, files are small, public things are explained."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "hubel"
# Left to right; rooms of one set never import each other. `errors` is everybody's.
ORDER = [
    {"engine", "data"},
    {"models"},
    {"tasks"},
    {"training"},
    {"runs"},
    {"weights"},
    {"probe", "deploy"},
    {"kinds"},
    {"session"},
    {"assemble", "gather"},
    {"loaded"},
    {"api"},
    {"together"},
    {"several"},
    {"examine"},
    {"lab"},
    {"web"},
    {"show"},
    {"cli"},
    {"__main__", "__init__"},
]
PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def files(package=PACKAGE):
    return sorted(package.rglob("*.py"))


def room_of(path, package):
    return path.relative_to(package).parts[0].removesuffix(".py")


def imports(tree):
    """Whole names of the modules that are imported anywhere in a file, types alone excepted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def misplaced(package=PACKAGE):
    """Imports that go against the order: "train/fit.py imports hubel.runs.run"."""
    found = []
    for path in files(package):
        room = room_of(path, package)
        for name in imports(ast.parse(path.read_text())):
            if not name or not name.startswith("hubel."):
                continue
            other = name.split(".")[1]
            allowed = other in ("errors", room) or PLACE[other] < PLACE.get(room, -1)
            if not allowed:
                found.append(f"{path.relative_to(package)} imports {name}")
    return found


def test_rooms_import_only_from_their_left():
    assert misplaced() == []


def test_every_room_has_its_place():
    rooms = {room_of(path, PACKAGE) for path in files()} - {"errors"}
    assert rooms <= PLACE.keys()


@pytest.mark.parametrize(
    "line",
    ["from hubel.runs.run import Run", "import hubel.api", "from hubel.engine.ops import conv"],
)
def test_a_planted_import_is_found(tmp_path, line):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bad.py").write_text(f"def f():\n    {line}\n")
    (tmp_path / "data" / "good.py").write_text("from hubel.data.record import Sample\n")
    assert len(misplaced(tmp_path)) == 1


def test_no_file_is_called_like_one_of_pythons():
    """Run from its folder, such a file would be imported in Python's place."""
    names = {path.stem for path in files()}
    assert not names & set(sys.stdlib_module_names) - {"__main__", "__init__"} - {"__future__"}


def test_what_may_never_be_imported():
    for path in files():
        names = set(imports(ast.parse(path.read_text())))
        assert not any(n and n.split(".")[0] in ("torchvision", "timm", "fastai") for n in names)
        if path.name != "unpickle.py":
            assert not names & {"pickle", "cloudpickle", "dill", "joblib"}, path


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_small_and_explained(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= LONGEST_FILE
    assert ast.get_docstring(tree), "a file says what it is for"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} needs a docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.end_lineno - node.body[0].lineno + 1  # flags of a command are no logic
            assert body <= LONGEST_FUNCTION, f"{node.name} is {body} lines"


ARRAYS = {"Tensor", "NDArray", "torch.Tensor"}


def takes_arrays(node):
    words = {ast.unparse(a.annotation) for a in node.args.args if a.annotation}
    return any(word.split("[")[0] in ARRAYS for word in words)


@pytest.mark.parametrize("room", ["engine", "tasks", "probe", "models"])
def test_public_functions_on_arrays_say_their_shapes(room):
    for path in files(PACKAGE / room):
        for node in ast.parse(path.read_text()).body:
            if (
                isinstance(node, ast.FunctionDef)
                and not node.name.startswith("_")
                and takes_arrays(node)
            ):
                text = ast.get_docstring(node) or ""
                assert "(" in text, f"{path.name}:{node.name} does not say its shapes"


def test_the_project_names_no_machine_of_ours():
    for path in files():
        text = path.read_text()
        assert "/tmp/" not in text
        assert "/root/" not in text
        assert "/home/" not in text
