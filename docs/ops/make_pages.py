"""Writes what is made of these pages: `python docs/ops/make_pages.py [pictures] [text] [errors]`.

`text` (the default, seconds) brings excerpts and tables up to date with `hubel.engine.ops`, and
measures the errors of new operators; `errors` measures all of them again (two minutes, most of them
for the recurrent layers); `pictures` draws. Examples and prose are written by hand.
"""

from __future__ import annotations

import ast
import math
import re
import sys
import textwrap
from pathlib import Path

import curves
import diagrams
import lattices
import sliding
import torch
from torch import Tensor

from hubel.engine import ops
from hubel.engine.check import check_op
from hubel.engine.ops import OPS, Op

HERE = Path(__file__).parent
SOURCE = Path(ops.__file__).parent
EXCERPT = re.compile(
    r"(<!-- from: (\S+) (\S+) -->\n```python\n).*?(?=^```$)", re.MULTILINE | re.DOTALL
)
BEGIN, END = "<!-- made: begin -->", "<!-- made: end -->"
PAGES = {
    "convolution": ("conv", "conv_transposed"),
    "pooling": ("pool", "power_pool", "unpool"),
    "dense": ("linear",),
    "activations": ("activate",),
    "softmax-and-losses": ("softmax", "loss", "entropy"),
    "normalisation": ("norm", "response", "dropout"),
    "elementwise": ("arithmetic", "choose", "elementary"),
    "shapes": ("view", "copying", "join", "fold", "index", "scatter"),
    "reductions": ("reduce", "extreme"),
    "resampling": ("resize", "grid"),
    "regions": ("region",),
    "filtering": ("lattice",),
    "recurrent": ("recurrent",),
    "attention": ("attention",),
}
INTERNAL = {"memory"}  # written by the tape alone
PICTURES = {**sliding.PICTURES, **curves.PICTURES, **diagrams.PICTURES, **lattices.PICTURES}
HEAD = "| operator | takes -> gives | formula | source | ATen | cases | worst error |"


def operators(page: str) -> list[type[Op]]:
    """A page's operators, in the order of its families."""
    return [op for name in PAGES[page] for op in OPS.values() if op.family == name]


def worst_error(op: type[Op]) -> float:
    """Largest deviation from finite differences over the good cases, relative, in float64."""
    torch.manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64)

    reports = [check_op(op, c.make(rand), c.options) for c in op.cases() if c.error is None]
    return max((r.worst.error for r in reports if r.verdicts), default=0.0)


def bound(error: float) -> str:
    """A power of ten that holds on other machines too, where sums round otherwise."""
    power = math.ceil(math.log10(max(3 * error, 1e-11)) - 1e-9)
    return f"< 1e{power}"


def row(op: type[Op], error: str) -> str:
    """One line of a table."""
    takes = (op.__doc__ or "").split("\n")[0].removeprefix(f"{op.formula}. ")
    spellings = ", ".join(f"`{s.removesuffix('.default')}`" for s in op.spellings) or "-"
    cells = (
        f"`{op.name}`", escaped(takes), f"`{op.formula}`", escaped(op.source) or "-", spellings,
        str(sum(1 for _ in op.cases())), error,
    )  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def escaped(text: str) -> str:
    """Plain text in Markdown."""
    return text.replace("*", "\\*")


def table(page: str, errors: dict[str, str]) -> str:
    """A page's made section."""
    lines = [HEAD, "| --- | --- | --- | --- | --- | ---: | --- |"]
    lines += [row(op, errors[op.name]) for op in operators(page)]
    return f"{BEGIN}\n" + "\n".join(lines) + f"\n{END}"


def claimed(text: str) -> dict[str, str]:
    """Operator -> worst error, as a page's table has them."""
    lines = text.split(BEGIN)[1].split(END, maxsplit=1)[0].strip().splitlines()[2:]
    rows = [line.strip("| ").split(" | ") for line in lines]
    return {cells[0].strip("`"): cells[-1] for cells in rows}


def excerpt(file: str, name: str) -> str:
    """A function or method of an operator's file, as it stands there."""
    source = (SOURCE / file).read_text()
    body: list[ast.stmt] = ast.parse(source).body
    for part in name.split("."):
        node = next(n for n in body if getattr(n, "name", None) == part)
        body = node.body
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    return textwrap.dedent("\n".join(lines)) + "\n"


def renewed(page: str, text: str, *, measure: bool = False) -> str:
    """The page with its excerpts and its table made again; errors that it has are kept."""
    known = {} if measure else claimed(text)
    errors = {op.name: known.get(op.name) or bound(worst_error(op)) for op in operators(page)}
    before, after = text.split(BEGIN, maxsplit=1)[0], text.split(END)[1]
    before = EXCERPT.sub(lambda found: found[1] + excerpt(found[2], found[3]), before)
    return before + table(page, errors) + after


def main(what: tuple[str, ...]) -> None:
    """Pictures, text, errors."""
    if "pictures" in what:
        for name, draw in PICTURES.items():
            draw(HERE / "images" / name)
    for page in PAGES if {"text", "errors"} & {*what} else ():
        path = HERE / f"{page}.md"
        path.write_text(renewed(page, path.read_text(), measure="errors" in what))
        print(path)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or ("text",))
