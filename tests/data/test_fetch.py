"""Downloads against a local server: whole, resumed, damaged, refused, silent, contested, full."""

import hashlib
import multiprocessing
import os
import socket
import threading
import time

import pytest

from hubel.data import fetch as fetch_module
from hubel.data.fetch import Remote, Unreachable, cache_folder, fetch, is_whole
from hubel.errors import DataError

CONTENT = bytes(range(256)) * 2000  # half a megabyte, several blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def remote(*mirrors, content=CONTENT):
    sha256 = hashlib.sha256(content).hexdigest()
    return Remote("set.gz", len(content), sha256, tuple(mirror.url for mirror in mirrors))


@pytest.fixture
def deaf():
    """An address that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x"


def test_a_whole_file_and_its_progress(tmp_path, mirror):
    seen = []

    def progress(name, done, total):
        assert not (tmp_path / "new/set.gz").exists()  # the name appears last, at once
        seen.append((name, done, total))

    path = fetch(remote(mirror(CONTENT)), tmp_path / "new", progress)
    assert path == tmp_path / "new/set.gz"
    assert path.read_bytes() == CONTENT
    assert seen[0] == ("set.gz", 0, len(CONTENT))
    assert seen[-1] == ("set.gz", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert not path.with_name("set.gz.part").exists()


def test_what_is_there_is_not_asked_for(tmp_path, mirror):
    (tmp_path / "set.gz").write_bytes(CONTENT)
    server = mirror(CONTENT)
    fetch(remote(server), tmp_path)
    assert server.asked == []


def test_a_file_of_another_size_is_replaced(tmp_path, mirror):
    (tmp_path / "set.gz").write_bytes(CONTENT[:99])
    assert not is_whole(remote(), tmp_path)
    fetch(remote(mirror(CONTENT)), tmp_path)
    assert (tmp_path / "set.gz").read_bytes() == CONTENT


def test_resumes_where_it_stopped(tmp_path, mirror):
    (tmp_path / "set.gz.part").write_bytes(CONTENT[:300_000])
    server = mirror(CONTENT)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]


def test_starts_again_where_a_mirror_cannot_resume(tmp_path, mirror):
    (tmp_path / "set.gz.part").write_bytes(CONTENT[:300_000])
    server = mirror(CONTENT, ranges=False)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT


def test_a_whole_part_file_needs_no_network(tmp_path, mirror):
    (tmp_path / "set.gz.part").write_bytes(CONTENT)
    server = mirror(CONTENT)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("left", [CONTENT[:200_000][::-1], b"x" * len(CONTENT), CONTENT + b"more"])
def test_a_spoilt_part_file_is_dropped_and_fetched_anew(tmp_path, mirror, left):
    (tmp_path / "set.gz.part").write_bytes(left)
    assert fetch(remote(mirror(CONTENT)), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [True, False])
def test_a_connection_that_breaks_is_taken_up_again(tmp_path, mirror, length):
    server = mirror(CONTENT, cut=200_000, length=length)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=200000-", "bytes=400000-"]


def test_the_next_mirror_goes_on_where_the_last_one_stopped(tmp_path, mirror):
    first, second = mirror(CONTENT, cut=100_000), mirror(CONTENT)
    assert fetch(remote(first, second), tmp_path).read_bytes() == CONTENT
    assert len(first.asked) == 3
    assert second.asked == ["bytes=300000-"]


def test_a_damaged_download_is_thrown_away(tmp_path, mirror):
    wrong = mirror(CONTENT[:-1] + b"!")
    with pytest.raises(DataError, match=r"set\.gz arrived damaged .* SHA-256 is .*, expected") as e:
        fetch(remote(wrong), tmp_path)
    assert not isinstance(e.value, Unreachable)
    assert wrong.url in str(e.value)
    assert "\n" not in str(e.value)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_after_a_damaged_download_the_next_mirror(tmp_path, mirror):
    wrong, right = mirror(CONTENT[::-1]), mirror(CONTENT)
    assert fetch(remote(wrong, right), tmp_path).read_bytes() == CONTENT
    assert right.asked == [None]


def test_a_page_in_place_of_the_file(tmp_path, mirror):
    page = mirror(b"<html>please log in</html>")
    with pytest.raises(DataError, match="announces 26 bytes, expected 512000"):
        fetch(remote(page), tmp_path)
    assert not (tmp_path / "set.gz").exists()


def test_an_endless_file_is_cut_off(tmp_path, mirror):
    endless = mirror(CONTENT * 20, length=False)
    seen = []
    with pytest.raises(DataError, match="arrived damaged"):
        fetch(remote(endless), tmp_path, lambda name, done, total: seen.append(done))
    assert max(seen) == len(CONTENT)


@pytest.mark.parametrize("status", [404, 403, 500])
def test_mirrors_that_refuse(tmp_path, mirror, status):
    with pytest.raises(Unreachable, match=f"could not be downloaded .*answered {status}"):
        fetch(remote(mirror(CONTENT, status=status)), tmp_path)
    gone, right = mirror(CONTENT, status=status), mirror(CONTENT)
    assert fetch(remote(gone, right), tmp_path).read_bytes() == CONTENT


# A size that nobody has said, and hashes of which only the first digits are known


def unsized(*mirrors, digits=8):
    return Remote("w.pth", 0, SHA256[:digits], tuple(mirror.url for mirror in mirrors))


def test_an_unknown_size_is_asked_for(tmp_path, mirror):
    server, seen = mirror(CONTENT), []
    found = fetch(unsized(server), tmp_path, lambda name, done, total: seen.append((done, total)))
    assert found.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in seen} == {len(CONTENT)}
    assert server.heads == 1
    assert server.asked == [None]


def test_a_file_of_unknown_size_that_is_there_is_not_asked_for(tmp_path, mirror):
    server = mirror(CONTENT)
    assert not is_whole(unsized(server), tmp_path)
    (tmp_path / "w.pth").write_bytes(b"put here by hand")
    assert is_whole(unsized(server), tmp_path)
    fetch(unsized(server), tmp_path)
    assert (server.heads, server.asked) == (0, [])


def test_an_unknown_size_resumes_too(tmp_path, mirror):
    (tmp_path / "w.pth.part").write_bytes(CONTENT[:300_000])
    server = mirror(CONTENT)
    assert fetch(unsized(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]


def test_an_unknown_size_survives_a_connection_that_breaks(tmp_path, mirror):
    server = mirror(CONTENT, cut=200_000)
    assert fetch(unsized(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=200000-", "bytes=400000-"]


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"length": False}, "does not say how large the file is"),
        ({"announced": 0}, "does not say how large the file is"),
        ({"head": False}, "answered 405"),
        ({"status": 404}, "answered 404"),
    ],
)
def test_a_mirror_that_does_not_say_the_size_is_passed_by(tmp_path, mirror, knobs, reason):
    """What had come before stays for the next attempt."""
    (tmp_path / "w.pth.part").write_bytes(CONTENT[:300_000])
    with pytest.raises(Unreachable, match=rf"w\.pth could not be downloaded .*{reason}"):
        fetch(unsized(mirror(CONTENT, **knobs)), tmp_path)
    assert (tmp_path / "w.pth.part").read_bytes() == CONTENT[:300_000]
    second = mirror(CONTENT)
    fetch(unsized(mirror(CONTENT, **knobs), second), tmp_path)
    assert second.asked == ["bytes=300000-"]


def test_one_mirrors_wrong_size_is_not_held_against_the_next(tmp_path, mirror):
    page, right = mirror(b"<html>please log in</html>"), mirror(CONTENT)
    assert fetch(unsized(page, right), tmp_path).read_bytes() == CONTENT


def test_a_wrong_hash_of_a_file_of_unknown_size(tmp_path, mirror):
    wrong = mirror(CONTENT[::-1])
    with pytest.raises(DataError, match=rf"w\.pth arrived damaged .*expected {SHA256[:8]}\.\.\."):
        fetch(unsized(wrong), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("digits", [1, 8, 63, 64])
def test_the_first_digits_of_a_hash_are_enough(tmp_path, mirror, digits):
    fetch(unsized(mirror(CONTENT), digits=digits), tmp_path)
    other = "0" if SHA256[digits - 1] != "0" else "1"
    strange = Remote("x.pth", 0, SHA256[: digits - 1] + other, (mirror(CONTENT).url,))
    with pytest.raises(DataError, match="SHA-256 is"):
        fetch(strange, tmp_path)


def test_no_network_fails_within_seconds(tmp_path, deaf, monkeypatch):
    monkeypatch.setattr(fetch_module, "CONNECT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}/x"
    nowhere = "http://no-such-host.invalid/x"
    file = Remote("set.gz", len(CONTENT), SHA256, (closed, nowhere, deaf))
    start = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        fetch(file, tmp_path)
    assert time.monotonic() - start < 30  # the system's own patience is minutes
    message = str(caught.value)
    assert f"{closed}: Connection refused" in message
    assert f"{nowhere}: " in message
    assert f"{deaf}: no answer within 0.2 s" in message
    assert "\n" not in message


def test_a_download_that_stalls_is_given_up_and_kept(tmp_path, mirror, monkeypatch):
    monkeypatch.setattr(fetch_module, "STALL", 0.2)
    release = threading.Event()
    server = mirror(CONTENT)

    def stall(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:100_000])
        handler.wfile.flush()
        release.wait(5)

    server.answer = stall
    with pytest.raises(Unreachable, match="timed out"):
        fetch(remote(server), tmp_path)
    release.set()
    assert (tmp_path / "set.gz.part").stat().st_size > 0


def test_several_processes_fetch_one_file_once(tmp_path, mirror):
    server = mirror(CONTENT, silent=0.3)
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    helpers = [context.Process(target=fetch, args=(remote(server), tmp_path)) for _ in range(4)]
    for helper in helpers:
        helper.start()
    for helper in helpers:
        helper.join(20)
    assert [helper.exitcode for helper in helpers] == [0] * 4
    assert (tmp_path / "set.gz").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_folder_that_cannot_be_made(tmp_path, mirror):
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"cannot write .*file/cache .*HUBEL_CACHE may name another"
    ):
        fetch(remote(mirror(CONTENT)), tmp_path / "file/cache")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk(tmp_path, mirror):
    (tmp_path / "set.gz.part").symlink_to("/dev/full")
    with pytest.raises(
        DataError, match=r"cannot write .*set\.gz\.part \(No space left on device\)"
    ):
        fetch(remote(mirror(CONTENT)), tmp_path)
    assert not (tmp_path / "set.gz").exists()


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("HUBEL_CACHE")
    assert "hubel" in str(cache_folder())
