"""PyTorch's functions of a value, comparisons, normalisations and pools, in the graph's vocabulary.

Layers, arithmetic and activations are in `torch_operators`, moves in `torch_moves`; what is here costs by its elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from scoring.readers.torch_operators import Recording, TorchTranslation, aten, get, pair

Args = Sequence[Any]
Kwargs = dict[str, Any]


# Functions of a single value --------------------------------------------------------------------------------------


def _function(kind: str, *names: str, **attributes: Any) -> None:
    """An element-wise function of one tensor without arguments."""

    def translate(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
        return r.node(kind, [r.value(a[0])], outs, **attributes)

    aten(*names)(translate)


for _kind, _name in (
    ("Exp", "exp"),
    ("Log", "log"),
    ("Sqrt", "sqrt"),
    ("Reciprocal", "reciprocal"),
    ("Sin", "sin"),
    ("Cos", "cos"),
    ("Floor", "floor"),
    ("Ceil", "ceil"),
    ("Not", "logical_not"),
):
    _function(_kind, _name)
_function("Pow", "rsqrt", exponent=-0.5)


@aten("softshrink")
def _softshrink(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    return r.node("Softshrink", [r.value(a[0])], outs, lambd=float(get(a, k, 1, "lambd", 0.5)))


@aten("hardshrink")
def _hardshrink(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    return r.node("Hardshrink", [r.value(a[0])], outs, lambd=float(get(a, k, 1, "lambd", 0.5)))


@aten("rrelu")
def _rrelu(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    low, high = float(get(a, k, 1, "lower", 1 / 8)), float(get(a, k, 2, "upper", 1 / 3))
    if get(a, k, 3, "training", False):
        return False
    return r.node("LeakyRelu", [r.value(a[0])], outs, negative_slope=(low + high) / 2)


@aten("pow")
def _power(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    """A square is a product of a value with itself, a cube two; any other power is a function of one value."""
    x, exponent = a[0], a[1]
    if not isinstance(x, Tensor) or isinstance(exponent, Tensor):
        return False
    name = r.value(x)
    if exponent == 2:
        return r.node("Mul", [name, name], outs)
    if exponent == 3 and name not in r.constants:
        return r.node("Mul", [r.hidden("Mul", [name, name], tuple(x.shape), x.dtype), name], outs)
    if exponent == 1:
        return r.node("Identity", [name], outs)
    return r.node("Pow", [name], outs, exponent=float(exponent))


@aten("rsub")
def _reversed_difference(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    if get(a, k, 2, "alpha", 1) != 1:
        return False
    first = r.value(a[1]) if isinstance(a[1], Tensor) else r.number(a[1], outs[0])
    return r.node("Sub", [first, r.value(a[0])], outs)


@aten("glu")
def _glu(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    """The first half of the channels, gated by the second."""
    x, dim = a[0], int(get(a, k, 1, "dim", -1)) % a[0].dim()
    size, shape = x.shape[dim] // 2, tuple(outs[0].shape)
    halves = [_cut(r, x, dim, start, start + size) for start in (0, size)]
    return r.node("Mul", [halves[0], r.hidden("Sigmoid", [halves[1]], shape, x.dtype)], outs)


def _cut(r: Recording, x: Tensor, dim: int, start: int, end: int) -> str:
    starts, ends, shape = [0] * x.dim(), list(x.shape), list(x.shape)
    starts[dim], ends[dim], shape[dim] = start, end, end - start
    attributes = {"starts": tuple(starts), "ends": tuple(ends), "steps": (1,) * x.dim()}
    return r.hidden("Slice", [r.value(x)], tuple(shape), x.dtype, **attributes)


# Of two values ----------------------------------------------------------------------------------------------------


def _of_two(kind: str) -> TorchTranslation:
    def translate(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
        x, y = a[0], a[1]
        if not isinstance(x, Tensor):
            return False
        names = [r.value(x), r.value(y) if isinstance(y, Tensor) else r.number(y, x)]
        return r.node(kind, names, outs)

    return translate


for _kind, _names in (
    ("Max", ("maximum", "fmax")),
    ("Min", ("minimum", "fmin")),
    ("Equal", ("eq",)),
    ("Greater", ("gt", "greater")),
    ("GreaterOrEqual", ("ge", "greater_equal")),
    ("Less", ("lt", "less")),
    ("LessOrEqual", ("le", "less_equal")),
    ("And", ("logical_and",)),
    ("Or", ("logical_or",)),
):
    aten(*_names)(_of_two(_kind))


@aten("where")
def _where(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    if len(a) != 3:
        return False  # where a condition holds: a shape that depends on values
    names = [r.value(v) if isinstance(v, Tensor) else r.number(v, outs[0]) for v in a]
    return r.node("Where", names, outs)


def _extremes(kind: str, reduction: str) -> TorchTranslation:
    def translate(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
        x = a[0]
        if len(a) > 1 and isinstance(a[1], Tensor):
            return _of_two(kind)(r, a, k, outs)
        axes = tuple(range(x.dim())) if len(a) == 1 else (int(a[1]) % x.dim(),)
        keep = bool(get(a, k, 2, "keepdim", False))
        return r.node(reduction, [r.value(x)], outs[:1], axes=axes, keepdims=keep)

    return translate


aten("max")(_extremes("Max", "ReduceMax"))
aten("min")(_extremes("Min", "ReduceMin"))


@aten("amax")
def _largest(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    return r.node("ReduceMax", [r.value(a[0])], outs, axes=_axes(a, k), keepdims=bool(get(a, k, 2, "keepdim", False)))


@aten("amin")
def _smallest(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    return r.node("ReduceMin", [r.value(a[0])], outs, axes=_axes(a, k), keepdims=bool(get(a, k, 2, "keepdim", False)))


def _axes(a: Args, k: Kwargs, index: int = 1) -> tuple[int, ...]:
    dims, given = a[0].dim(), get(a, k, index, "dim")
    given = [given] if isinstance(given, int) else given
    return tuple(int(d) % dims for d in given) if given else tuple(range(dims))


@aten("linalg_vector_norm")
def _vector_norm(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    """The root of a sum of squares."""
    x = a[0]
    if get(a, k, 1, "ord", 2) != 2 or get(a, k, 4, "dtype") is not None:
        return False
    name, keep = r.value(x), bool(get(a, k, 3, "keepdim", False))
    squares = r.hidden("Mul", [name, name], tuple(x.shape), x.dtype)
    total = r.hidden("ReduceSum", [squares], tuple(outs[0].shape), x.dtype, axes=_axes(a, k, 2), keepdims=keep)
    return r.node("Sqrt", [total], outs)


# Normalisations ---------------------------------------------------------------------------------------------------


def _normalised(
    r: Recording,
    x: Tensor,
    kind: str,
    axes: tuple[int, ...],
    eps: float,
    scale: list[Tensor | None],
    outs: list[Tensor],
    axis: int,
) -> bool:
    """The normalisation, then a multiplier and a shift along an axis (-1: the last ones, as they are)."""
    shape = tuple(x.shape)
    steps = [(op, t) for op, t in zip(("Mul", "Add"), scale, strict=False) if t is not None]
    if not steps:
        return r.node(kind, [r.value(x)], outs[:1], axes=axes, eps=float(eps))
    last = r.hidden(kind, [r.value(x)], shape, x.dtype, axes=axes, eps=float(eps))
    for i, (op, tensor) in enumerate(steps):
        name = r.value(tensor)
        if axis >= 0:
            with _disable_current_modes():
                shaped = tensor.reshape(1, -1, *[1] * (x.dim() - axis - 1))
            r.node("Reshape", [name], [shaped], shape=tuple(shaped.shape))
            name = r.value(shaped)
        if i + 1 == len(steps):
            return r.node(op, [last, name], outs[:1])
        last = r.hidden(op, [last, name], shape, x.dtype)
    return True


@aten("layer_norm", "native_layer_norm")
def _layer_norm(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    x, size = a[0], tuple(a[1])
    axes = tuple(range(x.dim() - len(size), x.dim()))
    scale = [get(a, k, 2, "weight"), get(a, k, 3, "bias")]
    return _normalised(r, x, "Normalise", axes, get(a, k, 4, "eps", 1e-5), scale, outs, -1)


@aten("rms_norm")
def _rms_norm(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    x, size = a[0], tuple(a[1])
    eps = get(a, k, 3, "eps")
    axes = tuple(range(x.dim() - len(size), x.dim()))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _normalised(r, x, "RmsNormalise", axes, eps, [get(a, k, 2, "weight")], outs, -1)


@aten("group_norm")
def _group_norm(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    x, groups = a[0], int(a[1])
    scale, eps = [get(a, k, 2, "weight"), get(a, k, 3, "bias")], float(get(a, k, 4, "eps", 1e-5))
    return _by_groups(r, x, groups, eps, scale, outs)


@aten("instance_norm")
def _instance_norm(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    x, weight, bias, mean, variance, by_instance, _, eps = a[:8]
    if not by_instance:
        return r.node(
            "BatchNormalization", [r.value(t) for t in (x, weight, bias, mean, variance)], outs, eps=float(eps)
        )
    return _by_groups(r, x, x.shape[1], float(eps), [weight, bias], outs)


def _by_groups(
    r: Recording, x: Tensor, groups: int, eps: float, scale: list[Tensor | None], outs: list[Tensor]
) -> bool:
    """Over the channels of a group and all places."""
    batch, channels, *rest = x.shape
    split = (batch, groups, channels // groups, *rest)
    axes = tuple(range(2, len(split)))
    apart = r.hidden("Reshape", [r.value(x)], split, x.dtype, shape=split)
    normal = r.hidden("Normalise", [apart], split, x.dtype, axes=axes, eps=eps)
    steps = [(op, t) for op, t in zip(("Mul", "Add"), scale, strict=True) if t is not None]
    if not steps:
        return r.node("Reshape", [normal], outs[:1], shape=tuple(x.shape))
    last = r.hidden("Reshape", [normal], tuple(x.shape), x.dtype, shape=tuple(x.shape))
    for i, (op, tensor) in enumerate(steps):
        with _disable_current_modes():
            shaped = tensor.reshape(1, -1, *[1] * len(rest))
        r.node("Reshape", [r.value(tensor)], [shaped], shape=tuple(shaped.shape))
        names = [last, r.value(shaped)]
        if i + 1 == len(steps):
            return r.node(op, names, outs[:1])
        last = r.hidden(op, names, tuple(x.shape), x.dtype)
    return True


# Pooling ----------------------------------------------------------------------------------------------------------


def _pool(kind: str) -> TorchTranslation:
    def translate(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
        x, size = a[0], a[1]
        dims = len(pair(size, 1)) if isinstance(size, (list, tuple)) and len(size) > 1 else x.dim() - 2
        kernel = pair(size, dims)
        padding = pair(get(a, k, 3, "padding", 0), dims)
        attributes: dict[str, Any] = {
            "kernel": kernel,
            "stride": pair(get(a, k, 2, "stride") or kernel, dims),
            "pads": padding * 2,
        }
        if kind == "MaxPool":
            attributes["dilation"] = pair(get(a, k, 4, "dilation", 1), dims)
            attributes["ceil"] = bool(get(a, k, 5, "ceil_mode", False))
        else:
            attributes["ceil"] = bool(get(a, k, 4, "ceil_mode", False))
            attributes["count_include_pad"] = bool(get(a, k, 5, "count_include_pad", True))
            if get(a, k, 6, "divisor_override") is not None:
                return False
        return r.node(kind, [r.value(x)], outs[:1], **attributes)

    return translate


aten("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices")(_pool("MaxPool"))
aten("avg_pool1d", "avg_pool2d", "avg_pool3d")(_pool("AveragePool"))


@aten("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    x, dims = a[0], a[0].dim() - 2
    size = pair(a[1], dims)
    if set(size) == {1}:
        return r.node("ReduceMean", [r.value(x)], outs, axes=tuple(range(2, x.dim())), keepdims=True)
    if all(n % s == 0 for n, s in zip(x.shape[2:], size, strict=True)):
        kernel = tuple(n // s for n, s in zip(x.shape[2:], size, strict=True))
        return r.node(
            "AveragePool",
            [r.value(x)],
            outs,
            kernel=kernel,
            stride=kernel,
            pads=(0,) * (2 * dims),
            ceil=False,
            count_include_pad=True,
        )
    return r.node("AdaptiveAveragePool", [r.value(x)], outs, size=size)


@aten("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
    size = tuple(outs[0].shape[-1:]) if isinstance(a[1], int) else tuple(int(n) for n in a[1])
    return r.node("AdaptiveMaxPool", [r.value(a[0])], outs[:1], size=size)


def _reduce(kind: str) -> TorchTranslation:
    def translate(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
        axes = get(a, k, 1, "dim")
        axes = range(a[0].dim()) if axes is None else pair(axes, 1)
        axes = tuple(int(axis) % a[0].dim() for axis in axes)
        return r.node(kind, [r.value(a[0])], outs, axes=axes, keepdims=bool(get(a, k, 2, "keepdim", False)))

    return translate


aten("mean")(_reduce("ReduceMean"))
aten("sum")(_reduce("ReduceSum"))


def _place(kind: str) -> TorchTranslation:
    def translate(r: Recording, a: Args, k: Kwargs, outs: list[Tensor]) -> bool:
        dim = get(a, k, 1, "dim")
        if dim is None:
            return False  # over all at once
        axes, keep = (int(dim) % a[0].dim(),), bool(get(a, k, 2, "keepdim", False))
        return r.node(kind, [r.value(a[0])], outs, axes=axes, keepdims=keep)

    return translate


aten("argmax")(_place("ArgMax"))
aten("argmin")(_place("ArgMin"))
