"""Convolutions for the tests of Winograd's kernels."""

from native_kernel import MACHINES, every

from hubel.engine.native.kernels.axis import Axis
from hubel.engine.native.kernels.winograd import Form
from hubel.engine.native.machine import fitting

MEDIUM = fitting(MACHINES[0], 8, 1)  # vectors of 8 with all the registers
every_machine = every([*MACHINES, MEDIUM])

CASES = {  # form, cin, cout, (H, W), padding
    "2 of 3": (Form(2, 3), 5, 7, (8, 6), (1, 1)),
    "2 of 3, odd": (Form(2, 3), 3, 4, (7, 9), (1, 0)),
    "2 of 3, small": (Form(2, 3), 2, 3, (1, 2), (1, 1)),
    "4 of 3": (Form(4, 3), 6, 9, (8, 12), (1, 1)),
    "4 of 3, valid": (Form(4, 3), 4, 5, (11, 18), (0, 0)),
    "4 of 3, odd": (Form(4, 3), 3, 6, (9, 7), (1, 2)),
    "4 of 3, small": (Form(4, 3), 3, 2, (3, 1), (1, 1)),
    "4 of 3, wide": (Form(4, 3), 2, 3, (5, 33), (2, 1)),
    "2 of 5": (Form(2, 5), 4, 6, (14, 14), (0, 0)),
    "2 of 5, odd": (Form(2, 5), 3, 5, (7, 11), (2, 4)),
    "many channels": (Form(4, 3), 70, 5, (6, 9), (1, 1)),
    "one channel": (Form(4, 3), 1, 1, (8, 8), (1, 1)),
}


def axes(case):
    form, _, _, size, padding = case
    return tuple(
        Axis(n, n + 2 * p - form.kernel + 1, form.kernel, padding=p)
        for n, p in zip(size, padding, strict=True)
    )
