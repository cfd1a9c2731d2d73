"""Planted cheats around codes, steps and the grants of cheap layers: how few bits something seems to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.attacks.planted import (
    SIGNS,
    Array,
    C,
    N,
    f32,
    i64,
    network,
    plant,
)

T = TensorProto
QONNX = "qonnx.custom_op.general"
RNG = np.random.default_rng(4)
LARGE = (3, 32, 32)
SQUARE = (3, C, C)
"""As many rows as channels: steps along rows have the length of steps along channels."""


def _q(op: str, inputs: Sequence[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=f"{op}.{output}", domain=QONNX, **attributes)


def _quant(x: str, output: str, step: str = "step") -> onnx.NodeProto:
    return _q("Quant", [x, step, "zero", "width"], output, signed=0, narrow=0, rounding_mode="ROUND")


def _of(
    nodes: Sequence[onnx.NodeProto],
    arrays: Mapping[str, Array],
    width: int = 2,
    shape: tuple[int, int, int] = (3, 8, 8),
    **bits: int,
) -> onnx.ModelProto:
    numbers = {"step": f32(0.2), "unit": f32(1), "zero": f32(0), "width": f32(width), "one": i64(1), "s": f32(0.01)}
    return network(list(nodes), {**numbers, **arrays}, bits=bits, qonnx=True, shape=shape)


# Code-books and type changes, on inputs of two bits --------------------------------------------------------------

TABLE = f32(RNG.standard_normal(8))
INDEX = RNG.integers(0, 8, (C, C, 3, 3))
KERNEL = [N("Conv", ["xq", "w"], ["y"], pads=[1] * 4)]
LOOKED_UP = [_quant("x", "xq"), N("Gather", ["t", "index"], ["w"]), *KERNEL]


def _with_table(made: Sequence[onnx.NodeProto], table: Array, **more: Array) -> onnx.ModelProto:
    declared = {"ones": 1} if "ones" in more else {}
    return _of([*made, *LOOKED_UP], {"table": table, "index": INDEX, **more}, **declared)


def code_book_twin() -> onnx.ModelProto:
    return _with_table([N("Identity", ["table"], ["t"])], TABLE)


@plant("code-books", code_book_twin)
def a_code_book_of_ones_times_scales() -> onnx.ModelProto:
    """One-bit codes, each with a scale of its own: numbers of the type, not of one bit."""
    nodes = [N("Cast", ["ones"], ["of"], to=T.FLOAT), N("Mul", ["of", "table"], ["t"])]
    return _with_table(nodes, np.abs(TABLE), ones=np.sign(TABLE).astype(np.int8))


@plant("code-books", code_book_twin)
def a_code_book_of_dequantised_ones() -> onnx.ModelProto:
    nodes = [N("DequantizeLinear", ["ones", "table"], ["t"], axis=0)]
    return _with_table(nodes, TABLE, ones=np.ones(8, np.int8))


@plant("code-books", code_book_twin)
def a_code_book_of_bipolar_ones() -> onnx.ModelProto:
    return _with_table([_q("BipolarQuant", ["of", "table"], "t")], TABLE, of=f32(np.ones(8)))


@plant("code-books", code_book_twin)
def a_code_book_of_zero_points() -> onnx.ModelProto:
    """One-bit codes less a zero point for each entry."""
    inputs = ["table", "unit", "points", "one_bit"]
    nodes = [_q("Quant", inputs, "t", signed=0, narrow=0, rounding_mode="ROUND")]
    return _with_table(nodes, TABLE, points=-TABLE, one_bit=f32(1))


WRAPPED = RNG.choice([-1, 1], (C, C, 3, 3)).astype(np.int8)
SCALED = [N("Mul", ["wf", "s"], ["w"]), *KERNEL]


def unsigned_twin() -> onnx.ModelProto:
    """{1, 255} by an index of one bit."""
    nodes = [_quant("x", "xq"), N("Gather", ["t", "index"], ["wf"]), *SCALED]
    return _of(nodes, {"t": f32([1, 255]), "index": (WRAPPED < 0).astype(np.int64)})


@plant("type changes", unsigned_twin)
def codes_that_wrap_around() -> onnx.ModelProto:
    """{-1, 1} without a sign is {255, 1}."""
    nodes = [_quant("x", "xq"), N("Cast", ["c"], ["cu"], to=T.UINT8), N("Cast", ["cu"], ["wf"], to=T.FLOAT), *SCALED]
    return _of(nodes, {"c": WRAPPED}, c=1)


K = RNG.integers(1, 9, (C, C, 3, 3)).astype(np.int8)


def _wrapped(codes: Array) -> Array:
    return ((codes.astype(int) * 37 + 128) % 256 - 128).astype(np.int8)


def bytes_twin() -> onnx.ModelProto:
    book = [N("Cast", ["v"], ["vf"], to=T.FLOAT), N("Mul", ["vf", "s"], ["vs"]), N("Gather", ["vs", "index"], ["w"])]
    return _of(
        [_quant("x", "xq"), *book, *KERNEL], {"v": _wrapped(np.arange(1, 9)), "index": (K - 1).astype(np.int64)}, v=8
    )


@plant("type changes", bytes_twin)
def products_that_wrap_around() -> onnx.ModelProto:
    """Three-bit codes times 37, as bytes: any table of eight bytes."""
    nodes = [
        _quant("x", "xq"),
        N("Cast", ["k"], ["kf"], to=T.FLOAT),
        N("Mul", ["kf", "m"], ["km"]),
        N("Cast", ["km"], ["ki"], to=T.INT8),
        N("Cast", ["ki"], ["wf"], to=T.FLOAT),
        *SCALED,
    ]
    return _of(nodes, {"k": K, "m": f32(37)}, k=3)


# Steps along rows ------------------------------------------------------------------------------------------------

STEPS, STEP_TABLE = f32(RNG.uniform(0.3, 0.9, C)), f32(RNG.uniform(0.3, 0.9, (C, C)))
DEPTHWISE = RNG.choice([-2, -1, 1], (C, 1, 5, 5)).astype(np.int8)
FILTERS = [N("Cast", ["d"], ["df"], to=T.FLOAT), N("Mul", ["df", "unit"], ["ds"])]
SPREAD = [*FILTERS, N("Conv", ["xq", "ds"], ["y"], group=C, pads=[2] * 4)]


def _on_rows(nodes: Sequence[onnx.NodeProto], steps: Array, **more: Array) -> onnx.ModelProto:
    return _of([*nodes, *SPREAD], {"steps": steps, "d": DEPTHWISE, **more}, width=8, shape=SQUARE, d=2)


def _divided(steps: Array) -> onnx.ModelProto:
    return _on_rows(
        [N("Div", ["x", "steps"], ["n"]), _quant("n", "ni", "unit"), N("Mul", ["ni", "steps"], ["xq"])], steps
    )


def rows_twin() -> onnx.ModelProto:
    return _divided(STEPS.reshape(1, 1, C, 1))


def places_twin() -> onnx.ModelProto:
    return _divided(STEP_TABLE)


@plant("steps", rows_twin)
def steps_along_rows_as_if_of_channels() -> onnx.ModelProto:
    nodes = [
        N("QuantizeLinear", ["x", "steps", "z"], ["c"], axis=2),
        N("DequantizeLinear", ["c", "steps", "z"], ["xq"], axis=2),
    ]
    return _on_rows(nodes, STEPS, z=np.zeros(C, np.uint8))


@plant("steps", rows_twin)
def steps_along_rows_between_transpositions() -> onnx.ModelProto:
    turned = {"perm": [0, 2, 1, 3]}
    nodes = [
        N("Transpose", ["x"], ["xt"], **turned),
        _quant("xt", "xc", "steps"),
        N("Transpose", ["xc"], ["xq"], **turned),
    ]
    return _on_rows(nodes, STEPS.reshape(1, C, 1, 1))


@plant("steps", places_twin)
def a_step_for_each_place() -> onnx.ModelProto:
    return _on_rows([_quant("x", "xq", "steps")], STEP_TABLE)


@plant("steps", places_twin)
def a_step_for_each_place_of_rank_four() -> onnx.ModelProto:
    return _on_rows([_quant("x", "xq", "steps")], STEP_TABLE.reshape(1, 1, C, C))


# Scales and zero points along what is summed over ------------------------------------------------------------------

FEW = RNG.choice([-2, -1, 1], (C, C)).astype(np.int8)
GAINS, POINTS = f32(np.abs(RNG.standard_normal(C)) + 0.1), f32(RNG.standard_normal(C) * 3)
POINTWISE = [N("Conv", ["xq", "w"], ["y"])]
BACK = {"s3": i64(0, C, 64), "s4": i64(0, C, 8, 8), "flat": i64(C, C, 1, 1)}


def gains_twin() -> onnx.ModelProto:
    """The channels of the input times their numbers: floats, and codes of two bits."""
    nodes = [_quant("x", "xc"), N("Mul", ["xc", "gains"], ["xq"]), N("Cast", ["k"], ["kf"], to=T.FLOAT)]
    nodes += [N("Mul", ["kf", "unit"], ["w"]), *POINTWISE]
    return _of(nodes, {"k": FEW.reshape(C, C, 1, 1), "gains": GAINS.reshape(1, C, 1, 1)}, k=2)


@plant("scales", gains_twin)
def a_scale_of_another_rank_than_the_codes() -> onnx.ModelProto:
    nodes = [_quant("x", "xq"), N("Reshape", ["k", "flat"], ["k4"]), N("Cast", ["k4"], ["kf"], to=T.FLOAT)]
    nodes += [N("Mul", ["kf", "gains"], ["w"]), *POINTWISE]
    return _of(nodes, {**BACK, "k": FEW.reshape(C, C, 1), "gains": GAINS.reshape(1, C, 1, 1)}, k=2)


@plant("scales", gains_twin)
def a_scale_of_five_axes() -> onnx.ModelProto:
    nodes = [_quant("x", "xq"), N("Cast", ["k"], ["kf"], to=T.FLOAT), N("Mul", ["kf", "gains"], ["w5"])]
    nodes += [N("Reshape", ["w5", "flat"], ["w"]), *POINTWISE]
    return _of(nodes, {**BACK, "k": FEW.reshape(C, C, 1, 1), "gains": GAINS.reshape(1, 1, C, 1, 1)}, k=2)


@plant("steps", gains_twin)
def a_matrix_product_with_steps_of_the_channels() -> onnx.ModelProto:
    nodes = [_quant("x", "xq", "gains"), N("Reshape", ["xq", "s3"], ["xf"]), N("Cast", ["k"], ["kf"], to=T.FLOAT)]
    nodes += [N("Mul", ["kf", "unit"], ["w"]), N("MatMul", ["w", "xf"], ["yf"]), N("Reshape", ["yf", "s4"], ["y"])]
    return _of(nodes, {**BACK, "k": FEW, "gains": GAINS.reshape(1, C, 1, 1)}, k=2)


def split_twin() -> onnx.ModelProto:
    """Codes of two bits, and one output of floats that all share."""
    nodes = [_quant("x", "xq"), N("Cast", ["k"], ["kf"], to=T.FLOAT), N("Mul", ["kf", "unit"], ["w"])]
    nodes += [N("Conv", ["xq", "w"], ["y1"]), N("Conv", ["xq", "points"], ["y2"]), N("Add", ["y1", "y2"], ["y"])]
    return _of(nodes, {"k": FEW.reshape(C, C, 1, 1), "points": -POINTS.reshape(1, C, 1, 1)}, k=2)


@plant("scales", split_twin)
def zero_points_of_the_input_channels() -> onnx.ModelProto:
    nodes = [_quant("x", "xq")]
    inputs = ["kf", "unit", "points", "two"]
    nodes += [_q("Quant", inputs, "w", signed=1, narrow=0, rounding_mode="ROUND"), *POINTWISE]
    arrays = {"kf": f32(FEW - POINTS).reshape(C, C, 1, 1), "points": POINTS.reshape(1, C, 1, 1), "two": f32(2)}
    return _of(nodes, arrays)


# Multipliers that cheap layers grant ------------------------------------------------------------------------------

WIDE = f32(RNG.standard_normal((C, C)))


def float_on_codes_twin() -> onnx.ModelProto:
    return _of([_quant("x", "xq"), *POINTWISE], {"w": WIDE.reshape(C, C, 1, 1)})


@plant("sums", float_on_codes_twin)
def copies_by_a_layer_of_one_bit() -> onnx.ModelProto:
    """Copies from a grouped layer of ones, each times its number, which the layer grants, and added up."""
    nodes = [_quant("x", "xq"), N("Cast", ["o"], ["of"], to=T.FLOAT), N("Mul", ["of", "two"], ["ow"])]
    nodes += [N("Conv", ["xq", "ow"], ["z"], group=C), N("Mul", ["z", "gains"], ["zm"])]
    nodes += [N("Reshape", ["zm", "apart"], ["z5"]), N("ReduceSum", ["z5", "one"], ["yf"], keepdims=0)]
    nodes += [N("Reshape", ["yf", "s4"], ["y"])]
    arrays = {"o": np.ones((C * C, 1, 1, 1), np.int8), "two": f32(2), "apart": i64(0, C, C, 64)}
    return _of(nodes, {**BACK, **arrays, "gains": (WIDE.T / 2).reshape(1, C * C, 1, 1)}, o=1)


@plant("sums", float_on_codes_twin)
def copies_behind_an_activation_that_does_nothing() -> onnx.ModelProto:
    model = copies_by_a_layer_of_one_bit()
    nodes = list(model.graph.node)
    place = next(i for i, node in enumerate(nodes) if node.op_type == "Reshape")
    nodes[place].input[0] = "same"
    nodes.insert(place, N("LeakyRelu", ["zm"], ["same"], alpha=1.0))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@plant("sums", float_on_codes_twin)
def copies_resized_to_one_place() -> onnx.ModelProto:
    """Sixteen channels in the place of 4x4 pixels: a bicubic resize to one pixel is a sum of sixteen products."""
    taps = np.array([-0.09375, 0.59375, 0.59375, -0.09375])
    nodes = [_quant("x", "xq"), N("Cast", ["o"], ["of"], to=T.FLOAT), N("Mul", ["of", "two"], ["ow"])]
    nodes += [N("Conv", ["xq", "ow"], ["z"], group=C), N("Mul", ["z", "gains"], ["zm"])]
    nodes += [N("Reshape", ["zm", "apart"], ["z3"]), N("Transpose", ["z3"], ["zt"], perm=[0, 2, 3, 1])]
    nodes += [N("Reshape", ["zt", "tiles"], ["z4"]), N("Resize", ["z4", "", "", "pixel"], ["yf"], mode="cubic")]
    nodes += [N("Reshape", ["yf", "s4"], ["y"])]
    gains = (WIDE / np.outer(taps, taps).reshape(1, C)).T / 2
    arrays = {"o": np.ones((C * C, 1, 1, 1), np.int8), "two": f32(2), "apart": i64(0, C, C, 64)}
    arrays |= {
        "tiles": i64(0, C * 64, 4, 4),
        "pixel": i64(1, C * 64, 1, 1),
        "gains": f32(gains.reshape(1, C * C, 1, 1)),
    }
    return _of(nodes, {**BACK, **arrays}, o=1)


EYES = f32(RNG.standard_normal((C, 3)) * 0.3)


def eyes_twin() -> onnx.ModelProto:
    return network([N("Conv", ["image", "w"], ["y"])], {"w": EYES.reshape(C, 3, 1, 1)}, first=False, shape=LARGE)


@plant("sums", eyes_twin)
def copies_of_the_image_times_numbers() -> onnx.ModelProto:
    """An image keeps its 8 bits times numbers of its channels; times numbers of their copies it is a layer."""
    nodes = [N("Concat", ["image"] * C, ["copies"], axis=1), N("Mul", ["copies", "gains"], ["scaled"])]
    nodes += [N("Cast", ["o"], ["of"], to=T.FLOAT), N("Mul", ["of", "two"], ["ow"])]
    nodes += [N("Conv", ["scaled", "ow"], ["y"], group=C)]
    arrays = {"gains": (EYES / 2).reshape(1, 3 * C, 1, 1), "o": np.ones((C, 3, 1, 1), np.int8), "two": f32(2)}
    return network(nodes, arrays, bits={"o": 1}, first=False, shape=LARGE)


# Tables that look like numbers of the channel ---------------------------------------------------------------------

PLACED = RNG.choice([-1, 1], (C, 1, 8, 8)).astype(np.int8)
MADE = [N("Cast", ["t"], ["tf"], to=T.FLOAT), N("Mul", ["tf", "s"], ["tt"])]


def places_of_a_layer_twin() -> onnx.ModelProto:
    """A layer of one tap for each place."""
    return _of([*MADE, N("Conv", ["x", "tt"], ["y"], group=C)], {"t": PLACED}, t=1)


@plant("pooling as work", places_of_a_layer_twin)
def a_table_on_a_flattened_map() -> onnx.ModelProto:
    nodes = [
        *MADE,
        N("Reshape", ["x", "row"], ["xf"]),
        N("Mul", ["xf", "tt"], ["xm"]),
        N("Reshape", ["xm", "s4"], ["m"]),
    ]
    nodes += [N("AveragePool", ["m"], ["a"], kernel_shape=[8, 8]), N("Mul", ["a", "places"], ["y"])]
    return _of(nodes, {**BACK, "t": PLACED.reshape(1, -1), "row": i64(0, C * 64), "places": f32(64)}, t=1)


# Sums on large maps, where wiring weighs little ------------------------------------------------------------------

DUST = [
    _q("BipolarQuant", ["x", "unit"], "bits"),
    N("Cast", ["dust"], ["df"], to=T.FLOAT),
    N("Mul", ["df", "unit"], ["ds"]),
    N("Conv", ["bits", "ds"], ["d"], group=C),
    N("GlobalAveragePool", ["d"], ["dp"]),
    N("ReduceMax", ["dp"], ["dm"], axes=[1], keepdims=1),
    N("Mul", ["dm", "tiny"], ["dt"]),
    N("Add", ["sums", "dt"], ["y"]),
]
DUSTY = {"dust": np.ones((16 * C, 1, 1, 1), np.int8), "tiny": f32(1e-6)}
"""A layer of one-bit weights on one-bit inputs that is there to grant: 2/32 for each operation."""
MINUS = [N("Neg", ["x"], ["m"])]
CHOICE = np.where(SIGNS > 0, np.arange(C), np.arange(C) + C)


def large_signs_twin() -> onnx.ModelProto:
    nodes = [N("Cast", ["w"], ["wf"], to=T.FLOAT), N("Mul", ["wf", "unit"], ["ws"]), N("Conv", ["x", "ws"], ["y"])]
    return _of(nodes, {"w": SIGNS.reshape(C, C, 1, 1).astype(np.int8)}, shape=LARGE, w=1)


def _cut() -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Channels of the map and of its negative, p0, m0, p1, ..."""
    nodes, arrays = list(MINUS), {f"n{c}": i64(c) for c in range(C + 1)}
    for c in range(C):
        nodes += [
            N("Slice", [source, f"n{c}", f"n{c + 1}", "one"], [f"{name}{c}"])
            for source, name in (("x", "p"), ("m", "m"))
        ]
    return nodes, arrays


