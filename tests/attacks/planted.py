"""Planted cheats, each beside the cheapest network of ordinary layers that computes the same.

Every network is image [n,3,8,8] -> convolution of 16 channels -> ReLU 'x' -> CHEAT 'y' -> ReLU -> pool -> linear. Most
cheats compute what a 1x1 convolution of 16 to 16 channels computes, with its work or its weights somewhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

C, SIDE = 16, 8
PLACES = SIDE * SIDE
RNG = np.random.default_rng(0)
Array = NDArray[Any]
Part = tuple[list[onnx.NodeProto], dict[str, Array]]
"""Nodes and the tensors that they read."""


def f32(values: Any) -> Array:
    return np.asarray(values, np.float32)


def i64(*values: int) -> Array:
    return np.asarray(values, np.int64)


FLOATS = f32(RNG.standard_normal((C, C)))
CODES = f32(RNG.integers(-3, 4, (C, C)))
SIGNS = f32(RNG.choice([-1, 1], (C, C)))
FIRST = f32(RNG.standard_normal((C, 3, 3, 3)) * 0.3)
LAST = f32(RNG.standard_normal((10, C)))


@dataclass(frozen=True)
class Planted:
    """A cheat: its family, how it is caught (priced or blocked), and both networks."""

    family: str
    cheat: Callable[[], onnx.ModelProto]
    twin: Callable[[], onnx.ModelProto] | None
    """None: it is blocked, so nothing is compared."""


PLANTED: dict[str, Planted] = {}


def plant(
    family: str, twin: Callable[[], onnx.ModelProto] | None
) -> Callable[[Callable[[], onnx.ModelProto]], Callable[[], onnx.ModelProto]]:
    """Register a cheat under its function's name."""

    def register(cheat: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
        PLANTED[cheat.__name__] = Planted(family, cheat, twin)
        return cheat

    return register


def N(op: str, inputs: Iterable[str], outputs: Iterable[str], **attributes: Any) -> onnx.NodeProto:  # noqa: N802
    inputs, outputs = list(inputs), list(outputs)
    return helper.make_node(op, inputs, outputs, name=f"{op}.{outputs[0]}", **attributes)


def network(
    nodes: list[onnx.NodeProto],
    arrays: Mapping[str, Array],
    *,
    bits: Mapping[str, int] | None = None,
    first: bool = True,
    qonnx: bool = False,
    shape: tuple[int, int, int] = (3, SIDE, SIDE),
    batch: str | int = "n",
) -> onnx.ModelProto:
    """The whole network around `nodes`, which lead from 'x' to 'y'. bits: declared for tensors of codes."""
    before = [N("Conv", ["image", "first"], ["x0"], pads=[1] * 4), N("Relu", ["x0"], ["x"])] if first else []
    after = [
        N("Relu", ["y"], ["r"]),
        N("GlobalAveragePool", ["r"], ["p"]),
        N("Flatten", ["p"], ["flattened"]),
        N("Gemm", ["flattened", "last"], ["logits"], transB=1),
    ]
    every = [*before, *nodes, *after]
    stored = {"first": FIRST, "last": LAST, **arrays}
    used = {name for node in every for name in node.input}
    graph = helper.make_graph(
        every,
        "planted",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in stored.items() if name in used],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid("qonnx.custom_op.general", 1)] if qonnx else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    for name, number in (bits or {}).items():
        model.metadata_props.add(key=f"contest.bits.{name}", value=str(number))
    return model


# Twins ----------------------------------------------------------------------------------------------------------


def float_twin() -> onnx.ModelProto:
    return network([N("Conv", ["x", "w"], ["y"])], {"w": FLOATS.reshape(C, C, 1, 1)})


def codes_twin(codes: Array = CODES, bits: int = 3) -> onnx.ModelProto:
    """Integer weights with one scale, as few bits as they need."""
    nodes = [
        N("Cast", ["w"], ["wf"], to=TensorProto.FLOAT),
        N("Mul", ["wf", "s"], ["ws"]),
        N("Conv", ["x", "ws"], ["y"]),
    ]
    arrays = {"w": codes.reshape(C, C, 1, 1).astype(np.int8), "s": f32(1.0)}
    return network(nodes, arrays, bits={"w": bits})


def signs_twin() -> onnx.ModelProto:
    return codes_twin(SIGNS, 1)


def plain() -> onnx.ModelProto:
    """Nothing between the first layer and the classifier."""
    return network([N("Identity", ["x"], ["y"])], {})


# Pieces that cheats are made of ---------------------------------------------------------------------------------


def slices(source: str, tag: str, count: int = C) -> Part:
    """Each channel of `source` by itself: tag0, tag1, ..."""
    nodes, arrays = [], {"one": i64(1)}
    for c in range(count):
        nodes.append(N("Slice", [source, f"n{c}", f"n{c + 1}", "one"], [f"{tag}{c}"]))
        arrays |= {f"n{c}": i64(c), f"n{c + 1}": i64(c + 1)}
    return nodes, arrays


def joined(*parts: Part) -> Part:
    nodes: list[onnx.NodeProto] = []
    arrays: dict[str, Array] = {}
    for more, tensors in parts:
        nodes += more
        arrays |= tensors
    return nodes, arrays


def flat(source: str = "x", out: str = "xf", channels: int = C) -> Part:
    return [N("Reshape", [source, "flat"], [out])], {"flat": i64(0, channels, PLACES)}


def square(source: str, out: str = "y", channels: int = C) -> Part:
    return [N("Reshape", [source, "square"], [out])], {"square": i64(0, channels, SIDE, SIDE)}


def chosen(codes: Array) -> Part:
    """Each output's list of channels, as often as the weight says, negative ones from the negated map."""
    nodes, arrays = joined(slices("xf", "p"), slices("xn", "m"))
    for k, row in enumerate(codes.astype(int)):
        names = [f"{'p' if v > 0 else 'm'}{c}" for c, v in enumerate(row) for _ in range(abs(v))]
        nodes.append(N("Concat", names, [f"cat{k}"], axis=1))
    return [N("Neg", ["xf"], ["xn"]), *nodes], arrays


def copies(scaled: bool = True, weights: Array = FLOATS, epsilon: float = 1.0) -> Part:
    """16 copies of the map, each channel of each times its own number: [n, 16, 16, 64] in 'z5'."""
    nodes = [N("Concat", ["x"] * C, ["xk"], axis=1), N("Mul", ["xk", "wm"], ["z"]), N("Reshape", ["z", "s5"], ["z5"])]
    return nodes, {"wm": (weights * f32(epsilon)).reshape(1, C * C, 1, 1), "s5": i64(0, C, C, PLACES)}
