"""ONNX's quantisers: QuantizeLinear and DequantizeLinear, and QONNX's.

A quantised activation is kept as the value that its codes stand for, and `codes` of the builder remembers which step
and zero point that were: so pooling and reshaping of integers need no arithmetic of their own, and DequantizeLinear has
nothing left to do.
"""

from __future__ import annotations

from typing import Any

import onnx
import torch

from scoring.graph.builder import Building, Codes
from scoring.readers.onnx_operators import Unsupported, operator, optional

_INTEGERS = {
    onnx.TensorProto.UINT8: (0, 255),
    onnx.TensorProto.INT8: (-128, 127),
    onnx.TensorProto.UINT16: (0, 65_535),
    onnx.TensorProto.INT16: (-32_768, 32_767),
    onnx.TensorProto.UINT4: (0, 15),
    onnx.TensorProto.INT4: (-8, 7),
}


@operator("QuantizeLinear")
def _quantize_linear(b: Building, proto: Any, a: dict[str, Any]) -> None:
    x, scale, zero = proto.input[0], proto.input[1], optional(proto, 2)
    steps = b.constant(scale)
    if a.get("block_size", 0) or a.get("saturate", 1) != 1 or (zero and b.constant(zero).is_floating_point()):
        raise Unsupported
    if zero:
        low, high = b.integer_range(zero)
    elif a.get("output_dtype", onnx.TensorProto.UINT8) in _INTEGERS:
        low, high = _INTEGERS[a.get("output_dtype", onnx.TensorProto.UINT8)]
    else:
        raise Unsupported
    axis = int(a.get("axis", 1)) % b.values[x].dim() if steps.numel() > 1 else None
    quantise(b, x, Codes(scale, zero, low, high), proto.output[0], axis)


def quantise(b: Building, x: str, codes: Codes, output: str, axis: int | None = None) -> None:
    """A quantiser of x, whose output stands for its codes."""
    inputs = (x, codes.scale, codes.zero) if codes.zero else (x, codes.scale)
    b.emit("Quant", inputs, output, low=codes.low, high=codes.high, axis=axis)
    b.codes[output] = codes


@operator("DequantizeLinear")
def _dequantize_linear(b: Building, proto: Any, a: dict[str, Any]) -> None:
    if a.get("block_size", 0) or (b.values[proto.input[0]].is_floating_point() and proto.input[0] not in b.codes):
        raise Unsupported
    value = real_value(b, proto.input[0], proto.input[1], optional(proto, 2), int(a.get("axis", 1)), proto.output[0])
    if value != proto.output[0]:
        b.emit("Identity", (value,), proto.output[0])
        del b.codes[proto.output[0]]


def real_value(b: Building, x: str, scale: str, zero: str, axis: int = 1, output: str = "") -> str:
    """The value that codes stand for: of an activation the value itself, of a stored tensor an expression."""
    steps = b.constant(scale)
    if x in b.codes:
        codes = b.codes[x]
        same = torch.equal(b.constant(codes.scale).reshape(-1), steps.reshape(-1))
        if not same or _points(b, codes.zero) != _points(b, zero):
            raise Unsupported
        return x
    b.constant(x)
    place = axis % max(b.values[x].dim(), 1) if steps.numel() > 1 else None
    inputs = (x, scale, zero) if zero else (x, scale)
    return b.emit("DequantizeLinear", inputs, output or f"{x}^real", axis=place)


def _points(b: Building, zero: str) -> list[int]:
    """Zero points as numbers, absent ones as 0."""
    points = sorted(set(b.constant(zero).reshape(-1).tolist())) if zero else [0]
    return points if len(points) == 1 else b.constant(zero).reshape(-1).tolist()


@operator("Quant", "IntQuant")
def _quant(b: Building, proto: Any, a: dict[str, Any]) -> None:
    x, scale, zero, width = proto.input
    bits, signed = b.constant(width), bool(a.get("signed", 1))
    rounding = a.get("rounding_mode", b"ROUND").decode()
    if bits.numel() != 1 or bits.item() != int(bits.item()) or not 1 <= bits.item() <= 32:
        raise Unsupported
    if rounding not in ("ROUND", "HALF_EVEN", "FLOOR", "CEIL"):
        raise Unsupported
    number, narrow = int(bits.item()), int(bool(a.get("narrow", 0)))
    low = -(2 ** (number - 1)) + narrow if signed else 0
    high = 2 ** (number - 1) - 1 if signed else 2**number - 1 - narrow
    b.emit(
        "Quant", (x, scale, zero), proto.output[0], low=low, high=high, bits=number, rounding=rounding, point_first=True
    )


@operator("BipolarQuant")
def _bipolar(b: Building, proto: Any, a: dict[str, Any]) -> None:
    b.emit("BipolarQuant", tuple(proto.input), proto.output[0])
