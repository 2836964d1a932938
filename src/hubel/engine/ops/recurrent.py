"""Recurrent layers: plain RNN, GRU, LSTM; backward is backpropagation through time.

One driver walks layers, directions and steps; a cell knows one step, forward and back. For every
step t: gx = x_t W^T + b, gh = h_{t-1} U^T + c, and the cell makes the new state from gx and gh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hubel.engine.ops.base import Adapted, Case, Grads, Op, Output, Saved, Shapes, register

State = tuple[Tensor, ...]  # (h,) or (h, c)


class Recurrent(Op):
    """x (T, N, I) [or (N, T, I)], states (layers * directions, N, H), weights of each layer.

    Per layer and direction: W (gates H, I), U (gates H, H) and, with `biases`, b and c (gates H).
    Output (T, N, directions H) and the last states.
    """

    states = 1  # tensors of state

    @staticmethod
    def step(gx: Tensor, gh: Tensor, state: State) -> tuple[State, Any]:
        """One step: new state, and what going back needs."""
        raise NotImplementedError

    @staticmethod
    def unstep(dstate: State, memo: Any) -> tuple[Tensor, Tensor, State]:
        """One step back: d gx, d gh, and what goes to the old state beside gh."""
        raise NotImplementedError

    @classmethod
    def run(
        cls, tensors: Sequence[Any], biases: bool, layers: int, bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Output, Saved]:  # fmt: skip
        """All layers, forward."""
        x, first, weights = tensors[0], tensors[1 : 1 + cls.states], tensors[1 + cls.states :]
        x = x.transpose(0, 1) if batch_first else x
        directions, per = 1 + bidirectional, 4 if biases else 2
        lasts: list[State] = []
        tapes = []
        for layer in range(layers):
            outs = []
            for direction in range(directions):
                k = layer * directions + direction
                own = weights[k * per : (k + 1) * per]
                state = tuple(s[k] for s in first)
                ys, state, tape = cls._scan(x, own, state, reverse=bool(direction))
                outs.append(ys)
                lasts.append(state)
                tapes.append((x, own, tape))
            x = torch.cat(outs, -1)
        final = tuple(torch.stack([s[i] for s in lasts]) for i in range(cls.states))
        y = x.transpose(0, 1) if batch_first else x
        return (y, *final), (tapes, directions, batch_first, biases)

    @classmethod
    def _scan(
        cls, x: Tensor, own: Sequence[Tensor], state: State, reverse: bool
    ) -> tuple[Tensor, State, list[Any]]:
        """One layer in one direction, over time."""
        w, u, *bias = own
        ys: list[Any] = [None] * len(x)
        tape = []
        for t in reversed(range(len(x))) if reverse else range(len(x)):
            gx, gh = x[t] @ w.mT, state[0] @ u.mT
            if bias:
                gx, gh = gx + bias[0], gh + bias[1]
            before = state[0]
            state, memo = cls.step(gx, gh, state)
            tape.append((t, before, memo))
            ys[t] = state[0]
        return torch.stack(ys), state, tape

    @classmethod
    def back(cls, dys: Any, saved: Saved) -> Grads:
        """All layers, back to front, and each through time."""
        tapes, directions, batch_first, biases = saved
        dy, dfinal = dys[0], dys[1:]
        top = None if dy is None else dy.transpose(0, 1) if batch_first else dy
        dstates: list[State] = [()] * len(tapes)
        dweights: list[list[Tensor]] = [[]] * len(tapes)
        dx = None
        for k in reversed(range(len(tapes))):
            x, own, tape = tapes[k]
            direction = k % directions
            if direction == directions - 1:
                dx = torch.zeros_like(x)
            width = own[1].size(1)
            part = None if top is None else top[..., direction * width : (direction + 1) * width]
            last = tuple(None if d is None else d[k] for d in dfinal)
            dstates[k], dweights[k] = cls._unscan(x, own, tape, part, last, dx, biases)
            if direction == 0:
                top = dx
        assert dx is not None
        firsts = tuple(torch.stack([d[i] for d in dstates]) for i in range(cls.states))
        return (
            dx.transpose(0, 1) if batch_first else dx, *firsts,
            *[d for each in dweights for d in each],
        )  # fmt: skip

    @classmethod
    def _unscan(
        cls, x: Tensor, own: Sequence[Tensor], tape: list[Any], dy: Tensor | None,
        last: tuple[Any, ...], dx: Tensor | None, biases: bool,
    ) -> tuple[State, list[Tensor]]:  # fmt: skip
        """One layer in one direction, newest step first; adds to `dx`."""
        w, u = own[:2]
        h = tape[0][1]
        state = tuple(torch.zeros_like(h) if d is None else d for d in last)
        dw, du = torch.zeros_like(w), torch.zeros_like(u)
        db, dc = w.new_zeros(len(w)), u.new_zeros(len(u))
        assert dx is not None
        for t, before, memo in reversed(tape):
            if dy is not None:
                state = (state[0] + dy[t], *state[1:])
            dgx, dgh, state = cls.unstep(state, memo)
            dw += dgx.mT @ x[t]
            du += dgh.mT @ before
            db += dgx.sum(0)
            dc += dgh.sum(0)
            dx[t] += dgx @ w
            state = (state[0] + dgh @ u, *state[1:])
        return state, [dw, du, db, dc] if biases else [dw, du]

    @classmethod
    def macs(cls, shapes: Shapes, **options: Any) -> int:
        """Two matrix products per step, layer and direction."""
        x = shapes.inputs[0]
        assert x is not None
        weights = sum(s[0] * s[1] for s in shapes.inputs[1 + cls.states :] if s and len(s) == 2)
        return x[0] * x[1] * weights

    @classmethod
    def windows(cls, shapes: Shapes, **options: Any) -> None:
        """Every output reads all steps before it."""
        return


def _adapter(states: int) -> Any:
    def adapt(
        input: Tensor, hx: Any, params: Sequence[Tensor], has_biases: bool, num_layers: int,
        dropout: float, train: bool, bidirectional: bool, batch_first: bool,
    ) -> Adapted | None:  # fmt: skip
        per = 4 if has_biases else 2
        plain = len(params) == per * num_layers * (1 + bidirectional)  # no projections
        if not plain or (dropout and train and num_layers > 1) or input.dim() != 3:
            return None
        first = list(hx) if states > 1 else [hx]
        return (input, *first, *params), {
            "biases": has_biases, "layers": num_layers, "bidirectional": bidirectional,
            "batch_first": batch_first,
        }  # fmt: skip

    return adapt


def _cases(states: int, gates: int) -> Iterator[Case]:
    """Two layers both ways, without biases, batch first."""

    def make(r: Any, layers: int, both: int, biases: bool) -> list[Tensor]:
        n, hidden, inputs = layers * both, 3, 4
        found = [r(5, 2, inputs), *[r(n, 2, hidden) for _ in range(states)]]
        for k in range(n):
            width = inputs if k < both else hidden * both
            found += [r(gates * hidden, width), r(gates * hidden, hidden)]
            found += [r(gates * hidden), r(gates * hidden)] if biases else []
        return found

    plain = {"biases": True, "layers": 1, "bidirectional": False, "batch_first": False}
    yield Case("one layer", lambda r: make(r, 1, 1, True), plain)
    yield Case(
        "two layers, both ways", lambda r: make(r, 2, 2, True),
        {**plain, "layers": 2, "bidirectional": True},
    )  # fmt: skip
    yield Case("no biases", lambda r: make(r, 1, 1, False), {**plain, "biases": False})


@register
class Lstm(Recurrent):
    """Long short-term memory; gates in the order input, forget, candidate, output."""

    name = "lstm"
    tensors = ("x", "h", "c", "*weights")
    states = 2
    spellings = {"lstm.input": _adapter(2)}
    formula = "c' = f c + i g,  h' = o tanh(c');  i, f, o = sigmoid, g = tanh of gx + gh"
    source = "Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 1999"

    @staticmethod
    def forward(
        *tensors: Tensor, biases: bool, layers: int, bidirectional: bool, batch_first: bool
    ) -> tuple[Output, Saved]:
        """Output, last h, last c."""
        return Lstm.run(tensors, biases, layers, bidirectional, batch_first)

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """Through time."""
        return Lstm.back(dy, saved)

    @staticmethod
    def step(gx: Tensor, gh: Tensor, state: State) -> tuple[State, Any]:
        """Forget some of the old cell, add some of the candidate."""
        i, f, g, o = (gx + gh).chunk(4, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * state[1] + i * g
        squashed = c.tanh()
        return (o * squashed, c), (i, f, g, o, squashed, state[1])

    @staticmethod
    def unstep(dstate: State, memo: Any) -> tuple[Tensor, Tensor, State]:
        """The cell's own line carries the gradient on, scaled by the forget gate alone."""
        i, f, g, o, squashed, old = memo
        dh, dc = dstate
        dc = dc + dh * o * (1 - squashed * squashed)
        gates = [
            dc * g * i * (1 - i), dc * old * f * (1 - f), dc * i * (1 - g * g),
            dh * squashed * o * (1 - o),
        ]  # fmt: skip
        d = torch.cat(gates, -1)
        return d, d, (torch.zeros_like(dh), dc * f)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """As every recurrent layer's."""
        yield from _cases(2, 4)


