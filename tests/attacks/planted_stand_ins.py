"""Planted cheats in which something else stands for a product: a step, a bound, a distance, a place in between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import TensorProto

from tests.attacks.planted import (
    CODES,
    FIRST,
    FLOATS,
    PLACES,
    SIDE,
    C,
    N,
    f32,
    i64,
    joined,
    network,
    plant,
    square,
)
from tests.attacks.planted_numbers import STEPS, TWO_BITS, _two_bits
from tests.attacks.planted_work import _mixing, mixing_twin

QONNX = "qonnx.custom_op.general"
RNG = np.random.default_rng(11)
TAPS = np.abs(f32(RNG.standard_normal((3, C)))) + f32(0.1)
TABLE = np.abs(f32(RNG.standard_normal((1, C, SIDE, SIDE))))


def _light(nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray], **options: bool) -> onnx.ModelProto:  # type: ignore[type-arg]
    """The network with a first layer of 1x1, so that what follows is a greater part of it."""
    before = [N("Conv", ["image", "thin"], ["x0"]), N("Relu", ["x0"], ["x"])]
    return network([*before, *nodes], {"thin": FIRST[:, :, 1:2, 1:2].copy(), **arrays}, first=False, **options)  # type: ignore[arg-type]


# Scales that sums run over ----------------------------------------------------------------------------------------


def _scaled(scale: tuple[int, ...], before: list[onnx.NodeProto], after: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Inputs of two bits and weights of three, whose scale runs along what the sums run over."""
    weight = [N("Cast", ["w"], ["wf"], to=TensorProto.FLOAT), N("Mul", ["wf", "st"], ["ws"])]
    codes = CODES.reshape(C, C, 1, 1) if len(scale) == 4 else CODES.T.copy()
    arrays = {**TWO_BITS, "st": STEPS.reshape(scale), "w": codes.astype(np.int8), "flat": i64(0, C, PLACES)}
    return network([*_two_bits("x"), *before, *weight, *after], arrays, bits={"w": 3}, qonnx=True)


def scaled_inputs_twin() -> onnx.ModelProto:
    """The scale where an ordinary network has it: on the map, which is a float then."""
    weight = [N("Cast", ["w"], ["wf"], to=TensorProto.FLOAT), N("Mul", ["wf", "s"], ["ws"])]
    nodes = [*_two_bits("x"), N("Mul", ["xq", "st"], ["xs"]), *weight, N("Conv", ["xs", "ws"], ["y"])]
    arrays = {**TWO_BITS, "st": STEPS.reshape(1, C, 1, 1), "w": CODES.reshape(C, C, 1, 1).astype(np.int8), "s": f32(1)}
    return network(nodes, arrays, bits={"w": 3}, qonnx=True)


@plant("scales", scaled_inputs_twin)
def input_scales_on_inputs_of_few_bits() -> onnx.ModelProto:
    return _scaled((1, C, 1, 1), [], [N("Conv", ["xq", "ws"], ["y"])])


@plant("scales", scaled_inputs_twin)
def row_scales_of_a_matrix() -> onnx.ModelProto:
    before = [N("Reshape", ["xq", "flat"], ["xf"]), N("Transpose", ["xf"], ["xt"], perm=[0, 2, 1])]
    after = [N("MatMul", ["xt", "ws"], ["yt"]), N("Transpose", ["yt"], ["yf"], perm=[0, 2, 1])]
    more, tensors = square("yf")
    model = _scaled((C, 1), before, [*after, *more])
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in tensors.items())
    return model


# Steps, bounds and slopes of shifted views -------------------------------------------------------------------------


def _three_views(product: Callable[[str, str, str], onnx.NodeProto], source: str) -> list[onnx.NodeProto]:
    nodes = [N("Pad", [source, "pads"], ["padded"])]
    for i in range(3):
        nodes += [N("Slice", ["padded", f"b{i}", f"e{i}", "columns"], [f"s{i}"]), product(f"s{i}", f"c{i}", f"m{i}")]
    return [*nodes, N("Add", ["m0", "m1"], ["a"]), N("Add", ["a", "m2"], ["y"])]


