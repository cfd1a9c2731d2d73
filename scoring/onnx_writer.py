"""Writes the operation graph as ONNX: what `contest convert` makes, and what scores identically by construction.

Activation quantisers become QuantizeLinear, Clip and DequantizeLinear; quantised weights stay codes times scale.
Bits that are narrower than the type of the codes stand in the file's metadata (and are verified when it is read).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from contest.errors import UsageError
from contest.files import beside
from scoring.graph.graph import Graph, Node
from scoring.graph.interpreter import images_stay_first
from scoring.readers.onnx_file import BITS_KEY, CLAIM_KEY, PROVENANCE_KEY

OPSET = 20
IR_VERSION = 9
_CONSTANT_KINDS = ("Cast", "Mul", "Add", "Sub", "Reshape", "Transpose", "Slice", "Gather", "Concat", "Identity")
_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.float64: TensorProto.DOUBLE,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.int8: TensorProto.INT8,
    torch.uint8: TensorProto.UINT8,
    torch.int32: TensorProto.INT32,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}


def write_onnx(
    graph: Graph, path: Path, claims: Mapping[str, float] | None = None, provenance: Mapping[str, str] | None = None
) -> None:
    """Write a graph as a checked ONNX file. Raises UsageError for operations that have no place in it."""
    model = _Writer(graph).model(dict(claims or {}), dict(provenance or {}))
    onnx.checker.check_model(model)
    with beside(path) as part:
        part.write_bytes(model.SerializeToString())


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.protos: list[Any] = []
        self.initialisers: dict[str, Any] = {}
        self.known: set[str] = {graph.input}
        self.names: set[str] = set()
        self.many = images_stay_first(graph)  # else the file takes one image at a time
        steps = {node.inputs[1] for node in graph.running if node.kind == "Quant"}
        others = {i for node in graph.nodes for i in node.inputs if node.kind != "Quant"}
        self.scalars = {step for step in steps - others if graph.constants[step].numel() == 1}

    def model(self, claims: Mapping[str, float], provenance: Mapping[str, str]) -> Any:
        graph = self.graph
        for node in graph.running:
            for value in node.inputs:
                self._constant(value)
            self._node(node)
        batch = None if self.many else 1
        image = [batch, *graph.shapes[graph.input][1:]]
        logits = [batch, *graph.shapes[graph.output][1:]]
        inputs = [helper.make_tensor_value_info(graph.input, _TYPES[graph.types[graph.input]], image)]
        outputs = [helper.make_tensor_value_info(graph.output, _TYPES[graph.types[graph.output]], logits)]
        proto = helper.make_graph(self.protos, "contest", inputs, outputs, list(self.initialisers.values()))
        model = helper.make_model(
            proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="contest"
        )
        declared = {n: bits for n, bits in graph.stored.items() if bits is not None and n in self.initialisers}
        helper.set_model_props(
            model,
            {BITS_KEY + name: str(bits) for name, bits in declared.items()}
            | {CLAIM_KEY + name: repr(value) for name, value in claims.items()}
            | {PROVENANCE_KEY + name: text for name, text in provenance.items()},
        )
        return model

    def _constant(self, value: str) -> None:
        """Write a constant: as a stored tensor, or as the expression that it is read from."""
        if not value or value in self.known or value not in self.graph.constants:
            return
        node = self.graph.producers.get(value)
        if value in self.graph.stored or node is None or node.kind not in _CONSTANT_KINDS:
            self._store(value, self.graph.constants[value])
            return
        for name in node.inputs:
            self._constant(name)
        self._node(node)

    def _store(self, name: str, tensor: Tensor) -> str:
        if name not in self.known:
            self.known.add(name)
            self.initialisers[name] = _tensor(name, tensor.reshape(()) if name in self.scalars else tensor)
        return name

    def _ints(self, name: str, numbers: Any) -> str:
        return self._store(name, torch.tensor(list(numbers), dtype=torch.int64))

    def _put(self, op: str, inputs: list[str], output: str, name: str, **attributes: Any) -> str:
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}^{count}"
        self.names.add(unique)
        self.protos.append(helper.make_node(op, inputs, [output], name=unique, **attributes))
        self.known.add(output)
        return output

    def _node(self, node: Node) -> None:
        write = _WRITERS.get(node.kind)
        if write is None:
            operation = node.attributes.get("operation", node.kind)
            raise UsageError(f"operation '{operation}' at '{node.name}' cannot be written as ONNX")
        write(self, node)


def _tensor(name: str, tensor: Tensor) -> Any:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return helper.make_tensor(name, TensorProto.BFLOAT16, tensor.shape, tensor.float().reshape(-1).tolist())
    return numpy_helper.from_array(np.ascontiguousarray(tensor.numpy()).reshape(tuple(tensor.shape)), name)


# Kinds ----------------------------------------------------------------------------------------------------------

Write = Callable[[_Writer, Node], None]


def _plain(op: str, **names: str) -> Write:
    """The operator `op` with the node's inputs; `names` are {ONNX attribute: ours}."""

    def write(w: _Writer, node: Node) -> None:
        attributes = {theirs: node.attributes[ours] for theirs, ours in names.items()}
        w._put(op, list(node.inputs), node.output, node.name, **attributes)

    return write


