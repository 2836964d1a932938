"""Mean, spread and 95 % interval of a handful of scores: those of several trainings."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

# Student's t, 0.975 quantile, by degrees of freedom (1 to 30, then some): NIST/SEMATECH e-Handbook
# of Statistical Methods, section 1.3.6.7.2.
_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
STUDENT = dict(enumerate(_QUANTILES, start=1)) | {40: 2.021, 60: 2.000, 100: 1.984}
_DEGREES = sorted(STUDENT)


@dataclass(frozen=True)
class Interval:
    """What several values of one score say about their mean.

    Attributes:
        mean: their average.
        std: the sample's standard deviation (n - 1); NaN for a single value.
        low, high: mean -+ t std / sqrt(n), t Student's 0.975 quantile with n - 1 degrees of
            freedom: covers the true mean in 95 % of such samples, if the values are independent
            and about normal. NaN for a single value.
        count: n.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int

    @property
    def half(self) -> float:
        """Half the interval's width: what stands after the +-."""
        return (self.high - self.low) / 2

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def interval(values: Sequence[float]) -> Interval:
    """The interval of one value or more. NaN where one of them is NaN."""
    mean, count = math.fsum(values) / len(values), len(values)
    if count == 1 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan, math.nan, count)
    std = statistics.stdev(values)
    half = student(count - 1) * std / math.sqrt(count)
    return Interval(mean, std, mean - half, mean + half, count)


def intervals(scores: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    """The interval of every score that all of the records hold."""
    names = [name for name in scores[0] if all(name in record for record in scores)]
    return {name: interval([record[name] for record in scores]) for name in names}


def student(degrees: int) -> float:
    """Student's t: the 0.975 quantile. Between the table's rows, the row of fewer degrees: an
    interval that is too wide by 2 % at most, never one that is too narrow."""
    return STUDENT[_DEGREES[bisect_right(_DEGREES, degrees) - 1]]
