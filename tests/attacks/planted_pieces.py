"""Planted cheats of versions of one map, each with numbers of its own."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tests.attacks.planted import Array, C, N, f32, i64, network, plant

T = TensorProto
SIDE = 32
LARGE = (3, SIDE, SIDE)
"""Maps on which operations count for more than the classifier does."""
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
