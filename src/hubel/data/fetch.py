"""Downloads that end whole or not at all: mirrors, resume, SHA-256, one atomic rename.

Bytes go to `NAME.part`, which a later attempt continues; the name itself appears only once size
and hash are right. A lock lets several processes ask for one file and one of them fetch it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from platformdirs import user_cache_dir

from hubel.errors import DataError

try:
    import fcntl
except ImportError:  # Windows: two downloads at once may then spoil each other, and say so
    fcntl = None  # type: ignore[assignment]

CONNECT = 6.0  # seconds until a mirror must have answered, name look-up and TLS included
STALL = 30.0  # seconds without a byte until a download counts as broken
ATTEMPTS = 3  # per mirror, as long as each brings the file further
BLOCK = 1 << 16
HEADERS = {"User-Agent": "hubel"}

Progress = Callable[[str, int, int], None]  # file name, bytes done, bytes in all


class Unreachable(DataError):
    """No mirror could be reached, or none held out; nothing wrong was received."""


class _Wrong(Exception):
    """What a mirror sent is not the file."""


@dataclass(frozen=True, slots=True)
class Remote:
    """One file at its public addresses, which all hold the same bytes.

    Attributes:
        bytes: its size; 0 where it is not known before a mirror is asked.
        sha256: the hash in hex, or the first digits of it where no more are published.
    """

    name: str
    bytes: int
    sha256: str
    mirrors: tuple[str, ...]


def cache_folder() -> Path:
    """Where hubel keeps what it can fetch or measure again: HUBEL_CACHE, or the system's place."""
    return Path(os.environ.get("HUBEL_CACHE") or user_cache_dir("hubel"))


def is_whole(remote: Remote, folder: Path) -> bool:
    """Whether the file is there with its full size; its hash was checked when it came."""
    path = folder / remote.name
    return path.is_file() and remote.bytes in (0, path.stat().st_size)


def fetch(remote: Remote, folder: Path, progress: Progress | None = None) -> Path:
    """The file in `folder`, downloaded if it is not there.

    Raises:
        Unreachable: no mirror answered or none stayed; what came is kept for the next attempt.
        DataError: a mirror sent other bytes and none sent the right ones; the folder cannot be
            written.
    """
    target = folder / remote.name
    with _alone(folder):
        if not is_whole(remote, folder):
            part = target.with_name(f"{remote.name}.part")
            _from_any_mirror(remote, part, progress or (lambda name, done, total: None))
            with _writing(target):
                part.replace(target)
    return target


def _from_any_mirror(remote: Remote, part: Path, progress: Progress) -> None:
    failures, wrong = [], False
    for mirror in remote.mirrors:
        for _ in range(ATTEMPTS):
            before = _size(part)
            try:
                _download(_sized(remote, mirror), mirror, part, progress)
                _verify(remote, part)
                return
            except _Wrong as error:
                part.unlink(missing_ok=True)
                failures.append(f"{mirror}: {error}")
                if before == 0:  # else the fault may lie in what was there before
                    wrong = True
                    break
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{mirror}: {_in_words(error)}")
                if _size(part) <= before:
                    break
    reasons = "; ".join(dict.fromkeys(failures))
    if wrong:
        raise DataError(f"{remote.name} arrived damaged and was thrown away ({reasons})")
    raise Unreachable(f"{remote.name} could not be downloaded ({reasons})")


def _sized(remote: Remote, mirror: str) -> Remote:
    """The file with its size, which the mirror is asked for where nobody has said it."""
    if remote.bytes:
        return remote
    with _open(Request(mirror, headers=HEADERS, method="HEAD")) as answer:
        announced = answer.headers.get("Content-Length", "")
    if not announced.isdigit() or int(announced) == 0:
        raise ConnectionError("does not say how large the file is")
    return replace(remote, bytes=int(announced))


def _download(remote: Remote, mirror: str, part: Path, progress: Progress) -> None:
    """Bring `part` to its full length, from where it stands if the mirror can do that."""
    done = _size(part)
    if done >= remote.bytes:
        return
    headers = HEADERS | ({"Range": f"bytes={done}-"} if done else {})
    with _open(Request(mirror, headers=headers)) as answer:
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            done = 0  # the mirror starts from the beginning
        announced = answer.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) != remote.bytes - done:
            raise _Wrong(f"announces {announced} bytes, expected {remote.bytes - done}")
        with _writing(part):
            file = part.open("ab" if done else "wb")
        with file:
            _copy(answer, file, remote, done, progress)
    if _size(part) < remote.bytes:
        raise ConnectionError("the connection ended early")


def _copy(answer: IO[bytes], file: IO[bytes], remote: Remote, done: int, show: Progress) -> None:
    """All that comes, but not more than one block beyond the file's size."""
    path = Path(file.name)
    show(remote.name, done, remote.bytes)
    while done <= remote.bytes and (block := answer.read(BLOCK)):
        with _writing(path):
            file.write(block)
        done += len(block)
        show(remote.name, min(done, remote.bytes), remote.bytes)
    with _writing(path):
        file.flush()
        os.fsync(file.fileno())


def _open(request: Request) -> Any:
    """`urlopen` that gives up after CONNECT seconds; no socket timeout covers name look-ups."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urlopen(request, timeout=STALL))
        except Exception as error:  # carried over to the thread that waits, and raised there
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT)
    except queue.Empty:
        raise TimeoutError(f"no answer within {CONNECT:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _verify(remote: Remote, part: Path) -> None:
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(remote.sha256):
        raise _Wrong(f"SHA-256 is {digest[:12]}..., expected {remote.sha256[:12]}...")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone; others wait until it is done."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)  # freed when the file closes, or the process dies
        yield


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tells a full disk or a forbidden folder from a network that fails."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error.strerror}); HUBEL_CACHE may name another folder"
        ) from None


def _in_words(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"answered {error.code} {error.reason}"
    reason = error.reason if isinstance(error, URLError) else error
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)
