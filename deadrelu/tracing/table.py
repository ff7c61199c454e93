"""Table: which handler carries traces through which op. One row per name; what is not listed inherits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..kinds import Arguments
from . import elementwise, parametric, parts, views
from .made import Made, key_of
from .trace import NOTHING, Tracer, tensors_of

Handler = Callable[[Tracer, Arguments, Any], None]

_ROWS: tuple[tuple[Handler, str], ...] = (
    (elementwise.flip_view, "view"),
    (views.reshape, "reshape flatten unflatten ravel view_as reshape_as _unsafe_view _reshape_alias"),
    (views.unsqueeze, "unsqueeze"),
    (views.one_hot, "one_hot"),
    (views.squeeze, "squeeze"),
    (views.permute, "permute"),
    (views.transpose, "transpose swapaxes swapdims"),
    (views.swap_last, "t T mT H mH adjoint"),
    (views.movedim, "movedim moveaxis"),
    (views.expand, "expand expand_as broadcast_to repeat tile"),
    (views.repeat_interleave, "repeat_interleave"),
    (parts.cat, "cat concat concatenate"),
    (parts.stack, "stack"),
    (parts.pieces, "chunk split tensor_split split_with_sizes unsafe_chunk unsafe_split"),
    (parts.narrow, "narrow"),
    (parts.select, "select"),
    (parts.unbind, "unbind __iter__"),
    (parts.getitem, "__getitem__"),
    (parts.index_select, "index_select"),
    (views.pixel_shuffle, "pixel_shuffle"),
    (views.pixel_unshuffle, "pixel_unshuffle"),
    (views.channel_shuffle, "channel_shuffle native_channel_shuffle"),
    (views.unfold_patches, "im2col"),
    (parametric.linear, "linear"),
    (parametric.bilinear, "bilinear"),
    (
        parametric.convolution,
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution",
    ),
    (parametric.embedding, "embedding"),
    (parametric.embedding_bag, "embedding_bag"),
    (parametric.addmm, "addmm baddbmm addmv"),
    (parametric.matmul, "matmul mm bmm mv __matmul__ __rmatmul__"),
    (parametric.grouped, "grouped_mm _grouped_mm scaled_grouped_mm _scaled_grouped_mm"),
    (parametric.einsum, "einsum"),
    (parametric.attention, "scaled_dot_product_attention"),
    (parametric.multi_head_attention, "multi_head_attention_forward"),
    (parametric.recurrent, "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
    (parametric.pad_packed, "_pad_packed_sequence"),
    (parametric.norm_over_channels, "batch_norm instance_norm group_norm native_batch_norm native_group_norm"),
    (parametric.norm_over_last, "layer_norm rms_norm native_layer_norm"),
    (elementwise.negate, "neg negative rsub __rsub__ __neg__"),
    (elementwise.scale, "mul multiply div divide true_divide __mul__ __rmul__ __truediv__"),
    (
        elementwise.reduce,
        "sum nansum mean nanmean amax amin max min argmax argmin prod std var std_mean var_mean median nanmedian norm "
        "vector_norm linalg_vector_norm linalg_norm logsumexp all any count_nonzero quantile aminmax mode kthvalue",
    ),
    (elementwise.zeros, "zeros zeros_like new_zeros"),
    (elementwise.constant, "tensor full full_like new_full new_tensor scalar_tensor as_tensor"),
    (elementwise.assign, "__setitem__ copy"),
    (
        elementwise.accumulate,
        "index_add index_copy index_reduce index_put scatter scatter_add scatter_reduce masked_scatter",
    ),
)

_PARAMETRIC = frozenset(
    name for handler, names in _ROWS if handler.__module__ == parametric.__name__ for name in names.split()
)
_PARAMETRIC -= {
    "matmul",
    "mm",
    "bmm",
    "mv",
    "__matmul__",
    "__rmatmul__",
    "addmm",
    "baddbmm",
    "addmv",
    "einsum",
    "scaled_dot_product_attention",
}
_CONSTANTS = frozenset(
    "zeros zeros_like new_zeros tensor full full_like new_full new_tensor scalar_tensor as_tensor".split()
)
_HANDLERS: dict[str, Handler] = {name: handler for handler, names in _ROWS for name in names.split()}

# Asked about tensors, not computed from them: no trace can come out.
BLIND = frozenset(
    "shape dtype device ndim requires_grad is_leaf grad_fn is_cuda is_mps is_cpu is_sparse is_quantized is_meta layout "
    "grad size dim ndimension numel nelement element_size stride storage_offset is_contiguous is_floating_point "
    "is_complex is_signed is_nonzero is_same_size is_inference item tolist numpy data_ptr storage untyped_storage "
    "get_device "
    "__len__ __bool__ __int__ __float__ __index__ __repr__ __format__ __hash__ __contains__ __deepcopy__ __array__ "
    "register_hook requires_grad_ retain_grad names has_names _version output_nr name nbytes itemsize is_pinned "
    "can_cast result_type promote_types is_tensor is_grad_enabled get_default_dtype manual_seed".split()
)

# Their handlers look at values, or tell of an operand rather than of a result; indexing does so with tensors.
_INDEXING = frozenset(name for name, handler in _HANDLERS.items() if handler is parts.getitem)
_BY_VALUE = frozenset(
    name for name, handler in _HANDLERS.items() if handler in (parts.index_select, elementwise.assign)
)

# Private spellings behind a public name.
_ALIASES = {"_threshold": "threshold", "log_sigmoid": "logsigmoid"}

_names: dict[Any, str] = {}


def canonical_name(func: Any) -> str:
    """Return the name of a torch function, whatever its spelling: `F.relu`, `Tensor.relu_` and aten.relu are `relu`.

    A property keeps its own name (`Tensor.T.__get__` is `T`); an in-place form has no trailing underscore.
    """
    try:
        return _names[func]
    except KeyError:
        name = _names[func] = _canonical(func)
        return name


def _canonical(func: Any) -> str:
    schema = getattr(func, "_schema", None)
    if schema is not None:
        name = str(schema.name).rpartition("::")[2]
    else:
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "__delete__"):
            owner = getattr(getattr(func, "__self__", None), "__name__", "")
            name = owner if name == "__get__" else f"{owner}.set"
    if name.startswith("__i") and name.endswith("__") and hasattr(torch.Tensor, f"__{name[3:]}"):
        name = f"__{name[3:]}"
    if not name.endswith("__"):
        name = _ALIASES.get(name, name.rstrip("_") or name)
    return name


def propagate(name: str, tracer: Tracer, call: Arguments, out: Any) -> None:
    """Carry what is known of the operands of one op over to its results."""
    results = tensors_of([out] if isinstance(out, torch.Tensor) else out if isinstance(out, (tuple, list)) else ())
    operands: list[torch.Tensor] = []
    key = key_of(name, tracer, call, operands, results) if name not in _BY_VALUE else None
    if key is None or (name in _INDEXING and len(operands) > 1):
        _work_out(name, tracer, call, out, results)
        return
    made = tracer.made.get(key)
    if made is not None:
        made.again(tracer, operands, results)
        return
    made = _worked_out(name, tracer, call, out, operands, results)
    if made is not None:
        tracer.made.put(key, made)


def _worked_out(
    name: str, tracer: Tracer, call: Arguments, out: Any, operands: list[torch.Tensor], results: list[torch.Tensor]
) -> Made | None:
    """Carry over, and return what has come of it; None if that depends on more than a key tells."""
    fed = tracer.fed = []
    try:
        label = _work_out(name, tracer, call, out, results)
        at = {id(operand): i for i, operand in enumerate(operands)}
        if tracer.unbatched or (fed and len(at) < len(operands)) or any(id(x) not in at for _, x, _, _ in fed):
            return None
        inputs = tuple((producer, at[id(x)], groups, dim) for producer, x, groups, dim in fed)
    finally:
        tracer.fed = None
    return Made(tuple(tracer.traces.get(result) for result in results), label, inputs)


def _work_out(name: str, tracer: Tracer, call: Arguments, out: Any, results: list[torch.Tensor]) -> str | None:
    """Carry over. Returns the weight that the results are again, if they are one."""
    handler = _HANDLERS.get(name, elementwise.inherit)
    operands = tensors_of([*call.args, *call.kwargs.values()])
    if name in _PARAMETRIC or name in _CONSTANTS or any(tracer.traces.get(t) is not None for t in operands):
        handler(tracer, call, out)
        return None
    # A weight that is transposed, normalised or cut before its use stays the weight of its op.
    weights = (tracer.parameter_name(t) for t in operands)
    label = next((weight for weight in weights if weight is not None), None)
    for tensor in results:
        if label is not None:
            tracer.derive(tensor, label)
        else:  # made from nothing that came in; what has no trace at all comes from code that cannot be seen
            tracer.traces.put(tensor, NOTHING)
    return label
