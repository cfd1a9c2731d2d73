"""ONNX's functions of a value, comparisons, normalisations, attention and pools, in the graph's vocabulary.

Layers, arithmetic and activations are in `onnx_operators`, moves in `onnx_moves`; what is here costs by its elements.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from scoring.readers.onnx_operators import Building, Unsupported, operator, optional, shape_of, window


def _simple(kind: str, op: str, **attributes: tuple[str, float]) -> None:
    """An operator of one input: attributes are {ours: (ONNX's, default)}."""

    def translate(b: Building, proto: Any, a: dict[str, Any]) -> None:
        values = {ours: float(a.get(theirs, default)) for ours, (theirs, default) in attributes.items()}
        b.emit(kind, (proto.input[0],), proto.output[0], **values)

    operator(op)(translate)


for _op in ("Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Floor", "Ceil", "Round", "Not"):
    _simple(_op, _op)
_simple("HardSigmoid", "HardSigmoid", alpha=("alpha", 0.2), beta=("beta", 0.5))
_simple("ThresholdedRelu", "ThresholdedRelu", alpha=("alpha", 1.0))


@operator("Shrink")
def _shrink(b: Building, proto: Any, a: dict[str, Any]) -> None:
    bias, lambd = float(a.get("bias", 0.0)), float(a.get("lambd", 0.5))
    if bias not in (0.0, lambd):
        raise Unsupported
    b.emit("Softshrink" if bias else "Hardshrink", (proto.input[0],), proto.output[0], lambd=lambd)


@operator("Swish", "QuickGelu")
def _swish(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """x * sigmoid(alpha * x)."""
    x, out, alpha = proto.input[0], proto.output[0], a.get("alpha", 1.702 if proto.op_type == "QuickGelu" else 1.0)
    inner = x if alpha == 1.0 else b.emit("Mul", (x, b.number(alpha, x)), f"{out}^scaled")
    b.emit("Mul", (x, b.emit("Sigmoid", (inner,), f"{out}^gate")), out)


@operator("Pow")
def _power(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """A square is a product of a value with itself, a cube two; any other power is a function of one value."""
    x, power = proto.input[0], b.constant(proto.input[1])
    if power.numel() != 1:
        raise Unsupported
    exponent = float(power.item())
    if exponent in (2, 3) and x not in b.constants:
        squared = b.emit("Mul", (x, x), f"{proto.output[0]}^squared") if exponent == 3 else x
        b.emit("Mul", (squared, x), proto.output[0])
    else:
        b.emit("Pow", (x,), proto.output[0], exponent=exponent)


@operator("Max", "Min")
def _extremes(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """With one number it is a clip, an activation; of several values an operation an element."""
    kind, names = proto.op_type, list(proto.input)
    numbers = [n for n in names if n in b.constants and b.constants[n].numel() == 1]
    others = [n for n in names if n not in numbers]
    if len(names) == 2 and len(numbers) == 1 and others[0] not in b.constants:
        side = "min" if kind == "Max" else "max"
        bounds: dict[str, Any] = {"min": None, "max": None, side: b.constants[numbers[0]].item()}
        b.emit("Clip", (others[0],), proto.output[0], **bounds)
        return
    _fold(b, proto, kind)


@operator("Sum")
def _sum(b: Building, proto: Any, a: dict[str, Any]) -> None:
    _fold(b, proto, "Add")


def _fold(b: Building, proto: Any, kind: str, output: str = "") -> None:
    """An operator of any number of inputs, two by two."""
    last, names, output = proto.input[0], list(proto.input[1:]), output or proto.output[0]
    if not names:
        b.emit("Identity", (last,), output)
    for i, name in enumerate(names):
        last = b.emit(kind, (last, name), output if i + 1 == len(names) else f"{output}^{i}")


@operator("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Where")
def _compare(b: Building, proto: Any, a: dict[str, Any]) -> None:
    if all(name in b.constants for name in proto.input):
        raise Unsupported  # shapes are computed by what ONNX says of them
    b.emit(proto.op_type, tuple(proto.input), proto.output[0])


def _axes(b: Building, proto: Any, a: dict[str, Any]) -> tuple[int, ...]:
    """The axes of a reduction; none where it is asked to leave its input as it is."""
    dims = b.values[proto.input[0]].dim()
    axes = tuple(a["axes"]) if "axes" in a else b.ints(proto.input[1]) if optional(proto, 1) else ()
    if not axes and a.get("noop_with_empty_axes", 0):
        return ()
    return tuple(axis % dims for axis in axes) or tuple(range(dims))


@operator("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
def _reduce(b: Building, proto: Any, a: dict[str, Any]) -> None:
    axes = _axes(b, proto, a)
    if not axes:
        b.emit("Identity", (proto.input[0],), proto.output[0])
        return
    b.emit(proto.op_type, (proto.input[0],), proto.output[0], axes=axes, keepdims=bool(a.get("keepdims", 1)))


_SUMS = {
    "ReduceL1": ("Abs", None),
    "ReduceL2": ("Square", "Sqrt"),
    "ReduceSumSquare": ("Square", None),
    "ReduceLogSum": (None, "Log"),
    "ReduceLogSumExp": ("Exp", "Log"),
}
"""Reductions that are a sum with a function before and one behind it."""


@operator(*_SUMS)
def _sum_of_functions(b: Building, proto: Any, a: dict[str, Any]) -> None:
    axes, out, (before, behind) = _axes(b, proto, a), proto.output[0], _SUMS[proto.op_type]
    if not axes:
        raise Unsupported
    x = _power_of(b, proto.input[0], 2, f"{out}^each") if before == "Square" else proto.input[0]
    if before not in (None, "Square"):
        x = b.emit(str(before), (x,), f"{out}^each")
    total = f"{out}^sum" if behind else out
    b.emit("ReduceSum", (x,), total, axes=axes, keepdims=bool(a.get("keepdims", 1)))
    if behind:
        b.emit(behind, (total,), out)


def _power_of(b: Building, x: str, power: float, output: str) -> str:
    """|x| to a power; a square is a product of a value with itself."""
    if power == 2:
        return b.emit("Mul", (x, x), output)
    size = b.emit("Abs", (x,), output if power == 1 else f"{output}^abs")
    return size if power == 1 else b.emit("Pow", (size,), output, exponent=power)


def _root_of(b: Building, x: str, power: float, output: str) -> None:
    if power == 2:
        b.emit("Sqrt", (x,), output)
    elif power == 1:
        b.emit("Identity", (x,), output)
    else:
        b.emit("Pow", (x,), output, exponent=1 / power)


@operator("ArgMax", "ArgMin")
def _place(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """Where the largest value is, the first of equals."""
    axis = int(a.get("axis", 0)) % b.values[proto.input[0]].dim()
    if a.get("select_last_index", 0):
        raise Unsupported
    b.emit(proto.op_type, (proto.input[0],), proto.output[0], axes=(axis,), keepdims=bool(a.get("keepdims", 1)))


@operator("Mean")
def _mean(b: Building, proto: Any, a: dict[str, Any]) -> None:
    total = f"{proto.output[0]}^sum"
    _fold(b, proto, "Add", total)
    b.emit("Mul", (total, b.number(1 / len(proto.input), total)), proto.output[0])


# Normalisations ---------------------------------------------------------------------------------------------------


def _scaled(b: Building, proto: Any, normal: str, shape: tuple[int, ...] | None) -> None:
    """A multiplier and a shift behind a normalisation; shape: of one number a channel, None as they are."""
    output, names = proto.output[0], [n for n in proto.input[1:3] if n]
    if shape is not None:
        names = [b.emit("Reshape", (n,), f"{output}^{i}", shape=shape) for i, n in enumerate(names)]
    if not names:
        b.emit("Identity", (normal,), output)
    for i, (kind, name) in enumerate(zip(("Mul", "Add"), names, strict=False)):
        normal = b.emit(kind, (normal, name), output if i + 1 == len(names) else f"{output}^scaled")


@operator("LayerNormalization", "RMSNormalization")
def _layer_norm(b: Building, proto: Any, a: dict[str, Any]) -> None:
    if len([o for o in proto.output if o]) > 1:
        raise Unsupported
    x, dims = proto.input[0], b.values[proto.input[0]].dim()
    axes = tuple(range(int(a.get("axis", -1)) % dims, dims))
    kind = "Normalise" if proto.op_type == "LayerNormalization" else "RmsNormalise"
    eps = float(a.get("epsilon", 1e-5))
    _scaled(b, proto, b.emit(kind, (x,), f"{proto.output[0]}^normal", axes=axes, eps=eps), None)


@operator("InstanceNormalization", "GroupNormalization")
def _group_norm(b: Building, proto: Any, a: dict[str, Any]) -> None:
    x, output = proto.input[0], proto.output[0]
    shape = tuple(b.values[x].shape)
    groups = int(a.get("num_groups", shape[1]))
    split = (shape[0], groups, shape[1] // groups, *shape[2:])
    apart = b.emit("Reshape", (x,), f"{output}^groups", shape=split)
    axes, eps = tuple(range(2, len(split))), float(a.get("epsilon", 1e-5))
    normal = b.emit("Normalise", (apart,), f"{output}^normal", axes=axes, eps=eps)
    whole = b.emit("Reshape", (normal,), f"{output}^whole", shape=shape)
    _scaled(b, proto, whole, (1, -1, *[1] * (len(shape) - 2)))


@operator("MeanVarianceNormalization")
def _mean_variance(b: Building, proto: Any, a: dict[str, Any]) -> None:
    axes = tuple(a.get("axes", (0, 2, 3)))
    b.emit("Normalise", (proto.input[0],), proto.output[0], axes=axes, eps=1e-18)


@operator("LpNormalization")
def _lp_normalization(b: Building, proto: Any, a: dict[str, Any]) -> None:
    x, out, power = proto.input[0], proto.output[0], int(a.get("p", 2))
    powers = _power_of(b, x, power, f"{out}^powers")
    axes = (int(a.get("axis", -1)) % b.values[x].dim(),)
    total = b.emit("ReduceSum", (powers,), f"{out}^sum", axes=axes, keepdims=True)
    _root_of(b, total, power, f"{out}^root")
    b.emit("Div", (x, b.emit("Clip", (f"{out}^root",), f"{out}^norm", min=1e-12, max=None)), out)


@operator("LRN")
def _local_response(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """x / (bias + alpha * mean of squares of the channels around)^beta: a mean over channels, zeros beyond the edge."""
    x, out, size = proto.input[0], proto.output[0], int(a["size"])
    shape, before = shape_of(b, x), (size - 1) // 2
    apart = (shape[0], 1, shape[1], math.prod(shape[2:]))
    squares = b.emit("Reshape", (b.emit("Mul", (x, x), f"{out}^squares"),), f"{out}^apart", shape=apart)
    window_ = {"kernel": (size, 1), "stride": (1, 1), "pads": (before, 0, size - 1 - before, 0), "ceil": False}
    means = b.emit("AveragePool", (squares,), f"{out}^means", **window_, count_include_pad=True)
    whole = b.emit("Reshape", (means,), f"{out}^whole", shape=shape)
    scaled = b.emit("Mul", (whole, b.number(float(a.get("alpha", 1e-4)), whole)), f"{out}^scaled")
    shifted = b.emit("Add", (scaled, b.number(float(a.get("bias", 1.0)), whole)), f"{out}^shifted")
    b.emit("Div", (x, b.emit("Pow", (shifted,), f"{out}^power", exponent=float(a.get("beta", 0.75)))), out)


# Attention --------------------------------------------------------------------------------------------------------


_ATTENTION = {"is_causal", "kv_num_heads", "q_num_heads", "scale", "softcap", "softmax_precision"}


@operator("Attention")
def _attention(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """Scaled products of queries and keys, a softmax, and a sum of values; heads side by side in three dimensions."""
    out, mask = proto.output[0], optional(proto, 3)
    if any(optional(proto, i) for i in (4, 5, 6)) or len([o for o in proto.output if o]) > 1 or a.keys() - _ATTENTION:
        raise Unsupported  # keys of earlier images, windows
    if mask in b.constants and b.values[mask].dtype == torch.bool and not bool(b.values[mask].any(-1).all()):
        raise Unsupported  # who may look at nothing gets 0 in ONNX and NaN in torch
    joined = b.values[proto.input[0]].dim() == 3
    heads = [int(a.get(key, 0)) for key in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    q, k, v = (
        _apart(b, name, n, f"{out}^{part}") if joined else name
        for name, n, part in zip(proto.input[:3], heads, "qkv", strict=True)
    )
    (_, many, tokens, width), (_, few, others, _) = shape_of(b, q), shape_of(b, k)
    if few != many:
        k, v = (_repeated(b, name, many // few, f"{out}^{part}s") for name, part in ((k, "k"), (v, "v")))
    turned = b.emit("Transpose", (k,), f"{out}^turned", perm=(0, 1, 3, 2))
    products = b.emit("MatMul", (q, turned), f"{out}^products")
    scale = float(a.get("scale", 0.0)) or 1 / math.sqrt(width)
    value = b.emit("Mul", (products, b.number(scale, products)), f"{out}^scaled")
    cap = float(a.get("softcap", 0.0))
    if cap:
        inner = b.emit("Mul", (value, b.number(1 / cap, value)), f"{out}^inner")
        value = b.emit("Mul", (b.emit("Tanh", (inner,), f"{out}^tanh"), b.number(cap, value)), f"{out}^capped")
    if a.get("is_causal", 0):
        causal = f"{out}^causal"
        b.fold(causal, torch.ones(tokens, others, dtype=torch.bool).tril())
        value = _masked(b, value, causal, f"{out}^past")
    if mask:
        value = _masked(b, value, mask, f"{out}^masked")
    weights = b.emit("Softmax", (value,), f"{out}^weights", axis=-1)
    if not joined:
        b.emit("MatMul", (weights, v), out)
        return
    sums = b.emit("Transpose", (b.emit("MatMul", (weights, v), f"{out}^sums"),), f"{out}^beside", perm=(0, 2, 1, 3))
    b.emit("Reshape", (sums,), out, shape=(*shape_of(b, sums)[:2], math.prod(shape_of(b, sums)[2:])))


def _apart(b: Building, x: str, heads: int, output: str) -> str:
    """[N, tokens, heads * width] as [N, heads, tokens, width]."""
    n, tokens, width = shape_of(b, x)
    apart = b.emit("Reshape", (x,), f"{output}^apart", shape=(n, tokens, heads, width // heads))
    return b.emit("Transpose", (apart,), output, perm=(0, 2, 1, 3))


def _repeated(b: Building, x: str, times: int, output: str) -> str:
    """Each head as often as queries share it."""
    n, heads, tokens, width = shape_of(b, x)
    apart = b.emit("Reshape", (x,), f"{output}^apart", shape=(n, heads, 1, tokens, width))
    copies = b.emit("Expand", (apart,), f"{output}^copies", shape=(n, heads, times, tokens, width))
    return b.emit("Reshape", (copies,), output, shape=(n, heads * times, tokens, width))


def _masked(b: Building, products: str, mask: str, output: str) -> str:
    if b.values[mask].dtype == torch.bool:
        return b.emit("Where", (mask, products, b.number(float("-inf"), products)), output)
    return b.emit("Add", (products, mask), output)


# Pooling ----------------------------------------------------------------------------------------------------------


@operator("MaxPool", "AveragePool")
def _pool(b: Building, proto: Any, a: dict[str, Any]) -> None:
    kernel = tuple(a["kernel_shape"])
    if len([o for o in proto.output if o]) > 1 or a.get("storage_order", 0):
        raise Unsupported
    attributes = window(b, proto, a, kernel) | {"kernel": kernel, "ceil": bool(a.get("ceil_mode", 0))}
    if proto.op_type == "AveragePool":
        if any(d != 1 for d in attributes.pop("dilation")):
            raise Unsupported
        attributes["count_include_pad"] = bool(a.get("count_include_pad", 0)) or not any(attributes["pads"])
    b.emit(proto.op_type, (proto.input[0],), proto.output[0], **attributes)


@operator("GlobalAveragePool")
def _global_average(b: Building, proto: Any, a: dict[str, Any]) -> None:
    axes = tuple(range(2, b.values[proto.input[0]].dim()))
    b.emit("ReduceMean", (proto.input[0],), proto.output[0], axes=axes, keepdims=True)


@operator("GlobalMaxPool")
def _global_max(b: Building, proto: Any, a: dict[str, Any]) -> None:
    kernel = shape_of(b, proto.input[0])[2:]
    b.emit(
        "MaxPool",
        (proto.input[0],),
        proto.output[0],
        kernel=kernel,
        stride=kernel,
        pads=(0,) * 2 * len(kernel),
        dilation=(1,) * len(kernel),
        ceil=False,
    )


@operator("LpPool", "GlobalLpPool")
def _lp_pool(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """The root of a sum of powers: an average of the cells, zeros at the border among them, times their number."""
    x, out, power = proto.input[0], proto.output[0], int(a.get("p", 2))
    kernel = tuple(a["kernel_shape"]) if proto.op_type == "LpPool" else shape_of(b, x)[2:]
    attributes = window(b, proto, a, kernel)
    if a.get("ceil_mode", 0) or any(d != 1 for d in attributes.pop("dilation")):
        raise Unsupported
    powers = _power_of(b, x, power, f"{out}^powers")
    means = b.emit(
        "AveragePool", (powers,), f"{out}^means", kernel=kernel, **attributes, ceil=False, count_include_pad=True
    )
    total = b.emit("Mul", (means, b.number(float(math.prod(kernel)), means)), f"{out}^sum")
    _root_of(b, total, power, out)
