"""Table: which handler bounds which op of torch's core (aten). What is not listed has no bounds, and is named."""

from __future__ import annotations

from . import arithmetic, contractions, curves, moves, norms, reductions
from .calls import Handler
from .curves import EXACT, HARDSWISH_TURN, MISH_TURN, SILU_TURN, curve

_ROWS: tuple[tuple[Handler, str], ...] = (
    (curve(ulps=EXACT), "relu floor ceil round trunc sign sgn"),
    (curve((0.0,), EXACT), "abs"),
    (curve(ulps=EXACT), "neg"),
    (curves.soft_shrink, "softshrink"),
    (curve(), "sigmoid tanh hardsigmoid softplus log_sigmoid_forward erf exp expm1 atan asinh"),
    (curve((0.0,)), "elu celu"),
    (curve((SILU_TURN,), at_infinity=0.0), "silu"),
    (curve((MISH_TURN,), at_infinity=0.0), "mish"),
    (curve((HARDSWISH_TURN,), at_infinity=0.0), "hardswish"),
    (curves.gelu, "gelu"),
    (curves.hard_shrink, "hardshrink"),
    (curves.hard_tanh, "hardtanh"),
    (curves.threshold, "threshold"),
    (curves.leaky_relu, "leaky_relu"),
    (curves.prelu, "_prelu_kernel"),
    (curves.rrelu, "rrelu_with_noise"),
    (curves.glu, "glu"),
    (curves.bounded_wave, "sin cos"),
    (curves.logarithm, "log log2 log10 log1p"),
    (curves.square_root, "sqrt"),
    (arithmetic.add, "add"),
    (arithmetic.sub, "sub"),
    (arithmetic.rsub, "rsub"),
    (arithmetic.mul, "mul"),
    (arithmetic.div, "div true_divide"),
    (arithmetic.square, "square"),
    (arithmetic.power, "pow"),
    (arithmetic.reciprocal, "reciprocal"),
    (arithmetic.rsqrt, "rsqrt"),
    (arithmetic.addcmul, "addcmul"),
    (arithmetic.maximum, "maximum"),
    (arithmetic.minimum, "minimum"),
    (arithmetic.clamp, "clamp clamp_min clamp_max clip"),
    (arithmetic.where, "where"),
    (arithmetic.masked_fill, "masked_fill"),
    (arithmetic.less, "lt"),
    (arithmetic.greater, "gt"),
    (arithmetic.less_equal, "le"),
    (arithmetic.greater_equal, "ge"),
    (arithmetic.equal, "eq"),
    (arithmetic.unequal, "ne"),
    (arithmetic.logical_not, "logical_not bitwise_not"),
    (arithmetic.logical_and, "logical_and bitwise_and"),
    (arithmetic.logical_or, "logical_or bitwise_or"),
    (arithmetic.not_a_number, "isnan isinf"),
    (arithmetic.numbers_only, "nan_to_num"),
    (arithmetic.copy, "copy"),
    (arithmetic.converted, "clone _to_copy"),
    (contractions.matmul, "mm bmm mv dot"),
    (contractions.addmm, "addmm baddbmm addmv"),
    (contractions.convolution, "convolution"),
    (
        contractions.attention,
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention",
    ),
    (contractions.long_short_term, "mkldnn_rnn_layer"),
    (norms.layer_norm, "native_layer_norm"),
    (norms.group_norm, "native_group_norm"),
    (
        norms.batch_norm,
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
        "miopen_batch_norm",
    ),
    (reductions.total, "sum"),
    (reductions.mean, "mean"),
    (reductions.cumulated, "cumsum"),
    (reductions.extreme, "amax amin max min"),
    (reductions.place_of, "argmax argmin argsort"),
    (reductions.sorted_values, "sort topk"),
    (reductions.any_of, "any all"),
    (reductions.variance, "var std var_mean std_mean"),
    (reductions.length, "linalg_vector_norm"),
    (reductions.softmax, "_softmax _safe_softmax"),
    (reductions.logsumexp, "logsumexp"),
    (
        reductions.pooled_maximum,
        "max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d",
    ),
    (
        reductions.pooled_mean,
        "avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d",
    ),
    (reductions.interpolated, "upsample_linear1d upsample_bilinear2d upsample_trilinear3d"),
    (moves.nearest, "upsample_nearest1d upsample_nearest2d upsample_nearest3d"),
    (
        moves.moved,
        "cat stack constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
        "replication_pad2d replication_pad3d repeat roll flip tril triu pixel_shuffle pixel_unshuffle channel_shuffle "
        "im2col slice_scatter select_scatter masked_select lift_fresh_copy permute_copy view_copy expand_copy "
        "slice_copy select_copy transpose_copy unbind_copy split_copy split_with_sizes_copy diag_embed",
    ),
    (moves.taken, "index index_select gather"),
    (moves.embedding, "embedding"),
    (moves.put, "index_put"),
    (moves.filled, "fill full_like"),
    (moves.constant_of(0.0), "zero zeros_like new_zeros"),
    (moves.constant_of(1.0), "ones_like new_ones"),
)

HANDLERS: dict[str, Handler] = {name: handler for handler, names in _ROWS for name in names.split()}
"""Handler of each op, by its name without the underscore of an in-place form."""

UNSET = frozenset(
    "empty empty_like empty_strided new_empty new_empty_strided empty_permuted resize resize_as empty_quantized".split()
)
"""Ops whose result holds whatever the memory held before."""
