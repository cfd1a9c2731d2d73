"""Planted cheats of versions and pieces of one map, each with numbers of its own."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.attacks.planted import Array, C, N, Part, f32, i64, joined, network, plant

T = TensorProto
SIDE = 32
LARGE = (3, SIDE, SIDE)
"""Maps on which operations count for more than the classifier does."""
QONNX = "qonnx.custom_op.general"
RNG = np.random.default_rng(17)


def _signs(name: str) -> list[onnx.NodeProto]:
    """Codes of one bit as a weight '...w'."""
    return [N("Cast", [name], [f"{name}f"], to=T.FLOAT), N("Mul", [f"{name}f", "unit"], [f"{name}w"])]


# Versions of the image -------------------------------------------------------------------------------------------

OF_IMAGE = f32(RNG.standard_normal((C, 3)))
OF_PLACES = np.asarray(RNG.choice([-1, 1], (C, 3, 3, 3)), np.int8)


def grouped_twin() -> onnx.ModelProto:
    """Signs of a depthwise layer, then floats for each output."""
    nodes = [
        *_signs("signs"),
        N("Conv", ["image", "signsw"], ["d"], group=3, pads=[1] * 4),
        N("Reshape", ["d", "apart"], ["d3"]),
        N("Transpose", ["d3"], ["turned"], perm=[0, 2, 1, 3]),
        N("Reshape", ["turned", "square"], ["of_outputs"]),
        N("Conv", ["of_outputs", "numbers"], ["y"], group=C),
    ]
    arrays = {
        "signs": np.ascontiguousarray(OF_PLACES.transpose(1, 0, 2, 3)).reshape(3 * C, 1, 3, 3),
        "numbers": OF_IMAGE.reshape(C, 3, 1, 1),
        "apart": i64(-1, 3, C, SIDE * SIDE),
        "square": i64(-1, 3 * C, SIDE, SIDE),
        "unit": f32(1),
    }
    return network(nodes, arrays, bits={"signs": 1}, first=False, shape=LARGE)


def _versions(version: list[list[onnx.NodeProto]], arrays: dict[str, Array]) -> onnx.ModelProto:
    """A layer of one output and of one bit behind each version v0, v1, ... of the image."""
    nodes: list[onnx.NodeProto] = []
    for k in range(C):
        nodes += [*version[k], *_signs(f"s{k}"), N("Conv", [f"v{k}", f"s{k}w"], [f"c{k}"], pads=[1] * 4)]
        arrays[f"s{k}"] = OF_PLACES[k : k + 1]
    nodes.append(N("Concat", [f"c{k}" for k in range(C)], ["y"], axis=1))
    return network(nodes, {**arrays, "unit": f32(1)}, bits={f"s{k}": 1 for k in range(C)}, first=False, shape=LARGE)


@plant("versions of the image", grouped_twin)
def the_image_times_numbers_for_each_output() -> onnx.ModelProto:
    """A first layer of floats: the image was taken for one of 8 bits behind any numbers of its channels."""
    nodes = [[N("Mul", ["image", f"m{k}"], [f"v{k}"])] for k in range(C)]
    return _versions(nodes, {f"m{k}": OF_IMAGE[k].reshape(1, 3, 1, 1) for k in range(C)})


@plant("versions of the image", grouped_twin)
def the_image_times_numbers_one_after_another() -> onnx.ModelProto:
    """Each version is the one before times the quotient of their numbers."""
    nodes = [[N("Mul", [f"v{k - 1}" if k else "image", f"m{k}"], [f"v{k}"])] for k in range(C)]
    factors = np.concatenate([OF_IMAGE[:1], OF_IMAGE[1:] / OF_IMAGE[:-1]])
    return _versions(nodes, {f"m{k}": f32(factors[k]).reshape(1, 3, 1, 1) for k in range(C)})


@plant("versions of the image", grouped_twin)
def channels_of_the_image_times_a_number_each_and_joined() -> onnx.ModelProto:
    nodes: list[list[onnx.NodeProto]] = []
    arrays: dict[str, Array] = {"axis": i64(1), "n0": i64(0), "n1": i64(1), "n2": i64(2), "n3": i64(3)}
    for k in range(C):
        here: list[onnx.NodeProto] = []
        for c in range(3):
            here.append(N("Slice", ["image", f"n{c}", f"n{c + 1}", "axis"], [f"p{k}_{c}"]))
            here.append(N("Mul", [f"p{k}_{c}", f"m{k}_{c}"], [f"t{k}_{c}"]))
            arrays[f"m{k}_{c}"] = OF_IMAGE[k, c]
        nodes.append([*here, N("Concat", [f"t{k}_{c}" for c in range(3)], [f"v{k}"], axis=1)])
    return _versions(nodes, arrays)


# Bands of rows ---------------------------------------------------------------------------------------------------

BANDS, ROWS = 4, SIDE // 4
TABLE = f32(RNG.standard_normal((BANDS, C)))
KERNELS = {f"k{i}": np.asarray(RNG.choice([-1, 1], (C, 1, 3, 3)), np.int8) for i in range(3)}


def _layer(index: int, x: str, y: str) -> list[onnx.NodeProto]:
    """A depthwise layer of one-bit weights on one-bit inputs."""
    quantiser = helper.make_node("BipolarQuant", [x, "unit"], [f"q{index}"], name=f"q{index}", domain=QONNX)
    return [quantiser, *_signs(f"k{index}"), N("Conv", [f"q{index}", f"k{index}w"], [y], group=C, pads=[1] * 4)]


def _between(nodes: list[onnx.NodeProto], arrays: dict[str, Array]) -> onnx.ModelProto:
    """What leads from 'a' to 'b' between cheap layers, with no spatial average behind."""
    before = [*_signs("stem"), N("Conv", ["image", "stemw"], ["x"]), *_layer(0, "x", "a")]
    after = [*_layer(1, "b", "c"), *_layer(2, "c", "d")]
    ends = [*_signs("rows"), N("Conv", ["d", "rowsw"], ["y"], group=C)]
    stored = {
        "stem": np.asarray(RNG.choice([-1, 1], (C, 3, 1, 1)), np.int8),
        "rows": np.ones((C, 1, SIDE, SIDE), np.int8),
        "unit": f32(1),
    }
    bits = dict.fromkeys(("stem", "rows", *KERNELS), 1)
    every = [*before, *nodes, *after, *ends]
    return network(every, {**KERNELS, **stored, **arrays}, bits=bits, first=False, qonnx=True, shape=LARGE)


def _table_twin(op: str) -> onnx.ModelProto:
    nodes = [N("Reshape", ["a", "split"], ["a4"]), N(op, ["a4", "table"], ["b4"]), N("Reshape", ["b4", "whole"], ["b"])]
    table = np.ascontiguousarray(TABLE.T).reshape(1, C, BANDS, 1)
    return _between(nodes, {"table": table, "split": i64(-1, C, BANDS, ROWS * SIDE), "whole": i64(-1, C, SIDE, SIDE)})


def shifts_twin() -> onnx.ModelProto:
    return _table_twin("Add")


def multipliers_twin() -> onnx.ModelProto:
    return _table_twin("Mul")


def _bands(op: str, along: int) -> Part:
    """Each band with its own numbers, joined along rows or (to be taken apart again) along channels."""
    nodes: list[onnx.NodeProto] = []
    arrays: dict[str, Array] = {"axis": i64(2)}
    for i in range(BANDS):
        nodes += [N("Slice", ["a", f"n{i}", f"n{i + 1}", "axis"], [f"s{i}"]), N(op, [f"s{i}", f"t{i}"], [f"o{i}"])]
        arrays |= {f"n{i}": i64(i * ROWS), f"n{i + 1}": i64((i + 1) * ROWS), f"t{i}": TABLE[i].reshape(1, C, 1, 1)}
    nodes.append(N("Concat", [f"o{i}" for i in range(BANDS)], ["b" if along == 2 else "stack"], axis=along))
    return nodes, arrays


@plant("bands of rows", shifts_twin)
def bands_of_rows_with_their_own_shifts() -> onnx.ModelProto:
    return _between(*_bands("Add", 2))


@plant("bands of rows", multipliers_twin)
def bands_of_rows_with_their_own_multipliers() -> onnx.ModelProto:
    return _between(*_bands("Mul", 2))


@plant("bands of rows", multipliers_twin)
def bands_of_rows_as_channels_and_back() -> onnx.ModelProto:
    """Joined as channels, which may have numbers of their own, and moved back to their rows."""
    nodes, arrays = _bands("Identity", 1)
    nodes = [node if node.op_type != "Identity" else N("Identity", node.input[:1], node.output) for node in nodes]
    back = [
        N("Mul", ["stack", "numbers"], ["stacked"]),
        N("Reshape", ["stacked", "apart"], ["b5"]),
        N("Transpose", ["b5"], ["turned"], perm=[0, 2, 1, 3, 4]),
        N("Reshape", ["turned", "whole"], ["b"]),
    ]
    numbers = {"numbers": TABLE.reshape(1, BANDS * C, 1, 1), "apart": i64(-1, BANDS, C, ROWS, SIDE)}
    return _between(*joined((nodes, arrays), (back, {**numbers, "whole": i64(-1, C, SIDE, SIDE)})))
