"""Labelled images: where they come from, what they are made of, how they reach a model."""

from hubel.data.files import FileSource
from hubel.data.named import Entry, catalogue, find, get
from hubel.data.open import open_source
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource, Batch, Sample, Source

__all__ = [
    "ArraySource",
    "Batch",
    "Entry",
    "FileSource",
    "Preprocess",
    "Sample",
    "Source",
    "catalogue",
    "find",
    "get",
    "open_source",
]