@register
class Gru(Recurrent):
    """Gated recurrent unit; gates in the order reset, update, candidate (torch's form)."""

    name = "gru"
    tensors = ("x", "h", "*weights")
    spellings = {"gru.input": _adapter(1)}
    formula = "h' = (1 - z) n + z h,  n = tanh(gx_n + r gh_n);  r, z = sigmoid of gx + gh"
    source = "Cho et al. 2014; reset after the product, as cuDNN and torch have it"

    @staticmethod
    def forward(
        *tensors: Tensor, biases: bool, layers: int, bidirectional: bool, batch_first: bool
    ) -> tuple[Output, Saved]:
        """Output, last h."""
        return Gru.run(tensors, biases, layers, bidirectional, batch_first)

    @staticmethod
    def backward(dy: Any, saved: Saved) -> Grads:
        """Through time."""
        return Gru.back(dy, saved)

    @staticmethod
    def step(gx: Tensor, gh: Tensor, state: State) -> tuple[State, Any]:
        """A mix of the old state and a candidate."""
        (xr, xz, xn), (hr, hz, hn) = gx.chunk(3, -1), gh.chunk(3, -1)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        n = (xn + r * hn).tanh()
        return ((1 - z) * n + z * state[0],), (r, z, n, hn, state[0])

    @staticmethod
    def unstep(dstate: State, memo: Any) -> tuple[Tensor, Tensor, State]:
        """The old state is reached directly by z, and through all three gates."""
        r, z, n, hn, old = memo
        (dh,) = dstate
        dn = dh * (1 - z) * (1 - n * n)
        dz = dh * (old - n) * z * (1 - z)
        dr = dn * hn * r * (1 - r)
        dgx = torch.cat([dr, dz, dn], -1)
        dgh = torch.cat([dr, dz, dn * r], -1)
        return dgx, dgh, (dh * z,)

    @classmethod
    def cases(cls) -> Iterator[Case]:
        """As every recurrent layer's."""
        yield from _cases(1, 3)