def _signed(k: int) -> list[str]:
    return [f"{'p' if SIGNS[k, c] > 0 else 'm'}{c}" for c in range(C)]


@plant("sums", large_signs_twin)
def sums_of_copies_of_a_large_map() -> onnx.ModelProto:
    """One index chooses all terms; a sum reads each once where a layer multiplies and adds."""
    nodes = [
        *MINUS,
        N("Concat", ["x", "m"], ["pm"], axis=1),
        N("Gather", ["pm", "choice"], ["g"], axis=1),
        N("Reshape", ["g", "apart"], ["g5"]),
        N("ReduceSum", ["g5", "two"], ["y5"], keepdims=0),
        N("Reshape", ["y5", "back"], ["y"]),
    ]
    arrays = {"choice": CHOICE.reshape(-1), "apart": i64(0, C, C, 1024), "two": i64(2), "back": i64(0, C, 32, 32)}
    return _of(nodes, arrays, shape=LARGE)


@plant("sums", large_signs_twin)
def sums_of_slices_of_a_large_map() -> onnx.ModelProto:
    nodes, arrays = _cut()
    for k in range(C):
        nodes += [N("Concat", _signed(k), [f"k{k}"], axis=1), N("ReduceSum", [f"k{k}", "one"], [f"o{k}"], keepdims=1)]
    return _of([*nodes, N("Concat", [f"o{k}" for k in range(C)], ["y"], axis=1)], arrays, shape=LARGE)


