"""Quantisers of PyTorch: fake quantisation, converted modules (`torch.ao`, FX), and PT2E's exported graphs.

A quantised tensor is kept as the value that its codes stand for, so the operators on integers are the float ones with a
quantiser behind them; weights are their codes times a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from scoring.readers.torch_operators import Recording, aten, get

_RANGES = {torch.quint8: (0, 255), torch.qint8: (-128, 127), torch.quint4x2: (0, 15)}


@aten("contest::quantise")
def _own(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, step, low, high = a
    return r.node("Quant", [r.value(x), r.value(step)], outs, low=int(low), high=int(high))


# Fake quantisation ------------------------------------------------------------------------------------------------


@aten("fake_quantize_per_tensor_affine")
def _fake(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, scale, zero, low, high = a
    return _quantise(r, x, scale, zero, None, (low, high), outs[0])


@aten("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams")
def _fake_with_switch(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, scale, zero, enabled, low, high = a
    if not bool(enabled):
        return r.node("Identity", [r.value(x)], outs[:1])
    return _quantise(r, x, scale, zero, None, (low, high), outs[0])


@aten("fake_quantize_per_tensor_affine_cachemask")
def _fake_with_mask(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return _fake(r, a, k, outs)


@aten("fake_quantize_per_channel_affine", "fake_quantize_per_channel_affine_cachemask")
def _fake_per_channel(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, scale, zero, axis, low, high = a
    return _quantise(r, x, scale, zero, int(axis), (low, high), outs[0])


@aten("fused_moving_avg_obs_fake_quant", "_fused_moving_avg_obs_fq_helper")
def _fake_observed(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, observing, quantising, _, _, scale, zero, _, low, high, axis = a[:11]
    per_channel = get(a, k, 11, "per_row_fake_quant", False)
    if bool(observing):
        return False  # the step is made from the images
    if not bool(quantising):
        return r.node("Identity", [r.value(x)], outs[:1])
    return _quantise(r, x, scale, zero, int(axis) if per_channel else None, (low, high), outs[0])


def _quantise(
    r: Recording, x: Tensor, scale: Any, zero: Any, axis: int | None, bounds: tuple[Any, Any], out: Tensor
) -> bool:
    low, high = int(bounds[0]), int(bounds[1])
    inputs = [r.value(x), *_parameters(r, x, scale, zero, axis)]
    return r.node("Quant", inputs, [out], low=low, high=high)


def _parameters(r: Recording, x: Tensor, scale: Any, zero: Any, axis: int | None) -> list[str]:
    """Names of step and zero point, in the place of the axis that they belong to; a zero point of 0 is left out."""
    if not isinstance(scale, Tensor):
        names = [r.number(float(scale), torch.empty(0))]
    else:
        names = [_along(r, scale, x, axis)]
    if isinstance(zero, Tensor):
        with _disable_current_modes():
            nothing = zero.device.type != "meta" and not bool(zero.any())
        r.value(zero)  # used, whatever it is
        return names if nothing else [*names, _along(r, zero, x, axis)]
    return names if not zero else [*names, r.number(int(zero), torch.empty(0, dtype=torch.int32))]


def _along(r: Recording, vector: Tensor, x: Tensor, axis: int | None) -> str:
    name = r.value(vector)
    if vector.numel() == 1 or axis is None:
        return name
    shape = [1] * x.dim()
    shape[axis] = -1
    with _disable_current_modes():
        shaped = vector.reshape(shape)
        shaped = shaped.float() if vector.is_floating_point() else shaped
    r.node("Reshape", [name], [shaped], shape=tuple(shaped.shape))
    return r.value(shaped)


# Quantised tensors ------------------------------------------------------------------------------------------------


@aten("quantize_per_tensor", "quantize_per_tensor_dynamic")
def _to_codes(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    out = outs[0]
    if out.dtype not in _RANGES or len(a) < 4:
        return False
    return _quantise(r, a[0], out.q_scale(), out.q_zero_point(), None, _RANGES[out.dtype], out)


@aten("quantize_per_channel")
def _to_codes_per_channel(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, scale, zero, axis, dtype = a
    return dtype in _RANGES and _quantise(r, x, scale, zero, int(axis), _RANGES[dtype], outs[0])


@aten("dequantize")
def _from_codes(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return r.node("Identity", [r.value(a[0])], outs)


def requantised(r: Recording, value: str, out: Tensor) -> bool:
    """The quantiser of an operator's output."""
    if out.dtype not in _RANGES:
        return False
    low, high = _RANGES[out.dtype]
    with _disable_current_modes():
        scale, zero = out.q_scale(), out.q_zero_point()
    inputs = [value, *_parameters(r, out, scale, zero, None)]
    return r.node("Quant", inputs, [out], low=low, high=high)


