"""Readers end with their store, whoever collects it."""

import gc
from multiprocessing.process import BaseProcess

import pytest
import torch

from hubel.data.ahead import read_ahead


class Numbers(torch.utils.data.Dataset):
    def __getitem__(self, row):
        return {"row": row}


class Store:
    def __init__(self, cyclic):
        self.loader = read_ahead(self, Numbers(), 2, batch_size=None, sampler=range(9))
        if cyclic:
            self.itself = self

    def rows(self):
        for found in self.loader:
            yield found["row"]


@pytest.mark.parametrize("cyclic", [False, True])
@pytest.mark.parametrize("count", [2, 9])
def test_workers_are_told_to_end_and_are_not_waited_for(monkeypatch, cyclic, count):
    late = []
    join = BaseProcess.join
    monkeypatch.setattr(
        BaseProcess, "join", lambda self, timeout: (join(self, timeout), late.append(self.exitcode))
    )
    store = Store(cyclic)
    for _ in range(2):
        rows = store.rows()
        assert [next(rows) for _ in range(count)] == list(range(count))
    assert all(worker.is_alive() for worker in store.loader._iterator._workers)
    del store, rows
    gc.collect()
    assert late == [0, 0]  # exit codes when the first waiting is over


def test_what_the_dataset_gives_comes_as_it_is():
    assert list(Store(False).loader) == [{"row": row} for row in range(9)]
