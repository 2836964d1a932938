"""What several tests of the readers need: small CIFARs in each form, servers to fetch from."""

import io
import json
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from mirrors import mirror  # noqa: F401 (a fixture)
from PIL import Image


@dataclass
class SmallCifar:
    """`count` images for each file, and the files of any form, by name."""

    count: int = 4

    def __post_init__(self):
        rng = np.random.default_rng(self.count)
        self.images = rng.integers(0, 256, (6 * self.count, 3, 32, 32), dtype=np.uint8)
        self.labels = np.arange(6 * self.count) % 10
        self.coarse = np.arange(6 * self.count) % 7

    def batches(self, suffix=""):
        names = [*(f"data_batch_{n}{suffix}" for n in range(1, 6)), f"test_batch{suffix}"]
        rows = [slice(n * self.count, (n + 1) * self.count) for n in range(6)]
        return list(zip(names, rows, strict=True))

    def halves(self, suffix=""):
        return [
            (f"train{suffix}", slice(5 * self.count)),
            (f"test{suffix}", slice(5 * self.count, None)),
        ]

    def binary10(self):
        return {name: self._records(rows, self.labels) for name, rows in self.batches(".bin")}

    def binary100(self):
        return {
            name: self._records(rows, self.coarse, self.labels)
            for name, rows in self.halves(".bin")
        }

    def python10(self):
        return {name: self._pickle(rows, labels=self.labels) for name, rows in self.batches()}

    def python100(self):
        labels = {"coarse_labels": self.coarse, "fine_labels": self.labels}
        files = {name: self._pickle(rows, **labels) for name, rows in self.halves()}
        return files | {"meta": pickle.dumps({"fine_label_names": ["apple"]}, 2)}

    def sprites(self):
        files = {}
        for name, rows in self.batches(".png"):
            pixels = self.images[rows].transpose(0, 2, 3, 1).reshape(-1, 1024, 3)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            files[name] = stream.getvalue()
        files["train_lables.json"] = json.dumps(self.labels[: 5 * self.count].tolist()).encode()
        files["test_lables.json"] = json.dumps(self.labels[5 * self.count :].tolist()).encode()
        return files

    def _records(self, rows, *labels):
        columns = [column[rows, None].astype(np.uint8) for column in labels]
        return np.concatenate([*columns, self.images[rows].reshape(-1, 3072)], 1).tobytes()

    def _pickle(self, rows, **labels):
        batch = {name: values[rows].tolist() for name, values in labels.items()}
        return pickle.dumps({"data": self.images[rows].reshape(-1, 3072), **batch}, 2)


@pytest.fixture
def small_cifar():
    return SmallCifar()