def _conv(w: _Writer, node: Node) -> None:
    a = node.attributes
    extra = {"output_padding": a["output_padding"]} if node.kind == "ConvTranspose" else {}
    w._put(
        node.kind,
        list(node.inputs),
        node.output,
        node.name,
        strides=a["stride"],
        pads=a["pads"],
        dilations=a["dilation"],
        group=a["groups"],
        **extra,
    )


def _linear(w: _Writer, node: Node) -> None:
    x, weight, *bias = node.inputs
    if len(w.graph.shapes[x]) == 2:
        w._put("Gemm", list(node.inputs), node.output, node.name, transB=1)
        return
    turned = w._put("Transpose", [weight], f"{node.output}^turned", f"{node.name}/Transpose", perm=[1, 0])
    product = f"{node.output}^product" if bias else node.output
    w._put("MatMul", [x, turned], product, node.name)
    if bias:
        w._put("Add", [product, bias[0]], node.output, f"{node.name}/Add")


def _batch_norm(w: _Writer, node: Node) -> None:
    x, *parameters = node.inputs
    fill = {0: 1.0, 1: 0.0}
    channels, dtype = w.graph.shapes[parameters[2]], w.graph.types[parameters[2]]
    for i, value in fill.items():
        if not parameters[i]:
            parameters[i] = w._store(f"{node.output}^{i}", torch.full(channels, value, dtype=dtype))
    w._put("BatchNormalization", [x, *parameters], node.output, node.name, epsilon=node.attributes["eps"])


def _quantiser(w: _Writer, node: Node) -> None:
    x, scale, *zero = node.inputs
    a, low, high = node.attributes, node.attributes["low"], node.attributes["high"]
    dtype = torch.uint8 if low >= 0 else torch.int8
    bounds = torch.iinfo(dtype)
    if low < bounds.min or high > bounds.max or a.get("rounding", "ROUND") not in ("ROUND", "HALF_EVEN"):
        raise UsageError(f"the quantiser at '{node.name}' with codes {low} to {high} cannot be written as ONNX")
    point = torch.zeros((), dtype=dtype)
    if zero and zero[0]:
        point = w.graph.constants[zero[0]].reshape(()).to(dtype)
    name = w._store(f"{node.output}^zero", point)
    codes = w._put("QuantizeLinear", [x, scale, name], f"{node.output}^codes", f"{node.name}/Q")
    if (low, high) != (bounds.min, bounds.max):
        edges = [
            w._store(f"{node.output}^{k}", torch.tensor(v, dtype=dtype)) for k, v in (("low", low), ("high", high))
        ]
        codes = w._put("Clip", [codes, *edges], f"{node.output}^clipped", f"{node.name}/Clip")
    w._put("DequantizeLinear", [codes, scale, name], node.output, node.name)


def _clip(w: _Writer, node: Node) -> None:
    dtype, edges = w.graph.types[node.inputs[0]], []
    for side in ("min", "max"):
        value = node.attributes[side]
        edges.append("" if value is None else w._store(f"{node.output}^{side}", torch.tensor(value, dtype=dtype)))
    w._put("Clip", [node.inputs[0], *edges], node.output, node.name)


def _pool(w: _Writer, node: Node) -> None:
    a = node.attributes
    extra: dict[str, Any] = (
        {"dilations": a["dilation"]} if node.kind == "MaxPool" else {"count_include_pad": int(a["count_include_pad"])}
    )
    w._put(
        node.kind,
        list(node.inputs),
        node.output,
        node.name,
        kernel_shape=a["kernel"],
        strides=a["stride"],
        pads=a["pads"],
        ceil_mode=int(a["ceil"]),
        **extra,
    )


def _reduce(w: _Writer, node: Node) -> None:
    axes = w._ints(f"{node.output}^axes", node.attributes["axes"])
    w._put(node.kind, [node.inputs[0], axes], node.output, node.name, keepdims=int(node.attributes["keepdims"]))


