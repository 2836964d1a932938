"""How much each class should weigh in the loss, so that the rare ones are not drowned."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from hubel.errors import OptionError, unknown


def _median_frequency(shares: Sequence[float]) -> list[float]:
    middle = statistics.median(share for share in shares if share > 0)
    return [middle / share if share > 0 else 1.0 for share in shares]


def _inverse_log(shares: Sequence[float]) -> list[float]:
    return [1 / math.log(1.02 + share) for share in shares]


RULES: dict[str, Callable[[Sequence[float]], list[float]]] = {
    "balanced": _median_frequency,
    "inverse-log": _inverse_log,
}


def class_weights(shares: Sequence[float], rule: str) -> tuple[float, ...]:
    """Weights of the classes, in their order, from their shares of all labelled pixels.

    balanced: median(share) / share (Eigen and Fergus 2015, who count a class's share in the
    images that hold it; here it is of all images). A class that never occurs weighs 1 and is
    left out of the median. inverse-log: 1 / ln(1.02 + share) (Paszke et al. 2016, ENet): between
    1.4 and 50.5, so that the rarest class does not rule.

    Args:
        shares: (K,), none below 0; scaled to add up to 1 here, so counts of pixels will do.

    Raises `OptionError` for an unknown rule, or shares that are negative or all 0.
    """
    if rule not in RULES:
        raise OptionError(unknown("class weighting", rule, RULES))
    total = math.fsum(shares)
    if not 0 < total < math.inf or min(shares) < 0:
        raise OptionError(f"shares must be 0 or more and one of them above 0, given {list(shares)}")
    return tuple(RULES[rule]([share / total for share in shares]))
