"""What ONNX's layers, arithmetic and activations are in the graph's vocabulary.

A translation takes (builder, node, attributes). It raises `Unsupported` for a use that the contest does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import onnx
import torch
from torch import Tensor

from contest.errors import RefusedError
from scoring.graph.graph import Node


@dataclass(frozen=True)
class Codes:
    """What the integer codes of a value are: step and zero point (names; no zero point is ""), and their range."""

    scale: str
    zero: str
    low: int
    high: int


class Building(Protocol):
    """The ONNX reader, as a translation sees it: values are computed as they come."""

    values: dict[str, Tensor]
    constants: dict[str, Tensor]
    stored: dict[str, int | None]
    producers: dict[str, Node]
    codes: dict[str, Codes]
    """Quantised activations, kept as the values that their codes stand for."""
    current: Any
    """The ONNX node that is translated."""

    def store(self, name: str, proto: Any) -> None:
        """A stored tensor."""

    def emit(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> str:
        """Record a node and run it on the example image. Returns the output's name."""

    def fold(self, output: str, value: Tensor) -> None:
        """A constant that no stored tensor holds."""

    def constant(self, name: str) -> Tensor:
        """The value of an input that must be constant."""

    def integer_range(self, name: str) -> tuple[int, int]:
        """The smallest and the largest number of a stored tensor's integer type."""

    def number(self, number: float, like: str) -> str:
        """The name of a number written in an attribute, of the type of a value."""

    def narrow(self, x: str, output: str, low: float | None, high: float | None) -> None:
        """Clip of a quantised activation's codes: the quantiser has fewer."""

    def ints(self, name: str) -> tuple[int, ...]:
        """A constant vector of integers."""


OnnxTranslation = Callable[[Building, Any, dict[str, Any]], None]
"""(builder, node, attributes); raises `Unsupported` for a use that the contest does not know."""


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
        functions: dict[str, Callable[[], Tensor]] = {
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
