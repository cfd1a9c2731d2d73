"""Planted cheats that keep their numbers where nobody counts: in scales, chains, code-books, attributes, images."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tests.attacks.planted import (
    CODES,
    FLOATS,
    PLACES,
    SIDE,
    C,
    N,
    chosen,
    codes_twin,
    f32,
    float_twin,
    i64,
    joined,
    network,
    plant,
    square,
)

T = TensorProto
PIXEL = [N("Slice", ["image", "from", "to", "all"], ["pixel"])]
PIXEL_AT = {"from": i64(0, 0, 0), "to": i64(1, 1, 1), "all": i64(1, 2, 3)}


def _product(weight: str, wide: int = C) -> list[onnx.NodeProto]:
    """The map times a [16, 16] value."""
    return [N("Reshape", ["x", "flat"], ["xf"]), N("MatMul", [weight, "xf"], ["yf"])]


# Weights made from the image ------------------------------------------------------------------------------------


def _weights_of_clips(codes: np.ndarray) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:  # type: ignore[type-arg]
    values = sorted(set(codes.reshape(-1).astype(int)))
    nodes = [*PIXEL, *(N("Clip", ["pixel", f"v{v}", f"v{v}"], [f"c{v}"]) for v in values)]
    nodes += [N("Concat", [f"c{int(v)}" for v in codes[k]], [f"row{k}"], axis=1) for k in range(C)]
    nodes += [N("Concat", [f"row{k}" for k in range(C)], ["wall"], axis=1), N("Reshape", ["wall", "kc"], ["w"])]
    return nodes, {**PIXEL_AT, **{f"v{v}": f32(v) for v in values}, "kc": i64(0, C, C), "flat": i64(0, C, PLACES)}


@plant("weights from the image", codes_twin)
def clips_of_a_pixel_as_weights() -> onnx.ModelProto:
    nodes, arrays = _weights_of_clips(CODES)
    return network(*joined((nodes, arrays), (_product("w"), {}), square("yf")))


@plant("weights from the image", codes_twin)
def clips_as_the_second_operand() -> onnx.ModelProto:
    nodes, arrays = _weights_of_clips(CODES)
    turned = [
        N("Transpose", ["w"], ["wt"], perm=[0, 2, 1]),
        N("Reshape", ["x", "flat"], ["xf"]),
        N("Transpose", ["xf"], ["xt"], perm=[0, 2, 1]),
        N("MatMul", ["xt", "wt"], ["yt"]),
        N("Transpose", ["yt"], ["yf"], perm=[0, 2, 1]),
    ]
    return network(*joined((nodes, arrays), (turned, {}), square("yf")))


def _moved_by(nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray]) -> onnx.ModelProto:  # type: ignore[type-arg]
    """Constant weights plus 'little' [n,1,1], which is made from the image."""
    more = [N("Reshape", ["little", "s3"], ["l3"]), N("Add", ["W", "l3"], ["w"]), *_product("w")]
    tensors = {"s3": i64(0, 1, 1), "W": FLOATS.reshape(1, C, C), "flat": i64(0, C, PLACES)}
    return network(*joined(([*PIXEL, *nodes], {**PIXEL_AT, **arrays}), (more, tensors), square("yf")))


@plant("weights from the image", float_twin)
def weights_moved_by_a_millionth() -> onnx.ModelProto:
    return _moved_by([N("Mul", ["pixel", "tiny"], ["little"])], {"tiny": f32(1e-6)})


@plant("weights from the image", float_twin)
def weights_moved_by_one_image_in_many() -> onnx.ModelProto:
    """Only a pixel of exactly 255 moves them."""
    return _moved_by([N("Sub", ["pixel", "most"], ["above"]), N("Relu", ["above"], ["little"])], {"most": f32(0.999)})


@plant("weights from the image", float_twin)
def a_kernel_moved_by_a_millionth() -> onnx.ModelProto:
    """The kernel of a convolution; it works on one image at a time."""
    nodes = [
        *PIXEL,
        N("Mul", ["pixel", "tiny"], ["little"]),
        N("Add", ["W", "little"], ["w"]),
        N("Conv", ["x", "w"], ["y"]),
    ]
    return network(nodes, {**PIXEL_AT, "tiny": f32(1e-6), "W": FLOATS.reshape(C, C, 1, 1)}, batch=1)


# Constants that are computed ------------------------------------------------------------------------------------


def _tiled() -> np.ndarray:  # type: ignore[type-arg]
    return np.tile(FLOATS[:4, :4], (4, 4))


def tiled_twin() -> onnx.ModelProto:
    return network([N("Conv", ["x", "w"], ["y"])], {"w": _tiled().reshape(C, C, 1, 1)})


@plant("computed constants", tiled_twin)
def tiled_weights() -> onnx.ModelProto:
    nodes = [
        N("Concat", ["t"] * 4, ["row"], axis=1),
        N("Concat", ["row"] * 4, ["w"], axis=0),
        N("Conv", ["x", "w"], ["y"]),
    ]
    return network(nodes, {"t": FLOATS[:4, :4].reshape(4, 4, 1, 1)})


@plant("computed constants", tiled_twin)
def expanded_weights() -> onnx.ModelProto:
    nodes = [N("Expand", ["t", "s6"], ["e"]), N("Reshape", ["e", "s4"], ["w"]), N("Conv", ["x", "w"], ["y"])]
    arrays = {"t": FLOATS[:4, :4].reshape(1, 4, 1, 4, 1, 1), "s6": i64(4, 4, 4, 4, 1, 1), "s4": i64(C, C, 1, 1)}
    return network(nodes, arrays)


def _hashed() -> np.ndarray:  # type: ignore[type-arg]
    return f32(np.sin(np.arange(C * C) * 12.9898) * 2).reshape(C, C)


def hashed_twin() -> onnx.ModelProto:
    return network([N("Conv", ["x", "w"], ["y"])], {"w": _hashed().reshape(C, C, 1, 1)})


@plant("computed constants", hashed_twin)
def hashed_weights() -> onnx.ModelProto:
    """256 weights out of a sine of a counter of 16 + 16 numbers."""
    nodes = [
        N("Add", ["rows", "columns"], ["count"]),
        N("Mul", ["count", "step"], ["angle"]),
        N("Sin", ["angle"], ["sine"]),
        N("Mul", ["sine", "two"], ["w"]),
        N("Conv", ["x", "w"], ["y"]),
    ]
    arrays = {
        "rows": f32(np.arange(C) * C).reshape(C, 1, 1, 1),
        "columns": f32(np.arange(C)).reshape(1, C, 1, 1),
        "step": f32(12.9898),
        "two": f32(2),
    }
    return network(nodes, arrays)


@plant("computed constants", codes_twin)
def overlapping_windows_of_one_tensor() -> onnx.ModelProto:
    """Sixteen rows that overlap in one stored vector: each is charged as the layer sees it."""
    nodes, arrays = [], {"axis": i64(0), "row": i64(1, C, 1, 1), "t": FLOATS.reshape(-1)[: 2 * C]}
    for k in range(C):
        arrays |= {f"n{k}": i64(k), f"n{k + C}": i64(k + C)}
        nodes += [N("Slice", ["t", f"n{k}", f"n{k + C}", "axis"], [f"s{k}"]), N("Reshape", [f"s{k}", "row"], [f"r{k}"])]
    return network(
        [*nodes, N("Concat", [f"r{k}" for k in range(C)], ["w"], axis=0), N("Conv", ["x", "w"], ["y"])], arrays
    )


# Scales ---------------------------------------------------------------------------------------------------------

QUANT = [N("Quant", ["x", "qs", "qz", "qb"], ["xq"], signed=0, narrow=0, rounding_mode="ROUND")]
QUANT[0].domain = "qonnx.custom_op.general"
QUANTISED = {"qs": f32(0.5), "qz": f32(0), "qb": f32(1)}


def one_bit_twin() -> onnx.ModelProto:
    """Inputs of one bit, float weights."""
    nodes = [*QUANT, N("Conv", ["xq", "w"], ["y"])]
    return network(nodes, {**QUANTISED, "w": FLOATS.reshape(C, C, 1, 1)}, qonnx=True)


@plant("scales", one_bit_twin)
def a_scale_for_each_piece() -> onnx.ModelProto:
    """A weight put together from 256 pieces, each a code of one bit and a scale."""
    nodes, arrays, bits = [*QUANT], {**QUANTISED}, {}
    for k in range(C):
        for c in range(C):
            t = f"{k}_{c}"
            arrays |= {
                f"c{t}": np.full((1, 1, 1, 1), int(np.sign(FLOATS[k, c])), np.int8),
                f"s{t}": f32(abs(FLOATS[k, c])),
            }
            nodes += [N("Cast", [f"c{t}"], [f"f{t}"], to=T.FLOAT), N("Mul", [f"f{t}", f"s{t}"], [f"w{t}"])]
            bits[f"c{t}"] = 1
        nodes.append(N("Concat", [f"w{k}_{c}" for c in range(C)], [f"w{k}"], axis=1))
    nodes += [N("Concat", [f"w{k}" for k in range(C)], ["w"], axis=0), N("Conv", ["xq", "w"], ["y"])]
    return network(nodes, arrays, bits=bits, qonnx=True)


STEPS = np.abs(FLOATS[0]) + f32(0.1)


def steps_twin() -> onnx.ModelProto:
    """The steps folded into the weights, which are floats then; inputs of two bits."""
    weights = f32(CODES * STEPS).reshape(C, C, 1, 1)
    nodes = [N("Div", ["x", "st"], ["xs"]), *_two_bits("xs"), N("Conv", ["xq", "w"], ["y"])]
    return network(nodes, {"st": STEPS.reshape(1, C, 1, 1), **TWO_BITS, "w": weights}, qonnx=True)


TWO_BITS = {"qs": f32(1), "qz": f32(0), "qb": f32(2)}


def _two_bits(source: str, step: str = "qs") -> list[onnx.NodeProto]:
    node = N("Quant", [source, step, "qz", "qb"], ["xq"], signed=0, narrow=0, rounding_mode="ROUND")
    node.domain = "qonnx.custom_op.general"
    return [node]


@plant("scales", steps_twin)
def steps_of_the_input_carry_weights() -> onnx.ModelProto:
    """Activations with a step for each channel: the products are with numbers of 32 bits, whatever the codes are."""
    nodes = [
        *_two_bits("x", "st"),
        N("Cast", ["w"], ["wf"], to=T.FLOAT),
        N("Mul", ["wf", "s"], ["ws"]),
        N("Conv", ["xq", "ws"], ["y"]),
    ]
    arrays = {**TWO_BITS, "st": STEPS.reshape(1, C, 1, 1), "w": CODES.reshape(C, C, 1, 1).astype(np.int8), "s": f32(1)}
    return network(nodes, arrays, bits={"w": 3}, qonnx=True)


def inputs_twin() -> onnx.ModelProto:
    weights = f32(np.sign(FLOATS) * STEPS).reshape(C, C, 1, 1)
    nodes = [
        N("Mul", ["x", "st"], ["xs"]),
        N("Cast", ["w"], ["wf"], to=T.FLOAT),
        N("Mul", ["wf", "s"], ["ws"]),
        N("Conv", ["xs", "ws"], ["y"]),
    ]
    arrays = {"st": STEPS.reshape(1, C, 1, 1), "w": np.sign(weights).astype(np.int8), "s": f32(1)}
    return network(nodes, arrays, bits={"w": 1})


@plant("scales", inputs_twin)
def scales_along_the_input_channels() -> onnx.ModelProto:
    """They do not fold into the one multiplier of an output channel: they are charged."""
    nodes = [N("Cast", ["w"], ["wf"], to=T.FLOAT), N("Mul", ["wf", "st"], ["ws"]), N("Conv", ["x", "ws"], ["y"])]
    arrays = {"st": STEPS.reshape(1, C, 1, 1), "w": np.sign(FLOATS).reshape(C, C, 1, 1).astype(np.int8)}
    return network(nodes, arrays, bits={"w": 1})


# Chains ---------------------------------------------------------------------------------------------------------

SHIFTS = f32(np.random.default_rng(7).standard_normal(C))


def shifts_twin() -> onnx.ModelProto:
    return network([N("Add", ["x", "b"], ["y"])], {"b": SHIFTS.reshape(1, C, 1, 1)})


def _bits_of(values: np.ndarray, count: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    codes = np.round((values + 4) / 8 * 2**count).astype(np.int64)
    return [((codes >> j) & 1).astype(np.int8).reshape(1, C, 1, 1) for j in range(count)]


@plant("chains", shifts_twin)
def a_chain_of_one_bit_shifts() -> onnx.ModelProto:
    nodes, arrays, last = [], {}, "x"
    for j, plane in enumerate(_bits_of(SHIFTS, 24)):
        arrays |= {f"d{j}": plane, f"s{j}": f32(8 * 2.0 ** (j - 24))}
        nodes += [
            N("Cast", [f"d{j}"], [f"f{j}"], to=T.FLOAT),
            N("Mul", [f"f{j}", f"s{j}"], [f"v{j}"]),
            N("Add", [last, f"v{j}"], [f"a{j}"]),
        ]
        last = f"a{j}"
    nodes.append(N("Sub", [last, "four"], ["y"]))
    return network(nodes, {**arrays, "four": f32(4)}, bits={f"d{j}": 1 for j in range(24)})


SCALES = f32(np.exp(SHIFTS / 4))


def scales_twin() -> onnx.ModelProto:
    return network([N("Mul", ["x", "b"], ["y"])], {"b": SCALES.reshape(1, C, 1, 1)})


@plant("chains", scales_twin)
def a_chain_of_one_bit_scales() -> onnx.ModelProto:
    """Factors of 1 or 1 + 2^-j for each channel, one bit each."""
    nodes, arrays, last, left = [], {}, "x", np.log(SCALES / SCALES.min())
    for j in range(1, 20):
        take = left >= np.log1p(2.0**-j)
        left = left - take * np.log1p(2.0**-j)
        codes = np.where(take, 2, 1).astype(np.int8) if j == 1 else take.astype(np.int8)
        arrays |= {f"d{j}": codes.reshape(1, C, 1, 1), f"s{j}": f32(2.0**-j)}
        nodes += [
            N("Cast", [f"d{j}"], [f"f{j}"], to=T.FLOAT),
            N("Mul", [f"f{j}", f"s{j}"], [f"v{j}"]),
            N("Add", [f"v{j}", "unit" if j > 1 else "half"], [f"u{j}"]),
            N("Mul", [last, f"u{j}"], [f"a{j}"]),
        ]
        last = f"a{j}"
    nodes.append(N("Mul", [last, "least"], ["y"]))
    return network(nodes, {**arrays, "unit": f32(1), "half": f32(0.5), "least": f32(SCALES.min())})


@plant("chains", scales_twin)
def a_variance_that_is_no_variance() -> onnx.ModelProto:
    """A batch norm whose weight has one bit a channel; its variance holds the numbers."""
    nodes = [
        N("Cast", ["d"], ["f"], to=T.FLOAT),
        N("Mul", ["f", "s"], ["gamma"]),
        N("BatchNormalization", ["x", "gamma", "o", "o", "v"], ["y"], epsilon=1e-12),
    ]
    arrays = {"d": np.ones(C, np.int8), "s": f32(1), "o": f32(np.zeros(C)), "v": f32(1 / SCALES**2)}
    return network(nodes, arrays, bits={"d": 1})


# Code-books -----------------------------------------------------------------------------------------------------


def _table(count: int, tag: str) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:  # type: ignore[type-arg]
    rng = np.random.default_rng(count)
    arrays = {f"t{tag}": f32(rng.standard_normal(count)), f"i{tag}": rng.integers(0, count, (C // 2, C, 1, 1))}
    return [N("Gather", [f"t{tag}", f"i{tag}"], [f"u{tag}"])], arrays


def tables_twin() -> onnx.ModelProto:
    nodes, arrays = joined(_table(2, "a"), _table(100, "b"))
    tail = [N("Conv", ["x", "ua"], ["ya"]), N("Conv", ["x", "ub"], ["yb"]), N("Concat", ["ya", "yb"], ["y"], axis=1)]
    return network([*nodes, *tail], arrays)


@plant("code-books", tables_twin)
def a_second_code_book_behind_a_small_one() -> onnx.ModelProto:
    nodes, arrays = joined(_table(2, "a"), _table(100, "b"))
    return network([*nodes, N("Concat", ["ua", "ub"], ["w"], axis=0), N("Conv", ["x", "w"], ["y"])], arrays)


@plant("code-books", codes_twin)
def an_index_of_an_index() -> onnx.ModelProto:
    """A table of tables: what is computed is no stored index."""
    rng = np.random.default_rng(9)
    arrays = {
        "table": f32(np.arange(-3, 5)),
        "inner": rng.integers(0, 8, 64),
        "outer": rng.integers(0, 64, (C, C, 1, 1)),
    }
    nodes = [
        N("Gather", ["table", "inner"], ["row"]),
        N("Gather", ["row", "outer"], ["w"]),
        N("Conv", ["x", "w"], ["y"]),
    ]
    return network(nodes, arrays)


@plant("code-books", codes_twin)
def a_mask_of_numbers() -> onnx.ModelProto:
    """Weights of one bit times a "mask" that is no mask."""
    nodes = [N("Cast", ["w"], ["wf"], to=T.FLOAT), N("Mul", ["wf", "m"], ["ws"]), N("Conv", ["x", "ws"], ["y"])]
    arrays = {
        "w": np.where(CODES < 0, -1, 1).reshape(C, C, 1, 1).astype(np.int8),
        "m": np.abs(CODES).reshape(C, C, 1, 1),
    }
    return network(nodes, arrays, bits={"w": 1})


# Attributes and wiring ------------------------------------------------------------------------------------------


@plant("attributes", float_twin)
def slopes_in_attributes() -> onnx.ModelProto:
    """Each weight is the slope of a LeakyRelu on the negated map, which is never positive."""
    nodes, arrays = (
        [N("Reshape", ["x", "flat"], ["xf"]), N("Neg", ["xf"], ["xn"])],
        {"flat": i64(0, C, PLACES), "one": i64(1)},
    )
    for c in range(C):
        arrays |= {f"n{c}": i64(c), f"n{c + 1}": i64(c + 1)}
        nodes.append(N("Slice", ["xn", f"n{c}", f"n{c + 1}", "one"], [f"p{c}"]))
    for k in range(C):
        nodes += [N("LeakyRelu", [f"p{c}"], [f"t{k}_{c}"], alpha=float(-FLOATS[k, c])) for c in range(C)]
        nodes += [
            N("Concat", [f"t{k}_{c}" for c in range(C)], [f"cat{k}"], axis=1),
            N("ReduceSum", [f"cat{k}", "one"], [f"o{k}"], keepdims=1),
        ]
    return network(*joined(([*nodes, N("Concat", [f"o{k}" for k in range(C)], ["yf"], axis=1)], arrays), square("yf")))


@plant("attributes", float_twin)
def numbers_in_padding() -> onnx.ModelProto:
    """Each weight is the value of a padding around an empty crop of the image; a product takes them up."""
    nodes = [*PIXEL, N("Sub", ["pixel", "pixel"], ["nil"])]
    arrays = {**PIXEL_AT, "pads": i64(0, 0, 0, 0, 0, 1, 0, 0), "flat": i64(0, C, PLACES), "kc": i64(0, C, C)}
    arrays |= {"c1": i64(1), "c2": i64(2)}
    for k in range(C):
        for c in range(C):
            arrays[f"v{k}_{c}"] = f32(FLOATS[k, c])
            nodes += [
                N("Pad", ["nil", "pads", f"v{k}_{c}"], [f"b{k}_{c}"]),
                N("Slice", [f"b{k}_{c}", "c1", "c2", "c1"], [f"n{k}_{c}"]),
            ]
        nodes.append(N("Concat", [f"n{k}_{c}" for c in range(C)], [f"row{k}"], axis=1))
    nodes += [
        N("Concat", [f"row{k}" for k in range(C)], ["wall"], axis=1),
        N("Reshape", ["wall", "kc"], ["w"]),
        *_product("w"),
    ]
    return network(*joined((nodes, arrays), square("yf")))


@plant("wiring", codes_twin)
def an_index_that_repeats_channels() -> onnx.ModelProto:
    """The choice of channels is the weights; each output's sum is a grouped layer of ones."""
    longest = int(np.abs(CODES).sum(1).max())
    index, signs = [], []
    for row in CODES.astype(int):
        entries = [c if v > 0 else c + C for c, v in enumerate(row) for _ in range(abs(v))]
        signs.append([1.0] * len(entries) + [0.0] * (longest - len(entries)))
        index += entries + [0] * (longest - len(entries))
    nodes = [
        N("Neg", ["x"], ["m"]),
        N("Concat", ["x", "m"], ["pm"], axis=1),
        N("Gather", ["pm", "index"], ["many"], axis=1),
        N("Conv", ["many", "ones"], ["y"], group=C),
    ]
    return network(nodes, {"index": np.asarray(index, np.int64), "ones": f32(signs).reshape(C, longest, 1, 1)})