def _unpacked(r: Recording, packed: Any) -> list[str]:
    """Names of weight and bias of a converted layer."""
    with _disable_current_modes():
        weight, bias = packed.unpack()
        codes = weight.int_repr()
        per_channel = weight.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        scale = weight.q_per_channel_scales().float() if per_channel else torch.tensor(weight.q_scale())
        zero = weight.q_per_channel_zero_points().int() if per_channel else torch.tensor(weight.q_zero_point()).int()
        axis = weight.q_per_channel_axis() if per_channel else None
        value = weight.dequantize()
    layer = r.layer()
    stored = [r.store(codes, f"{layer}.codes"), r.store(scale, f"{layer}.scale")]
    shaped = [_along(r, scale, weight, axis)]
    if bool(zero.any()):
        r.store(zero, f"{layer}.zero_point")
        shaped.append(_along(r, zero, weight, axis))
        r.node("DequantizeLinear", [stored[0], *shaped], [value], axis=None)
    else:
        with _disable_current_modes():
            real = codes.float()
        r.node("Cast", [stored[0]], [real], to=torch.float32)
        r.node("Mul", [r.value(real), *shaped], [value])
    return [r.value(value), *([r.store(bias.detach(), f"{layer}.bias")] if bias is not None else [])]


def _numbers(values: Any, dims: int) -> tuple[int, ...]:
    found = [int(v) for v in values]
    return tuple(found) * (dims if len(found) == 1 else 1)


def _converted_conv(relu: bool) -> Callable[..., bool]:
    def translate(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
        x, packed, out = a[0], a[1], outs[0]
        weight, *bias = _unpacked(r, packed)
        dims = x.dim() - 2
        attributes = {
            "stride": _numbers(packed.stride(), dims),
            "pads": _numbers(packed.padding(), dims) * 2,
            "dilation": _numbers(packed.dilation(), dims),
            "groups": int(packed.groups()),
        }
        return _layer(r, "Conv", [r.value(x), weight, *bias], out, relu, **attributes)

    return translate


def _converted_linear(relu: bool) -> Callable[..., bool]:
    def translate(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
        return _layer(r, "Linear", [r.value(a[0]), *_unpacked(r, a[1])], outs[0], relu)

    return translate


def _layer(r: Recording, kind: str, inputs: list[str], out: Tensor, relu: bool, **attributes: Any) -> bool:
    size = tuple(out.shape)
    value = r.hidden(kind, inputs, size, torch.float32, **attributes)
    if relu:
        value = r.hidden("Relu", [value], size, torch.float32)
    return requantised(r, value, out)


for _suffix, _relu in (("", False), ("_relu", True)):
    aten(*(f"quantized::conv{n}d{_suffix}" for n in (1, 2, 3)))(_converted_conv(_relu))
    aten(f"quantized::linear{_suffix}")(_converted_linear(_relu))


def _converted_pair(kind: str, relu: bool) -> Callable[..., bool]:
    def translate(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
        if not isinstance(a[1], Tensor):
            return False
        size = tuple(outs[0].shape)
        value = r.hidden(kind, [r.value(a[0]), r.value(a[1])], size, torch.float32)
        if relu:
            value = r.hidden("Relu", [value], size, torch.float32)
        return requantised(r, value, outs[0])

    return translate


for _name, _kind in (("add", "Add"), ("mul", "Mul")):
    aten(f"quantized::{_name}")(_converted_pair(_kind, relu=False))
    aten(f"quantized::{_name}_relu")(_converted_pair(_kind, relu=True))


@aten("quantized::cat")
def _converted_cat(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    axis = int(get(a, k, 1, "dim", 0)) % outs[0].dim()
    value = r.hidden("Concat", [r.value(t) for t in a[0]], tuple(outs[0].shape), torch.float32, axis=axis)
    return requantised(r, value, outs[0])


def _converted_unary(kind: str, **defaults: Any) -> Callable[..., bool]:
    def translate(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
        value = r.hidden(kind, [r.value(a[0])], tuple(outs[0].shape), torch.float32, **defaults)
        return requantised(r, value, outs[0])

    return translate


aten("quantized::hardswish")(_converted_unary("HardSwish"))
aten("quantized::sigmoid")(_converted_unary("Sigmoid"))
aten("quantized::relu6")(_converted_unary("Clip", min=0.0, max=6.0))


# PT2E -------------------------------------------------------------------------------------------------------------


@aten("quantized_decomposed::quantize_per_tensor")
def _decomposed(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, scale, zero, low, high = a[:5]
    _quantise(r, x, scale, zero, None, (low, high), outs[0])
    return r.real(outs[0])


@aten("quantized_decomposed::quantize_per_channel")
def _decomposed_per_channel(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, scale, zero, axis, low, high = a[:6]
    _quantise(r, x, scale, zero, int(axis), (low, high), outs[0])
    return r.real(outs[0])


@aten("quantized_decomposed::dequantize_per_tensor", "quantized_decomposed::dequantize_per_channel")
def _composed(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    """Of an activation its value is there already; stored codes become codes times scale."""
    codes, scale, zero, *rest = a
    name = r.value(codes)
    maker = r.producers.get(name)
    if maker is not None and maker.kind == "Quant":
        return r.node("Identity", [name], outs)
    if name not in r.constants:
        return False
    axis = int(rest[0]) if len(rest) > 3 or (isinstance(scale, Tensor) and scale.numel() > 1) else None
    return r.node("DequantizeLinear", [name, *_parameters(r, codes, scale, zero, axis)], outs, axis=None)
