"""Matrix products: fully connected layers, matmul in all its spellings, the bilinear form.

For y = x w the loss moves by dy : dx w + dy : x dw, so dx = dy w^T and dw = x^T dy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import (
    Case,
    Explanation,
    Grads,
    Op,
    Saved,
    Shapes,
    Term,
    register,
    unbroadcast,
)  # fmt: skip
from hubel.errors import ModelError


@register
class Linear(Op):
    """x (..., I), w (O, I), b (O) or None -> (..., O): the fully connected layer."""

    name = "linear"
    tensors = ("x", "w", "b")
    spellings = {"linear.default": None}
    formula = "y = x w^T + b;  dx = dy w,  dw = dy^T x,  db = sum dy"
    source = "Rosenblatt 1958; its gradient: Rumelhart et al. 1986"
    linear_in = ("x", "w")

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor | None = None) -> tuple[Tensor, Saved]:
        """Every output is a weighted sum of all inputs."""
        if x.size(-1) != w.size(-1):
            raise ModelError(f"the layer takes {w.size(-1)} numbers, the input has {x.size(-1)}")
        y = x @ w.mT if w.dim() > 1 else x @ w
        return (y if b is None else y + b), (x, w, b is not None)

    @staticmethod
    def backward(dy: Tensor, saved: Saved) -> Grads:
        """Rows of all leading axes are one batch."""
        x, w, has_bias = saved
        if w.dim() == 1:
            rows, up = x.reshape(-1, x.size(-1)), dy.reshape(-1)
            return dy.unsqueeze(-1) * w, up @ rows, up.sum() if has_bias else None
        rows, up = x.reshape(-1, x.size(-1)), dy.reshape(-1, dy.size(-1))
        return dy @ w, up.mT @ rows, up.sum(0) if has_bias else None

    @classmethod
    def fast_forward(cls, *tensors: Any, **options: Any) -> tuple[Tensor, Saved]:
        """By torch's fused product, which rounds once."""
        x, w, b = (*tensors, None)[:3]
        return torch.nn.functional.linear(x, w, b), (x, w, b is not None)

    @classmethod
    def fast_backward(cls, dy: Any, saved: Saved, needs: tuple[bool, ...]) -> Grads:
        """Only the products that are asked for."""
        x, w, has_bias = saved
        if w.dim() == 1:
            return cls.backward(dy, saved)
        up = dy.reshape(-1, dy.size(-1))
        return (
            dy @ w if needs[0] else None,
            up.mT @ x.reshape(-1, x.size(-1)) if needs[1] else None,
            up.sum(0) if has_bias and needs[2] else None,
        )

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """Every output takes one product per input."""
        x = shapes.inputs[0]
        assert x is not None
        return math.prod(shapes.outputs[0]) * x[-1]

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Every output reads every input."""
        return

    @classmethod
    def matrix(cls, tensors: Sequence[Any], options: dict[str, Any], argument: str) -> Tensor:
        """w itself for "x"; for "w" the input, once per output."""
        x, w = tensors[0], tensors[1]
        if argument == "x":
            return w.reshape(-1, w.size(-1)).to_sparse()
        eye = torch.eye(w.size(0), dtype=x.dtype, device=x.device)
        return torch.kron(eye, x.reshape(-1, x.size(-1))[:1]).to_sparse()

    @classmethod
    def explain(
        cls, tensors: Sequence[Any], options: dict[str, Any], output: Tensor, place: tuple[int, ...]
    ) -> Explanation:
        """All inputs of this row, times row o of the weights, plus the bias."""
        x, w, b = (*tensors, None)[:3]
        *row, o = place
        terms = tuple(
            Term((*row, i), float(x[(*row, i)]), float(w[o, i])) for i in range(w.size(1))
        )
        rest = () if b is None else (("bias", float(b[o])),)
        words = f"output {place} = all {w.size(1)} inputs times row {o} of the weights"
        return Explanation(
            words + (", plus its bias" if rest else ""), terms, rest, float(output[place])
        )

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Rows, no bias, several leading axes, a single vector."""
        yield Case("rows", lambda r: (r(5, 7), r(3, 7), r(3)))
        yield Case("no bias", lambda r: (r(5, 7), r(3, 7), None))
        yield Case("leading axes", lambda r: (r(2, 3, 5), r(4, 5), r(4)))
        yield Case("a vector", lambda r: (r(5), r(4, 5), r(4)))
        yield Case(
            "other width", lambda r: (r(2, 6), r(3, 7), None),
            error="takes 7 numbers, the input has 6",
        )  # fmt: skip


