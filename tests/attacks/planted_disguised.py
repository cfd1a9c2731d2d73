"""Planted cheats that hide what they are made of: constants behind a sign."""

from __future__ import annotations

import numpy as np
import onnx

from tests.attacks.planted import Array, N, Part, f32, i64, network, plant

HIDDEN, PIXELS = 16, 192
RNG = np.random.default_rng(17)
ROWS, COLUMNS = f32(RNG.standard_normal((HIDDEN, 1)) * 3), f32(RNG.standard_normal((1, PIXELS)) * 3)


def hashed_twin() -> onnx.ModelProto:
    """The constants as what they are."""
    nodes = [
        N("Flatten", ["image"], ["f"]),
        N("Gemm", ["f", "w"], ["h"], transB=1),
        N("Reshape", ["h", "map"], ["y"]),
    ]
    return network(nodes, {"w": np.sin(ROWS * COLUMNS), "map": i64(0, HIDDEN, 1, 1)}, first=False)


def _hashed(factor: list[onnx.NodeProto], **arrays: Array) -> onnx.ModelProto:
    """A layer of the sines of products, each times 'factor' [n,1,1] or [n,HIDDEN,1], which is 1 or -1: and back."""
    nodes = [
        *factor,
        N("Mul", ["factor", "rows"], ["u"]),
        N("Mul", ["u", "columns"], ["uv"]),
        N("Sin", ["uv"], ["w"]),
        N("Reshape", ["image", "column"], ["f"]),
        N("MatMul", ["w", "f"], ["hw"]),
        N("Mul", ["hw", "factor"], ["h"]),
        N("Reshape", ["h", "map"], ["y"]),
    ]
    stored: dict[str, Array] = {
        "rows": ROWS,
        "columns": COLUMNS,
        "column": i64(0, PIXELS, 1),
        "map": i64(0, HIDDEN, 1, 1),
        **arrays,
    }
    return network(nodes, stored, first=False)


def _sign_of_pixels(count: int) -> Part:
    nodes = [
        N("Reshape", ["image", "pixels"], ["all"]),
        N("Slice", ["all", "zero", "count", "first"], ["some"]),
        N("Sub", ["some", "half"], ["centred"]),
        N("Sign", ["centred"], ["factor"]),
    ]
    stored: dict[str, Array] = {
        "zero": i64(0),
        "count": i64(count),
        "first": i64(1),
        "half": f32(0.5),
        "pixels": i64(0, PIXELS, 1),
    }
    return nodes, stored


@plant("constants in disguise", hashed_twin)
def constants_behind_a_sign() -> onnx.ModelProto:
    """One pixel's sign: the mean of the kernel is nearly nothing, and it is a table all the same."""
    nodes, stored = _sign_of_pixels(1)
    return _hashed(nodes, **stored)
