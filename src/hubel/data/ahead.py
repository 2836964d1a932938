"""Worker processes that read images a few batches ahead, and end with the store that has them."""

from __future__ import annotations

import weakref
from typing import Any

from torch.utils.data import DataLoader, Dataset


def read_ahead(store: object, dataset: Dataset[Any], workers: int, **words: Any) -> DataLoader[Any]:
    """A `DataLoader` whose workers stay from epoch to epoch and end with `store`.

    What the dataset gives comes as it is. The workers are told to end before anything of the
    store's is taken apart: left to the garbage collector (a notebook keeps an exception, which
    keeps its frames, ...) the queues would go before their loader could speak through them, and
    it would wait 5 seconds for each worker.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        collate_fn=_as_it_is,
        num_workers=workers,
        persistent_workers=workers > 0,
        **words,
    )
    weakref.finalize(store, _end, loader)
    return loader


def _as_it_is(found: Any) -> Any:
    return found


def _end(loader: DataLoader[Any]) -> None:
    loader._iterator = None  # its last reference but those of generators that go with the store
