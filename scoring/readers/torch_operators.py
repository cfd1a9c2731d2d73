"""What PyTorch's layers, arithmetic and activations are in the graph's vocabulary.

A translation takes (recorder, args, kwargs, output tensors), records nodes and returns True; False means that this
use of the operation is not known. Operations that are missing here and cannot be taken apart are unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from scoring.graph.graph import Node


class Recording(Protocol):
    """The torch reader, as a translation sees it: tensors that are there already get names."""

    constants: dict[str, Tensor]

    producers: dict[str, Node]

    def value(self, item: Any) -> str:
        """The name of a tensor's value."""

    def layer(self) -> str:
        """The name of the module that runs."""

    def store(self, tensor: Tensor, name: str) -> str:
        """Name a tensor that a module stores where `state_dict` does not show it."""

    def real(self, tensor: Tensor) -> bool:
        """From now on this integer tensor stands for the real value of its codes. Returns True."""

    def number(self, number: float, like: Tensor) -> str:
        """The name of a number written in the code, of the type that it is computed in."""

    def node(self, kind: str, inputs: list[str], outputs: list[Tensor], **attributes: Any) -> bool:
        """Record an operation with these output tensors."""

    def hidden(self, kind: str, inputs: list[str], size: tuple[int, ...], dtype: Any, /, **attributes: Any) -> str:
        """Record an operation inside of a fused one, whose value nobody sees."""


TorchTranslation = Callable[[Recording, Sequence[Any], dict[str, Any], list[Tensor]], bool]
"""(recorder, arguments, keyword arguments, output tensors) -> whether this use of the operation is known."""


TRANSLATIONS: dict[str, TorchTranslation] = {}

# Allocations and questions: no arithmetic, and their results are seen where they are used.
IGNORED = frozenset({"aten::is_same_size", "aten::sym_size", "aten::sym_numel"})


def aten(*names: str) -> Callable[[TorchTranslation], TorchTranslation]:
    """Register a translation for operations of the aten name space, and for their in-place forms."""

    def register(translation: TorchTranslation) -> TorchTranslation:
        for name in names:
            full = name if "::" in name else f"aten::{name}"
            TRANSLATIONS[full] = TRANSLATIONS[full + "_"] = translation
        return translation

    return register


def get(args: Sequence[Any], kwargs: dict[str, Any], index: int, name: str, default: Any = None) -> Any:
    """An argument by its place or by its name."""
    return args[index] if len(args) > index else kwargs.get(name, default)


