"""What ONNX Runtime makes of a network: operators on integers (QLinearConv and the like) and fused ones.

Each is taken apart into the plain operators that it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from contest.errors import RefusedError
from scoring.graph.builder import Building, Codes
from scoring.readers.onnx_operators import OPERATORS, Unsupported, operator, optional
from scoring.readers.onnx_quantisers import quantise, real_value

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


@operator("QuickGelu")
def _quick_gelu(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """x * sigmoid(alpha * x)."""
    x, out = proto.input[0], proto.output[0]
    inner = x
    if a.get("alpha", 1.702) != 1.0:
        factor = b.number(a.get("alpha", 1.702), x)
        inner = b.emit("Mul", (x, factor), f"{out}^scaled")
    gate = b.emit("Sigmoid", (inner,), f"{out}^gate")
    b.emit("Mul", (x, gate), out)
