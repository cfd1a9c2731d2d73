"""How each kind of operation runs in torch. `KINDS` in `graph.py` says which function belongs to which kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from contest.errors import RefusedError

Inputs = Sequence[Tensor | None]
Attributes = Mapping[str, Any]
Run = Callable[[Inputs, Attributes], Tensor]


def _window(x: Tensor, a: Attributes, value: float = 0.0) -> tuple[Tensor, tuple[int, ...]]:
    """x and symmetric padding; unequal padding is carried out first."""
    dims = len(a["pads"]) // 2
    before, after = a["pads"][:dims], a["pads"][dims:]
    small = all(2 * p <= k for p, k in zip(before, a.get("kernel", [2 * p for p in before]), strict=True))
    if tuple(before) == tuple(after) and (small or a.get("ceil")):  # torch pads by at most half of a cell
        return x, tuple(before)
    flat = [p for pair in reversed(list(zip(before, after, strict=True))) for p in pair]
    return F.pad(x, flat, value=value), (0,) * dims


def conv(inputs: Inputs, a: Attributes) -> Tensor:
    x, weight, *bias = inputs
    assert x is not None and weight is not None
    x, padding = _window(x, a)
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[weight.dim() - 2]
    result: Tensor = conv(x, weight, bias[0] if bias else None, a["stride"], padding, a["dilation"], a["groups"])
    return result


def conv_transpose(inputs: Inputs, a: Attributes) -> Tensor:
    x, weight, *bias = inputs
    assert x is not None and weight is not None
    dims = weight.dim() - 2
    conv = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[dims]
    before, after = a["pads"][:dims], a["pads"][dims:]
    both = tuple(map(min, before, after))
    result: Tensor = conv(
        x, weight, bias[0] if bias else None, a["stride"], both, a["output_padding"], a["groups"], a["dilation"]
    )
    for i, (first, last, cut) in enumerate(zip(before, after, both, strict=True)):  # unequal padding is cut off
        result = result.narrow(i + 2, first - cut, result.shape[i + 2] - first - last + 2 * cut)
    return result


def max_pool(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    x, padding = _window(x, a, float("-inf"))
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(a["kernel"])]
    result: Tensor = pool(x, a["kernel"], a["stride"], padding, a.get("dilation", 1), a["ceil"])
    return result


def average_pool(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(a["kernel"])]
    counted, plain = a["count_include_pad"], torch.ones_like(x[:1, :1])
    x, padding = _window(x, a)
    if not counted and len(padding) and x.shape[2:] != plain.shape[2:]:  # padded already: by the share of each cell
        if a["ceil"]:
            raise RefusedError("an average pool with unequal padding that is not counted is not known with ceil mode")
        share: Tensor = pool(_window(plain, a)[0], a["kernel"], a["stride"])
        return pool(x, a["kernel"], a["stride"]) / share
    result: Tensor = pool(x, a["kernel"], a["stride"], padding, a["ceil"], a["count_include_pad"])
    return result


def batch_norm(inputs: Inputs, a: Attributes) -> Tensor:
    x, gamma, beta, mean, variance = inputs
    assert x is not None
    return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, a["eps"])


def slice_(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    return x[tuple(slice(*bounds) for bounds in zip(a["starts"], a["ends"], a["steps"], strict=True))]


def pad(inputs: Inputs, a: Attributes) -> Tensor:
    x, pads = inputs[0], a["pads"]
    assert x is not None
    dims = len(pads) // 2
    flat = [p for d in reversed(range(dims)) for p in (pads[d], pads[d + dims])]
    while len(flat) > 2 and not any(flat[-2:]):
        flat = flat[:-2]
    mode = a.get("mode", "constant")
    return F.pad(x, flat, value=a.get("value", 0.0)) if mode == "constant" else F.pad(x, flat, mode=mode)


_ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {
    "ROUND": torch.Tensor.round_,
    "HALF_EVEN": torch.Tensor.round_,
    "FLOOR": torch.Tensor.floor_,
    "CEIL": torch.Tensor.ceil_,
}
"""In place: a quantiser's time is that of the memory it walks through."""


def quantise(inputs: Inputs, a: Attributes) -> Tensor:
    x, scale, *zero = inputs
    assert x is not None and scale is not None
    scale = along(scale, x, a.get("axis"))
    point = along(zero[0].to(scale.dtype), x, a.get("axis")) if zero and zero[0] is not None else None
    rounded = _ROUNDING[a.get("rounding", "ROUND")]
    steps = x.div_(scale) if a.get("in_place") else x / scale
    if point is None:
        codes = rounded(steps)
    else:  # QONNX rounds what the zero point was added to, ONNX and torch before
        codes = rounded(steps + point) if a.get("point_first") else rounded(steps).add_(point)
    codes = codes.clamp_(a["low"], a["high"])
    return (codes if point is None else codes.sub_(point)).mul_(scale).to(x.dtype)


def bipolar(inputs: Inputs, a: Attributes) -> Tensor:
    x, scale = inputs
    assert x is not None and scale is not None
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype) * scale


