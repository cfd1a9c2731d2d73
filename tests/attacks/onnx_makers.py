"""ONNX files made from code: an honest float network, an honest quantised one, and room to spoil them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Arrays = Mapping[str, NDArray[np.generic]]
_RNG = np.random.default_rng(0)
OPSET = 17


def model(
    nodes: Sequence[onnx.NodeProto],
    arrays: Arrays,
    *,
    outputs: int = 10,
    channels: int = 3,
    size: int = 8,
    batch: str | int = "n",
) -> onnx.ModelProto:
    """A model from image [n,C,size,size] to logits [n,outputs]."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, outputs])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def weights(*shape: int) -> NDArray[np.float32]:
    """Random float32 numbers, the same in every run."""
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def network() -> onnx.ModelProto:
    """Convolution, ReLU, global pooling, linear: float32."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], name="conv", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"], name="flatten"),
        helper.make_node("Gemm", ["d", "v", "bias"], ["logits"], name="fc", transB=1),
    ]
    return model(nodes, {"w": weights(4, 3, 3, 3), "v": weights(10, 4), "bias": weights(10)})


def quantised() -> onnx.ModelProto:
    """The same in QCDQ: int8 weights and inputs."""
    codes = np.random.default_rng(1).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"], name="dequantise"),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wf"], name="weights"),
        helper.make_node("Conv", ["x", "wf"], ["a"], name="conv", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"], name="flatten"),
        helper.make_node("Gemm", ["d", "v"], ["logits"], name="fc", transB=1),
    ]
    scale = np.float32(1 / 127)
    arrays = {"s": scale, "z": np.int8(0), "w": codes, "ws": np.float32(0.02), "v": weights(10, 4)}
    return model(nodes, arrays)  # type: ignore[arg-type]
