"""Planted cheats around sums: at few bits, under other names, of products on the grants of dust that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.attacks.planted import SIGNS, Array, C, N, f32, i64, network, plant

T = TensorProto
QONNX = "qonnx.custom_op.general"
RNG = np.random.default_rng(5)
SHAPE = (3, 16, 16)
WIDE = f32(RNG.standard_normal((C, C)))
STEPS = f32(RNG.uniform(0.1, 1, (C, C)))


def _quant(x: str, step: str, output: str) -> onnx.NodeProto:
    attributes = {"signed": 0, "narrow": 0, "rounding_mode": "ROUND"}
    return helper.make_node(
        "Quant", [x, step, "zero", "one bit"], [output], f"Quant.{output}", domain=QONNX, **attributes
    )


def _of(nodes: Sequence[onnx.NodeProto], arrays: Mapping[str, Array], **bits: int) -> onnx.ModelProto:
    numbers = {"unit": f32(1), "zero": f32(0), "one bit": f32(1), "step": f32(0.3), "large": f32(100)}
    numbers |= {"start": i64(0), "one": i64(1), "past": i64(2 * C)}
    return network(list(nodes), {**numbers, **arrays}, bits=bits, qonnx=True, shape=SHAPE)


ONE_BIT = [_quant("x", "step", "xq")]
LARGE = [*ONE_BIT, N("Mul", ["xq", "large"], ["xb"])]
"""0 or more than any step, so that a quantiser of one bit makes 0 or its step of it."""


def float_twin() -> onnx.ModelProto:
    return _of([N("Conv", ["x", "w"], ["y"])], {"w": WIDE.reshape(C, C, 1, 1)})


def one_bit_inputs_twin() -> onnx.ModelProto:
    return _of([*ONE_BIT, N("Conv", ["xq", "w"], ["y"])], {"w": STEPS.reshape(C, C, 1, 1) / f32(0.3)})


def signs_twin() -> onnx.ModelProto:
    nodes = [N("Cast", ["w"], ["wf"], to=T.FLOAT), N("Mul", ["wf", "unit"], ["ws"]), N("Conv", ["x", "ws"], ["y"])]
    return _of(nodes, {"w": SIGNS.reshape(C, C, 1, 1).astype(np.int8)}, w=1)


def _with_dust(nodes: Sequence[onnx.NodeProto], read: Sequence[str]) -> list[onnx.NodeProto]:
    """Grouped layers of one-bit weights on products of one bit, which add next to nothing to the last of the sums."""
    return [
        *nodes,
        N("Cast", ["dust"], ["df"], to=T.FLOAT),
        N("Mul", ["df", "unit"], ["ds"]),
        *(N("Conv", [value, "ds"], [f"d{i}"], group=C) for i, value in enumerate(read)),
        N("Concat", [f"d{i}" for i in range(len(read))], ["d"], axis=1),
        N("GlobalAveragePool", ["d"], ["dp"]),
        N("ReduceMax", ["dp"], ["dm"], axes=[1], keepdims=1),
        N("Mul", ["dm", "tiny"], ["dt"]),
        N("Add", [f"y{C - 1}", "dt"], ["end"]),
        N("Concat", [*(f"y{k}" for k in range(C - 1)), "end"], ["y"], axis=1),
    ]


DUSTY = {"dust": np.ones((C, 1, 1, 1), np.int8), "tiny": f32(1e-6)}


@plant("dust", float_twin)
def reduced_products_read_by_dust() -> onnx.ModelProto:
    """The map times numbers, summed over channels; a layer of one bit reads the products and would grant them."""
    nodes = []
    for k in range(C):
        nodes += [N("Mul", ["x", f"w{k}"], [f"z{k}"]), N("ReduceSum", [f"z{k}", "one"], [f"y{k}"], keepdims=1)]
        nodes.append(helper.make_node("BipolarQuant", [f"z{k}", "unit"], [f"b{k}"], f"sign{k}", domain=QONNX))
    rows = {f"w{k}": WIDE[k].reshape(1, C, 1, 1) for k in range(C)}
    return _of(_with_dust(nodes, [f"b{k}" for k in range(C)]), {**rows, **DUSTY}, dust=1)


@plant("dust", one_bit_inputs_twin)
def steps_as_products_read_by_dust() -> onnx.ModelProto:
    """A quantiser of one bit gives 0 or the channel's step; a layer of one bit reads them all and would grant them."""
    nodes = list(LARGE)
    for k in range(C):
        nodes += [_quant("xb", f"s{k}", f"z{k}"), N("ReduceSum", [f"z{k}", "one"], [f"y{k}"], keepdims=1)]
    rows = {f"s{k}": STEPS[k].reshape(1, C, 1, 1) for k in range(C)}
    return _of(_with_dust(nodes, [f"z{k}" for k in range(C)]), {**rows, **DUSTY}, dust=1)


