"""How the learning rate moves through a training: a pure function of the step's number."""

from __future__ import annotations

import math

from hubel.training.plan import Schedule

START = 1 / 25  # one-cycle begins at this share of its highest rate (Smith & Topin 2018)
DEFAULT_WARMUP = {"one-cycle": 0.25}


def learning_rate(plan: Schedule, highest: float, step: int, total: int, drops: int = 0) -> float:
    """The rate of step `step` (0-based) of `total`.

    Args:
        plan: the schedule.
        highest: the rate that the plan names; every schedule peaks there.
        step, total: where the training stands, in optimiser steps.
        drops: how many times the validation metric has stood still (plateau only).

    constant   highest
    step       highest * factor ** (milestones passed)
    plateau    highest * factor ** drops
    table      highest * rates[i] in the i-th of len(rates) equal parts of the training
    cosine     from highest to highest * final along half a cosine (Loshchilov & Hutter 2017)
    one-cycle  half a cosine up from highest / 25, then half a cosine down to highest * final

    Warm-up is linear, (step + 1) / warm-up steps, for all but one-cycle, where the share
    `warmup` (a quarter unless told) is the way up.
    """
    share = plan.warmup if plan.warmup is not None else DEFAULT_WARMUP.get(plan.name, 0.0)
    warm = share * total
    if step < warm:
        rising = _half_cosine(START, 1.0, step / warm)
        return highest * (rising if plan.name == "one-cycle" else min(1.0, (step + 1) / warm))
    match plan.name:
        case "constant":
            return highest
        case "step":
            passed = sum(step >= mark * total for mark in plan.milestones)
            return highest * plan.factor**passed
        case "plateau":
            return highest * plan.factor**drops
        case "table":
            return highest * plan.rates[step * len(plan.rates) // total]
        case "cosine" | "one-cycle":
            return highest * _half_cosine(1.0, plan.final, (step - warm) / (total - warm))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
