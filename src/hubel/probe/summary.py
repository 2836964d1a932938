"""A model in one table: what every layer makes, holds, computes, sees and how long it takes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from torch import Tensor, nn

from hubel.probe.costs import Costs, LayerCost, costs
from hubel.probe.remarks import by, remarks

BAR, EIGHTHS = 8, " ▏▎▍▌▋▊▉"
RIGHT = ("parameters", "MACs", "memory", "field")  # columns of numbers
COLUMNS = ("layer", "kind", "output", *RIGHT, "time")


@dataclass(frozen=True)
class Summary:
    """What `summarise` found. `print` shows it as text, a notebook as a table.

    Attributes:
        name: of the model.
        shape: of the images, (N, C, H, W); counts are for all of them.
        costs: the rows and their sums.
        trainable: parameters that a training moves.
        weights: bytes of parameters and buffers.
        tied: pairs of names that stand for one parameter; it counts once.
    """

    name: str
    shape: tuple[int, ...]
    costs: Costs
    trainable: int
    weights: int
    tied: tuple[tuple[str, str], ...] = ()

    @property
    def layers(self) -> tuple[LayerCost, ...]:
        """One row a layer, in the order they first ran."""
        return self.costs.layers

    @property
    def parameters(self) -> int:
        """Numbers the model learns or holds still; shared ones count once."""
        return self.costs.parameters

    @property
    def macs(self) -> int:
        """Multiply-adds of one pass of all images."""
        return self.costs.macs

    @property
    def milliseconds(self) -> float:
        """Of one image, as one of the batch; NaN where nothing was timed."""
        return self.costs.milliseconds / self.shape[0]

    @property
    def timed(self) -> bool:
        """Whether there are times."""
        return math.isfinite(self.costs.milliseconds)

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings of the table; those in `RIGHT` are of numbers."""
        return COLUMNS if self.timed else COLUMNS[:-1]

    def rows(self) -> list[list[str]]:
        """The table's cells as text, under `columns`."""
        most = max((row.share for row in self.layers), default=0.0)
        return [_cells(row, most)[: len(self.columns)] for row in self.layers]

    @property
    def title(self) -> str:
        """The model and its images in one line."""
        count, *image = self.shape
        many = "one image" if count == 1 else f"{count} images"
        return f"{self.name}, {many} of {by(image)}"

    @property
    def totals(self) -> str:
        """The sums in one line."""
        learned = "all" if self.trainable == self.parameters else f"{self.trainable:,}"
        told = [
            f"{self.parameters:,} parameters ({learned} trainable)",
            f"weights {memory(self.weights)}",
            f"{self.macs:,} multiply-adds",
            f"outputs {memory(self.costs.bytes)}",
        ]
        if self.timed:
            told.append(f"{self.milliseconds:.3g} ms per image")
        return ", ".join(told)

    @property
    def notes(self) -> tuple[str, ...]:
        """What stands out, one sentence each."""
        return tuple(remarks(self.costs, self.shape[2:], self.tied))

    def to_json(self) -> dict[str, Any]:
        """Everything, for a machine. A field is [H, W], "all" or null (not known)."""
        return {
            "model": self.name,
            "input": list(self.shape),
            "parameters": self.parameters,
            "trainable": self.trainable,
            "macs": self.macs,
            "weight_bytes": self.weights,
            "output_bytes": self.costs.bytes,
            "milliseconds_per_image": self.milliseconds if self.timed else None,
            "layers": [_record(row) for row in self.layers],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        table = [list(self.columns), *self.rows()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [self.title]
        for line in table:
            cells = zip(self.columns, line, widths, strict=True)
            set_out = [c.rjust(w) if name in RIGHT else c.ljust(w) for name, c, w in cells]
            lines.append("  ".join(set_out).rstrip())
        return "\n".join([*lines, self.totals, *self.notes])

    def _repr_html_(self) -> str:
        head = "".join(_cell("th", name, name) for name in self.columns)
        lines = (
            "".join(_cell("td", n, c) for n, c in zip(self.columns, row, strict=True))
            for row in self.rows()
        )
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        said = "".join(f"<p>{escape(text)}</p>" for text in (self.totals, *self.notes))
        return f"<p>{escape(self.title)}</p><table><tr>{head}</tr>{body}</table>{said}"


def summarise(
    model: nn.Module,
    images: Tensor,
    *,
    name: str = "",
    times: bool = True,
    depth: int | None = None,
) -> Summary:
    """Run a model on images (N, C, H, W) and sum up what it did. The model is left as it was.

    Args:
        name: what to call it; its class by default.
        times: time it too. Without, the model may stand on the meta device.
        depth: fold layers below paths of this many parts into one row.
    """
    found = costs(model, images, repeats=5 if times else 0, depth=depth)
    held = {id(t): t for t in (*model.parameters(), *model.buffers())}
    first: dict[int, str] = {}
    tied = []
    for path, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), path) != path:
            tied.append((path, first[id(parameter)]))
    return Summary(
        name or type(model).__name__,
        tuple(images.shape),
        found,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        weights=sum(t.numel() * t.element_size() for t in held.values()),
        tied=tuple(tied),
    )


def memory(size: int) -> str:
    """Bytes in the unit that suits them: "40 B", "24.5 KiB", "1.2 MiB"."""
    if size < 2**10:
        return f"{size} B"
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"


def _cells(row: LayerCost, most: float) -> list[str]:
    return [
        row.layer,
        row.kind + (f" x{row.uses}" if row.uses > 1 else ""),
        by(row.shape[1:]) if row.uses else "never ran",
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.macs:,}" if row.macs else "",
        memory(row.bytes) if row.bytes else "",
        "" if not row.uses else "?" if row.field is None else str(row.field),
        f"{100 * row.share:4.1f} % {_bar(row.share / most if most else 0)}",
    ]


def _record(row: LayerCost) -> dict[str, Any]:
    """A row for a machine: None for NaN, the field as two numbers."""
    known = {key: _finite(value) for key, value in asdict(row).items() if key != "field"}
    field = row.field
    sees = None if field is None else "all" if field.size is None else list(field.size)
    return {**known, "field": sees, "step": None if field is None else field.step}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bar(part: float) -> str:
    """0..1 as up to `BAR` full blocks and a part of one."""
    if not math.isfinite(part):
        return ""
    eighths = round(part * BAR * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _cell(tag: str, column: str, text: str) -> str:
    side = "right" if column in RIGHT else "left"
    return f'<{tag} style="text-align:{side}">{escape(text)}</{tag}>'
