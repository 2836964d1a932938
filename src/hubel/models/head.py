"""A net's head: the last layer with weights, the one that has a row for every class.

A net with several such layers registers them together at its end and names the first of them in
an attribute `head`. A net for pixels that begins by a classifier's layers has them as its `body`,
or names those children in an attribute `begins`: what follows them learns like a head.
"""

from __future__ import annotations

from torch import nn

from hubel.errors import ModelError


def head_of(model: nn.Module) -> str:
    """The path of the last fully connected or convolutional layer, in the order of registration;
    or of the layer that the net itself calls its `head`.

    Raises `ModelError` where there is none.
    """
    own = getattr(model, "head", None)
    if isinstance(own, str):
        return own
    last: str | None = None
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            last = name
    if last is None:
        raise ModelError("the model has no fully connected or convolutional layer to be its head")
    return last


def head_keys(model: nn.Module) -> tuple[str, ...]:
    """The state dict's keys of the head and of all that is registered behind it: a norm of the
    classes, or the fixed codes that LeNet-5's paper compares its last layer with."""
    keys = list(model.state_dict())
    head = f"{head_of(model)}."
    first = next(number for number, key in enumerate(keys) if key.startswith(head))
    return tuple(keys[first:])


def body_of(model: nn.Module) -> set[int]:
    """The ids of all parameters but the head's and what follows it; of a net that begins by a
    classifier's layers (its `body`, a module, or those it `begins` by), the ids of those."""
    begins = ["body"] if isinstance(getattr(model, "body", None), nn.Module) else []
    begins = begins or list(getattr(model, "begins", ()))
    if begins:
        return {id(p) for name in begins for p in model.get_submodule(name).parameters()}
    keys = head_keys(model)
    named = dict(model.named_parameters(remove_duplicate=False))
    head = {id(named[key]) for key in keys if key in named}
    return {id(p) for p in named.values()} - head
