"""Polygons to pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fill(points: NDArray[np.floating], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels whose centres lie inside a polygon: bool (height, width).

    Coordinates are COCO's: (0, 0) is the upper left corner of the upper left pixel, whose centre
    is (0.5, 0.5). Inside is by the even-odd rule; a centre on an edge belongs to the right of an
    upright edge and below a level one, so that neighbours share no pixel and leave none out.
    pycocotools draws the outline too, about half a pixel more all round.

    Args:
        points: (P, 2) of x, y; the last is joined to the first.
        height, width: of the image; what lies outside of it is cut off.
    """
    x0, y0 = points.astype(np.float64).T
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    # Rows whose centre line r + 0.5 an edge crosses, its upper end included and its lower not.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    edge = np.repeat(np.arange(len(x0)), last - first)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
    share = (row + 0.5 - y0[edge]) / (y1 - y0)[edge]
    x = x0[edge] + share * (x1 - x0)[edge]
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    # Each crossing turns the inside on or off for all pixels right of it.
    turns = np.bincount(row * (width + 1) + column, minlength=height * (width + 1))
    inside = np.cumsum(turns.reshape(height, width + 1)[:, :width], axis=1) & 1
    return inside.astype(np.bool_)