@plant("sums", large_signs_twin)
def copies_by_resizing_channels() -> onnx.ModelProto:
    """Channels in the place of rows, each repeated by nearest resizing; an index then takes no element twice."""
    places = [[(c if SIGNS[k, c] > 0 else C + c) * C + k for c in range(C)] for k in range(C)]
    nodes = [
        N("Mul", ["x", "minus"], ["m"]),
        N("Concat", ["x", "m"], ["pm"], axis=1),
        N("Reshape", ["pm", "rows"], ["p1"]),
        N("Resize", ["p1", "", "times"], ["p2"], mode="nearest", coordinate_transformation_mode="asymmetric"),
        N("Reshape", ["p2", "columns"], ["p3"]),
        N("Gather", ["p3", "choice"], ["g"], axis=1),
        N("Reshape", ["g", "apart"], ["g5"]),
        N("ReduceSum", ["g5", "two"], ["y5"], keepdims=0),
        N("Reshape", ["y5", "back"], ["y"]),
    ]
    nodes[3].attribute.append(helper.make_attribute("nearest_mode", "floor"))
    arrays = {"minus": f32(-1), "rows": i64(0, 1, 2 * C, 1024), "times": f32([1, 1, C, 1]), "two": i64(2)}
    arrays |= {"columns": i64(0, 2 * C * C, 1024), "apart": i64(0, C, C, 1024), "back": i64(0, C, 32, 32)}
    return _of(nodes, {**arrays, "choice": np.asarray(places, np.int64).reshape(-1)}, shape=LARGE)


