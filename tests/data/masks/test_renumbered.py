"""Masks with other numbers for their classes."""

import numpy as np

from hubel.data.masks.open import open_masks
from hubel.data.masks.record import IGNORE
from hubel.data.masks.renumbered import Renumbered


def test_labels_go_to_their_new_places_and_the_rest_is_the_sources():
    masks = np.array([[[0, 1], [2, 255]]] * 3, np.uint8)
    images = np.arange(3 * 2 * 2, dtype=np.uint8).reshape(3, 2, 2)
    source = open_masks((images, masks))
    places = np.array([3, 0, 2])
    colours = [(k, k, k) for k in range(4)]
    found = Renumbered(source, places, ("b", "x", "c", "a"), colours)
    assert found[1].target.tolist() == [[3, 0], [2, IGNORE]]
    assert found.mask(1).tolist() == [[3, 0], [2, IGNORE]]
    assert (found[1].image == source[1].image).all()
    assert (found.classes, found.colours) == (("b", "x", "c", "a"), tuple(colours))
    assert (len(found), found.kind, found.size(0)) == (3, "masks", source.size(0))
    assert (found.hashes() == source.hashes()).all()
    assert (found.image_hashes() == source.image_hashes()).all()
    assert source[1].target.tolist() == masks[1].tolist()
