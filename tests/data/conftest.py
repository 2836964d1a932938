"""What several tests of the readers need: small CIFARs in each form, servers to fetch from."""

import io
import json
import pickle
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
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


@dataclass
class Mirror:
    """A web server with one file. The knobs say how it misbehaves.

    Attributes:
        content: what it serves, under any path.
        ranges: whether it heeds Range.
        status: answer this instead, if not 200.
        cut: end each connection after so many bytes of body.
        silent: seconds before it answers.
        length: whether it announces Content-Length.
        asked: the Range header of each request, None where there was none.
    """

    content: bytes = b""
    ranges: bool = True
    status: int = 200
    cut: int | None = None
    silent: float = 0.0
    length: bool = True
    asked: list = field(default_factory=list)
    url: str = ""

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        time.sleep(self.silent)
        if self.status != 200:
            handler.send_error(self.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            total = len(self.content)
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if self.length:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cut])


@pytest.fixture
def mirror():
    """Makes mirrors; each runs until the test is over."""
    servers = []

    def start(content, **knobs):
        made = Mirror(content, **knobs)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                made.answer(self)

            def log_message(self, *_):
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        made.url = f"http://127.0.0.1:{server.server_port}/file"
        return made

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