@register
class MatMul(Op):
    """x (..., I, J) @ y (..., J, K) -> (..., I, K), leading axes broadcast; vectors too."""

    name = "matmul"
    tensors = ("x", "y")
    spellings = {
        "mm.default": None, "matmul.default": None, "bmm.default": None, "mv.default": None,
        "dot.default": None,
    }  # fmt: skip
    formula = "z = x y;  dx = dz y^T,  dy = x^T dz"
    linear_in = ("x", "y")

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Saved]:
        """The matrix product; a vector counts as one row, or one column."""
        if x.size(-1) != (y.size(-2) if y.dim() > 1 else y.size(0)):
            raise ModelError(f"shapes {tuple(x.shape)} and {tuple(y.shape)} cannot be multiplied")
        return x @ y, (x, y)

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """As matrices; then vectors lose their extra axis and broadcast axes are summed."""
        x, y = saved
        a = x.unsqueeze(0) if x.dim() == 1 else x
        b = y.unsqueeze(1) if y.dim() == 1 else y
        up = dz.unsqueeze(-1) if y.dim() == 1 else dz
        up = up.unsqueeze(-2) if x.dim() == 1 else up
        dx = unbroadcast(up @ b.mT, tuple(a.shape)).reshape(x.shape)
        dy = unbroadcast(a.mT @ up, tuple(b.shape)).reshape(y.shape)
        return dx, dy

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """One product per output and summed index."""
        x = shapes.inputs[0]
        assert x is not None
        return math.prod(shapes.outputs[0]) * x[-1]

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """No grid of pixels here."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """Matrices, batches, broadcasting, vectors on either side."""
        yield Case("matrices", lambda r: (r(3, 5), r(5, 7)))
        yield Case("batches", lambda r: (r(2, 3, 5), r(2, 5, 4)))
        yield Case("broadcast", lambda r: (r(2, 1, 3, 5), r(4, 5, 2)))
        yield Case("matrix, vector", lambda r: (r(3, 5), r(5)))
        yield Case("vector, matrices", lambda r: (r(5), r(2, 5, 3)))
        yield Case("vectors", lambda r: (r(5), r(5)))
        yield Case(
            "shapes that do not meet", lambda r: (r(3, 5), r(4, 2)), error="cannot be multiplied"
        )


@register
class AddMatMul(Op):
    """c + x y with factors: beta c + alpha (x @ y); c broadcasts."""

    name = "add_matmul"
    tensors = ("c", "x", "y")
    spellings = {
        "addmm.default": lambda self, mat1, mat2, **factors: ((self, mat1, mat2), factors),
        "baddbmm.default": lambda self, batch1, batch2, **factors: (
            (self, batch1, batch2),
            factors,
        ),
        "addmv.default": lambda self, mat, vec, **factors: ((self, mat, vec), factors),
    }
    formula = "z = beta c + alpha x y;  dc = beta dz,  dx = alpha dz y^T,  dy = alpha x^T dz"

    @staticmethod
    def forward(
        c: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1
    ) -> tuple[Tensor, Saved]:
        """The product, added to something."""
        product, saved = MatMul.forward(x, y)
        total = alpha * product if beta == 0 else beta * c + alpha * product
        return total.reshape(product.shape), (*saved, tuple(c.shape), beta, alpha)

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """The product's gradients, scaled."""
        x, y, shape, beta, alpha = saved
        dx, dy = MatMul.backward(alpha * dz, (x, y))
        return unbroadcast(beta * dz, shape), dx, dy

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """As the product's."""
        return MatMul.macs(Shapes(shapes.inputs[1:], shapes.outputs))

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """No grid of pixels here."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """With and without factors."""
        yield Case("plain", lambda r: (r(3, 4), r(3, 5), r(5, 4)))
        yield Case("factors", lambda r: (r(4), r(3, 5), r(5, 4)), {"beta": 0.7, "alpha": -1.3})
        yield Case("vector", lambda r: (r(3), r(3, 5), r(5)), {"beta": 2.0})


@register
class Bilinear(Op):
    """x (N, I), y (N, J), w (O, I, J), b (O) or None -> (N, O)."""

    name = "bilinear"
    tensors = ("x", "y", "w", "b")
    spellings = {"bilinear.default": None}
    formula = "z_o = x w_o y^T + b_o"
    linear_in = ("x", "y", "w")

    @staticmethod
    def forward(x: Tensor, y: Tensor, w: Tensor, b: Tensor | None = None) -> tuple[Tensor, Saved]:
        """One quadratic form per output."""
        z = torch.einsum("...i,oij,...j->...o", x, w, y)
        return (z if b is None else z + b), (x, y, w, b is not None)

    @staticmethod
    def backward(dz: Tensor, saved: Saved) -> Grads:
        """Three products, one per factor."""
        x, y, w, has_bias = saved
        return (
            torch.einsum("...o,oij,...j->...i", dz, w, y),
            torch.einsum("...o,oij,...i->...j", dz, w, x),
            torch.einsum("...o,...i,...j->oij", dz, x, y),
            dz.reshape(-1, dz.size(-1)).sum(0) if has_bias else None,
        )

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """One product per pair of inputs and output, and one more per output and first input."""
        w = shapes.inputs[2]
        assert w is not None
        return math.prod(shapes.outputs[0][:-1]) * (math.prod(w) + w[0] * w[1])

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Every output reads every input."""
        return

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """With and without bias."""
        yield Case("plain", lambda r: (r(5, 3), r(5, 2), r(4, 3, 2), r(4)))
        yield Case("no bias", lambda r: (r(5, 3), r(5, 2), r(4, 3, 2), None))
        yield Case("leading axes", lambda r: (r(2, 3, 4), r(2, 3, 2), r(5, 4, 2), r(5)))
