"""What each ONNX operator is in the graph's vocabulary.

A translation takes (builder, node, attributes). It raises `Unsupported` for a use that the contest does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch

from contest.errors import RefusedError
from scoring.graph.graph import Building, OnnxTranslation

OPERATORS: dict[str, OnnxTranslation] = {}


class Unsupported(Exception):  # noqa: N818 - it never reaches a user
    """This operator, or this use of it, is not known."""


def operator(*names: str) -> Callable[[OnnxTranslation], OnnxTranslation]:
    """Register a translation under these operator names."""

    def register(translation: OnnxTranslation) -> OnnxTranslation:
        OPERATORS.update(dict.fromkeys(names, translation))
        return translation

    return register


def shape_of(b: Building, name: str) -> tuple[int, ...]:
    """The shape of a value."""
    return tuple(b.values[name].shape)


def optional(proto: Any, index: int) -> str:
    """The name of an input that may be left out; "" without it."""
    return proto.input[index] if len(proto.input) > index else ""


def _same(name: str, kind: str, defaults: dict[str, tuple[str, Any]] | None = None) -> None:
    """An operator that takes one input and attributes: {ours: (ONNX's, default)}."""

    def translate(b: Building, proto: Any, a: dict[str, Any]) -> None:
        values = {ours: a.get(theirs, default) for ours, (theirs, default) in (defaults or {}).items()}
        b.emit(kind, (proto.input[0],), proto.output[0], **values)

    OPERATORS[name] = translate


for _name in ("Relu", "Sigmoid", "Tanh", "Erf", "Softsign", "Sign", "Abs", "Neg", "Mish", "Identity", "HardSwish"):
    _same(_name, _name)
_same("Elu", "Elu", {"alpha": ("alpha", 1.0)})
_same("Celu", "Celu", {"alpha": ("alpha", 1.0)})
_same("LeakyRelu", "LeakyRelu", {"negative_slope": ("alpha", 0.01)})
_same("Softplus", "Softplus", {"beta": ("", 1.0), "threshold": ("", 20.0)})
_same("Softmax", "Softmax", {"axis": ("axis", -1)})
_same("LogSoftmax", "LogSoftmax", {"axis": ("axis", -1)})


@operator("Selu")
def _selu(b: Building, proto: Any, a: dict[str, Any]) -> None:
    alpha, gamma = a.get("alpha", 1.67326), a.get("gamma", 1.0507)
    if math.isclose(alpha, 1.67326, rel_tol=1e-4) and math.isclose(gamma, 1.0507, rel_tol=1e-4):
        b.emit("Selu", (proto.input[0],), proto.output[0])
        return
    inner = b.emit("Elu", (proto.input[0],), f"{proto.output[0]}^elu", alpha=alpha)
    b.emit("Mul", (inner, b.number(gamma, inner)), proto.output[0])


@operator("Gelu")
def _gelu(b: Building, proto: Any, a: dict[str, Any]) -> None:
    b.emit("Gelu", (proto.input[0],), proto.output[0], approximate=a.get("approximate", b"none").decode())


@operator("Clip")
def _clip(b: Building, proto: Any, a: dict[str, Any]) -> None:
    bounds: dict[str, Any] = {"min": a.get("min"), "max": a.get("max")}
    for index, side in ((1, "min"), (2, "max")):
        if optional(proto, index):
            bounds[side] = b.constant(proto.input[index]).item()
    if proto.input[0] in b.codes:
        b.narrow(proto.input[0], proto.output[0], bounds["min"], bounds["max"])
        return
    if bounds["min"] is None and bounds["max"] is None:
        b.emit("Identity", (proto.input[0],), proto.output[0])
        return
    b.emit("Clip", (proto.input[0],), proto.output[0], **bounds)


@operator("PRelu")
def _prelu(b: Building, proto: Any, a: dict[str, Any]) -> None:
    x, slope = proto.input
    shape, rank = b.constant(slope).shape, b.values[x].dim()
    if len(shape) == 1 and shape[0] > 1 and rank > 1:  # in line with the last axis, where torch has the channels
        slope = b.emit("Reshape", (slope,), f"{proto.output[0]}^slope", shape=(*[1] * (rank - 1), shape[0]))
    b.emit("PRelu", (x, slope), proto.output[0])


@operator("Add", "Sub", "Mul", "Div")
def _arithmetic(b: Building, proto: Any, a: dict[str, Any]) -> None:
    left, right = proto.input
    if left in b.constants and right in b.constants and not b.values[left].is_floating_point():
        x, y = b.values[left], b.values[right]
        functions: dict[str, Callable[[], torch.Tensor]] = {
            "Add": lambda: x + y,
            "Sub": lambda: x - y,
            "Mul": lambda: x * y,
            "Div": lambda: torch.div(x, y, rounding_mode="trunc"),
        }
        b.fold(proto.output[0], functions[proto.op_type]())
        return
    if proto.op_type == "Div" and not b.values[left].is_floating_point():
        raise Unsupported  # whole numbers are divided in another way
    neutral = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}[proto.op_type]
    other = b.constants.get(right)
    if left not in b.constants and other is not None and other.numel() == 1 and other.item() == neutral:
        b.emit("Identity", (left,), proto.output[0])
        return
    b.emit(proto.op_type, (left, right), proto.output[0])


@operator("Cast")
def _cast(b: Building, proto: Any, a: dict[str, Any]) -> None:
    types = {
        onnx.TensorProto.FLOAT: torch.float32,
        onnx.TensorProto.FLOAT16: torch.float16,
        onnx.TensorProto.DOUBLE: torch.float64,
        onnx.TensorProto.BFLOAT16: torch.bfloat16,
        onnx.TensorProto.INT8: torch.int8,
        onnx.TensorProto.UINT8: torch.uint8,
        onnx.TensorProto.INT32: torch.int32,
        onnx.TensorProto.INT64: torch.int64,
        onnx.TensorProto.BOOL: torch.bool,
    }
    if a["to"] not in types:
        raise Unsupported
    to = types[a["to"]]
    b.emit("Cast" if b.values[proto.input[0]].dtype != to else "Identity", (proto.input[0],), proto.output[0], to=to)


@operator("Dropout")
def _dropout(b: Building, proto: Any, a: dict[str, Any]) -> None:
    if optional(proto, 2) and bool(b.constant(proto.input[2])):
        raise Unsupported
    b.emit("Identity", (proto.input[0],), proto.output[0])


# Layers ---------------------------------------------------------------------------------------------------------


def window(b: Building, proto: Any, a: dict[str, Any], kernel: tuple[int, ...]) -> dict[str, Any]:
    dims = len(kernel)
    stride = tuple(a.get("strides", [1] * dims))
    dilation = tuple(a.get("dilations", [1] * dims))
    pads = tuple(a.get("pads", [0] * 2 * dims))
    auto = a.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        sizes = shape_of(b, proto.input[0])[2:]
        total = [
            max(0, (math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n)
            for n, s, k, d in zip(sizes, stride, kernel, dilation, strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = (*small, *large) if auto == b"SAME_UPPER" else (*large, *small)
    elif auto == b"VALID":
        pads = (0,) * 2 * dims
    elif auto != b"NOTSET":
        raise Unsupported
    return {"stride": stride, "pads": pads, "dilation": dilation}


@operator("Conv")
def _conv(b: Building, proto: Any, a: dict[str, Any]) -> None:
    kernel = shape_of(b, proto.input[1])[2:]
    attributes = window(b, proto, a, kernel)
    b.emit("Conv", tuple(proto.input), proto.output[0], **attributes, groups=int(a.get("group", 1)))


@operator("ConvTranspose")
def _conv_transpose(b: Building, proto: Any, a: dict[str, Any]) -> None:
    kernel = shape_of(b, proto.input[1])[2:]
    extra = tuple(a.get("output_padding", [0] * len(kernel)))
    attributes = window(b, proto, {**a, "auto_pad": b"NOTSET"}, kernel)
    auto = a.get("auto_pad", b"NOTSET")
    if "output_shape" in a or auto in (b"SAME_UPPER", b"SAME_LOWER"):
        sizes, stride = shape_of(b, proto.input[0])[2:], attributes["stride"]
        wanted = tuple(a.get("output_shape", [n * s for n, s in zip(sizes, stride, strict=True)]))[-len(kernel) :]
        whole = [
            s * (n - 1) + e + (k - 1) * d + 1
            for n, s, e, k, d in zip(sizes, stride, extra, kernel, attributes["dilation"], strict=True)
        ]
        total = [w - o for w, o in zip(whole, wanted, strict=True)]
        extra = tuple(e + max(0, -t) for e, t in zip(extra, total, strict=True))
        small, large = [max(t, 0) // 2 for t in total], [max(t, 0) - max(t, 0) // 2 for t in total]
        attributes["pads"] = (*small, *large) if auto == b"SAME_UPPER" else (*large, *small)
    elif auto == b"VALID":
        attributes["pads"] = (0,) * 2 * len(kernel)
    if any(e and e >= max(s, d) for e, s, d in zip(extra, attributes["stride"], attributes["dilation"], strict=True)):
        raise Unsupported  # torch pads an output by less than a stride
    attributes["output_padding"] = extra
    b.emit("ConvTranspose", tuple(proto.input), proto.output[0], **attributes, groups=int(a.get("group", 1)))


@operator("Gemm")
def _gemm(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """alpha * A' B' + beta * C; alpha goes into the weight, beta into the bias, where they are not 1."""
    (x, weight), bias, out = proto.input[:2], optional(proto, 2), proto.output[0]
    if a.get("transA", 0):
        x = b.emit("Transpose", (x,), f"{out}^input", perm=(1, 0))
    if weight not in b.constants or x in b.constants:
        raise Unsupported
    if not a.get("transB", 0):
        weight = b.emit("Transpose", (weight,), f"{out}^weight", perm=(1, 0))
    if a.get("alpha", 1.0) != 1.0:
        weight = b.emit("Mul", (weight, b.number(a["alpha"], weight)), f"{out}^alpha")
    if bias and a.get("beta", 1.0) != 1.0:
        b.constant(bias)
        bias = b.emit("Mul", (bias, b.number(a["beta"], bias)), f"{out}^beta")
    outputs = shape_of(b, weight)[0]
    fits = not bias or (bias in b.constants and b.values[bias].numel() == b.values[bias].shape[-1:].numel() == outputs)
    if not fits:
        product = b.emit("Linear", (x, weight), f"{out}^product")
        b.emit("Add", (product, bias), out)
        return
    if bias and b.values[bias].dim() != 1:
        bias = b.emit("Reshape", (bias,), f"{out}^bias", shape=(-1,))
    b.emit("Linear", (x, weight, bias), out)


@operator("MatMul")
def _matmul(b: Building, proto: Any, a: dict[str, Any]) -> None:
    left, right = proto.input
    dims = b.values[left].dim(), b.values[right].dim()
    if min(dims) < 1 or dims == (1, 1):
        raise Unsupported
    if min(dims) == 1:  # a vector is a matrix of one row, or of one column
        out, wanted = proto.output[0], tuple(torch.matmul(b.values[left], b.values[right]).shape)
        if dims[0] == 1:
            left = b.emit("Reshape", (left,), f"{out}^row", shape=(1, -1))
        else:
            right = b.emit("Reshape", (right,), f"{out}^column", shape=(-1, 1))
        product = b.emit("MatMul", (left, right), f"{out}^product")
        b.emit("Reshape", (product,), out, shape=wanted)
        return
    if right in b.constants and left not in b.constants and b.values[right].dim() == 2:
        weight = b.emit("Transpose", (right,), f"{proto.output[0]}^weight", perm=(1, 0))
        b.emit("Linear", (left, weight), proto.output[0])
    else:
        b.emit("MatMul", (left, right), proto.output[0])


@operator("BatchNormalization")
def _batch_norm(b: Building, proto: Any, a: dict[str, Any]) -> None:
    if a.get("training_mode", 0):
        raise RefusedError(
            f"batch norm '{proto.name[:200]}' is in training mode: it takes its statistics from the images that run "
            "together; call `model.eval()` before you export"
        )
    if len([o for o in proto.output if o]) > 1:
        raise Unsupported
    b.emit("BatchNormalization", tuple(proto.input), proto.output[0], eps=float(a.get("epsilon", 1e-5)))


# Shapes ---------------------------------------------------------------------------------------------------------


@operator("Constant")
def _constant(b: Building, proto: Any, a: dict[str, Any]) -> None:
    if "value" in a:
        b.store(proto.output[0], a["value"])
        return
    plain = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, dtype in plain.items():
        if name in a:
            b.fold(proto.output[0], torch.from_numpy(np.array(a[name], dtype=dtype)))
            b.stored[proto.output[0]] = None
            return
    raise Unsupported


@operator("ConstantOfShape")
def _constant_of_shape(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = b.ints(proto.input[0])
    if math.prod(shape) > 10_000_000:
        raise Unsupported
    value = onnx.numpy_helper.to_array(a["value"]) if "value" in a else np.zeros(1, np.float32)
    b.fold(proto.output[0], torch.from_numpy(np.full(shape, value.reshape(-1)[0])))


@operator("Shape")
def _shape_of(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = shape_of(b, proto.input[0])[a.get("start", 0) : a.get("end")]
    b.fold(proto.output[0], torch.tensor(shape, dtype=torch.int64))


@operator("Reshape")
def _reshape(b: Building, proto: Any, a: dict[str, Any]) -> None:
    old, wanted = shape_of(b, proto.input[0]), b.ints(proto.input[1])
    if not a.get("allowzero", 0):
        wanted = tuple(old[i] if n == 0 else n for i, n in enumerate(wanted))
    _to_shape(b, proto, wanted)


def _to_shape(b: Building, proto: Any, wanted: tuple[int, ...]) -> None:
    x = b.values[proto.input[0]]
    if proto.input[0] in b.constants and not x.is_floating_point() and x.dtype in (torch.int64, torch.int32):
        b.fold(proto.output[0], x.reshape(wanted))
    else:
        b.emit("Reshape", (proto.input[0],), proto.output[0], shape=tuple(x.reshape(wanted).shape))


@operator("Flatten")
def _flatten(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = shape_of(b, proto.input[0])
    axis = int(a.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    _to_shape(b, proto, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@operator("Squeeze", "Unsqueeze")
def _squeeze(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = list(shape_of(b, proto.input[0]))
    axes = tuple(a["axes"]) if "axes" in a else b.ints(proto.input[1]) if optional(proto, 1) else None
    if proto.op_type == "Squeeze":
        gone = {axis % len(shape) for axis in axes} if axes is not None else {i for i, n in enumerate(shape) if n == 1}
        _to_shape(b, proto, tuple(n for i, n in enumerate(shape) if i not in gone))
        return
    assert axes is not None
    rank = len(shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    _to_shape(b, proto, tuple(shape))


@operator("Transpose")
def _transpose(b: Building, proto: Any, a: dict[str, Any]) -> None:
    perm = tuple(a.get("perm", reversed(range(b.values[proto.input[0]].dim()))))
    b.emit("Transpose", (proto.input[0],), proto.output[0], perm=perm)


@operator("Expand")
def _expand(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = torch.broadcast_shapes(shape_of(b, proto.input[0]), b.ints(proto.input[1]))
    b.emit("Expand", (proto.input[0],), proto.output[0], shape=tuple(shape))


@operator("Concat")
def _concat(b: Building, proto: Any, a: dict[str, Any]) -> None:
    first = b.values[proto.input[0]]
    if all(name in b.constants for name in proto.input) and first.dtype == torch.int64:
        b.fold(proto.output[0], torch.cat([b.values[name] for name in proto.input], int(a["axis"])))
        return
    axis = int(a["axis"]) % first.dim()
    b.emit("Concat", tuple(proto.input), proto.output[0], axis=axis)


@operator("Slice")
def _slice(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = shape_of(b, proto.input[0])
    if "starts" in a:
        starts, ends, axes, steps = tuple(a["starts"]), tuple(a["ends"]), a.get("axes"), None
    else:
        starts, ends = b.ints(proto.input[1]), b.ints(proto.input[2])
        axes = b.ints(proto.input[3]) if optional(proto, 3) else None
        steps = b.ints(proto.input[4]) if optional(proto, 4) else None
    axes = [axis % len(shape) for axis in (axes if axes is not None else range(len(starts)))]
    bounds = [(0, n, 1) for n in shape]
    backwards = {}
    for i, axis in enumerate(axes):
        step = steps[i] if steps else 1
        begin, end, _ = slice(starts[i], ends[i], step).indices(shape[axis])
        if step < 1:
            backwards[axis] = list(range(begin, end, step))
        else:
            bounds[axis] = (begin, max(begin, end), step)
    if not all(backwards.values()):
        raise Unsupported  # nothing is left
    x, name = b.values[proto.input[0]], proto.input[0]
    if name in b.constants and x.dtype == torch.int64 and not backwards:
        b.fold(proto.output[0], x[tuple(slice(*bound) for bound in bounds)])
        return
    for axis, places in backwards.items():  # a slice that runs backwards is a list of places
        index = f"{proto.output[0]}^places{axis}"
        b.fold(index, torch.tensor(places))
        name = b.emit("Gather", (name, index), f"{proto.output[0]}^{axis}", axis=axis)
    first, last, every = zip(*bounds, strict=True)
    b.emit("Slice", (name,), proto.output[0], starts=first, ends=last, steps=every)


@operator("Split")
def _split(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = shape_of(b, proto.input[0])
    axis = int(a.get("axis", 0)) % len(shape)
    parts = len(proto.output)
    even = math.ceil(shape[axis] / parts)
    sizes = tuple(a["split"]) if "split" in a else b.ints(proto.input[1]) if optional(proto, 1) else None
    sizes = sizes or tuple(min(even, shape[axis] - i * even) for i in range(parts))
    start = 0
    for size, output in zip(sizes, proto.output, strict=True):
        starts, ends = [0] * len(shape), list(shape)
        starts[axis], ends[axis] = start, start + size
        b.emit("Slice", (proto.input[0],), output, starts=tuple(starts), ends=tuple(ends), steps=(1,) * len(shape))
        start += size


@operator("Gather")
def _gather(b: Building, proto: Any, a: dict[str, Any]) -> None:
    x = b.values[proto.input[0]]
    axis = int(a.get("axis", 0)) % max(x.dim(), 1)
    index = b.constant(proto.input[1]) if proto.input[0] not in b.constants else b.values[proto.input[1]]
    if proto.input[0] in b.constants and proto.input[1] in b.constants and x.dtype == torch.int64:
        flat = x.index_select(axis, index.reshape(-1) % x.shape[axis])
        b.fold(proto.output[0], flat.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])))
        return
    b.emit("Gather", (proto.input[0], proto.input[1]), proto.output[0], axis=axis)


@operator("Pad")
def _pad(b: Building, proto: Any, a: dict[str, Any]) -> None:
    dims = b.values[proto.input[0]].dim()
    given = tuple(a["pads"]) if "pads" in a else b.ints(proto.input[1])
    value = a.get("value", 0.0)
    if optional(proto, 2):
        value = b.constant(proto.input[2]).item()
    axes = b.ints(proto.input[3]) if optional(proto, 3) else tuple(range(dims))
    before, after = [0] * dims, [0] * dims
    for i, axis in enumerate(axes):
        before[axis % dims], after[axis % dims] = given[i], given[i + len(axes)]
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}.get(a.get("mode", b"constant"))
    if mode is None or min(*before, *after) < 0:
        raise Unsupported
    pads = (*before, *after)
    b.emit("Pad", (proto.input[0],), proto.output[0], pads=pads, mode=mode, value=float(value))
