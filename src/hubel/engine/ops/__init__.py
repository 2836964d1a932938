"""Every operator of the engine: one file per family, each with its formulas, both ways.

A new operator is a class in one of these files; a new family is a file and a line here.
"""

from hubel.engine.ops import (  # noqa: F401 importing is registering
    activate,
    arithmetic,
    attention,
    choose,
    conv,
    conv_transposed,
    copying,
    dropout,
    elementary,
    entropy,
    extreme,
    fold,
    grid,
    index,
    join,
    lattice,
    linear,
    loss,
    memory,
    norm,
    pool,
    power_pool,
    recurrent,
    reduce,
    region,
    resize,
    response,
    scatter,
    softmax,
    unpool,
    view,
)
from hubel.engine.ops.base import OPS, SPELLINGS, Op

__all__ = ["OPS", "SPELLINGS", "Op"]
