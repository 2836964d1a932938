"""Several segmentation nets as one: their probabilities averaged pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hubel.data.preprocess import Preprocess
from hubel.deploy.ensemble import class_places
from hubel.errors import DataError
from hubel.models.tiles import logarithm, probabilities
from hubel.runs.weights import Card


class MaskEnsemble(nn.Module):
    """Images (N, C, H, W), normalised for the first net -> log of the mean probabilities
    (N, K, H, W), float32, in the order of the first net's classes.

    The others may know mean and deviation otherwise: colours are brought from one to the other.
    What is a fold's own mean colour where images are padded is the first net's here.

    Args:
        models, cards: one each per member.

    Raises `DataError` where the members do not know the same classes, or do not bring images to
    one size and number of channels.
    """

    def __init__(self, models: Sequence[nn.Module], cards: Sequence[Card]) -> None:
        super().__init__()
        self.members = nn.ModuleList(models)
        places = class_places([card.classes for card in cards])
        first = cards[0].preprocess
        for number, (card, place) in enumerate(zip(cards, places, strict=True)):
            _must_match(first, card.preprocess)
            self.register_buffer(f"place{number}", torch.from_numpy(place), persistent=False)
            line = torch.tensor(_between(first, card.preprocess)).view(2, -1, 1, 1)
            self.register_buffer(f"line{number}", line, persistent=False)
        self.train(models[0].training)

    def forward(self, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        total: Tensor | None = None
        for number, member in enumerate(self.members):
            scale, shift = self.get_buffer(f"line{number}")
            found = probabilities(member(images * scale + shift), size)
            found = found.index_select(1, self.get_buffer(f"place{number}"))
            total = found if total is None else total + found
        assert total is not None
        return logarithm(total / len(self.members))


def _between(one: Preprocess, other: Preprocess) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and shift per channel from images normalised by `one` to those by `other`."""
    pairs = list(zip(one.mean, one.std, other.mean, other.std, strict=True))
    scale = tuple(std / std2 for _, std, _, std2 in pairs)
    return scale, tuple((mean - mean2) / std2 for mean, _, mean2, std2 in pairs)


def _must_match(one: Preprocess, other: Preprocess) -> None:
    if _geometry(one) != _geometry(other):
        raise DataError(
            "these runs prepare images in different ways, so their masks cannot be averaged: "
            f"{_words(one)} and {_words(other)}; train them with one --fit and --size"
        )


def _geometry(preprocess: Preprocess) -> Preprocess:
    """What decides the size of what the net is fed; windows of training do not."""
    half = (0.5,) * preprocess.channels
    plain = replace(preprocess, mean=half, std=half)
    return replace(plain, height=1, width=1) if plain.fit == "same" else plain


def _words(p: Preprocess) -> str:
    size = "" if p.fit == "same" else f" {p.height} x {p.width}"
    return f"{p.fit}{size}, {p.channels} channel{'s' if p.channels > 1 else ''}"