VIEWS = {
    "pads": i64(0, 0, 0, 1, 0, 0, 0, 1),
    "columns": i64(3),
    **{f"b{i}": i64(i) for i in range(3)},
    **{f"e{i}": i64(i + SIDE) for i in range(3)},
    **{f"c{i}": TAPS[i].reshape(1, C, 1, 1) for i in range(3)},
}


def signs_of_views_twin() -> onnx.ModelProto:
    nodes = [
        N("Pad", ["x", "pads"], ["padded"]),
        N("Sign", ["padded"], ["signs"]),
        N("Conv", ["signs", "w"], ["y"], group=C),
    ]
    return _light(nodes, {"pads": VIEWS["pads"], "w": TAPS.T.reshape(C, 1, 1, 3).copy()})


@plant("stand-ins", signs_of_views_twin)
def steps_of_one_bit_quantisers_as_products() -> onnx.ModelProto:
    def quantiser(x: str, w: str, y: str) -> onnx.NodeProto:
        node = N("BipolarQuant", [x, w], [y])
        node.domain = QONNX
        return node

    return _light(_three_views(quantiser, "x"), VIEWS, qonnx=True)


@plant("stand-ins", signs_of_views_twin)
def bounds_as_products() -> onnx.ModelProto:
    """The smaller of a huge or no number and w is w or nothing."""
    nodes = [N("Mul", ["x", "huge"], ["xh"]), *_three_views(lambda x, w, y: N("Min", [x, w], [y]), "xh")]
    return _light(nodes, {**VIEWS, "huge": f32(1e9)})


def table_twin() -> onnx.ModelProto:
    nodes = [N("Mul", ["x", "t"], ["z"]), N("Conv", ["z", "w"], ["y"])]
    return _light(nodes, {"t": TABLE, "w": FLOATS.reshape(C, C, 1, 1)})


@plant("stand-ins", table_twin)
def slopes_for_each_place() -> onnx.ModelProto:
    """A slope is a number of the channel; one for each place is a table."""
    nodes = [N("Neg", ["x"], ["xn"]), N("PRelu", ["xn", "t"], ["zn"]), N("Neg", ["zn"], ["z"])]
    return _light([*nodes, N("Conv", ["z", "w"], ["y"])], {"t": TABLE[0], "w": FLOATS.reshape(C, C, 1, 1)})


# Distances, and places between places ------------------------------------------------------------------------------


@plant("stand-ins", mixing_twin)
def distances_to_tables() -> onnx.ModelProto:
    """Sums of magnitudes of differences to a table, where a layer over places has sums of products."""
    nodes = [
        N("Reshape", ["x", "rows"], ["x4"]),
        N("Sub", ["x4", "w"], ["z"]),
        N("Abs", ["z"], ["za"]),
        N("ReduceMean", ["za"], ["m"], axes=[3], keepdims=0),
    ]
    return network(*joined((nodes, {"rows": i64(0, C, 1, PLACES), "w": _mixing()[None, None]}), square("m")))


HIDDEN = f32(np.random.default_rng(4).standard_normal((3, C, 4, 4)))


def hidden_twin() -> onnx.ModelProto:
    """Sixteen hidden channels for each output, averaged."""
    nodes = [
        N("Conv", ["image", "w"], ["u"]),
        N("Relu", ["u"], ["v"]),
        N("Reshape", ["v", "s4"], ["v4"]),
        N("ReduceMean", ["v4"], ["m"], axes=[2], keepdims=0),
    ]
    arrays = {"w": HIDDEN.transpose(1, 2, 3, 0).reshape(C * 16, 3, 1, 1).copy(), "s4": i64(0, C, 16, PLACES)}
    return network(*joined((nodes, arrays), square("m")), first=False)


@plant("order of axes", hidden_twin)
def hidden_channels_between_the_places() -> onnx.ModelProto:
    """A transposed convolution puts them where rows and columns stand, and an average pool sums them."""
    nodes = [
        N("ConvTranspose", ["image", "w"], ["u"], strides=[4, 4]),
        N("Relu", ["u"], ["v"]),
        N("AveragePool", ["v"], ["y"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    return network(nodes, {"w": HIDDEN}, first=False)