def _elman(name: str, spelling: str, squash: Any, slope: Any, words: str) -> None:
    class Elman(Recurrent):
        tensors = ("x", "h", "*weights")

        @staticmethod
        def forward(
            *tensors: Tensor, biases: bool, layers: int, bidirectional: bool, batch_first: bool
        ) -> tuple[Output, Saved]:
            """Output, last h."""
            return Elman.run(tensors, biases, layers, bidirectional, batch_first)

        @staticmethod
        def backward(dy: Any, saved: Saved) -> Grads:
            """Through time."""
            return Elman.back(dy, saved)

        @staticmethod
        def step(gx: Tensor, gh: Tensor, state: State) -> tuple[State, Any]:
            """Squash the sum."""
            h = squash(gx + gh)
            return (h,), h

        @staticmethod
        def unstep(dstate: State, memo: Any) -> tuple[Tensor, Tensor, State]:
            """One slope for both."""
            d = dstate[0] * slope(memo)
            return d, d, (torch.zeros_like(d),)

        @classmethod
        def cases(cls) -> Iterator[Case]:
            """As every recurrent layer's."""
            yield from _cases(1, 1)

    Elman.name, Elman.spellings = name, {spelling: _adapter(1)}
    Elman.formula, Elman.source = f"h' = {words}(gx + gh);  d = dh' slope", "Elman 1990"
    Elman.__doc__ = f"The plain recurrent layer with {words}."
    Elman.__name__ = Elman.__qualname__ = name
    register(Elman)


_elman("rnn_tanh", "rnn_tanh.input", torch.tanh, lambda h: 1 - h * h, "tanh")
_elman("rnn_relu", "rnn_relu.input", torch.relu, lambda h: (h > 0).to(h.dtype), "relu")
