"""What ONNX Runtime makes of a network: operators on integers (QLinearConv and the like) and fused ones.

Each is taken apart into the plain operators that it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import torch

from contest.errors import RefusedError
from scoring.readers.onnx_operators import OPERATORS, Building, Codes, Unsupported, operator, optional

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


STATIC = (
    "export it with static quantisation, `onnxruntime.quantization.quantize_static(..., quant_format=QuantFormat.QDQ)`"
    ", which stores the steps of the activations"
)


@operator("QLinearConv")
def _qlinear_conv(b: Building, proto: Any, a: dict[str, Any]) -> None:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = proto.input[:8]
    out, bias = proto.output[0], optional(proto, 8)
    inputs = [real_value(b, x, x_scale, x_zero), real_value(b, w, w_scale, w_zero, 0)]
    if bias:
        inputs.append(_real_bias(b, bias, x_scale, w_scale, out))
    _float_operator(b, "Conv", inputs, a, f"{out}^float")
    quantise(b, f"{out}^float", Codes(y_scale, y_zero, *b.integer_range(y_zero)), out)


def _real_bias(b: Building, bias: str, x_scale: str, w_scale: str, out: str) -> str:
    """A bias of int32 codes, whose step is the product of the steps of input and weight."""
    step = b.emit("Mul", (x_scale, w_scale), f"{out}^step")
    return real_value(b, bias, step, "", 0)


@operator("QGemm")
def _qgemm(b: Building, proto: Any, a: dict[str, Any]) -> None:
    x, x_scale, x_zero, w, w_scale, w_zero = proto.input[:6]
    out, bias, y_scale, y_zero = proto.output[0], optional(proto, 6), optional(proto, 7), optional(proto, 8)
    inputs = [real_value(b, x, x_scale, x_zero), real_value(b, w, w_scale, w_zero, 0 if a.get("transB", 0) else 1)]
    if bias:
        inputs.append(_real_bias(b, bias, x_scale, w_scale, out))
    _float_operator(b, "Gemm", inputs, a, out if not y_scale else f"{out}^float")
    if y_scale:
        quantise(b, f"{out}^float", Codes(y_scale, y_zero, *b.integer_range(y_zero)), out)


def _nth(b: Building, part: Sequence[str]) -> str:
    """The value of codes, step and zero point; steps of a stored tensor go along its last axis."""
    x, scale, zero = part
    return real_value(b, x, scale, zero, -1)


def _float_operator(b: Building, name: str, inputs: list[str], a: dict[str, Any], output: str) -> None:
    """Translate the float operator that one on integers stands for."""
    OPERATORS[name](b, onnx.helper.make_node(name, inputs, [output], f"{b.current.name or output}"), a)


def _on_codes(name: str, kind: str, values: int) -> None:
    """An operator on `values` quantised inputs (value, step, zero point each) and an output's step and zero point."""

    def translate(b: Building, proto: Any, a: dict[str, Any]) -> None:
        if a.pop("channels_last", 0):
            raise Unsupported
        out = proto.output[0]
        inputs = [_nth(b, proto.input[3 * i : 3 * i + 3]) for i in range(values)]
        _float_operator(b, kind, inputs, a, f"{out}^float")
        scale, zero = proto.input[3 * values : 3 * values + 2]
        quantise(b, f"{out}^float", Codes(scale, zero, *b.integer_range(zero)), out)

    OPERATORS[name] = translate


for _name, _kind, _values in (
    ("QLinearAdd", "Add", 2),
    ("QLinearMul", "Mul", 2),
    ("QLinearMatMul", "MatMul", 2),
    ("QLinearSigmoid", "Sigmoid", 1),
    ("QLinearLeakyRelu", "LeakyRelu", 1),
    ("QLinearGlobalAveragePool", "GlobalAveragePool", 1),
    ("QLinearAveragePool", "AveragePool", 1),
    ("QLinearReduceMean", "ReduceMean", 1),
    ("QLinearSoftmax", "Softmax", 1),
):
    _on_codes(_name, _kind, _values)


@operator("QLinearConcat")
def _qlinear_concat(b: Building, proto: Any, a: dict[str, Any]) -> None:
    scale, zero, *parts = proto.input
    inputs = [_nth(b, parts[i : i + 3]) for i in range(0, len(parts), 3)]
    _float_operator(b, "Concat", inputs, a, f"{proto.output[0]}^float")
    quantise(b, f"{proto.output[0]}^float", Codes(scale, zero, *b.integer_range(zero)), proto.output[0])


@operator("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
def _dynamic(b: Building, proto: Any, a: dict[str, Any]) -> None:
    raise RefusedError(
        f"operator '{proto.op_type}' is dynamic quantisation: the step of an activation comes from the images that run "
        f"together, so it is stored nowhere and images depend on each other; {STATIC}"
    )


@operator("MatMulNBits", "MatMulBnb4", "MatMulIntegerToFloat", "QAttention", "GatherBlockQuantized")
def _packed(b: Building, proto: Any, a: dict[str, Any]) -> None:
    raise RefusedError(f"operator '{proto.op_type}' packs its weights as ONNX Runtime alone reads them; {STATIC}")


# Fused operators -----------------------------------------------------------------------------------------------------

_FUSED_ATTRIBUTES = {"LeakyRelu": ("alpha",), "Elu": ("alpha",), "HardSigmoid": ("alpha", "beta")}


@operator("FusedConv", "FusedGemm", "FusedMatMulActivation")
def _fused(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """A layer, perhaps an addition, and an activation."""
    out, kind = proto.output[0], {"FusedConv": "Conv", "FusedGemm": "Gemm"}.get(proto.op_type, "MatMul")
    activation = a.pop("activation", b"").decode()
    numbers = list(a.pop("activation_params", []))
    numbers = numbers or [a.pop(name) for name in ("activation_alpha", "activation_beta") if name in a]
    inputs, added = [i for i in proto.input[:3] if i], optional(proto, 3)
    steps = ["layer", *(["sum"] if added else []), *(["activation"] if activation else [])]
    names = {step: out if step == steps[-1] else f"{out}^{step}" for step in steps}
    _float_operator(b, kind, inputs, a, names["layer"])
    value = names["layer"]
    if added:
        _float_operator(b, "Add", [value, added], {}, names["sum"])
        value = names["sum"]
    if activation == "Clip":
        b.emit("Clip", (value,), out, min=numbers[0], max=numbers[1])
    elif activation:
        given = dict(zip(_FUSED_ATTRIBUTES.get(activation, ()), numbers, strict=False))
        if activation not in OPERATORS:
            raise Unsupported
        _float_operator(b, activation, [value], given, out)


@operator("FusedMatMul", "TransposeMatMul")
def _fused_matmul(b: Building, proto: Any, a: dict[str, Any]) -> None:
    if a.get("transA", 0) or a.get("alpha", 1.0) != 1.0 or a.get("transBatchA", 0) or a.get("transBatchB", 0):
        raise Unsupported
    left, right = proto.input
    if a.get("transB", 0):
        rank = b.values[right].dim()
        perm = (*range(rank - 2), rank - 1, rank - 2)
        right = b.emit("Transpose", (right,), f"{proto.output[0]}^turned", perm=perm)
    _float_operator(b, "MatMul", [left, right], {}, proto.output[0])
