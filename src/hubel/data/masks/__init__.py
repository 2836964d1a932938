"""Images with a class for every pixel: where they come from, and what is wrong with them."""

from hubel.data.masks.check import check_masks, class_shares
from hubel.data.masks.classes import ClassList, read_classes
from hubel.data.masks.open import open_masks
from hubel.data.masks.record import IGNORE, MaskArrays, MaskFiles, MaskSource

__all__ = [
    "IGNORE",
    "ClassList",
    "MaskArrays",
    "MaskFiles",
    "MaskSource",
    "check_masks",
    "class_shares",
    "open_masks",
    "read_classes",
]
