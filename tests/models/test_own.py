"""Models of the user's own: what is handed over, and one line for everything that can go wrong."""

import copy
import sys

import pytest
import torch
from torch import nn

from hubel.errors import ModelError
from hubel.models.names import build
from hubel.models.own import is_own, load_own

SHAPE = {"classes": 3, "channels": 1, "size": (8, 6)}

GOOD = """
import torch
from dataclasses import dataclass
from torch import nn

@dataclass
class Setting:
    hidden: int = 5

class Net(nn.Module):
    def __init__(self, classes, channels=3):
        super().__init__()
        self.body = nn.Conv2d(channels, 4, 3)
        self.fc = nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.body(x).mean(dim=(2, 3)))

def make(size, classes, *, dropout=0.0):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(size[0] * size[1], classes))
    nn.init.constant_(net[2].weight, 7.0)
    return net

def everything(**given):
    net = nn.Identity()
    net.given = given
    return net

ready = nn.Flatten()
number = 3
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name="net.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def fails(path, function, match, **options):
    with pytest.raises(ModelError, match=match) as error:
        load_own(f"{path}:{function}", **SHAPE, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_which_names_point_into_files():
    assert is_own("net.py:make")
    assert is_own("deep/er/net.py")
    assert is_own(r"C:\nets\net.py:make")
    assert not is_own("lenet5")
    assert not is_own("happy")


def test_a_class_gets_what_it_takes(file):
    net = load_own(f"{file(GOOD)}:Net", **SHAPE)
    assert net(torch.zeros(2, 1, 8, 6)).shape == (2, 3)
    assert copy.deepcopy(net) is not net


def test_a_function_gets_what_it_takes_and_its_weights_stay(file):
    net = build(f"{file(GOOD)}:make", **SHAPE, dropout=0.25)
    assert net[1].p == 0.25
    assert (net[2].weight == 7).all()
    assert net[2].weight.shape == (3, 48)


def test_keyword_catch_all_gets_everything(file):
    assert load_own(f"{file(GOOD)}:everything", **SHAPE, depth=3).given == {**SHAPE, "depth": 3}


def test_neighbours_can_be_imported_and_the_path_is_as_before(file, tmp_path):
    file("from torch import nn\ndef f():\n    return nn.Identity()\n", "own_neighbour_blocks.py")
    path = file("from own_neighbour_blocks import f\n")
    before = list(sys.path)
    assert isinstance(load_own(f"{path}:f", **SHAPE), nn.Identity)
    assert sys.path == before
    sys.modules.pop("own_neighbour_blocks")


def test_the_file_is_read_afresh(file):
    path = file("from torch import nn\ndef make():\n    return nn.ReLU()\n")
    assert isinstance(load_own(f"{path}:make", **SHAPE), nn.ReLU)
    file("from torch import nn\ndef make():\n    return nn.Sigmoid()  # other size, other hash\n")
    assert isinstance(load_own(f"{path}:make", **SHAPE), nn.Sigmoid)


def test_missing_file_and_missing_function(file, tmp_path):
    fails(tmp_path / "gone.py", "make", r"no such file: .*gone\.py")
    fails(file(GOOD), "mkae", r"unknown function of .*net\.py 'mkae': did you mean 'make'\?")
    fails(file("x = 1\n"), "make", "defines no function or class, so no 'make'")
    with pytest.raises(ModelError, match=r"say which function makes the model: 'file.py:function'"):
        load_own(str(file(GOOD)), **SHAPE)
    with pytest.raises(ModelError, match=r"'file.py:function', given 'net.py:'"):
        load_own("net.py:", **SHAPE)


def test_what_is_no_function_or_gives_no_module(file):
    path = file(GOOD + "def wrong():\n    return [1, 2]\n")
    fails(path, "wrong", r"must return a torch.nn.Module, it returned list '\[1, 2\]'")
    fails(path, "ready", "ready must be a function or class, it is Flatten")
    fails(path, "number", "number must be a function or class, it is int '3'")


def test_what_it_asks_for_and_what_it_does_not_take(file):
    path = file("def f(classes, depth):\n    pass\ndef g():\n    pass\ndef h(width=1):\n    pass\n")
    fails(path, "f", "asks for 'depth', which has no default: it is given classes, channels, size")
    fails(path, "g", "takes no options, given 'dropout'", dropout=0.1)
    fails(path, "h", r"option of .*:h 'widht': did you mean 'width'\?", widht=2)


RAISES = {
    "on import": ("import os\n\n1 / 0\n", r"line 3: ZeroDivisionError: division by zero"),
    "when called": (
        "def f():\n    g()\ndef g():\n    raise ValueError('a\\nb')\n",
        "4: ValueError: a b",
    ),
    "below": (
        "import torch\ndef f():\n    torch.zeros(2) @ torch.zeros(3)\n",
        "line 3: RuntimeError",
    ),
    "syntax": ("x = 1\ndef f(:\n", "line 2: SyntaxError"),
    "import": ("import not_a_package_at_all\n", "line 1: ModuleNotFoundError: No module named"),
    "exit": ("def f():\n    import sys\n    sys.exit(3)\n", "line 3: SystemExit: 3"),
}


@pytest.mark.parametrize(("text", "match"), RAISES.values(), ids=RAISES)
def test_what_the_users_code_raises_comes_with_its_line(file, text, match):
    fails(file(text), "f", match)


def test_stopping_by_hand_is_not_an_error_of_the_model(file):
    path = file("def f():\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_own(f"{path}:f", **SHAPE)