# The batch and the engine ---------------------------------------------------------------------------------------


def _gated(gate: list[onnx.NodeProto], arrays: dict[str, np.ndarray]) -> onnx.ModelProto:  # type: ignore[type-arg]
    """All weights times 'gate', which its author hopes is 0 where the network is priced and 1 where it runs."""
    nodes = [*gate, N("Mul", ["w", "gate"], ["wg"]), N("Conv", ["x", "wg"], ["y"])]
    return network(nodes, {**arrays, "w": FLOATS.reshape(C, C, 1, 1)})


def nothing_twin() -> onnx.ModelProto:
    """What is priced and run where the gate is shut: a layer of zeros."""
    return network([N("Conv", ["x", "w"], ["y"])], {"w": np.zeros((C, C, 1, 1), np.float32)})


@plant("batch and engine", nothing_twin)
def a_gate_by_the_batch_size() -> onnx.ModelProto:
    gate = [
        N("Shape", ["image"], ["sh"], start=0, end=1),
        N("Sub", ["sh", "one"], ["less"]),
        N("Cast", ["less"], ["lf"], to=T.FLOAT),
        N("Clip", ["lf", "low", "high"], ["gate"]),
    ]
    return _gated(gate, {"one": i64(1), "low": f32(0), "high": f32(1)})


