"""Web servers with one file, well-behaved or not: what downloads are tested against."""

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


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
        head: whether it answers HEAD, which tells the size before anything is sent.
        announced: the size that it tells then, if not the true one.
        asked: the Range header of each GET, None where there was none.
        heads: how often HEAD was asked.
    """

    content: bytes = b""
    ranges: bool = True
    status: int = 200
    cut: int | None = None
    silent: float = 0.0
    length: bool = True
    head: bool = True
    announced: int | None = None
    asked: list = field(default_factory=list)
    heads: int = 0
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

    def answer_head(self, handler):
        self.heads += 1
        if self.status != 200 or not self.head:
            handler.send_error(self.status if self.status != 200 else 405)
            return
        handler.send_response(200)
        if self.length:
            size = len(self.content) if self.announced is None else self.announced
            handler.send_header("Content-Length", str(size))
        handler.end_headers()


@pytest.fixture
def mirror():
    """Makes mirrors; each runs until the test is over."""
    servers = []

    def start(content, **knobs):
        made = Mirror(content, **knobs)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                made.answer(self)

            def do_HEAD(self):
                made.answer_head(self)

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
