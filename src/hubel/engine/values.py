"""Which value a tensor holds: numbers that survive in-place writes and shared memory.

A tensor object is a box; what stands in it has a number. Writing into the box gives it a new
number, and everything that shares its memory gets one too. Before the memory changes, whatever
was saved from it is copied.
"""

from __future__ import annotations

import itertools
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

_TOKENS = itertools.count(1)

Swap = Callable[[dict[int, Tensor]], None]  # exchanges tensors, by id, in something that was saved


class Values:
    """Numbers of the values on one tape."""

    def __init__(self) -> None:
        self.count = 0
        self.live: set[int] = set()  # values a watched tensor flows into
        self._token = next(_TOKENS)
        # tensors that came from outside: held, so that no other object gets their id
        self._outside: dict[int, tuple[int, Tensor]] = {}
        self._first: dict[int, int] = {}  # the number that an outside tensor came with
        self._saved: defaultdict[int, list[Saving]] = defaultdict(list)  # by storage
        self._aliases: dict[int, dict[int, weakref.ref[Tensor]]] = {}  # by storage

    def number(self, tensor: Tensor) -> int:
        """The number of what `tensor` holds now; a tensor never seen gets one."""
        mark: tuple[int, int] | None = tensor.__dict__.get("_hubel_value")
        if mark is not None and mark[0] == self._token:
            return mark[1]
        known = self._outside.get(id(tensor))
        if known is not None:
            return known[0]
        self.count += 1
        self._outside[id(tensor)] = (self.count, tensor)
        self._first[id(tensor)] = self.count
        return self.count

    def held_at_first(self, tensor: Tensor) -> Iterator[int]:
        """The number of what an outside tensor held before anything ran, if it was ever seen."""
        if id(tensor) in self._first:
            yield self._first[id(tensor)]

    def fresh(self, tensor: Tensor) -> int:
        """A new number for what `tensor` holds."""
        self.count += 1
        self.bind(tensor, self.count)
        return self.count

    def bind(self, tensor: Tensor, number: int) -> None:
        """From now on `tensor` holds value `number`."""
        if id(tensor) in self._outside:
            self._outside[id(tensor)] = (number, tensor)
        else:
            tensor._hubel_value = (self._token, number)  # type: ignore[attr-defined]

    def is_live(self, tensor: Tensor) -> bool:
        """Whether a gradient can flow through what the tensor holds."""
        return self.number(tensor) in self.live

    def note_shared(self, source: Tensor, outputs: Iterable[Tensor]) -> None:
        """Remember which of the outputs share memory with `source`."""
        memory = _memory(source)
        for output in outputs:
            if output is not source and _memory(output) == memory:
                aliases = self._aliases.setdefault(memory, {})
                aliases[id(source)] = weakref.ref(source)
                aliases[id(output)] = weakref.ref(output)

    def sharing(self, tensor: Tensor) -> Iterator[Tensor]:
        """Other tensors, still in use, that share memory with this one."""
        for reference in list(self._aliases.get(_memory(tensor), {}).values()):
            other = reference()
            if other is not None and other is not tensor:
                yield other

    def save(self, tensors: Iterable[Tensor], swap: Swap) -> None:
        """`tensors` are kept somewhere; `swap` exchanges them there when their memory changes."""
        for tensor in tensors:
            self._saved[_memory(tensor)].append((tensor, swap))

    def is_saved(self, tensor: Tensor) -> bool:
        """Whether anything that shares memory with the tensor is kept or in use elsewhere."""
        memory = _memory(tensor)
        return bool(self._saved.get(memory) or self._aliases.get(memory))

    def before_write(self, tensor: Tensor) -> None:
        """Copy what was saved from the memory that is about to change."""
        copies: dict[int, Tensor] = {}
        for saved, swap in self._saved.pop(_memory(tensor), ()):
            if id(saved) not in copies:
                copies[id(saved)] = saved.clone()
            swap({id(saved): copies[id(saved)]})


Saving = tuple[Tensor, Swap]


def _memory(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except NotImplementedError:  # sparse tensors have no storage of their own
        return -id(tensor)


def overlap(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, int]:
    """Places (int64, each tensor's shape) in the memory that two tensors share.

    Returns two int64 tensors of the tensors' shapes, and how many places there are.
    """
    places = one.untyped_storage().nbytes() // one.element_size()
    every = torch.arange(places, device=one.device)
    views = (every.as_strided(t.shape, t.stride(), t.storage_offset()) for t in (one, other))
    return next(views), next(views), places
