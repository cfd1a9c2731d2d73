"""Runs the operation graph in torch: for shapes while an ONNX file is read, for QONNX files, and for proofs.

Shapes in the graph are those of one image; a running graph takes any number of images, dimension 0 first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from contest.errors import RefusedError
from scoring.graph.graph import Graph, Node

Inputs = Sequence[Tensor | None]
Attributes = Mapping[str, Any]


@torch.inference_mode()
def run_graph(graph: Graph, images: Tensor) -> dict[str, Tensor]:
    """All values of the graph for images [N,C,H,W] (float in [0, 1]), constants included.

    Where the graph moves dimension 0 about, images run one by one and their values are joined along it.
    """
    if len(images) > 1 and not images_stay_first(graph):
        runs = [run_graph(graph, image[None]) for image in images]
        joined = {node.output: torch.cat([run[node.output] for run in runs]) for node in graph.running}
        return {**graph.constants, graph.input: images, **joined}
    values = dict(graph.constants)
    values[graph.input] = images.to(graph.types[graph.input])
    for node in graph.running:
        values[node.output] = run_node(node, [values[i] if i else None for i in node.inputs], images=True)
    return values


def images_stay_first(graph: Graph) -> bool:
    """Whether dimension 0 counts images (times something) all the way, so that many can run at once."""
    for node in graph.running:
        if _MOVES_IMAGES.get(node.kind, _never)(node.attributes, len(graph.shapes[node.output])):
            return False
    return True


def _never(attributes: Attributes, rank: int) -> bool:
    return False


_MOVES_IMAGES: dict[str, Callable[[Attributes, int], bool]] = {
    "Transpose": lambda a, rank: a["perm"][0] != 0,
    "Concat": lambda a, rank: a["axis"] == 0,
    "Gather": lambda a, rank: a["axis"] == 0,
    "ReduceMean": lambda a, rank: 0 in a["axes"],
    "ReduceSum": lambda a, rank: 0 in a["axes"],
    "Softmax": lambda a, rank: a["axis"] % rank == 0,
    "Slice": lambda a, rank: (a["starts"][0], a["ends"][0]) != (0, 1),
    "Expand": lambda a, rank: a["shape"][0] != 1,
}


def run_node(node: Node, inputs: Inputs, images: bool = False) -> Tensor:
    """The output of one node. images: dimension 0 counts images, so it follows the input and not the graph."""
    if node.kind not in _KINDS:
        raise RefusedError(f"operation '{node.attributes.get('operation', node.kind)}' cannot be run")
    attributes = dict(node.attributes)
    if images:
        _free_batch(node.kind, attributes, inputs)
    return _KINDS[node.kind](inputs, attributes)


def _free_batch(kind: str, attributes: dict[str, Any], inputs: Inputs) -> None:
    first = inputs[0]
    assert first is not None
    if kind == "Reshape":
        attributes["shape"] = (-1, *attributes["shape"][1:])
    elif kind == "Expand":
        attributes["shape"] = (first.shape[0], *attributes["shape"][1:])
    elif kind == "Slice" and (attributes["starts"][0], attributes["ends"][0]) == (0, 1):
        attributes["ends"] = (first.shape[0], *attributes["ends"][1:])


def _window(x: Tensor, a: Attributes, value: float = 0.0) -> tuple[Tensor, tuple[int, ...]]:
    """x and symmetric padding; unequal padding is carried out first."""
    dims = len(a["pads"]) // 2
    before, after = a["pads"][:dims], a["pads"][dims:]
    if tuple(before) == tuple(after):
        return x, tuple(before)
    flat = [p for pair in reversed(list(zip(before, after, strict=True))) for p in pair]
    return F.pad(x, flat, value=value), (0,) * dims


def _conv(inputs: Inputs, a: Attributes) -> Tensor:
    x, weight, *bias = inputs
    assert x is not None and weight is not None
    x, padding = _window(x, a)
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[weight.dim() - 2]
    result: Tensor = conv(x, weight, bias[0] if bias else None, a["stride"], padding, a["dilation"], a["groups"])
    return result


def _conv_transpose(inputs: Inputs, a: Attributes) -> Tensor:
    x, weight, *bias = inputs
    assert x is not None and weight is not None
    dims = weight.dim() - 2
    conv = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[dims]
    before, after = a["pads"][:dims], a["pads"][dims:]
    if tuple(before) != tuple(after):
        raise RefusedError("a transposed convolution with unequal padding is not supported")
    result: Tensor = conv(x, weight, bias[0] if bias else None, a["stride"], before, a["output_padding"], a["groups"],
                          a["dilation"])  # fmt: skip
    return result


def _max_pool(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    x, padding = _window(x, a, float("-inf"))
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(a["kernel"])]
    result: Tensor = pool(x, a["kernel"], a["stride"], padding, a.get("dilation", 1), a["ceil"])
    return result


def _average_pool(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    if not a["count_include_pad"] and any(a["pads"]) and a["pads"][: len(a["kernel"])] != a["pads"][len(a["kernel"]) :]:
        raise RefusedError("an average pool with unequal padding that is not counted is not supported")
    x, padding = _window(x, a)
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(a["kernel"])]
    result: Tensor = pool(x, a["kernel"], a["stride"], padding, a["ceil"], a["count_include_pad"])
    return result


def _batch_norm(inputs: Inputs, a: Attributes) -> Tensor:
    x, gamma, beta, mean, variance = inputs
    assert x is not None
    return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, a["eps"])


def _slice(inputs: Inputs, a: Attributes) -> Tensor:
    x = inputs[0]
    assert x is not None
    return x[tuple(slice(*bounds) for bounds in zip(a["starts"], a["ends"], a["steps"], strict=True))]


def _pad(inputs: Inputs, a: Attributes) -> Tensor:
    x, pads = inputs[0], a["pads"]
    assert x is not None
    dims = len(pads) // 2
    flat = [p for d in reversed(range(dims)) for p in (pads[d], pads[d + dims])]
    while len(flat) > 2 and not any(flat[-2:]):
        flat = flat[:-2]
    mode = a.get("mode", "constant")
    return F.pad(x, flat, value=a.get("value", 0.0)) if mode == "constant" else F.pad(x, flat, mode=mode)


_ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {
    "ROUND": torch.round, "HALF_EVEN": torch.round, "FLOOR": torch.floor, "CEIL": torch.ceil
}  # fmt: skip


def _quantise(inputs: Inputs, a: Attributes) -> Tensor:
    x, scale, *zero = inputs
    assert x is not None and scale is not None
    scale = _along(scale, x, a.get("axis"))
    point = _along(zero[0].to(scale.dtype), x, a.get("axis")) if zero and zero[0] is not None else None
    rounded = _ROUNDING[a.get("rounding", "ROUND")]
    if point is None:
        codes = rounded(x / scale)
    else:  # QONNX rounds what the zero point was added to, ONNX and torch before
        codes = rounded(x / scale + point) if a.get("point_first") else rounded(x / scale) + point
    codes = codes.clamp(a["low"], a["high"])
    return ((codes if point is None else codes - point) * scale).to(x.dtype)


def _bipolar(inputs: Inputs, a: Attributes) -> Tensor:
    x, scale = inputs
    assert x is not None and scale is not None
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype) * scale


def _quantise_linear(inputs: Inputs, a: Attributes) -> Tensor:
    x, scale, *zero = inputs
    assert x is not None and scale is not None
    dtype = zero[0].dtype if zero and zero[0] is not None else torch.uint8
    codes = (x / _along(scale, x, a.get("axis"))).round()
    if zero and zero[0] is not None:
        codes = codes + _along(zero[0].float(), x, a.get("axis"))
    bounds = torch.iinfo(dtype)
    return codes.clamp(bounds.min, bounds.max).to(dtype)


def _dequantise_linear(inputs: Inputs, a: Attributes) -> Tensor:
    codes, scale, *zero = inputs
    assert codes is not None and scale is not None
    values = codes.to(scale.dtype)
    if zero and zero[0] is not None:
        values = values - _along(zero[0].to(scale.dtype), codes, a.get("axis"))
    return values * _along(scale, codes, a.get("axis"))


def _along(scale: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """A vector of scales in the place of dimension `axis` of x."""
    if axis is None or scale.dim() != 1 or scale.numel() == 1:
        return scale.reshape(()) if scale.numel() == 1 else scale
    shape = [1] * x.dim()
    shape[axis] = -1
    return scale.reshape(shape)


def _prelu(inputs: Inputs, a: Attributes) -> Tensor:
    x, slope = inputs
    assert x is not None and slope is not None
    shaped = slope.reshape(1, -1, *([1] * (x.dim() - 2))) if slope.dim() == 1 and slope.numel() > 1 else slope
    return torch.where(x >= 0, x, x * shaped)


def _unary(function: Callable[..., Tensor], *names: str) -> Callable[[Inputs, Attributes], Tensor]:
    """An element-wise function with the attributes of these names as arguments."""
    return lambda inputs, a: function(inputs[0], *(a[name] for name in names))


def _binary(function: Callable[[Any, Any], Tensor]) -> Callable[[Inputs, Attributes], Tensor]:
    return lambda inputs, a: function(inputs[0], inputs[1])


def _two(inputs: Inputs) -> tuple[Tensor, Tensor]:
    x, y = inputs
    assert x is not None and y is not None
    return x, y


_KINDS: dict[str, Callable[[Inputs, Attributes], Tensor]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Linear": lambda i, a: F.linear(*i),  # type: ignore[arg-type]
    "MatMul": _binary(torch.matmul),
    "BatchNormalization": _batch_norm,
    "Add": _binary(torch.add),
    "Sub": _binary(torch.sub),
    "Mul": _binary(torch.mul),
    "Div": _binary(torch.div),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "AdaptiveAveragePool": lambda i, a: F.adaptive_avg_pool2d(i[0], a["size"]),  # type: ignore[arg-type]
    "ReduceMean": lambda i, a: torch.mean(i[0], a["axes"], a["keepdims"]),  # type: ignore[arg-type]
    "ReduceSum": lambda i, a: torch.sum(i[0], a["axes"], a["keepdims"]),  # type: ignore[arg-type]
    "Reshape": _unary(torch.reshape, "shape"),
    "Transpose": _unary(torch.permute, "perm"),
    "Expand": _unary(torch.broadcast_to, "shape"),
    "Slice": _slice,
    "Concat": lambda i, a: torch.cat(list(i), a["axis"]),  # type: ignore[arg-type]
    "Gather": lambda i, a: _gather(*_two(i), a["axis"]),
    "Pad": _pad,
    "Identity": _unary(torch.Tensor.clone),
    "Cast": _unary(torch.Tensor.to, "to"),
    "DepthToSpace": _unary(F.pixel_shuffle, "block"),
    "ResizeNearest": lambda i, a: F.interpolate(i[0], scale_factor=[float(f) for f in a["factors"]]),  # type: ignore
    "Quant": _quantise,
    "BipolarQuant": _bipolar,
    "QuantizeLinear": _quantise_linear,
    "DequantizeLinear": _dequantise_linear,
    "PRelu": _prelu,
    "Clip": _unary(torch.clamp, "min", "max"),
    "Relu": _unary(torch.relu),
    "Sigmoid": _unary(torch.sigmoid),
    "Tanh": _unary(torch.tanh),
    "Erf": _unary(torch.erf),
    "Silu": _unary(F.silu),
    "Gelu": lambda i, a: F.gelu(i[0], approximate=a["approximate"]),  # type: ignore[arg-type]
    "Mish": _unary(F.mish),
    "HardSwish": _unary(F.hardswish),
    "HardSigmoid": _unary(F.hardsigmoid),
    "Elu": _unary(F.elu, "alpha"),
    "Selu": _unary(F.selu),
    "Celu": _unary(F.celu, "alpha"),
    "LeakyRelu": _unary(F.leaky_relu, "negative_slope"),
    "Softplus": _unary(F.softplus, "beta", "threshold"),
    "Softsign": _unary(F.softsign),
    "Sign": _unary(torch.sign),
    "Abs": _unary(torch.abs),
    "Neg": _unary(torch.neg),
    "Softmax": _unary(torch.softmax, "axis"),
    "LogSoftmax": _unary(torch.log_softmax, "axis"),
}


def _gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    flat = x.index_select(axis, index.reshape(-1).long() % x.shape[axis])
    return flat.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))