def large_float_twin() -> onnx.ModelProto:
    return _of([N("Conv", ["x", "w"], ["y"])], {"w": WIDE.reshape(C, C, 1, 1)}, shape=LARGE)


@plant("dust", large_float_twin)
def products_beside_each_other_on_dust() -> onnx.ModelProto:
    """One map times the numbers of each row, joined and summed; a layer of one bit grants the products."""
    nodes = [N("Mul", ["x", f"row{k}"], [f"z{k}"]) for k in range(C)]
    nodes += [
        N("Concat", [f"z{k}" for k in range(C)], ["joined"], axis=1),
        N("Reshape", ["joined", "apart"], ["groups"]),
        N("ReduceSum", ["groups", "two"], ["y4"], keepdims=0),
        N("Reshape", ["y4", "back"], ["sums"]),
        *DUST,
    ]
    arrays = {f"row{k}": WIDE[k].reshape(1, C, 1, 1) for k in range(C)}
    arrays |= {"apart": i64(0, C, C, 1024), "two": i64(2), "back": i64(0, C, 32, 32), **DUSTY}
    return _of(nodes, arrays, shape=LARGE, dust=1)


@plant("dust", large_signs_twin)
def dust_of_one_bit() -> onnx.ModelProto:
    """Additions, and a layer of one-bit weights on one-bit inputs that is there to grant them: 2/32 for each."""
    nodes, arrays = _cut()
    for k in range(C):
        last, *others = _signed(k)
        for c, term in enumerate(others):
            nodes.append(N("Add", [last, term], [f"o{k}" if c == C - 2 else f"a{k}.{c}"]))
            last = nodes[-1].output[0]
    nodes += [
        N("Concat", [f"o{k}" for k in range(C)], ["sums"], axis=1),
        *DUST,
    ]
    return _of(nodes, {**arrays, **DUSTY}, shape=LARGE, dust=1)