def pair(value: Any, dims: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return tuple(int(v) for v in values) * (dims if len(values) == 1 else 1)


# Layers ---------------------------------------------------------------------------------------------------------


def _conv(
    r: Recording,
    args: Sequence[Any],
    outs: list[Tensor],
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> bool:
    x, weight, bias = args
    dims = weight.dim() - 2
    if isinstance(padding, str):
        total = [d * (k - 1) for d, k in zip(pair(dilation, dims), weight.shape[2:], strict=True)]
        before = [t // 2 for t in total] if padding == "same" else [0] * dims
        after = [t - b for t, b in zip(total, before, strict=True)] if padding == "same" else [0] * dims
    else:
        before = after = list(pair(padding, dims))
    attributes: dict[str, Any] = {
        "stride": pair(stride, dims),
        "pads": (*before, *after),
        "dilation": pair(dilation, dims),
        "groups": groups,
    }
    if transposed:
        attributes["output_padding"] = pair(output_padding, dims)
    inputs = [r.value(x), r.value(weight)] + ([r.value(bias)] if bias is not None else [])
    return r.node("ConvTranspose" if transposed else "Conv", inputs, outs, **attributes)


@aten("conv1d", "conv2d", "conv3d")
def _convolution(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    if a[0].dim() != a[1].dim():
        return False
    return _conv(
        r,
        (a[0], a[1], get(a, k, 2, "bias")),
        outs,
        get(a, k, 3, "stride", 1),
        get(a, k, 4, "padding", 0),
        get(a, k, 5, "dilation", 1),
        False,
        0,
        get(a, k, 6, "groups", 1),
    )


@aten("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    layer = (a[0], a[1], get(a, k, 2, "bias"))
    output_padding, groups = get(a, k, 5, "output_padding", 0), get(a, k, 6, "groups", 1)
    return _conv(
        r,
        layer,
        outs,
        get(a, k, 3, "stride", 1),
        get(a, k, 4, "padding", 0),
        get(a, k, 7, "dilation", 1),
        True,
        output_padding,
        groups,
    )


@aten("convolution")
def _general_convolution(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return _conv(r, a[:3], outs, a[3], a[4], a[5], a[6], a[7], a[8])


@aten("linear")
def _linear(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    bias = get(a, k, 2, "bias")
    return r.node("Linear", [r.value(t) for t in (a[0], a[1], *([bias] if bias is not None else []))], outs)


def _transposed(r: Recording, weight: Tensor) -> str:
    with _disable_current_modes():
        swapped = weight.transpose(-1, -2)
    r.node("Transpose", [r.value(weight)], [swapped], perm=(1, 0))
    return r.value(swapped)


@aten("mm", "matmul", "bmm", "addmm", "baddbmm")
def _matmul(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    bias, left, right = a if len(a) == 3 else (None, *a)
    if k or left.dim() < 2 or right.dim() < 2:
        return False
    constant = r.value(right) in r.constants and right.dim() == 2 and r.value(left) not in r.constants
    if constant and (bias is None or (r.value(bias) in r.constants and bias.numel() == right.shape[1])):
        tail = [r.value(bias)] if bias is not None else []
        return r.node("Linear", [r.value(left), _transposed(r, right), *tail], outs)
    if bias is not None:
        return False
    return r.node("MatMul", [r.value(left), r.value(right)], outs)


@aten("scaled_dot_product_attention")
def _attention(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    """Scaled products of queries and keys, a mask, a softmax, and a sum of values."""
    (q, key, v), mask = a[:3], get(a, k, 3, "attn_mask")
    if get(a, k, 4, "dropout_p", 0.0) or q.shape[:-2] != key.shape[:-2]:
        return False
    scale = k.get("scale") or 1 / math.sqrt(q.shape[-1])
    size, dtype = (*key.shape[:-2], q.shape[-2], key.shape[-2]), q.dtype
    perm = (*range(key.dim() - 2), key.dim() - 1, key.dim() - 2)
    swapped = r.hidden("Transpose", [r.value(key)], (*key.shape[:-2], *key.shape[:-3:-1]), dtype, perm=perm)
    products = r.hidden("MatMul", [r.value(q), swapped], size, dtype)
    value = r.hidden("Mul", [products, r.number(scale, q)], size, dtype)
    if get(a, k, 5, "is_causal", False):
        with _disable_current_modes():
            mask = torch.ones(size[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        value = r.hidden("Where", [r.value(mask), value, r.number(float("-inf"), q)], size, dtype)
    elif mask is not None:
        value = r.hidden("Add", [value, r.value(mask)], size, dtype)
    weights = r.hidden("Softmax", [value], size, dtype, axis=-1)
    return r.node("MatMul", [weights, r.value(v)], outs)


@aten("batch_norm")
def _batch_norm(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, gamma, beta, mean, variance, training, _, eps = a[:8]
    if training or mean is None:
        return False  # statistics over the batch: images would depend on each other
    return r.node("BatchNormalization", [r.value(t) for t in (x, gamma, beta, mean, variance)], outs, eps=float(eps))


# Arithmetic -----------------------------------------------------------------------------------------------------


def _binary(kind: str, alpha: bool = False) -> TorchTranslation:
    def translate(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
        x, y = a[0], a[1]
        if (alpha and get(a, k, 2, "alpha", 1) != 1) or k.get("rounding_mode") or isinstance(x, (int, float)):
            return False
        if isinstance(y, (int, float)) and y == (0 if kind in ("Add", "Sub") else 1):
            return r.node("Identity", [r.value(x)], outs)
        names = [r.value(x), r.value(y) if isinstance(y, Tensor) else r.number(y, outs[0])]
        return r.node(kind, names, outs)

    return translate


for _names, _kind in (
    (("add",), "Add"),
    (("sub", "subtract"), "Sub"),
    (("mul", "multiply"), "Mul"),
    (("div", "divide", "true_divide"), "Div"),
):
    aten(*_names)(_binary(_kind, alpha=_kind in ("Add", "Sub")))


@aten("square")
def _square(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return r.node("Mul", [r.value(a[0]), r.value(a[0])], outs)


def _unary(kind: str, *names: str, **defaults: Any) -> None:
    """An element-wise function; `defaults` are its attributes in the order of the arguments."""

    def translate(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
        attributes = {key: get(a, k, i + 1, key, value) for i, (key, value) in enumerate(defaults.items())}
        return r.node(kind, [r.value(a[0])], outs, **attributes)

    aten(*names)(translate)


_unary("Relu", "relu")
_unary("Sigmoid", "sigmoid")
_unary("Tanh", "tanh")
_unary("Erf", "erf")
_unary("Silu", "silu")
_unary("Gelu", "gelu", approximate="none")
_unary("Mish", "mish")
_unary("HardSwish", "hardswish")
_unary("HardSigmoid", "hardsigmoid")
_unary("Elu", "elu", alpha=1.0)
_unary("Selu", "selu")
_unary("Celu", "celu", alpha=1.0)
_unary("LeakyRelu", "leaky_relu", negative_slope=0.01)
_unary("Softplus", "softplus", beta=1, threshold=20)
_unary("Softsign", "softsign")
_unary("Sign", "sign")
_unary("Abs", "abs")
_unary("Neg", "neg")
_unary("Softmax", "softmax", "_softmax", axis=-1)
_unary("LogSoftmax", "log_softmax", "_log_softmax", axis=-1)
_unary("Clip", "clamp", "clip", "hardtanh", min=None, max=None)
_unary("Identity", "clone", "contiguous", "detach", "alias", "lift_fresh")


@aten("round")
def _round(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return not k.get("decimals") and r.node("Round", [r.value(a[0])], outs)


@aten("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def _dropout(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return not (a[1] and a[2]) and r.node("Identity", [r.value(a[0])], outs)


@aten("hardtanh")
def _hardtanh(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    low, high = get(a, k, 1, "min_val", -1), get(a, k, 2, "max_val", 1)
    return r.node("Clip", [r.value(a[0])], outs, min=low, max=high)


@aten("relu6")
def _relu6(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return r.node("Clip", [r.value(a[0])], outs, min=0.0, max=6.0)


def _clamped(side: str) -> TorchTranslation:
    def translate(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
        bounds = {"min": None, "max": None, side: a[1]}
        return not isinstance(a[1], Tensor) and r.node("Clip", [r.value(a[0])], outs, **bounds)

    return translate


aten("clamp_min")(_clamped("min"))
aten("clamp_max")(_clamped("max"))


@aten("prelu")
def _prelu(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return r.node("PRelu", [r.value(a[0]), r.value(a[1])], outs)


@aten("to", "_to_copy", "type_as")
def _cast(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    if outs[0] is a[0]:
        return True
    return r.node("Cast" if outs[0].dtype != a[0].dtype else "Identity", [r.value(a[0])], outs, to=outs[0].dtype)
