"""From ONNX nodes to the graph: translated one after the other, and run on one example image as they come.

That gives every shape, and folds the shape arithmetic that exporters leave behind. Nothing is trusted that was not
computed here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from contest.errors import RefusedError
from scoring.analysis.activation_patterns import with_activations
from scoring.graph.graph import NAMED_AFTER_WEIGHTS, SHAPE_KINDS, UNKNOWN, Graph, Node, weight_name
from scoring.graph.interpreter import run_node
from scoring.readers import onnx_functions, onnx_moves, onnx_runtime_operators  # noqa: F401  (they register)
from scoring.readers.onnx_operators import OPERATORS, Codes, Unsupported
from scoring.readers.quantiser_patterns import with_quantisers


def graph_of(model: Any, image_name: str, image: Tensor, last: bool = False) -> Graph:
    """The network that a checked `ModelProto` holds, for an example image; last: the file wants its channels last."""
    graph = Builder(model, image_name, image, last).graph(model.graph.output[0].name).before_the_choice()
    for fuse in (_with_biases, with_quantisers, with_activations):
        graph = _without_dead_nodes(fuse(graph))
    return graph


class Builder:
    """Translates nodes. Translations in `onnx_operators` call `emit`, `constant` and `ints`."""

    def __init__(self, model: Any, image_name: str, image: Tensor, last: bool = False) -> None:
        self.model = model
        self.opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=17)
        self.nodes: list[Node] = []
        self.values: dict[str, Tensor] = {image_name: image}
        self.constants: dict[str, Tensor] = {}
        self.stored: dict[str, int | None] = {}
        self.used: set[str] = set()
        self.image_name = image_name
        self.producers: dict[str, Node] = {}
        self.calls: Counter[str] = Counter()
        self.codes: dict[str, Codes] = {}
        self.ranges: dict[str, tuple[int, int]] = {}
        """Of integer types that torch has not."""
        self.current: Any = None
        self.read = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
        if last:
            self.image_name = f"{image_name}^nchw"
            self.values = {self.image_name: image}
            self.current = onnx.helper.make_node("Transpose", [self.image_name], [image_name], "image")
            self.emit("Transpose", (self.image_name,), image_name, perm=(0, 2, 3, 1))
        for tensor in model.graph.initializer:
            self.store(tensor.name, tensor)

    def store(self, name: str, proto: Any) -> None:
        """A stored tensor, with the bits of its type where that is narrower than a byte."""
        array, bits = _array(proto)
        if proto.data_type in RANGES:
            self.ranges[name] = RANGES[proto.data_type]
        if name in self.values:
            raise RefusedError(f"'{name[:200]}' is defined twice")
        self.stored[name] = bits
        self.constants[name] = self.values[name] = array

    def graph(self, output: str) -> Graph:
        for proto in self.model.graph.node:
            self.current = proto
            self._translate(proto)
        if output not in self.values:
            raise RefusedError(f"output '{output[:200]}' is made by no operator")
        unused = tuple(name for name in self.stored if name not in self.used)
        shapes = {name: tuple(tensor.shape) for name, tensor in self.values.items()}
        types = {name: tensor.dtype for name, tensor in self.values.items()}
        return Graph(self.nodes, self.image_name, output, shapes, types, self.constants, self.stored, unused)

    def _translate(self, proto: Any) -> None:
        for name in proto.input:
            if name and name not in self.values:
                raise RefusedError(f"operator '{proto.op_type}' reads '{name[:200]}', which nothing has made yet")
            self.used.add(name)
        for name in proto.output:
            if name in self.values:
                raise RefusedError(f"'{name[:200]}' is made twice")
        self._check_codes(proto)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        while len(proto.output) > 1 and proto.output[-1] not in self.read:
            del proto.output[-1]  # indices of a pool, statistics of a normalisation: nobody reads them
        translate = OPERATORS.get(proto.op_type)
        before = len(self.nodes)
        try:
            if translate is None:
                raise Unsupported
            translate(self, proto, attributes)
        except Unsupported:
            del self.nodes[before:]
            self._unknown(proto)
        except (RuntimeError, IndexError, ValueError, TypeError, KeyError, AssertionError, OverflowError) as error:
            raise RefusedError(
                f"operator '{proto.op_type}' ('{proto.name[:200]}') cannot be carried out: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error

    def _check_codes(self, proto: Any) -> None:
        """Integers of a quantised activation may be moved about, and turned into real numbers again."""
        reading = next((name for name in proto.input if name in self.codes), None)
        if reading is not None and not (proto.op_type in _ON_CODES or proto.op_type.startswith(("QLinear", "QGemm"))):
            raise RefusedError(
                f"operator '{proto.op_type}' ('{proto.name[:200]}') computes with the integer codes of a quantised "
                "activation; export in QDQ format (QuantizeLinear and DequantizeLinear around float operators)"
            )

    def _unknown(self, proto: Any) -> None:
        """Run an operator that the contest does not know by ONNX's reference implementation, and name it."""
        from onnx.reference import ReferenceEvaluator

        inputs = {name: self.values[name] for name in proto.input if name}
        constant = all(name in self.constants for name in inputs)
        try:
            session = ReferenceEvaluator(
                onnx.helper.make_model(
                    onnx.helper.make_graph(
                        [proto],
                        "one",
                        [onnx.helper.make_empty_tensor_value_info(n) for n in inputs],
                        [onnx.helper.make_empty_tensor_value_info(n) for n in proto.output if n],
                    ),
                    opset_imports=self.model.opset_import,
                )
            )
            results = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        except Exception as error:  # the reference implementation raises whatever its operator raises
            raise RefusedError(
                f"operator '{proto.op_type}' is not one that the contest knows, and cannot be carried out either"
            ) from error
        names = tuple(name for name in proto.output if name)
        for name, array in zip(names, results, strict=True):
            try:
                self.values[name] = torch.from_numpy(np.array(array))
            except TypeError as error:
                raise RefusedError(f"operator '{proto.op_type}' gives numbers of a type that is not known") from error
            if constant:
                self.constants[name] = self.values[name]
        kind = proto.op_type if constant else UNKNOWN
        self.nodes.append(Node(self.layer(proto.op_type, ()), kind, tuple(inputs), names, {"operation": proto.op_type}))

    # What translations use --------------------------------------------------------------------------------------

    def emit(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> str:
        """Record a node and run it on the example image. Returns the output's name."""
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        node = Node(self.layer(kind, inputs), kind, inputs, (output,), attributes)
        with torch.inference_mode():
            value = run_node(node, [self.values[i] if i else None for i in inputs])
        self.nodes.append(node)
        self.producers[output] = node
        self.values[output] = value
        if all(i in self.constants for i in inputs if i):
            self.constants[output] = value
        if inputs and inputs[0] in self.codes and (kind in SHAPE_KINDS - {"Concat", "Pad"} or kind == "MaxPool"):
            self.codes[output] = self.codes[inputs[0]]
        return output

    def number(self, number: float, like: str) -> str:
        """The name of a number written in an attribute, of the type of a value."""
        name = f"{number!r}:{self.values[like].dtype}"
        if name not in self.values:
            self.fold(name, torch.tensor(number, dtype=self.values[like].dtype))
        return name

    def narrow(self, x: str, output: str, low: float | None, high: float | None) -> None:
        """Clip of a quantised activation's codes: the quantiser has fewer."""
        codes, source = self.codes[x], self.producers.get(x)
        if source is None or source.kind != "Quant":
            raise Unsupported
        fewer = replace(
            codes,
            low=codes.low if low is None else max(codes.low, int(low)),
            high=codes.high if high is None else min(codes.high, int(high)),
        )
        self.emit("Quant", source.inputs, output, low=fewer.low, high=fewer.high, axis=source.attributes["axis"])
        self.codes[output] = fewer

    def integer_range(self, name: str) -> tuple[int, int]:
        """The smallest and the largest number of a stored tensor's integer type."""
        self.constant(name)
        bounds = torch.iinfo(self.values[name].dtype)
        return self.ranges.get(name, (bounds.min, bounds.max))

    def fold(self, output: str, value: Tensor) -> None:
        """A constant that no stored tensor holds: shapes, and what is computed from them."""
        self.values[output] = self.constants[output] = value

    def constant(self, name: str) -> Tensor:
        """The value of an input that must be constant."""
        if name not in self.constants:
            raise Unsupported
        return self.constants[name]

    def ints(self, name: str) -> tuple[int, ...]:
        """A constant vector of integers."""
        return tuple(int(v) for v in self.constant(name).reshape(-1).tolist())

    def layer(self, kind: str, inputs: tuple[str, ...]) -> str:
        """A layer is called after its weight, anything else after its node."""
        named = kind in NAMED_AFTER_WEIGHTS and len(inputs) > 1
        name = weight_name(inputs[1], self.stored, self.producers) if named else ""
        name = name or self.current.name or f"{self.current.op_type}({self.current.output[0]})"
        if kind in SHAPE_KINDS - {"Concat", "Pad"} and self.current.op_type not in ("Reshape", kind):
            return f"{name}/{kind}"  # a part of another operator, whose name it must not use up
        self.calls[name] += 1
        return name + (f":{self.calls[name]}" if self.calls[name] > 1 else "")


RANGES = {
    onnx.TensorProto.UINT16: (0, 65_535),
    onnx.TensorProto.INT16: (-32_768, 32_767),
    onnx.TensorProto.UINT4: (0, 15),
    onnx.TensorProto.INT4: (-8, 7),
    **{
        getattr(onnx.TensorProto, name): bounds
        for name, bounds in (("UINT2", (0, 3)), ("INT2", (-2, 1)))
        if hasattr(onnx.TensorProto, name)
    },
}
"""Integer types without one of torch's own, or that torch computes little with: kept in a wider one."""
_ON_CODES = (
    "DequantizeLinear",
    "Clip",
    "MaxPool",
    "GlobalMaxPool",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Split",
    "Gather",
    "Expand",
    "Identity",
    "DepthToSpace",
    "SpaceToDepth",
    "Shape",
    "Dropout",
)


def _array(proto: Any) -> tuple[Tensor, int | None]:
    """A stored tensor, and the bits of its type where it is kept in a wider one."""
    kept: dict[int, tuple[Any, int]] = {
        kind: (np.int8 if low < 0 else np.uint8, (high - low + 1).bit_length() - 1) if high < 256 else (np.int32, 16)
        for kind, (low, high) in RANGES.items()
    }
    try:
        array = numpy_helper.to_array(proto)
        if proto.data_type in kept:
            dtype, bits = kept[proto.data_type]
            return torch.from_numpy(array.astype(dtype)), bits
        if proto.data_type == onnx.TensorProto.BFLOAT16:
            return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16), None
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            return torch.from_numpy(array.astype(np.int64)), array.dtype.itemsize * 8
        return torch.from_numpy(np.array(array)), None
    except (ValueError, TypeError) as error:
        raise RefusedError(f"tensor '{proto.name[:200]}' cannot be read: {str(error)[:200]}") from error


def _with_biases(graph: Graph) -> Graph:
    """A linear layer without bias and a constant added to each of its outputs."""
    new: dict[int, Node] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        if node.kind != "Add":
            continue
        for x, bias in (node.inputs, node.inputs[::-1]):
            layer = graph.producers.get(x)
            if layer is None or layer.kind != "Linear" or len(layer.inputs) > 2 or not graph.is_constant(bias):
                continue
            if graph.only_readers.get(x) is node and graph.shapes[bias] == (graph.shapes[x][-1],):
                new[id(node)] = Node(layer.name, "Linear", (*layer.inputs, bias), node.outputs, layer.attributes)
                gone.add(id(layer))
    return replace(graph, nodes=[new.get(id(node), node) for node in graph.nodes if id(node) not in gone])


def _without_dead_nodes(graph: Graph) -> Graph:
    """Only the nodes that lead to the output, constant expressions included."""
    needed, nodes = {graph.output}, []
    for node in reversed(graph.nodes):
        if any(output in needed for output in node.outputs):
            needed.update(node.inputs)
            nodes.append(node)
    return replace(graph, nodes=nodes[::-1])
