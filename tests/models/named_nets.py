"""The named nets, for tests that go through all of them: their tasks, size, their food."""

import torch

from hubel.models.names import catalogue
from hubel.models.table import MODELS

LARGE = 5_000_000  # parameters from which on a net is built without memory where that will do
CLASSIFIERS = [name for name, entry in MODELS.items() if entry.task == "classify"]
SEGMENTERS = [name for name, entry in MODELS.items() if entry.task == "segment"]
SMALL = [
    row.entry.name for row in catalogue() if row.parameters < LARGE and row.entry.task == "classify"
]


def shape(name, images=2):
    """(N, C, H, W): the usual size, or 64 pixels where that is less and the net takes it."""
    entry = MODELS[name]
    channels, *usual = entry.usual
    return (
        images,
        channels,
        *(min(u, max(64, s)) for u, s in zip(usual, entry.smallest, strict=True)),
    )


def logits(outputs):
    """The logits of a net that may answer with a dict."""
    return outputs["logits"] if isinstance(outputs, dict) else outputs


def every(outputs):
    """The sum of all squares that a net answers with: something to go backward from."""
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    return torch.stack([value.square().sum() for value in outputs.values()]).sum()