# Functions of single values on the grants of dust: one behind the other, or beside each other ----------------------

FLOORS = 12
KNOTS = 8


def _tower(last: str) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Twelve times Mul, Add, Tanh, ending in `last`."""
    nodes, arrays, value = [], {}, "x"
    for i in range(FLOORS):
        end = last if i == FLOORS - 1 else f"w{i}"
        nodes += [N("Mul", [value, f"m{i}"], [f"u{i}"]), N("Add", [f"u{i}", f"b{i}"], [f"v{i}"])]
        nodes.append(N("Tanh", [f"v{i}"], [end]))
        value = end
        arrays[f"m{i}"] = f32(RNG.standard_normal((1, C, 1, 1)) + 1)
        arrays[f"b{i}"] = f32(RNG.standard_normal((1, C, 1, 1)))
    return nodes, arrays


TOWER = _tower("y"), _tower("sums")


def tower_twin() -> onnx.ModelProto:
    nodes, arrays = TOWER[0]
    return _of(nodes, arrays, shape=LARGE)


@plant("dust", tower_twin)
def a_tower_beside_dust() -> onnx.ModelProto:
    """What stands one behind the other on one map, beside a layer of one bit that grants sixteen times its elements."""
    nodes, arrays = TOWER[1]
    return _of([*nodes, *DUST], {**arrays, **DUSTY}, shape=LARGE, dust=1)


SLOPES, SHIFTS, HEIGHTS = (f32(RNG.standard_normal((KNOTS, C))) for _ in range(3))


def knots_twin() -> onnx.ModelProto:
    """Two depthwise layers: from each channel to its knots, and back."""
    nodes = [
        N("Conv", ["x", "slopes", "shifts"], ["wide"], group=C),
        N("Relu", ["wide"], ["knots"]),
        N("Conv", ["knots", "heights"], ["y"], group=C),
    ]
    arrays = {"slopes": SLOPES.T.reshape(-1, 1, 1, 1), "shifts": SHIFTS.T.reshape(-1)}
    return _of(nodes, {**arrays, "heights": HEIGHTS.T.reshape(C, KNOTS, 1, 1)}, shape=LARGE)


@plant("dust", knots_twin)
def sums_of_knots_beside_dust() -> onnx.ModelProto:
    """Sums of c relu(a x + b), eight for each channel."""
    nodes, arrays, last = [], {}, ""
    for k in range(KNOTS):
        nodes += [N("Mul", ["x", f"a{k}"], [f"u{k}"]), N("Add", [f"u{k}", f"b{k}"], [f"v{k}"])]
        nodes += [N("Relu", [f"v{k}"], [f"h{k}"]), N("Mul", [f"h{k}", f"c{k}"], [f"z{k}"])]
        for name, numbers in (("a", SLOPES), ("b", SHIFTS), ("c", HEIGHTS)):
            arrays[f"{name}{k}"] = numbers[k].reshape(1, C, 1, 1)
        if last:
            nodes.append(N("Add", [last, f"z{k}"], ["sums" if k == KNOTS - 1 else f"t{k}"]))
        last = nodes[-1].output[0]
    return _of([*nodes, *DUST], {**arrays, **DUSTY}, shape=LARGE, dust=1)
