"""Which tiles suit how many images."""

import pytest

from hubel.engine.native.machine import Machine, fitting


@pytest.mark.parametrize(
    ("cpu", "features", "images", "tile"),
    [
        ("znver5", "", 4, (4, 4)), ("icelake-server", "", 3, (4, 4)), ("znver5", "", 8, (8, 1)),
        ("znver5", "", 2, (2, 4)), ("znver4", "+avx512f", 4, (4, 2)),
        ("rocketlake", "+avx512f,+avx512fp16", 4, (4, 4)),
    ],
)  # fmt: skip
def test_four_images_take_a_vector_of_16_where_those_are_whole(cpu, features, images, tile):
    machine = fitting(Machine(16, 32, cpu, features), images, 1)
    assert (machine.lanes, machine.wide) == tile


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
