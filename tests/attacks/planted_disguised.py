"""Planted cheats that hide what they are made of: constants behind a sign, roundings between numbers that fold."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

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


@plant("constants in disguise", hashed_twin)
def constants_behind_a_sign_for_each_row() -> onnx.ModelProto:
    nodes, stored = _sign_of_pixels(HIDDEN)
    return _hashed(nodes, **stored)


# Roundings between numbers that would fold into one -----------------------------------------------------------------

STEPS = 10
GREAT = f32(12582912)
"""1.5 * 2**23: what is added to it in single precision becomes an integer."""
CHANNELS = 16
MULTIPLIERS = f32(RNG.uniform(0.7, 1.4, (STEPS, 1, CHANNELS, 1, 1)))
SHIFTS = f32(RNG.uniform(-0.5, 0.5, (STEPS, 1, CHANNELS, 1, 1)))


def _rounded(how: str) -> onnx.ModelProto:
    """So many times a multiplication, an addition and a rounding."""
    nodes = [N("Mul", ["x", "sixteen"], ["w0"])]
    stored: dict[str, Array] = {"sixteen": f32(16), "sixteenth": f32(1 / 16), "great": GREAT}
    for i in range(STEPS):
        nodes += [N("Mul", [f"w{i}", f"m{i}"], [f"u{i}"]), N("Add", [f"u{i}", f"b{i}"], [f"v{i}"])]
        if how == "great":
            nodes += [N("Add", [f"v{i}", "great"], [f"g{i}"]), N("Sub", [f"g{i}", "great"], [f"w{i + 1}"])]
        elif how == "cast":
            nodes += [
                N("Cast", [f"v{i}"], [f"c{i}"], to=TensorProto.INT32),
                N("Cast", [f"c{i}"], [f"w{i + 1}"], to=TensorProto.FLOAT),
            ]
        else:
            nodes.append(N(how, [f"v{i}"], [f"w{i + 1}"]))
        stored |= {f"m{i}": MULTIPLIERS[i], f"b{i}": SHIFTS[i]}
    return network([*nodes, N("Mul", [f"w{STEPS}", "sixteenth"], ["y"])], stored)


def rounded_twin() -> onnx.ModelProto:
    return _rounded("Round")


def floored_twin() -> onnx.ModelProto:
    return _rounded("Floor")


@plant("chains", floored_twin)
def roundings_by_changes_of_type() -> onnx.ModelProto:
    return _rounded("cast")
