"""Which function writes the kernel that a description asks for."""

from __future__ import annotations

from typing import Any

from hubel.engine.native.kernels.amx_correlate import (
    AmxCorrelate,
    AmxMap,
    AmxWeights,
    write_amx_correlate,
    write_amx_map,
    write_amx_weights,
)
from hubel.engine.native.kernels.amx_gradient import (
    AmxGradient,
    AmxSlopes,
    AmxTurned,
    write_amx_gradient,
    write_amx_slopes,
    write_amx_turned,
)
from hubel.engine.native.kernels.broadcast import (
    Broadcast,
    BroadcastBack,
    write_broadcast,
    write_broadcast_back,
)
from hubel.engine.native.kernels.correlate import Correlate, write_correlate
from hubel.engine.native.kernels.dense import (
    BiasGradient,
    DenseGradient,
    write_bias_gradient,
    write_dense_gradient,
)
from hubel.engine.native.kernels.dense_small import (
    DenseRows,
    DenseRowsBack,
    DenseWhole,
    write_dense_rows,
    write_dense_rows_back,
    write_dense_whole,
)
from hubel.engine.native.kernels.halves import (
    HalfChannels,
    HalfRows,
    HalfWeights,
    write_half_channels,
    write_half_rows,
    write_half_weights,
)
from hubel.engine.native.kernels.loss import CrossEntropy, write_cross_entropy
from hubel.engine.native.kernels.move import (
    Copy,
    Fill,
    Pack,
    Unpack,
    write_copy,
    write_fill,
    write_pack,
    write_unpack,
)
from hubel.engine.native.kernels.norm import (
    Figures,
    FiguresBack,
    FixedFigures,
    NormBack,
    Sums,
    write_figures,
    write_figures_back,
    write_fixed_figures,
    write_norm_back,
    write_sums,
)
from hubel.engine.native.kernels.pointwise import (
    Pointwise,
    PointwiseBack,
    write_pointwise,
    write_pointwise_back,
)
from hubel.engine.native.kernels.pool import (
    Pool,
    PoolBack,
    Whole,
    WholeBack,
    write_pool,
    write_pool_back,
    write_whole,
    write_whole_back,
)
from hubel.engine.native.kernels.resample import Resample, write_resample
from hubel.engine.native.kernels.response import (
    Response,
    ResponseBack,
    ResponseParts,
    write_response,
    write_response_back,
    write_response_parts,
)
from hubel.engine.native.kernels.update import Reduce, Update, write_reduce, write_update
from hubel.engine.native.kernels.weight_gradient import WeightGradient, write_weight_gradient
from hubel.engine.native.kernels.winograd import WinogradWeights, write_winograd_weights
from hubel.engine.native.kernels.winograd_correlate import (
    WinogradCorrelate,
    write_winograd_correlate,
)
from hubel.engine.native.kernels.winograd_gradient import (
    WinogradGradient,
    write_winograd_gradient,
)

WRITERS: dict[type, Any] = {
    AmxCorrelate: write_amx_correlate, AmxGradient: write_amx_gradient, AmxMap: write_amx_map,
    AmxSlopes: write_amx_slopes, AmxTurned: write_amx_turned, AmxWeights: write_amx_weights,
    BiasGradient: write_bias_gradient, Broadcast: write_broadcast,
    BroadcastBack: write_broadcast_back, Copy: write_copy, Correlate: write_correlate,
    CrossEntropy: write_cross_entropy, DenseGradient: write_dense_gradient,
    DenseRows: write_dense_rows, DenseRowsBack: write_dense_rows_back,
    DenseWhole: write_dense_whole, Figures: write_figures, FiguresBack: write_figures_back,
    Fill: write_fill, FixedFigures: write_fixed_figures,
    HalfChannels: write_half_channels, HalfRows: write_half_rows, HalfWeights: write_half_weights,
    NormBack: write_norm_back, Pack: write_pack, Pointwise: write_pointwise,
    PointwiseBack: write_pointwise_back, Pool: write_pool, PoolBack: write_pool_back,
    Reduce: write_reduce, Resample: write_resample, Response: write_response,
    ResponseBack: write_response_back, ResponseParts: write_response_parts, Sums: write_sums,
    Unpack: write_unpack, Update: write_update, WeightGradient: write_weight_gradient,
    Whole: write_whole, WholeBack: write_whole_back, WinogradCorrelate: write_winograd_correlate,
    WinogradGradient: write_winograd_gradient, WinogradWeights: write_winograd_weights,
}  # fmt: skip
