"""A look as one self-contained page: the image, every operator's answer, and its gradient."""

from __future__ import annotations

from typing import Any

import jinja2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hubel.engine.look import Look
from hubel.engine.opview import OpView
from hubel.runs.report.pictures import Picture, photo, signed

MAPS = 12  # maps of an operator that are shown: those with the largest gradient, or activity

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ file }} through the net</title><style>
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:72rem;padding:0 1rem;
color:#1d2733;background:#fff}h1{font-size:1.4rem}h2{font-size:1rem;margin:.2rem 0}
.op{border-top:1px solid #d9dfe6;padding:.6rem 0}.maps img,.input img{image-rendering:pixelated;
width:56px;height:56px;margin:1px;object-fit:contain;background:#808080}
.input img{width:140px;height:140px}.facts{color:#5a6673;font-size:.9rem}
code{background:#f2f4f7;padding:0 .25rem}.row{display:flex;gap:.6rem;align-items:center}
.row span{flex:0 0 4.5rem;color:#5a6673;font-size:.85rem}
@media print{.op{break-inside:avoid}}</style>
<h1>{{ file }} through the net</h1>
<p>Seen as <b>{{ guess }}</b> ({{ "%.1f"|format(100 * sure) }} %). Every operator that ran, in
order; gradients are those of the loss for <b>{{ label }}</b>. Grey is zero, white positive, black
negative, each picture by its own scale.</p>
<p class="input"><img src="{{ image.uri }}" alt="the image as the net gets it">
{% if pull %}<img src="{{ pull.uri }}" alt="gradient of the loss by pixel">{% endif %}</p>
<p class="facts">Left the image as the net gets it{% if pull %}, right the gradient of the loss by
pixel{% endif %}. {{ summary }}.</p>
{% for op in ops %}<div class="op"><h2>{{ op.index }} · {{ op.kind }}{% if op.path %} in
<code>{{ op.path }}</code>{% endif %}</h2>
<div class="facts">{{ op.shapes }}{% if op.parameters %} · {{ op.parameters }} parameters{% endif %}
{% if op.macs %} · {{ op.macs }} multiply-adds{% endif %} · sees {{ op.field }}
{% if op.gradient %} · |gradient| {{ op.gradient }}{% endif %}
{% if op.line %} · {{ op.line }}{% endif %}
<br><code>{{ op.formula }}</code></div>
{% for name, pictures in op.rows %}<div class="row"><span>{{ name }}</span><div class="maps">
{% for p in pictures %}<img src="{{ p.uri }}" alt="">{% endfor %}</div></div>{% endfor %}
{% if op.numbers %}<div class="facts">{{ op.numbers }}</div>{% endif %}</div>{% endfor %}"""


def look_page(
    look: Look, image: NDArray[np.uint8], file: str, label: str, guess: str, sure: float
) -> str:
    """The page of one image's look.

    Args:
        image: uint8 (C, H, W), as the net gets it before normalising.
        label: the class whose loss was differentiated; `guess` and `sure` what the net says.
    """
    gradient = next(iter(look.input_grads.values()), None)
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    return template.render(
        file=file, label=label, guess=guess, sure=sure, image=photo(image),
        pull=None if gradient is None else _signed(gradient[0]),
        summary=repr(look).rsplit("\n", 1)[-1], ops=[_op(op) for op in look.ops],
    )  # fmt: skip


def _op(op: OpView) -> dict[str, Any]:
    output = op.output[0] if op.record.many else op.output
    gradient = _gradient(op)
    chosen = _chosen(output, gradient)
    rows = [("value", [_signed(output[0, c : c + 1]) for c in chosen])] if chosen else []
    if chosen and gradient is not None:
        rows.append(("gradient", [_signed(gradient[0, c : c + 1]) for c in chosen]))
    return {
        "index": op.record.index, "kind": op.kind, "path": op.path, "formula": op.formula,
        "shapes": repr(op).rsplit(": ", 1)[-1],
        "parameters": f"{op.parameters:,}" if op.parameters else "",
        "macs": f"{op.macs:,}" if op.macs else "", "field": str(op.field or "everything"),
        "gradient": "" if op.grad_norm is None else f"{op.grad_norm:.3g}", "line": op.record.line,
        "rows": rows, "numbers": "" if chosen else _numbers(output),
    }  # fmt: skip


def _gradient(op: OpView) -> Tensor | None:
    if op.grad_norm is None:
        return None
    dy = op.grad_output
    found = dy[0] if isinstance(dy, tuple) else dy
    return found if isinstance(found, Tensor) else None


def _chosen(output: Tensor, gradient: Tensor | None) -> list[int]:
    """Maps to show, in the layer's order: where the loss pulls most, else the most active."""
    if output.dim() != 4 or output.shape[2:].numel() < 2:
        return []
    judged = (output if gradient is None else gradient * output)[0].abs().mean((1, 2))
    top = torch.nan_to_num(judged).topk(min(MAPS, len(judged))).indices
    return sorted(int(i) for i in top)


def _numbers(output: Tensor) -> str:
    flat = output.reshape(-1)[:12].tolist()
    more = f", … ({output.numel():,} numbers)" if output.numel() > 12 else ""
    return ", ".join(f"{v:.4g}" for v in flat) + more


def _signed(values: Tensor) -> Picture:
    """Around zero; (C, h, w), the largest magnitude at full scale."""
    top = float(torch.nan_to_num(values).abs().max())
    return signed(values.detach().float().cpu().numpy(), top)