@plant("sums", one_bit_inputs_twin)
def softmax_of_codes_as_a_sum() -> onnx.ModelProto:
    """exp of 0 or log(1 + w), added up by a softmax beside a channel of zero, at one bit."""
    nodes = list(LARGE)
    for k in range(C):
        nodes += [
            _quant("xb", f"s{k}", f"q{k}"),
            N("Pad", [f"q{k}", "pads"], [f"p{k}"]),
            N("Softmax", [f"p{k}"], [f"m{k}"], axis=1),
            N("Slice", [f"m{k}", "begin", "end", "one"], [f"v{k}"]),
        ]
    nodes += [N("Concat", [f"v{k}" for k in range(C)], ["v"], axis=1), N("Reciprocal", ["v"], ["turned"])]
    nodes.append(N("Sub", ["turned", "ones"], ["y"]))
    arrays = {f"s{k}": np.log1p(STEPS[k]).reshape(1, C, 1, 1).astype(np.float32) for k in range(C)}
    arrays |= {"pads": i64(0, 0, 0, 0, 0, 1, 0, 0), "begin": i64(C), "end": i64(C + 1), "ones": f32(C + 1)}
    return _of(nodes, arrays)


def pairs_twin() -> onnx.ModelProto:
    """A grouped layer of two inputs and four outputs each, on inputs of one bit."""
    weights = (STEPS[:4].reshape(4, C // 2, 2).transpose(1, 0, 2) / 0.3).reshape(2 * C, 2, 1, 1)
    nodes = [*ONE_BIT, N("Conv", ["xq", "w"], ["wide"], group=C // 2), *_halved("wide")]
    return _of(nodes, {"w": f32(weights), "ends": i64(C)})


def _halved(wide: str) -> list[onnx.NodeProto]:
    return [
        N("Slice", [wide, "start", "ends", "one"], ["left"]),
        N("Slice", [wide, "ends", "past", "one"], ["right"]),
        N("Max", ["left", "right"], ["y"]),
    ]


@plant("sums", pairs_twin)
def additions_of_codes_of_other_steps() -> onnx.ModelProto:
    """Every second channel of quantisers of one bit, added: two products and their sum at one bit."""
    nodes = list(LARGE)
    for k in range(4):
        nodes += [
            _quant("xb", f"s{k}", f"q{k}"),
            N("Slice", [f"q{k}", "start", "past", "one", "two"], [f"a{k}"]),
            N("Slice", [f"q{k}", "one", "past", "one", "two"], [f"b{k}"]),
            N("Add", [f"a{k}", f"b{k}"], [f"v{k}"]),
        ]
    nodes += [N("Concat", [f"v{k}" for k in range(4)], ["wide"], axis=1), *_halved("wide")]
    return _of(nodes, {f"s{k}": STEPS[k].reshape(1, C, 1, 1) for k in range(4)} | {"two": i64(2), "ends": i64(C)})


@plant("sums", signs_twin)
def sums_renamed_by_a_reduction_of_nothing() -> onnx.ModelProto:
    """Signed copies of the map, summed; the largest over an axis of one place gives the map four names."""
    nodes = [N("Reshape", ["x", "five"], ["x5"])]
    arrays: dict[str, Array] = {"five": i64(0, C, 1, 16, 16)}
    for k in range(C):
        if k % 4 == 0:
            nodes.append(N("ReduceMax", ["x5"], [f"named{k // 4}"], axes=[2], keepdims=0))
        negative = [c for c in range(C) if SIGNS[k, c] < 0]
        order = negative + [c for c in range(C) if SIGNS[k, c] > 0]
        arrays |= {f"i{k}": i64(*order), f"n{k}": i64(len(negative)), "c": i64(C)}
        nodes += [
            N("Gather", [f"named{k // 4}", f"i{k}"], [f"g{k}"], axis=1),
            N("Slice", [f"g{k}", "start", f"n{k}", "one"], [f"a{k}"]),
            N("Slice", [f"g{k}", f"n{k}", "c", "one"], [f"b{k}"]),
            N("Neg", [f"a{k}"], [f"m{k}"]),
            N("Concat", [f"m{k}", f"b{k}"], [f"e{k}"], axis=1),
            N("ReduceSum", [f"e{k}", "one"], [f"y{k}"], keepdims=1),
        ]
    nodes.append(N("Concat", [f"y{k}" for k in range(C)], ["y"], axis=1))
    return _of(nodes, arrays)