def quantise_linear(inputs: Inputs, a: Attributes) -> Tensor:
    x, scale, *zero = inputs
    assert x is not None and scale is not None
    dtype = zero[0].dtype if zero and zero[0] is not None else torch.uint8
    codes = (x / along(scale, x, a.get("axis"))).round()
    if zero and zero[0] is not None:
        codes = codes + along(zero[0].float(), x, a.get("axis"))
    bounds = torch.iinfo(dtype)
    return codes.clamp(bounds.min, bounds.max).to(dtype)


def dequantise_linear(inputs: Inputs, a: Attributes) -> Tensor:
    codes, scale, *zero = inputs
    assert codes is not None and scale is not None
    values = codes.to(scale.dtype)
    if zero and zero[0] is not None:
        values = values - along(zero[0].to(scale.dtype), codes, a.get("axis"))
    return values * along(scale, codes, a.get("axis"))


def along(scale: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """A vector of scales in the place of dimension `axis` of x."""
    if axis is None or scale.dim() != 1 or scale.numel() == 1:
        return scale.reshape(()) if scale.numel() == 1 else scale
    shape = [1] * x.dim()
    shape[axis] = -1
    return scale.reshape(shape)


def prelu(inputs: Inputs, a: Attributes) -> Tensor:
    x, slope = inputs
    assert x is not None and slope is not None
    shaped = slope.reshape(1, -1, *([1] * (x.dim() - 2))) if slope.dim() == 1 and slope.numel() > 1 else slope
    return torch.where(x >= 0, x, x * shaped)


def unary(function: Callable[..., Tensor], *names: str) -> Run:
    """An element-wise function with the attributes of these names as arguments."""
    return lambda inputs, a: function(inputs[0], *(a[name] for name in names))


def binary(function: Callable[[Any, Any], Tensor]) -> Run:
    return lambda inputs, a: function(inputs[0], inputs[1])


def one(inputs: Inputs) -> Tensor:
    """The first input, which must be there."""
    assert inputs[0] is not None
    return inputs[0]


def two(inputs: Inputs) -> tuple[Tensor, Tensor]:
    x, y = inputs
    assert x is not None and y is not None
    return x, y


def _three(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = inputs
    assert x is not None and y is not None and z is not None
    return x, y, z


def gather(inputs: Inputs, a: Attributes) -> Tensor:
    x, index = two(inputs)
    axis = a["axis"]
    flat = x.index_select(axis, index.reshape(-1).long() % x.shape[axis])
    return flat.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def linear(inputs: Inputs, a: Attributes) -> Tensor:
    x, weight, *bias = inputs
    assert x is not None and weight is not None
    return F.linear(x, weight, bias[0] if bias else None)


def concat(inputs: Inputs, a: Attributes) -> Tensor:
    return torch.cat([x for x in inputs if x is not None], a["axis"])


def reduce(function: Callable[..., Tensor]) -> Run:
    """A reduction over `axes`."""
    return lambda inputs, a: function(inputs[0], a["axes"], a["keepdims"])


def space_to_depth(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    return F.pixel_unshuffle(x, a["block"])


def resize_nearest(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    return F.interpolate(x, scale_factor=[float(f) for f in a["factors"]])


def resize(cubic: bool) -> Run:
    """Another size, each value between its 2 (cubic: 4) neighbours along each axis."""

    def run(inputs: Inputs, a: Attributes) -> Tensor:
        x = one(inputs)
        mode = "bicubic" if cubic else {3: "linear", 4: "bilinear", 5: "trilinear"}[x.dim()]
        return F.interpolate(x, size=tuple(a["size"]), mode=mode, align_corners=a["align_corners"])

    return run


def place(function: Callable[..., Tensor]) -> Run:
    """Where along one axis the largest or smallest value is."""
    return lambda inputs, a: function(inputs[0], a["axes"][0], a["keepdims"])


def adaptive_pool(average: bool) -> Run:
    """Average or largest value of cells that cover the map, `size` of them."""

    def run(inputs: Inputs, a: Attributes) -> Tensor:
        x = inputs[0]
        assert x is not None
        if average:
            return {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[x.dim() - 2](
                x, a["size"]
            )
        pool = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[x.dim() - 2]
        result: Tensor = pool(x, a["size"])
        return result

    return run


def power(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    return torch.pow(x, a["exponent"])


def hard_sigmoid(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    if "alpha" not in a:
        return F.hardsigmoid(x)
    return torch.clamp(x * a["alpha"] + a["beta"], 0, 1)


def thresholded_relu(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    return torch.where(x > a["alpha"], x, torch.zeros_like(x))


def where(inputs: Inputs, a: Attributes) -> Tensor:
    condition, x, y = _three(inputs)
    return torch.where(condition.bool(), x, y)


def normalise(inputs: Inputs, a: Attributes) -> Tensor:
    """Mean 0 and variance 1 over some axes."""
    x = one(inputs)
    wide = x.float()
    centred = wide - wide.mean(a["axes"], keepdim=True)
    variance = centred.square().mean(a["axes"], keepdim=True)
    result: Tensor = centred / (variance + a["eps"]).sqrt()
    return result.to(x.dtype)


def rms_normalise(inputs: Inputs, a: Attributes) -> Tensor:
    """Mean of squares 1 over some axes."""
    x = one(inputs)
    wide = x.float()
    result: Tensor = wide / (wide.square().mean(a["axes"], keepdim=True) + a["eps"]).sqrt()
    return result.to(x.dtype)
