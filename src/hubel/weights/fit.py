"""Tensors into a net: whole, or all but the head; and what is said where they do not fit."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hubel.errors import ModelError, WeightsError
from hubel.models.begin import begin
from hubel.models.head import head_keys, head_of
from hubel.weights.layouts import to_ours

CLASSIFIER = ("classifier.0.weight", "classifier.3.weight")  # of VGG, by which files are known
NAMED = 4  # keys told of each kind of trouble
ALIKE = 0.75  # share of tensors that fit, below which it is another net, not another option


def put_into(
    model: nn.Module, named: dict[str, Tensor], where: str, *, new_head: bool = False
) -> None:
    """Fill `model` with tensors named as ours, torchvision's, timm's or a package's.

    Auxiliary heads ("aux...") that the net does not have are left out.

    Args:
        where: what the tensors come from, for the error.
        new_head: leave the model's last layer as it is, for other classes; and the last layers of
            auxiliary heads that have another number of classes.

    Raises `WeightsError` naming the keys that are missing, unexpected or of another shape, and
    saying what to do; the model is then as it was.
    """
    own = model.state_dict()
    given = to_ours(named, own)
    given = {k: t for k, t in given.items() if k in own or not k.startswith("aux")}
    if new_head:
        head = head_of(model) + "."
        given = {k: t for k, t in given.items() if not k.startswith(head)}
        given |= {k: own[k] for k in head_keys(model)}
        others = [k for k in own if k.startswith("aux") and _rows_differ(k, own, given)]
        given |= {k: own[k] for k in others}
    missing = [k for k in own if k not in given]
    unexpected = [k for k in given if k not in own]
    shapes = [k for k in own if k in given and own[k].shape != given[k].shape]
    if missing or unexpected or shapes:
        raise WeightsError(_trouble(model, own, given, where, missing, unexpected, shapes))
    model.load_state_dict(given)


def put_into_body(model: nn.Module, named: dict[str, Tensor], where: str) -> None:
    """Fill what a segmentation net shares with a classifier; all else stays as it was drawn.

    Raises `WeightsError` for a net that begins by no classifier, and for weights that do not fit.
    """
    body = getattr(model, "body", model)
    try:
        begin(model, to_ours(named, [*body.state_dict(), *CLASSIFIER]))
    except ModelError as error:
        raise WeightsError(f"{where} does not fit: {error}") from None


def is_whole(model: nn.Module, named: dict[str, Tensor]) -> bool:
    """Whether there is a tensor for everything the model has but its last layer."""
    own = model.state_dict()
    given, head = to_ours(named, own), head_keys(model)
    return all(key in given or key in head for key in own)


def same_classes(model: nn.Module, named: dict[str, Tensor]) -> bool:
    """Whether the tensors have a head, and it answers with as many classes as the model's."""
    own = model.state_dict()
    given = to_ours(named, own)
    keys = [k for k in head_keys(model) if own[k].ndim]
    return all(k in given and not _rows_differ(k, own, given) for k in keys)


def _rows_differ(key: str, own: dict[str, Tensor], given: dict[str, Tensor]) -> bool:
    """Whether the tensors of both differ in their first axis alone."""
    if key not in given or not own[key].ndim or own[key].shape == given[key].shape:
        return False
    return own[key].shape[1:] == given[key].shape[1:]


def _trouble(
    model: nn.Module,
    own: dict[str, Tensor],
    given: dict[str, Tensor],
    where: str,
    missing: Sequence[str],
    unexpected: Sequence[str],
    shapes: Sequence[str],
) -> str:
    head, heads = head_of(model), head_keys(model)
    other_rows = all(k in heads and _rows_differ(k, own, given) for k in shapes)
    if not missing and not unexpected and other_rows:
        rows = (own[shapes[0]].shape[0], given[shapes[0]].shape[0])
        return (
            f"{where} answers with {rows[1]} classes, the net with {rows[0]}: "
            f"ask for a new head to keep all but {head}"
        )
    told = [f"the file has {tuple(given[k].shape)} for {k} {tuple(own[k].shape)}" for k in shapes]
    words = [f"{len(missing)} missing: {_few(missing)}"] if missing else []
    words += [f"{len(unexpected)} unexpected: {_few(unexpected)}"] if unexpected else []
    words += [f"{len(shapes)} of another shape: {_few(told)}"] if shapes else []
    common = sum(k in given and own[k].shape == given[k].shape for k in own)
    other_net = (missing or unexpected) and common < ALIKE * max(len(own), len(given))
    advice = (
        "it is of another net: build the one it was made for"
        if other_net
        else "build the net with the options, channels and size the file was made for"
    )
    return f"{where} does not fit: {'; '.join(words)}. {advice}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