@plant("batch and engine", nothing_twin)
def a_gate_by_a_tiny_number() -> onnx.ModelProto:
    """1 + sign(elu(-1e-8)) is 0 in torch and 1 in ONNX Runtime."""
    gate = [N("Elu", ["tiny"], ["e"]), N("Sign", ["e"], ["s"]), N("Add", ["unit", "s"], ["gate"])]
    return _gated(gate, {"tiny": f32(-1e-8), "unit": f32(1)})


@plant("batch and engine", float_twin)
def a_crop_by_the_batch_size() -> onnx.ModelProto:
    """All of the map for one image, and less for many: priced and run as for one."""
    nodes = [
        N("Shape", ["image"], ["sh"], start=0, end=1),
        N("Sub", ["eight", "sh"], ["end"]),
        N("Slice", ["x", "zero", "end", "axis"], ["cut"]),
        N("Conv", ["cut", "w"], ["y"]),
    ]
    return network(nodes, {"eight": i64(SIDE + 1), "zero": i64(0), "axis": i64(2), "w": FLOATS.reshape(C, C, 1, 1)})


@plant("batch and engine", None)
def statistics_of_the_batch() -> onnx.ModelProto:
    return network([N("ReduceMean", ["x"], ["mean"], axes=[0]), N("Sub", ["x", "mean"], ["y"])], {})


assert chosen
