"""Planted cheats that do their work in operations which look free: sums, pools, moves, dust."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from tests.attacks.planted import (
    CODES,
    FIRST,
    FLOATS,
    LAST,
    PLACES,
    SIDE,
    SIGNS,
    C,
    N,
    chosen,
    codes_twin,
    copies,
    f32,
    flat,
    float_twin,
    i64,
    joined,
    network,
    plain,
    plant,
    signs_twin,
    slices,
    square,
)

SUMS = [f"o{k}" for k in range(C)]


def _summed(codes: np.ndarray) -> onnx.ModelProto:  # type: ignore[type-arg]
    sums = [N("ReduceSum", [f"cat{k}", "one"], [f"o{k}"], keepdims=1) for k in range(C)]
    nodes, arrays = joined(flat(), chosen(codes), (sums, {}), ([N("Concat", SUMS, ["yf"], axis=1)], {}), square("yf"))
    return network(nodes, arrays)


@plant("sums", codes_twin)
def slices_and_reduce_sum() -> onnx.ModelProto:
    """Weights -3..3 are how often a slice is read; the sums are over axis 1 of a tensor of rank 3."""
    return _summed(CODES)


@plant("sums", signs_twin)
def signs_and_reduce_sum() -> onnx.ModelProto:
    return _summed(SIGNS)


@plant("sums", codes_twin)
def slices_and_average_pool() -> onnx.ModelProto:
    """The sums as an average pool over copies that a reshape put where a spatial axis stands."""
    nodes, arrays = joined(flat(), chosen(CODES))
    longest = int(np.abs(CODES).sum(1).max())
    for node in nodes:
        if node.op_type == "Concat":  # filled up by a value and its negative
            missing = longest - len(node.input)
            node.input.extend(["p0", "m0"] * (missing // 2) + ["zero"] * (missing % 2))
    zero = [N("Sub", ["p0", "p0"], ["zero"])]
    at = next(i for i, node in enumerate(nodes) if node.op_type == "Concat")
    nodes[at:at] = zero
    tail = [
        N("Concat", [f"cat{k}" for k in range(C)], ["all"], axis=1),
        N("Reshape", ["all", "s5"], ["r5"]),
        N("AveragePool", ["r5"], ["s4"], kernel_shape=[longest, 1]),
        N("Mul", ["s4", "many"], ["scaled"]),
    ]
    arrays |= {"s5": i64(0, C, longest, PLACES), "many": f32(longest)}
    return network(*joined((nodes, arrays), (tail, {}), square("scaled")))


@plant("sums", float_twin)
def scalars_on_slices() -> onnx.ModelProto:
    """Each weight is a number that multiplies a slice."""
    nodes, arrays = joined(flat(), slices("xf", "p"))
    for k in range(C):
        for c in range(C):
            arrays[f"w{k}_{c}"] = f32(FLOATS[k, c])
            nodes.append(N("Mul", [f"p{c}", f"w{k}_{c}"], [f"t{k}_{c}"]))
        nodes += [
            N("Concat", [f"t{k}_{c}" for c in range(C)], [f"cat{k}"], axis=1),
            N("ReduceSum", [f"cat{k}", "one"], [f"o{k}"], keepdims=1),
        ]
    return network(*joined((nodes, arrays), ([N("Concat", SUMS, ["yf"], axis=1)], {}), square("yf")))


@plant("sums", float_twin)
def scaled_copies_and_reduce_sum() -> onnx.ModelProto:
    sums = [N("ReduceSum", ["z5", "two"], ["s"], keepdims=0)]
    return network(*joined(copies(), (sums, {"two": i64(2)}), square("s")))


@plant("sums", float_twin)
def scaled_copies_and_reduce_mean() -> onnx.ModelProto:
    sums = [N("ReduceMean", ["z5"], ["s"], axes=[2], keepdims=0), N("Mul", ["s", "many"], ["m"])]
    return network(*joined(copies(), (sums, {"many": f32(C)}), square("m")))


@plant("order of axes", float_twin)
def channels_in_the_place_of_rows() -> onnx.ModelProto:
    """A global pool over what were channels: [n, 16 outputs x 64 places, 16 channels, 1]."""
    nodes = [
        N("Transpose", ["z5"], ["t5"], perm=[0, 1, 3, 2]),
        N("Reshape", ["t5", "s6"], ["t6"]),
        N("GlobalAveragePool", ["t6"], ["g"]),
        N("Mul", ["g", "many"], ["m"]),
    ]
    arrays = {"s6": i64(0, C * PLACES, C, 1), "many": f32(C)}
    return network(*joined(copies(), (nodes, arrays), square("m")))


@plant("order of axes", float_twin)
def channels_in_the_place_of_columns() -> onnx.ModelProto:
    """An average pool of [1, 16] windows along rows of 64 x 16 numbers."""
    nodes = [
        N("Transpose", ["z5"], ["t5"], perm=[0, 1, 3, 2]),
        N("AveragePool", ["t5"], ["g"], kernel_shape=[1, C]),
        N("Mul", ["g", "many"], ["m"]),
    ]
    return network(*joined(copies(), (nodes, {"many": f32(C)}), square("m")))


@plant("order of axes", float_twin)
def channels_spread_by_depth_to_space() -> onnx.ModelProto:
    """Each block of 4 x 4 pixels holds the channels of one place; a pool of stride 4 sums them."""
    nodes = [
        N("Reshape", ["z5", "s4"], ["z4"]),
        N("DepthToSpace", ["z4"], ["d"], blocksize=4, mode="CRD"),
        N("AveragePool", ["d"], ["g"], kernel_shape=[4, 4], strides=[4, 4]),
        N("Mul", ["g", "many"], ["y"]),
    ]
    return network(*joined(copies(), (nodes, {"s4": i64(0, C * C, SIDE, SIDE), "many": f32(C)})))


@plant("normalisation as sums", float_twin)
def log_softmax_of_small_numbers() -> onnx.ModelProto:
    """-log(1 + sum exp(small)) is a sum."""
    small = 1e-3
    nodes = [
        N("Pad", ["z5", "pads"], ["zp"]),
        N("LogSoftmax", ["zp"], ["ls"], axis=2),
        N("Slice", ["ls", "n0", "n1", "two"], ["l0"]),
        N("Add", ["l0", "logn"], ["l1"]),
        N("Mul", ["l1", "scale"], ["l2"]),
    ]
    arrays = {
        "pads": i64(0, 0, 1, 0, 0, 0, 0, 0),
        "n0": i64(0),
        "n1": i64(1),
        "two": i64(2),
        "logn": f32(np.log(C + 1)),
        "scale": f32(-(C + 1) / small),
    }
    return network(*joined(copies(epsilon=small), (nodes, arrays), square("l2")))


@plant("normalisation as sums", float_twin)
def softmax_of_small_numbers() -> onnx.ModelProto:
    """The first of exp(0), exp(small w x), ...: 1 / (17 + the sum), near enough."""
    small = 1e-3
    nodes = [
        N("Pad", ["z5", "pads"], ["zp"]),
        N("Softmax", ["zp"], ["ls"], axis=2),
        N("Slice", ["ls", "n0", "n1", "two"], ["l0"]),
        N("Mul", ["l0", "scale"], ["l1"]),
        N("Add", ["l1", "shift"], ["l2"]),
    ]
    count = C + 1
    arrays = {
        "pads": i64(0, 0, 1, 0, 0, 0, 0, 0),
        "n0": i64(0),
        "n1": i64(1),
        "two": i64(2),
        "scale": f32(-count * count / small),
        "shift": f32(count / small),
    }
    return network(*joined(copies(epsilon=small), (nodes, arrays), square("l2")))


def _copies_through(middle: list[onnx.NodeProto]) -> onnx.ModelProto:
    return network(*joined(copies(), (middle, {"two": i64(2)}), square("s")))


@plant("pooling as work", None)
def largest_of_scaled_channels() -> onnx.ModelProto:
    """A matrix product over (max, times): no network of ordinary layers computes it, so the price is only counted."""
    return _copies_through([N("MaxPool", ["z5"], ["s"], kernel_shape=[C, 1], strides=[C, 1])])


@plant("additions", signs_twin)
def a_layer_of_additions() -> onnx.ModelProto:
    """A layer of 16x16 signs as 15,360 additions of the channels of 16 small layers."""
    nodes: list[onnx.NodeProto] = []
    arrays = {}
    for c in range(C):
        arrays[f"w_{c}"] = FIRST[c : c + 1]
        nodes += [
            N("Conv", ["image", f"w_{c}"], [f"q{c}"], pads=[1] * 4),
            N("Relu", [f"q{c}"], [f"p{c}"]),
            N("Neg", [f"p{c}"], [f"m{c}"]),
        ]
    outputs = []
    for k in range(C):
        last = f"{'p' if SIGNS[k, 0] > 0 else 'm'}0"
        for c in range(1, C):
            nodes.append(N("Add", [last, f"{'p' if SIGNS[k, c] > 0 else 'm'}{c}"], [f"a{k}_{c}"]))
            last = f"a{k}_{c}"
        outputs.append(last)
    return network([*nodes, N("Concat", outputs, ["y"], axis=1)], arrays, first=False)


def _depthwise() -> np.ndarray:  # type: ignore[type-arg]
    return f32(np.random.default_rng(5).standard_normal((C, 1, 3, 3)))


def depthwise_twin() -> onnx.ModelProto:
    return network([N("Conv", ["x", "w"], ["y"], group=C, pads=[1] * 4)], {"w": _depthwise()})


@plant("additions", depthwise_twin)
def shifted_copies_are_a_depthwise_layer() -> onnx.ModelProto:
    nodes = [N("Pad", ["x", "pads"], ["padded"])]
    arrays = {"pads": i64(0, 0, 1, 1, 0, 0, 1, 1), "rows": i64(2, 3)}
    for i in range(9):
        arrays |= {f"b{i}": i64(i // 3, i % 3), f"e{i}": i64(i // 3 + SIDE, i % 3 + SIDE)}
        arrays[f"c{i}"] = _depthwise()[:, 0, i // 3, i % 3].reshape(1, C, 1, 1)
        nodes += [N("Slice", ["padded", f"b{i}", f"e{i}", "rows"], [f"s{i}"]), N("Mul", [f"s{i}", f"c{i}"], [f"m{i}"])]
        if i:
            nodes.append(N("Add", ["m0" if i == 1 else f"a{i - 1}", f"m{i}"], ["y" if i == 8 else f"a{i}"]))
    return network(nodes, arrays)


def _taps() -> np.ndarray:  # type: ignore[type-arg]
    return f32(np.random.default_rng(6).standard_normal((C, 1, 1, 3)))


def taps_twin() -> onnx.ModelProto:
    return network([N("Conv", ["x", "w"], ["y"], group=C, pads=[0, 1, 0, 1])], {"w": _taps()})


def _as_taps(product: Callable[[str, str, str], list[onnx.NodeProto]], shape: tuple[int, ...]) -> onnx.ModelProto:
    """A depthwise kernel of three as products of shifted maps. product: (map, numbers, output) -> nodes."""
    nodes = [N("Pad", ["x", "pads"], ["padded"])]
    arrays = {"pads": i64(0, 0, 0, 1, 0, 0, 0, 1), "columns": i64(3)}
    for i in range(3):
        arrays |= {f"b{i}": i64(i), f"e{i}": i64(i + SIDE), f"c{i}": _taps()[:, 0, 0, i].reshape(shape)}
        nodes += [N("Slice", ["padded", f"b{i}", f"e{i}", "columns"], [f"s{i}"]), *product(f"s{i}", f"c{i}", f"m{i}")]
    return network([*nodes, N("Add", ["m0", "m1"], ["a"]), N("Add", ["a", "m2"], ["y"])], arrays)


@plant("additions", taps_twin)
def three_products_live_on_what_layers_grant() -> onnx.ModelProto:
    """Two of the products and both sums would be free."""
    return _as_taps(lambda x, w, y: [N("Mul", [x, w], [y])], (1, C, 1, 1))


@plant("additions", taps_twin)
def slopes_of_negated_maps_as_products() -> onnx.ModelProto:
    """PRelu(-x, -w) is w x where x is above zero: a product that is called an activation."""
    return _as_taps(
        lambda x, w, y: [
            N("Neg", [x], [f"{x}n"]),
            N("Neg", [w], [f"{w}n"]),
            N("PRelu", [f"{x}n", f"{w}n"], [f"{y}p"]),
            N("Identity", [f"{y}p"], [y]),
        ],
        (C, 1, 1),
    )


@plant("additions", taps_twin)
def gates_that_are_numbers_as_products() -> onnx.ModelProto:
    """Each number of the kernel plus nothing times the image: gates cost half of what multiply-accumulates cost."""
    model = _as_taps(lambda x, w, y: [N("Add", [w, "nothing"], [f"{w}g"]), N("Mul", [x, f"{w}g"], [y])], (1, C, 1, 1))
    nothing = [
        N("GlobalAveragePool", ["x"], ["mean"]),
        N("Sub", ["mean", "mean"], ["nothing"]),
    ]
    at = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Pad")
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], *nothing, *nodes[at:]])
    return model


def _mixing() -> np.ndarray:  # type: ignore[type-arg]
    return f32(np.random.default_rng(7).standard_normal((PLACES, PLACES)) * 0.1)


def mixing_twin() -> onnx.ModelProto:
    """A layer over the places of each channel."""
    nodes, arrays = joined(flat(), ([N("MatMul", ["xf", "w"], ["yf"])], {"w": _mixing().T.copy()}), square("yf"))
    return network(nodes, arrays)


@plant("pooling as work", mixing_twin)
def tables_averaged_over_places() -> onnx.ModelProto:
    """A map times a table, [n, channels, places made, places read]: the average over places would be free."""
    nodes = [
        N("Reshape", ["x", "rows"], ["x4"]),
        N("Mul", ["x4", "w"], ["z"]),
        N("ReduceMean", ["z"], ["m"], axes=[3], keepdims=0),
        N("Mul", ["m", "many"], ["mm"]),
    ]
    arrays = {"rows": i64(0, C, 1, PLACES), "w": _mixing()[None, None], "many": f32(PLACES)}
    return network(*joined((nodes, arrays), square("mm")))


@plant("additions", float_twin)
def rolled_channels_are_a_layer() -> onnx.ModelProto:
    """y = sum over r of d_r * (x with its channels rolled by r): 16 scalings and 15 additions of whole maps."""
    nodes, arrays = [N("Concat", ["x", "x"], ["xx"], axis=1)], {"axis": i64(1)}
    last = ""
    for r in range(C):
        arrays |= {f"n{r}": i64(r), f"n{r + C}": i64(r + C)}
        diagonal = np.array([FLOATS[k, (k + r) % C] for k in range(C)])
        arrays[f"d{r}"] = f32(diagonal).reshape(1, C, 1, 1)
        nodes += [N("Slice", ["xx", f"n{r}", f"n{r + C}", "axis"], [f"r{r}"]), N("Mul", [f"r{r}", f"d{r}"], [f"m{r}"])]
        if r:
            nodes.append(N("Add", [last, f"m{r}"], ["y" if r == C - 1 else f"a{r}"]))
        last = "m0" if not r else f"a{r}"
    return network(nodes, arrays)


# Dust: tiny priced layers that are there to grant allowances -----------------------------------------------------


def _dusted(dust: list[onnx.NodeProto], arrays: dict[str, np.ndarray]) -> onnx.ModelProto:  # type: ignore[type-arg]
    """The layer of additions, with dust layers on the same map whose outputs are added in as zeros."""
    model = a_layer_of_additions()
    return model if not dust else _with(model, dust, arrays)


def _with(model: onnx.ModelProto, dust: list[onnx.NodeProto], arrays: dict[str, np.ndarray]) -> onnx.ModelProto:  # type: ignore[type-arg]
    from onnx import numpy_helper

    join = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Concat")
    nodes = list(model.graph.node)
    nodes[join].output[0] = "sums"
    nodes[join + 1 : join + 1] = dust
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items())
    return model


def _dust_twin() -> onnx.ModelProto:
    return signs_twin()


@plant("dust", _dust_twin)
def dust_of_depthwise_layers() -> onnx.ModelProto:
    """Four 1x1 depthwise layers with a weight of one a channel: each makes and reads the whole map."""
    nodes = [
        N("Conv", ["sums" if i == 0 else f"dust{i - 1}", "ones"], ["y" if i == 3 else f"dust{i}"], group=C)
        for i in range(4)
    ]
    return _with(a_layer_of_additions(), nodes, {"ones": np.ones((C, 1, 1, 1), np.float32)})


@plant("dust", _dust_twin)
def dust_of_matrix_products() -> onnx.ModelProto:
    """A product with a 1x1 identity for each place of the map."""
    nodes = [
        N("Reshape", ["sums", "to1"], ["s1"]),
        N("MatMul", ["s1", "ones"], ["s2"]),
        N("Reshape", ["s2", "to4"], ["y"]),
    ]
    arrays = {"to1": i64(0, C * PLACES, 1), "to4": i64(0, C, SIDE, SIDE), "ones": np.ones((1, 1), np.float32)}
    return _with(a_layer_of_additions(), nodes, arrays)


@plant("dust", _dust_twin)
def dust_with_great_strides() -> onnx.ModelProto:
    """Layers that read one place in 64, and would grant for all that lies between if nobody looked."""
    nodes = [
        N("Conv", ["sums", "ones"], ["d0"], group=C, strides=[8, 8]),
        N("Mul", ["d0", "nil"], ["d1"]),
        N("Add", ["sums", "d1"], ["y"]),
    ]
    return _with(a_layer_of_additions(), nodes, {"ones": np.ones((C, 1, 1, 1), np.float32), "nil": f32(0)})


# Work that depends on values, and types that hold several numbers ------------------------------------------------


@plant("values", None)
def only_the_bright_pixels() -> onnx.ModelProto:
    """NonZero chooses what is looked at: the work depends on the image."""
    nodes = [
        N("NonZero", ["x"], ["where"]),
        N("Cast", ["where"], ["wf"], to=TensorProto.FLOAT),
        N("ReduceSum", ["wf"], ["total"], keepdims=0),
        N("Add", ["x", "total"], ["y"]),
    ]
    return network(nodes, {})


@plant("values", None)
def a_crop_of_computed_size() -> onnx.ModelProto:
    nodes = [
        N("ReduceMax", ["x"], ["top"], keepdims=0),
        N("Cast", ["top"], ["ti"], to=TensorProto.INT64),
        N("Reshape", ["ti", "vector"], ["ends"]),
        N("Slice", ["x", "zero", "ends", "axis"], ["cut"]),
        N("GlobalAveragePool", ["cut"], ["g"]),
        N("Add", ["x", "g"], ["y"]),
    ]
    return network(nodes, {"vector": i64(1), "zero": i64(0), "axis": i64(2)})


@plant("values", plain)
def a_table_of_activations() -> onnx.ModelProto:
    """A function of 1,000 numbers, looked up by what the image says: each number and each look-up is charged."""
    nodes = [
        N("Clip", ["x", "low", "high"], ["c"]),
        N("Mul", ["c", "many"], ["m"]),
        N("Cast", ["m"], ["i"], to=TensorProto.INT64),
        N("Gather", ["table", "i"], ["y"]),
    ]
    table = f32(np.random.default_rng(3).standard_normal(1_000))
    return network(nodes, {"low": f32(0), "high": f32(0.999), "many": f32(1_000), "table": table})


@plant("wide values", signs_twin)
def four_channels_in_one_integer() -> onnx.ModelProto:
    """Sums of int64, each of which carries several channels: priced at 64 bits an element."""
    nodes = [N("Mul", ["x", "grid"], ["g"]), N("Cast", ["g"], ["xi"], to=TensorProto.INT64), N("Neg", ["xi"], ["ni"])]
    arrays = {"grid": f32(1024.0), "back": f32(1 / 1024)}
    more, tensors = joined(slices("xi", "p"), slices("ni", "m"))
    nodes += more
    for k, row in enumerate(SIGNS):
        names = [f"{'p' if v > 0 else 'm'}{c}" for c, v in enumerate(row)]
        nodes += [N("Concat", names, [f"cat{k}"], axis=1), N("ReduceSum", [f"cat{k}", "one"], [f"o{k}"], keepdims=1)]
    nodes += [
        N("Concat", SUMS, ["yi"], axis=1),
        N("Cast", ["yi"], ["yf"], to=TensorProto.FLOAT),
        N("Mul", ["yf", "back"], ["y"]),
    ]
    return network(nodes, {**arrays, **tensors})


@plant("wide values", float_twin)
def a_layer_in_double_precision() -> onnx.ModelProto:
    nodes = [
        N("Cast", ["x"], ["xd"], to=TensorProto.DOUBLE),
        N("Conv", ["xd", "w"], ["yd"]),
        N("Cast", ["yd"], ["y"], to=TensorProto.FLOAT),
    ]
    return network(nodes, {"w": FLOATS.reshape(C, C, 1, 1).astype(np.float64)})


@plant("gates", float_twin)
def gates_by_copies_of_one_pixel() -> onnx.ModelProto:
    """Weights times a value that is one for every image: products of two activations, summed over channels."""
    nodes, arrays = copies()
    nodes = [
        N("Slice", ["image", "from", "to", "all"], ["pixel"]),
        N("Clip", ["pixel", "unit", "unit"], ["gate"]),
        *nodes,
        N("Mul", ["z5", "gate"], ["zg"]),
        N("ReduceSum", ["zg", "two"], ["s"], keepdims=0),
    ]
    arrays |= {"from": i64(0, 0, 0), "to": i64(1, 1, 1), "all": i64(1, 2, 3), "unit": f32(1), "two": i64(2)}
    return network(*joined((nodes, arrays), square("s")))


@plant("unknown", None)
def an_operator_that_nobody_priced() -> onnx.ModelProto:
    return network([N("CumSum", ["x", "one"], ["y"])], {"one": np.asarray(1, np.int64)})


assert LAST.shape == (10, C)
