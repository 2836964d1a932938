"""Machine code kept between processes."""

import math

import pytest
from native_kernel import MACHINES
from native_nets import (
    compiled,
    lenet,
    normed,
    reference,
    seeded,
    small_images,
)

import hubel.engine.native.step as native
from hubel.engine.native.kernels.update import Update
from hubel.engine.native.plan import Aim
from hubel.engine.native.step import compile_step

WIDE = MACHINES[0]


def test_the_second_compilation_reads_the_first_ones_code(tmp_path, monkeypatch):
    model, (images, labels) = seeded(lenet), small_images(20)
    first = compiled(model, images, cache_folder=tmp_path / "deep" / "folder")
    files = list((tmp_path / "deep" / "folder").iterdir())
    assert len(files) == 1
    written = files[0].stat()

    def never(*_, **__):
        raise AssertionError("compiled again")

    monkeypatch.setattr(native, "compile_object", never)
    other = seeded(lenet, 1)
    second = compiled(other, images, cache_folder=files[0].parent)
    assert list(files[0].parent.iterdir()) == files
    assert files[0].stat().st_mtime_ns == written.st_mtime_ns
    assert first.run(images, labels).loss == pytest.approx(
        reference(model, images, labels).loss, rel=1e-5
    )
    assert second.run(images, labels).loss == pytest.approx(
        reference(other, images, labels).loss, rel=1e-5
    )
    with pytest.raises(AssertionError, match="compiled again"):
        compiled(seeded(normed), images, cache_folder=files[0].parent)


def test_another_aim_update_machine_or_freedom_is_another_code(tmp_path):
    images, _ = small_images(4)
    model = seeded(lenet)
    compiled(model, images, cache_folder=tmp_path)
    compiled(model, images, cache_folder=tmp_path, update=Update("nesterov", "l2"))
    compiled(model, images, cache_folder=tmp_path, update=Update("nesterov", "none"))
    for options in ({"smoothing": 0.1}, {"shares": True}, {"backward": False}):
        aim = Aim(**({"loss": True} | options))
        compile_step(model, images, aim=aim, machine=WIDE, cache_folder=tmp_path)
    compiled(model, images, cache_folder=tmp_path, machine=MACHINES[-1])
    model[0].requires_grad_(False)
    compiled(model, images, cache_folder=tmp_path)
    expected = 8 if MACHINES[-1] != WIDE else 7
    assert len(list(tmp_path.iterdir())) == expected
    compiled(model, images, cache_folder=tmp_path, threads=5)  # threads and sizes are no matter
    compiled(model, small_images(50)[0], cache_folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == expected


@pytest.mark.parametrize("how", ["empty", "half", "zeros", "garbage", "one byte"])
def test_a_broken_file_in_the_cache_is_made_again(how, tmp_path):
    model, (images, labels) = seeded(lenet), small_images(20)
    expected = compiled(model, images, cache_folder=tmp_path).run(images, labels).loss
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    broken = {
        "empty": b"", "half": whole[:middle], "zeros": bytes(len(whole)), "garbage": b"hubel" * 99,
        "one byte": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }[how]  # fmt: skip
    path.write_bytes(broken)
    assert compiled(model, images, cache_folder=tmp_path).run(images, labels).loss == expected
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("no folder")
    model, (images, labels) = seeded(lenet), small_images(20)
    step = compiled(model, images, cache_folder=tmp_path / "file")
    assert math.isfinite(step.run(images, labels).loss)