def _reshape(w: _Writer, node: Node) -> None:
    shape = list(node.attributes["shape"])
    if not w.graph.is_constant(node.output) and w.many:
        shape[0] = -1
    w._put("Reshape", [node.inputs[0], w._ints(f"{node.output}^shape", shape)], node.output, node.name)


def _expand(w: _Writer, node: Node) -> None:
    shape = w._ints(f"{node.output}^shape", node.attributes["shape"])
    w._put("Expand", [node.inputs[0], shape], node.output, node.name)


def _slice(w: _Writer, node: Node) -> None:
    a, shape = node.attributes, w.graph.shapes[node.inputs[0]]
    axes = [i for i, n in enumerate(shape) if (a["starts"][i], a["ends"][i], a["steps"][i]) != (0, n, 1)]
    parts = [w._ints(f"{node.output}^{k}", [a[k][i] for i in axes]) for k in ("starts", "ends")]
    parts += [w._ints(f"{node.output}^axes", axes), w._ints(f"{node.output}^steps", [a["steps"][i] for i in axes])]
    w._put("Slice", [node.inputs[0], *parts], node.output, node.name)


def _pad(w: _Writer, node: Node) -> None:
    a = node.attributes
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[a.get("mode", "constant")]
    value = w._store(f"{node.output}^value", torch.tensor(a.get("value", 0.0), dtype=w.graph.types[node.inputs[0]]))
    pads = w._ints(f"{node.output}^pads", a["pads"])
    w._put("Pad", [node.inputs[0], pads, value], node.output, node.name, mode=mode)


def _cast(w: _Writer, node: Node) -> None:
    w._put("Cast", [node.inputs[0]], node.output, node.name, to=_TYPES[node.attributes["to"]])


def _gate(gate: str, **attributes: float) -> Write:
    def write(w: _Writer, node: Node) -> None:
        name = w._put(gate, list(node.inputs), f"{node.output}^gate", f"{node.name}/{gate}", **attributes)
        w._put("Mul", [node.inputs[0], name], node.output, node.name)

    return write


def _resize(w: _Writer, node: Node) -> None:
    scales = w._store(f"{node.output}^scales", torch.tensor([1.0, 1.0, *node.attributes["factors"]]))
    w._put(
        "Resize",
        [node.inputs[0], "", scales],
        node.output,
        node.name,
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )


def _prelu(w: _Writer, node: Node) -> None:
    x, slope = node.inputs
    rank = len(w.graph.shapes[x])
    if len(w.graph.shapes[slope]) == 1 and rank > 2:
        shape = w._ints(f"{node.output}^shape", [-1, *[1] * (rank - 2)])
        slope = w._put("Reshape", [slope, shape], f"{node.output}^slope", f"{node.name}/Reshape")
    w._put("PRelu", [x, slope], node.output, node.name)


def _hard_sigmoid(w: _Writer, node: Node) -> None:
    w._put("HardSigmoid", list(node.inputs), node.output, node.name, alpha=1 / 6, beta=0.5)


def _depth_to_space(w: _Writer, node: Node) -> None:
    w._put("DepthToSpace", list(node.inputs), node.output, node.name, blocksize=node.attributes["block"], mode="CRD")


_WRITERS: dict[str, Write] = {
    **{
        kind: _plain(kind)
        for kind in (
            "MatMul",
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Relu",
            "Sigmoid",
            "Tanh",
            "Erf",
            "Mish",
            "HardSwish",
            "Selu",
            "Softsign",
            "Sign",
            "Abs",
            "Neg",
            "Identity",
        )
    },
    **{kind: _plain(kind, axis="axis") for kind in ("Softmax", "LogSoftmax", "Concat", "Gather")},
    **{kind: _plain(kind, alpha="alpha") for kind in ("Elu", "Celu")},
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Linear": _linear,
    "BatchNormalization": _batch_norm,
    "Quant": _quantiser,
    "Clip": _clip,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "Reshape": _reshape,
    "Expand": _expand,
    "Slice": _slice,
    "Pad": _pad,
    "Cast": _cast,
    "Transpose": _plain("Transpose", perm="perm"),
    "Gelu": _plain("Gelu", approximate="approximate"),
    "LeakyRelu": _plain("LeakyRelu", alpha="negative_slope"),
    "Silu": _gate("Sigmoid"),
    "PRelu": _prelu,
    "HardSigmoid": _hard_sigmoid,
    "Softplus": _plain("Softplus"),
    "ResizeNearest": _resize,
    "DepthToSpace": _depth_to_space,
}
