"""Malformed and hostile ONNX files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.attacks import onnx_makers
from tests.attacks.hostile import case


def onnx_case(label: str, change: Callable[[onnx.ModelProto], object], message: str) -> None:
    """The honest float network with one thing changed."""

    def make() -> bytes:
        model = onnx_makers.network()
        change(model)
        return bytes(model.SerializeToString())

    case(f"onnx: {label}", make, message, "model.onnx")


def bytes_case(label: str, make: Callable[[], bytes], message: str) -> None:
    case(f"onnx: {label}", make, message, "model.onnx")


def honest() -> bytes:
    return bytes(onnx_makers.network().SerializeToString())


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    tensor.ClearField("raw_data")


def _subgraph(operator: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        inner = helper.make_graph([], "inner", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)])
        node = helper.make_node(operator, ["a"], ["b2"], name="control", body=inner)
        model.graph.node.insert(1, node)

    return change


def _dims(*dims: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)

    return change


def _nodes(model: onnx.ModelProto) -> None:
    for i in range(20_001):
        model.graph.node.add(op_type="Relu", input=["logits"], output=[f"r{i}"])


def _sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**9]))


def _function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model.functions.append(helper.make_function("evil", "F", ["x"], ["y"], [node], [helper.make_opsetid("", 17)]))


def _expansion(model: onnx.ModelProto) -> None:
    """A few bytes that ask for a terabyte at run time."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([10**6, 10**6], np.int64), "shape"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["huge"], name="huge"))
    model.graph.node.append(helper.make_node("ReduceSum", ["huge"], ["total"], name="total", keepdims=0))


def _not_a_number(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((4, 3, 3, 3), np.nan, np.float32), "w"))


def _empty_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((0, 3), np.float32), "empty"))


def _optional(model: onnx.ModelProto) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    model.graph.input[0].type.CopyFrom(kind)


bytes_case("garbage", lambda: b"\x08\x07" + bytes(range(256)), "protocol buffer")
bytes_case("cut in half", lambda: honest()[: len(honest()) // 2], "protocol buffer")
bytes_case("no graph", lambda: b"\x08\x09\x12\x04evil", "no graph")
bytes_case("two graphs", lambda: honest() + honest(), "protocol buffer")
bytes_case("groups nested 100,000 deep", lambda: b"\x08\x09" + b"\x3b" * 100_000, "protocol buffer")
bytes_case("varint without end", lambda: b"\x08" + b"\xff" * 100, "protocol buffer")
bytes_case("field of 2^63 bytes", lambda: b"\x08\x09\x3a" + b"\xff" * 8 + b"\x7f", "protocol buffer")
bytes_case("field number zero", lambda: b"\x08\x09\x00\x00", "protocol buffer")
bytes_case("5,000 fields of the model", lambda: b"\x08\x09" * 5_000, "fields")
onnx_case("external data", _external, "external data")
onnx_case("If", _subgraph("If"), "control flow")
onnx_case("Loop", _subgraph("Loop"), "control flow")
onnx_case("Scan", _subgraph("Scan"), "control flow")
onnx_case("graph in an attribute", _subgraph("Relu"), "graph of its own")
onnx_case("function", _function, "functions")
onnx_case("training information", lambda m: m.training_info.add(), "training")
onnx_case("unknown domain", lambda m: setattr(m.graph.node[1], "domain", "com.evil"), "unknown domain 'com.evil'")
onnx_case("unknown operator", lambda m: setattr(m.graph.node[1], "op_type", "Evil"), "not valid ONNX|Evil")
onnx_case("cycle", lambda m: m.graph.node[0].input.__setitem__(0, "c"), "cycle")
onnx_case("node that reads itself", lambda m: m.graph.node[1].input.__setitem__(0, "b"), "cycle")
onnx_case("cycle of two", lambda m: m.graph.node[0].input.__setitem__(1, "b"), "cycle")
onnx_case("value from nowhere", lambda m: m.graph.node[0].input.__setitem__(0, "nowhere"), "nothing makes")
onnx_case("value made twice", lambda m: m.graph.node[1].output.__setitem__(0, "a"), "exists already")
onnx_case("tensor stored twice", lambda m: m.graph.initializer.append(m.graph.initializer[0]), "stored twice")
onnx_case("giant shape", _dims(2**40, 2**40), "too large")
onnx_case("shape beyond its data", _dims(4, 3, 3, 300), "needs")
onnx_case("shape below its data", _dims(4), "needs")
onnx_case("negative shape", _dims(-4, 3), "not a list of sizes")
onnx_case("forty dimensions", _dims(*[1] * 40), "more than")
onnx_case("text tensor", lambda m: setattr(m.graph.initializer[0], "data_type", 8), "type 8")
onnx_case("type nobody knows", lambda m: setattr(m.graph.initializer[0], "data_type", 99), "type 99")
onnx_case("segment", lambda m: setattr(m.graph.initializer[0].segment, "begin", 1), "segment")
onnx_case("sparse tensor", _sparse, "sparse")
onnx_case("20,001 nodes", _nodes, "nodes; the limit")
onnx_case("name of 10,000 letters", lambda m: setattr(m.graph.node[1], "name", "x" * 10_000), "the limit is")
onnx_case("optional input", _optional, "not a dense tensor")
onnx_case(
    "images of a terabyte",
    lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 10**9),
    "declared shape",
)
onnx_case(
    "two inputs", lambda m: m.graph.input.append(helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])), "one input"
)
onnx_case("no output", lambda m: m.graph.output.pop(), ".")
onnx_case("NaN weights", _not_a_number, "NaN")
onnx_case("zero-size tensor", _empty_tensor, "empty|unused|nothing uses")
onnx_case("a terabyte at run time", _expansion, ".")
onnx_case(
    "operator set of the future", lambda m: setattr(m.opset_import[0], "version", 10**6), "operator set|not valid"
)
