"""Which tiles suit how many images."""

import pytest

from hubel.engine.native.machine import Machine, fitting


@pytest.mark.parametrize(
    ("lanes", "images", "threads", "tile"),
    [
        (16, 512, 2, (16, 1)), (16, 17, 2, (16, 1)), (16, 16, 2, (8, 1)), (16, 9, 2, (8, 1)),
        (16, 8, 2, (4, 2)), (16, 5, 2, (4, 2)), (16, 4, 2, (2, 4)), (16, 1, 2, (2, 4)),
        (16, 4, 1, (4, 2)), (8, 64, 2, (8, 1)), (8, 6, 2, (4, 2)), (8, 3, 4, (2, 4)),
        (4, 64, 2, (4, 1)), (4, 6, 2, (4, 1)), (4, 4, 2, (2, 2)),
    ],
)  # fmt: skip
def test_every_thread_gets_some_images_and_every_vector_is_full(lanes, images, threads, tile):
    machine = fitting(Machine(lanes, 32, "", ""), images, threads)
    assert (machine.lanes, machine.wide) == tile
    assert machine.floats in (lanes, 8)
    assert machine.vector == 4 * tile[0]
