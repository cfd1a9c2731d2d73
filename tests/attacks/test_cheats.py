"""One planted cheat after the other, each caught, with what the organiser reads. ONNX graphs and `model.pt` files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from contest.errors import RefusedError
from tests.attacks import makers, onnx_makers
from tests.attacks.onnx_makers import weights
from tests.attacks.scored import charged, images, layer, problem, score

node = helper.make_node


def graph(nodes: Sequence[onnx.NodeProto], channels: int = 4, **arrays: Any) -> onnx.ModelProto:
    """image -> Conv 'first' -> `nodes` (from 'x' to 'y', [n,channels,8,8]) -> pooling and classifier."""
    before = node("Conv", ["image", "w"], ["x"], name="first", pads=[1] * 4)
    after = [
        node("Relu", ["y"], ["r"], name="relu"),
        node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "v"], ["logits"], name="fc", transB=1),
    ]
    stored = {"w": weights(channels, 3, 3, 3), "v": weights(10, channels), **arrays}
    return onnx_makers.model([before, *nodes, *after], stored)


def f32(value: Any) -> NDArray[np.float32]:
    return np.asarray(value, np.float32)


def qonnx(model: onnx.ModelProto) -> onnx.ModelProto:
    model.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    return model


def quant(x: str, y: str, scale: str = "s", bits: str = "b", signed: int = 1) -> onnx.NodeProto:
    """A QONNX quantiser."""
    return node(
        "Quant",
        [x, scale, "z", bits],
        [y],
        name=f"quant_{y}",
        domain="qonnx.custom_op.general",
        signed=signed,
        narrow=0,
        rounding_mode="ROUND",
    )


QUANTISER = {"s": f32(0.1), "z": f32(0), "b": f32(3)}


def unknown(model: onnx.ModelProto, operator: str, directory: Path, **options: Any) -> None:
    """An operator that blocks ranking by name: in the report, or, where it cannot even be run, by refusal."""
    try:
        report = score(model, directory, **options)
    except RefusedError as error:
        assert any(name in str(error) for name in operator.split("|"))
    else:
        found = problem(report)
        assert "does not know" in found and any(name in found for name in operator.split("|"))


def claiming(**claims: float) -> dict[str, Any]:
    def change(manifest: dict[str, Any]) -> None:
        manifest["claims"] = claims

    return makers.with_manifest(makers.quantised(), change)


# Claims


def test_more_sparsity_than_the_file_has(tmp_path: Path) -> None:
    honest, cheat = score(makers.quantised(), tmp_path), score(claiming(p_u=0.9, q_w=1.0), tmp_path)
    assert cheat.score == honest.score
    assert cheat.claimed["p_u"] == 0.9 and cheat.measured["nonzeros"] == honest.measured["nonzeros"]


def test_fewer_bits_than_the_codes_need(tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["layers"]["fc"]["weight_bits"] = 2

    report = score(makers.with_manifest(makers.quantised(), change), tmp_path)
    assert "'fc.codes' declares 2 bits, but its codes lie between -4 and 3" in problem(report)


def test_fewer_bits_declared_in_onnx(tmp_path: Path) -> None:
    model = onnx_makers.quantised()
    model.metadata_props.add(key="contest.bits.w", value="2")
    assert "'w' declares 2 bits" in problem(score(model, tmp_path))


def test_codes_beyond_the_window_of_their_bits(tmp_path: Path) -> None:
    """Few distinct codes, far apart: a code-book in disguise."""
    content = makers.quantised()
    codes = content["state"]["fc.codes"]
    codes[:] = torch.where(codes > 0, 100, torch.where(codes < -2, -77, 1)).to(torch.int8)
    assert "declares 3 bits" in problem(score(content, tmp_path))


def test_zeros_that_grew_back(tmp_path: Path) -> None:
    """Masked at first, and the mask lost in fine-tuning: the claim stays, the zeros do not."""
    masked = claiming(p_u=0.5)
    for name, tensor in masked["state"].items():
        if name.endswith("codes"):
            tensor.view(-1)[::2] = 0
    regrown = {
        **masked,
        "state": {
            n: torch.where(t == 0, torch.ones_like(t), t) if n.endswith("codes") else t
            for n, t in masked["state"].items()
        },
    }
    kept, lost = score(masked, tmp_path), score(regrown, tmp_path)
    assert kept.measured["nonzeros"] <= kept.measured["weights"] / 2 + 10
    assert lost.measured["nonzeros"] == lost.measured["weights"] and lost.score.params > kept.score.params


@pytest.mark.parametrize(("p_s", "p_u"), [(0.6, 0.6), (1.0, 0.01), (-0.5, 0.2)])
def test_fractions_that_sum_past_one(p_s: float, p_u: float, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cannot add up to more than 1"):
        score(claiming(p_s=p_s, p_u=p_u), tmp_path)


def test_channels_that_were_removed_already(tmp_path: Path) -> None:
    """p_s is measured against the parent, and nothing is credited twice."""
    honest = score(makers.quantised(), tmp_path)
    weights_now, macs_now = honest.measured["weights"], honest.measured["macs"]

    def change(manifest: dict[str, Any]) -> None:
        manifest["claims"] = {"p_s": 0.5}
        manifest["parent"] = {"weights": float(weights_now or 0), "macs": float(macs_now or 0)}

    cheat = score(makers.with_manifest(makers.quantised(), change), tmp_path)
    assert cheat.measured["p_s_weights"] == 0 and cheat.claimed["p_s"] == 0.5
    assert cheat.score == honest.score


# Bits


def test_code_book_behind_few_codes(tmp_path: Path) -> None:
    """Two-bit indices into a table of floats: the table is charged, the operations are at the table's bits."""
    index = np.random.default_rng(0).integers(0, 4, (4, 4, 1, 1))
    nodes = [node("Gather", ["table", "index"], ["k"], name="look"), node("Conv", ["x", "k"], ["y"], name="second")]
    report = score(graph(nodes, table=f32([-0.71, -0.11, 0.13, 0.94]), index=index.astype(np.int64)), tmp_path)
    row = layer(report, "second")
    assert row["operation_bits"] == 32 and row["weight_bits"] == 2
    assert sum(n["count"] for n in report.numbers if n["layer"] == "second") >= 4


def test_scale_for_each_weight(tmp_path: Path) -> None:
    """One-bit codes and a float scale of their own each: floats in disguise."""
    arrays = {**QUANTISER, "b": f32(2), "k": weights(4, 4, 1, 1), "s": np.abs(weights(4, 4, 1, 1)) + f32(0.01)}
    nodes = [quant("k", "kq"), node("Conv", ["x", "kq"], ["y"], name="second")]
    report = score(qonnx(graph(nodes, **arrays)), tmp_path)
    assert layer(report, "second")["operation_bits"] == 32
    assert charged(report) + 0 >= 16 * 32 or layer(report, "second")["weight_bits"] == 32


WIDENED = {
    "add": [quant("x", "q"), node("Add", ["q", "q"], ["a"], name="add")],
    "average pool": [
        quant("x", "q"),
        node("AveragePool", ["q"], ["a"], name="pool2", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
    ],
    "batch norm": [quant("x", "q"), node("BatchNormalization", ["q", "g", "g", "g", "g"], ["a"], name="bn")],
    "scale of a channel": [quant("x", "q"), node("Mul", ["q", "c"], ["a"], name="scale")],
    "sigmoid": [quant("x", "q"), node("Sigmoid", ["q"], ["a"], name="sigmoid")],
    "resize": [
        quant("x", "q"),
        node("Resize", ["q", "", "up"], ["big"], name="resize", mode="linear"),
        node("AveragePool", ["big"], ["a"], name="shrink", kernel_shape=[2, 2], strides=[2, 2]),
    ],
    "concatenation on two scales": [
        quant("x", "q"),
        quant("x", "q2", scale="s2"),
        node("Concat", ["q", "q2"], ["both"], name="concat", axis=1),
        node("Slice", ["both", "start", "end", "axis"], ["a"], name="slice"),
    ],
}


@pytest.mark.parametrize("how", WIDENED)
def test_widened_activations(how: str, tmp_path: Path) -> None:
    arrays = {**QUANTISER, "k": weights(4, 4, 1, 1), "g": f32([1.1, 0.9, 1.3, 0.7])}
    if how == "scale of a channel":
        arrays["c"] = f32([1.1, 0.9, 1.3, 0.7]).reshape(1, 4, 1, 1)
    if how == "resize":
        arrays["up"] = f32([1, 1, 2, 2])
    if how == "concatenation on two scales":
        arrays |= {"s2": f32(0.17), "start": np.asarray([2]), "end": np.asarray([6]), "axis": np.asarray([1])}
    model = qonnx(graph([*WIDENED[how], node("Conv", ["a", "k"], ["y"], name="second")], **arrays))
    if how != "batch norm":
        for index, tensor in enumerate(model.graph.initializer):
            if tensor.name == "g":
                del model.graph.initializer[index]
                break
    assert layer(score(model, tmp_path), "second")["activation_bits"] == 32


def test_quantised_activations_are_credited(tmp_path: Path) -> None:
    """The control: without the widening the same layer is credited with 3 bits."""
    nodes = [quant("x", "q"), node("Conv", ["q", "k"], ["y"], name="second")]
    report = score(qonnx(graph(nodes, **QUANTISER, k=weights(4, 4, 1, 1))), tmp_path)
    assert layer(report, "second")["activation_bits"] == 3


def test_step_computed_from_the_image(tmp_path: Path) -> None:
    """A quantiser whose step follows the image has more values than its bits."""
    nodes = [
        node("ReduceMax", ["x"], ["m"], name="max", axes=[1, 2, 3], keepdims=1),
        quant("x", "q", scale="m"),
        node("Conv", ["q", "k"], ["y"], name="second"),
    ]
    arrays = {k: v for k, v in QUANTISER.items() if k != "s"}
    unknown(qonnx(graph(nodes, **arrays, k=weights(4, 4, 1, 1))), "quantiser|ReduceMax", tmp_path)


# Hidden tables and hidden work


def test_tensor_that_nothing_uses(tmp_path: Path) -> None:
    plain = graph([node("Identity", ["x"], ["y"])])
    report = score(graph([node("Identity", ["x"], ["y"])], table=weights(1000)), tmp_path)
    assert report.score == score(plain, tmp_path).score
    assert "nothing uses 'table': left out, and not charged" in report.notes
    content = makers.quantised()
    content["state"]["table"] = torch.ones(1000)
    with pytest.raises(RefusedError, match="'table' is used by nothing"):
        score(content, tmp_path)


TABLES = {
    "added": ([node("Add", ["x", "table"], ["y"], name="add")], (1, 4, 8, 8)),
    "multiplied": ([node("Mul", ["x", "table"], ["y"], name="mul")], (1, 4, 8, 8)),
    "in a constant node": (
        [
            node("Constant", [], ["t"], value=onnx.numpy_helper.from_array(weights(1, 4, 8, 8))),
            node("Add", ["x", "t"], ["y"], name="add"),
        ],
        (),
    ),
    "slopes": ([node("PRelu", ["x", "table"], ["y"], name="prelu")], (4, 8, 8)),
    "concatenated": (
        [
            node("Slice", ["x", "i0", "i2", "i1"], ["half"], name="slice"),
            node("Concat", ["half", "table"], ["y"], name="concat", axis=1),
        ],
        (1, 2, 8, 8),
    ),
}


@pytest.mark.parametrize("how", TABLES)
def test_tables_are_charged(how: str, tmp_path: Path) -> None:
    nodes, shape = TABLES[how]
    arrays: dict[str, Any] = {"table": weights(*shape)} if shape else {}
    if how == "concatenated":
        arrays |= {"i0": np.asarray([0]), "i2": np.asarray([2]), "i1": np.asarray([1])}
        nodes = [*nodes]
    model = graph(nodes, **arrays)
    if how == "concatenated":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    report, plain = score(model, tmp_path), score(graph([node("Identity", ["x"], ["y"])]), tmp_path)
    expected = 32 * int(np.prod(shape or (1, 4, 8, 8)))
    assert charged(report) - charged(plain) >= expected or report.unknown_operations


def test_look_up_by_a_computed_index(tmp_path: Path) -> None:
    nodes = [
        node("ArgMax", ["x"], ["index"], name="argmax", axis=1, keepdims=1),
        node("Gather", ["table", "index"], ["t"], name="look"),
        node("Add", ["x", "t"], ["y"], name="add"),
    ]
    report, plain = (
        score(graph(nodes, table=weights(4)), tmp_path),
        score(graph([node("Identity", ["x"], ["y"])]), tmp_path),
    )
    read, looked_up = 4 * 64, 64
    assert 2 * macs_of(report) >= read + looked_up, "the place of the largest is a reduction, a look-up an operation"
    assert charged(report) - charged(plain) >= 4 * 32


def macs_of(report: Any) -> int:
    """Priced work beyond the first layer and the classifier, in multiply-accumulates of two operations."""
    rows = [row for row in report.layers if row["name"] not in ("first", "fc")]
    return sum(row["macs"] + row["products"] + row["steps"] / 2 for row in rows)


# A 1x1 convolution of 4 channels to 1 that is no convolution: 4 * 8 * 8 multiply-accumulates.
WORK = 4 * 64
PER_CHANNEL = f32([0.3, -0.7, 0.2, 0.9]).reshape(1, 4, 1, 1)
TO_SPACE = [node("Transpose", ["m"], ["t"], name="turn", perm=[0, 2, 1, 3])]
DISGUISED: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "Mul and ReduceSum": (
        [
            node("Mul", ["x", "c"], ["m"], name="mul"),
            node("ReduceSum", ["m", "axes"], ["s1"], name="sum", keepdims=1),
            node("Expand", ["s1", "shape"], ["y"], name="expand"),
        ],
        {"c": PER_CHANNEL, "axes": np.asarray([1]), "shape": np.asarray([1, 4, 1, 1])},
    ),
    "Mul and ReduceMean": (
        [
            node("Mul", ["x", "c"], ["m"], name="mul"),
            node("ReduceMean", ["m"], ["s1"], name="mean", axes=[1], keepdims=1),
            node("Expand", ["s1", "shape"], ["y"], name="expand"),
        ],
        {"c": PER_CHANNEL, "shape": np.asarray([1, 4, 1, 1])},
    ),
    "Mul, Transpose and AveragePool": (
        [
            node("Mul", ["x", "c"], ["m"], name="mul"),
            *TO_SPACE,
            node("AveragePool", ["t"], ["s1"], name="average", kernel_shape=[4, 1]),
            node("Transpose", ["s1"], ["s2"], name="back", perm=[0, 2, 1, 3]),
            node("Expand", ["s2", "shape"], ["y"], name="expand"),
        ],
        {"c": PER_CHANNEL, "shape": np.asarray([1, 4, 1, 1])},
    ),
    "batch norm, Transpose and AveragePool": (
        [
            node("BatchNormalization", ["x", "c", "o", "o", "one"], ["m"], name="bn"),
            *TO_SPACE,
            node("AveragePool", ["t"], ["s1"], name="average", kernel_shape=[4, 1]),
            node("Transpose", ["s1"], ["s2"], name="back", perm=[0, 2, 1, 3]),
            node("Expand", ["s2", "shape"], ["y"], name="expand"),
        ],
        {"c": PER_CHANNEL.reshape(4), "o": f32(np.zeros(4)), "one": f32(np.ones(4)), "shape": np.asarray([1, 4, 1, 1])},
    ),
    "slopes, Transpose and AveragePool": (
        [
            node("Abs", ["x"], ["positive"], name="abs"),
            node("Neg", ["positive"], ["negative"], name="neg"),
            node("PRelu", ["negative", "c"], ["m"], name="prelu"),
            *TO_SPACE,
            node("AveragePool", ["t"], ["s1"], name="average", kernel_shape=[4, 1]),
            node("Transpose", ["s1"], ["s2"], name="back", perm=[0, 2, 1, 3]),
            node("Expand", ["s2", "shape"], ["y"], name="expand"),
        ],
        {"c": PER_CHANNEL.reshape(4, 1, 1), "shape": np.asarray([1, 4, 1, 1])},
    ),
    "shifted copies, scaled and added (a depthwise convolution)": (
        [node("Pad", ["x", "pads"], ["padded"], name="pad")]
        + [
            step
            for i in range(9)
            for step in (
                node("Slice", ["padded", f"b{i}", f"e{i}", "hw"], [f"s{i}"], name=f"shift{i}"),
                node("Mul", [f"s{i}", f"c{i}"], [f"m{i}"], name=f"mul{i}"),
            )
        ]
        + [
            node("Add", ["m0" if i == 1 else f"a{i - 1}", f"m{i}"], ["y" if i == 8 else f"a{i}"], name=f"add{i}")
            for i in range(1, 9)
        ],
        {
            "pads": np.asarray([0, 0, 1, 1, 0, 0, 1, 1]),
            "hw": np.asarray([2, 3]),
            **{f"b{i}": np.asarray([i // 3, i % 3]) for i in range(9)},
            **{f"e{i}": np.asarray([i // 3 + 8, i % 3 + 8]) for i in range(9)},
            **{f"c{i}": PER_CHANNEL + f32(0.01 * i) for i in range(9)},
        },
    ),
    "products and GlobalAveragePool": (
        [
            node("Mul", ["x", "x"], ["m"], name="mul"),
            node("GlobalAveragePool", ["m"], ["g"], name="pool2"),
            node("Add", ["x", "g"], ["y"], name="add"),
        ],
        {},
    ),
}


@pytest.mark.parametrize("how", DISGUISED)
def test_work_in_disguise_is_priced(how: str, tmp_path: Path) -> None:
    nodes, arrays = DISGUISED[how]
    report = score(graph(nodes, **arrays), tmp_path)
    # The products are multiplications by numbers of a channel, one for each element that the first layer makes; its
    # grant covers them, as it would cover a batch norm's. The sums are left.
    assert macs_of(report) >= WORK / 2


def test_factors_along_several_dimensions(tmp_path: Path) -> None:
    """A factor for each channel, row and column is a table of 4 + 8 + 8 numbers, not one multiplier a channel."""
    nodes = [
        node("Mul", ["x", "c"], ["m1"], name="channels"),
        node("Mul", ["m1", "h"], ["m2"], name="rows"),
        node("Mul", ["m2", "v8"], ["y"], name="columns"),
    ]
    arrays = {"c": PER_CHANNEL, "h": weights(1, 1, 8, 1), "v8": weights(1, 1, 1, 8)}
    report, plain = score(graph(nodes, **arrays), tmp_path), score(graph([node("Identity", ["x"], ["y"])]), tmp_path)
    assert charged(report) - charged(plain) >= 20 * 32


UNKNOWN = {
    "Einsum": [node("Einsum", ["x", "k"], ["y"], name="einsum", equation="nchw,kc->nkhw")],
    "CumSum": [node("CumSum", ["x", "i1"], ["y"], name="cumsum")],
    "TopK": [node("TopK", ["x", "four"], ["y", ""], name="topk", axis=1)],
    "bits in integers": [
        node("Cast", ["x"], ["d"], name="cast", to=TensorProto.UINT32),
        node("BitShift", ["d", "one"], ["e"], name="shift", direction="LEFT"),
        node("Cast", ["e"], ["y"], name="back", to=TensorProto.FLOAT),
    ],
    "integer convolution": [
        node("Cast", ["x"], ["d"], name="cast", to=TensorProto.UINT8),
        node("ConvInteger", ["d", "k8"], ["e"], name="convinteger"),
        node("Cast", ["e"], ["y"], name="back", to=TensorProto.FLOAT),
    ],
}
OPERATOR = {"bits in integers": "Cast|BitShift", "integer convolution": "ConvInteger"}
UNKNOWN_ARRAYS: dict[str, dict[str, Any]] = {
    "Einsum": {"k": weights(4, 4)},
    "CumSum": {"i1": np.asarray(1)},
    "TopK": {"four": np.asarray([4])},
    "bits in integers": {"one": np.asarray(1, np.uint32)},
    "integer convolution": {"k8": np.ones((4, 4, 1, 1), np.uint8)},
}


@pytest.mark.parametrize("how", UNKNOWN)
def test_operations_that_the_counter_does_not_know(how: str, tmp_path: Path) -> None:
    model = graph(UNKNOWN[how], **UNKNOWN_ARRAYS.get(how, {}))
    unknown(model, OPERATOR.get(how, how), tmp_path)


def test_a_normalisation_by_length_is_priced_by_its_steps(tmp_path: Path) -> None:
    report = score(graph([node("LpNormalization", ["x"], ["y"], name="norm", axis=1)]), tmp_path)
    assert not report.unknown_operations
    assert 2 * macs_of(report) >= 2 * 4 * 64, "the sum over channels reads each square, and each is divided"


def test_custom_operator(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"com\.evil"):
        score(graph([node("Matrix", ["x"], ["y"], name="evil", domain="com.evil")]), tmp_path)


def test_integer_matrix_product(tmp_path: Path) -> None:
    """Work in int64, where one number carries several: never cheaper than the type that it is done in."""
    nodes = [
        node("Cast", ["x"], ["i"], name="cast", to=TensorProto.INT64),
        node("MatMul", ["i", "k"], ["j"], name="matmul"),
        node("Cast", ["j"], ["y"], name="back", to=TensorProto.FLOAT),
    ]
    report = score(graph(nodes, k=np.arange(64).reshape(8, 8)), tmp_path)
    assert report.unknown_operations or layer(report, "matmul")["operation_bits"] >= 32


def test_double_precision_convolution_costs_double(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["x"], ["d"], name="cast", to=TensorProto.DOUBLE),
        node("Conv", ["d", "k"], ["e"], name="second"),
        node("Cast", ["e"], ["y"], name="back", to=TensorProto.FLOAT),
    ]
    report = score(graph(nodes, k=weights(4, 4, 1, 1).astype(np.float64)), tmp_path)
    assert report.unknown_operations or layer(report, "second")["operation_bits"] == 64


# Behaviour


def pixels(nodes: Sequence[onnx.NodeProto], **arrays: Any) -> onnx.ModelProto:
    """image - 0.5 -> `nodes` (from 'x' to 'y') -> linear layer on the pixels: predictions that really differ."""
    before = node("Sub", ["image", "half"], ["x"], name="centre")
    after = [node("Flatten", ["y"], ["f"], name="flatten"), node("Gemm", ["f", "v"], ["logits"], name="fc", transB=1)]
    return onnx_makers.model([before, *nodes, *after], {"half": f32(0.5), "v": weights(10, 192), **arrays})


def test_batch_coupling(tmp_path: Path) -> None:
    """Statistics over the test batch."""
    nodes = [
        node("ReduceMean", ["x"], ["mean"], name="mean", axes=[0], keepdims=1),
        node("Mul", ["mean", "fifty"], ["much"], name="much"),
        node("Sub", ["x", "much"], ["y"], name="difference"),
    ]
    report = score(pixels(nodes, fifty=f32(50)), tmp_path, images=images(600))
    assert "'mean' (ReduceMean) works over the images of a batch" in problem(report)


def test_order_dependence(tmp_path: Path) -> None:
    """Each image is judged with the help of the first of its batch."""
    nodes = [
        node("Slice", ["x", "i0", "i1", "i0"], ["first_image"], name="slice"),
        node("Sub", ["x", "first_image"], ["y"], name="difference"),
    ]
    report = score(pixels(nodes, i0=np.asarray([0]), i1=np.asarray([1])), tmp_path, images=images(600))
    # Alone an image is the first of its batch, so nothing is left of it: that is the network which is judged.
    assert report.accuracy is not None
    assert report.accuracy.loss == pytest.approx(math.log(10), abs=5e-3)
    assert any("predicts" in note and "otherwise than the graph that is priced" in note for note in report.notes)


@pytest.mark.parametrize("operator", ["RandomNormalLike", "RandomUniformLike"])
def test_random_output(operator: str, tmp_path: Path) -> None:
    nodes = [node(operator, ["x"], ["noise"], name="noise"), node("Add", ["x", "noise"], ["y"], name="add")]
    unknown(graph(nodes), operator, tmp_path, images=images())


def test_ensemble_outside_of_the_graph(tmp_path: Path) -> None:
    """Several answers for each image, to be averaged by somebody: only the graph runs."""
    model = graph([node("Identity", ["x"], ["y"], name="same")])
    model.graph.node[-1].output[0] = "one"
    model.graph.node.append(node("Concat", ["one", "one"], ["logits"], name="views", axis=0))
    with pytest.raises(RefusedError, match=r"for one image|images, not"):
        score(model, tmp_path, images=images())


def test_two_outputs(tmp_path: Path) -> None:
    model = graph([node("Identity", ["x"], ["y"], name="same")])
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, ["n", 4]))
    with pytest.raises(RefusedError, match="2 outputs"):
        score(model, tmp_path)


def test_logits_that_are_not_numbers(tmp_path: Path) -> None:
    nodes = [node("Sub", ["x", "x"], ["zero"], name="zero"), node("Div", ["x", "zero"], ["y"], name="divide")]
    with pytest.raises(RefusedError, match="NaN or infinite"):
        score(graph(nodes), tmp_path, images=images())


def test_division_by_a_step_of_zero(tmp_path: Path) -> None:
    content = makers.quantised()
    for name, tensor in content["state"].items():
        if name.endswith("input_step"):
            tensor.zero_()
    try:
        report = score(content, tmp_path, images=images())
    except RefusedError as error:
        assert "step" in str(error) or "NaN" in str(error)
    else:
        assert not report.rankable


def test_one_constant_answer_is_just_inaccurate(tmp_path: Path) -> None:
    """Nothing to catch, but nothing to break either: all codes zero."""
    content = makers.quantised()
    for name, tensor in content["state"].items():
        if name.endswith("codes"):
            tensor.zero_()
    report = score(content, tmp_path, images=images())
    assert report.accuracy is not None and report.accuracy.value < 0.5 and not report.rankable
    assert report.score.total >= 0


# Numbers that are stored elsewhere than in weights


def test_code_book_entries_that_nothing_looks_up(tmp_path: Path) -> None:
    """A table with room for labels: every entry is charged, used or not."""

    def looked_up(entries: int) -> onnx.ModelProto:
        index = np.random.default_rng(0).integers(0, 4, (4, 4, 3, 3))
        nodes = [
            node("Gather", ["t", "i"], ["u"], name="table"),
            node("Conv", ["x", "u"], ["y"], name="second", pads=[1] * 4),
        ]
        return graph(nodes, t=weights(entries), i=index)

    small, large = score(looked_up(4), tmp_path), score(looked_up(132), tmp_path)
    assert charged(large) - charged(small) == 128 * 32
    assert layer(small, "second")["weight_bits"] == 2
    assert layer(large, "second")["weight_bits"] == 8


def dequantised(codes: NDArray[Any], zero: NDArray[Any]) -> onnx.ModelProto:
    nodes = [
        node("DequantizeLinear", ["c", "s", "z"], ["u"], name="weights", axis=0),
        node("Conv", ["x", "u"], ["y"], name="second", pads=[1] * 4),
    ]
    return graph(nodes, c=codes, s=np.full(zero.shape, 0.1, np.float32), z=zero)


def test_zero_points_are_charged(tmp_path: Path) -> None:
    """One a channel can hold a label each; so each is paid for, and none where all are zero."""
    codes = np.random.default_rng(0).integers(-8, 8, (4, 4, 3, 3)).astype(np.int8)
    honest = score(dequantised(codes, np.zeros(4, np.int8)), tmp_path)
    labels = score(dequantised(codes, np.array([3, 1, 4, 1], np.int8)), tmp_path)
    assert charged(labels) - charged(honest) == 4 * 8


def test_zero_point_that_makes_a_third_value_of_the_free_zero(tmp_path: Path) -> None:
    """Codes -1, 0 and 1 are one bit and a mask; around a zero point of 7 they are three values that nothing masks."""
    codes = np.random.default_rng(0).integers(-1, 2, (4, 4, 3, 3)).astype(np.int8)
    for zero, caught in ((0, False), (7, True)):
        model = dequantised(codes, np.array(zero, np.int8))
        model.metadata_props.add(key="contest.bits.c", value="1")
        report = score(model, tmp_path)
        assert layer(report, "second")["weight_bits"] == 1
        assert any("'c' declares 1 bits, but its codes lie between -1 and 1" in p for p in report.problems) == caught


def test_connections_in_an_index(tmp_path: Path) -> None:
    """Sums over chosen channels are a layer whose weights are the choice: it is charged as wiring, bit by bit."""

    def chosen(index: list[int]) -> float:
        nodes = [
            node("Gather", ["x", "i"], ["many"], name="choice", axis=1),
            node("Conv", ["many", "u"], ["y"], name="second"),
        ]
        model = graph(nodes, i=np.array(index, np.int64), u=weights(4, len(index), 1, 1))
        return charged(score(model, tmp_path))

    random = np.random.default_rng(0).integers(0, 4, 2_000).tolist()
    assert chosen(random) - chosen(random[:1_000]) == pytest.approx(1_000 * 2, abs=64)
    assert chosen([0, 1, 2, 3] * 500) == chosen([3, 2, 1, 0] * 500) == 0  # counted in rows: nothing to store


def test_numbers_in_padding(tmp_path: Path) -> None:
    """Constant channels from the border of a padding would be biases for nothing."""

    def padded(value: float) -> onnx.ModelProto:
        return graph(
            [
                node("Pad", ["x", "pads", "c"], ["q"], name="border"),
                node("Conv", ["q", "u"], ["y"], name="second", pads=[1] * 4),
            ],
            pads=np.array([0, 0, 0, 0, 0, 1, 0, 0]),
            c=f32(value),
            u=weights(4, 5, 3, 3),
        )

    assert charged(score(padded(0.37), tmp_path)) - charged(score(padded(0.0), tmp_path)) == 32


# Bits of activations, once more


@pytest.mark.parametrize(
    ("how", "bits"),
    [("other step", 32), ("other range", 4), ("constant off the grid", 32), ("padding off the grid", 32)],
)
def test_values_that_join_a_grid(how: str, bits: int, tmp_path: Path) -> None:
    """Two quantisers of 3 bits side by side: 3 bits only where both know the same values."""
    second = {"other step": quant("x", "b2", "s2"), "other range": quant("x", "b2", signed=0)}
    join = {
        "constant off the grid": node("Concat", ["b1", "k"], ["j"], name="join", axis=1),
        "padding off the grid": node("Pad", ["b1", "pads", "c"], ["j"], name="join"),
    }
    nodes = [
        quant("x", "b1"),
        *([second[how]] if how in second else []),
        join.get(how, node("Concat", ["b1", "b2"], ["j"], name="join", axis=1)),
        node("Conv", ["j", "u"], ["y"], name="second", pads=[1] * 4),
    ]
    arrays: dict[str, Any] = {**QUANTISER, "u": weights(4, 8, 3, 3)}
    if how == "other step":
        arrays["s2"] = f32(0.03)
    if how == "constant off the grid":
        arrays["k"] = f32(np.full((1, 4, 8, 8), 0.123))
    if how == "padding off the grid":
        arrays |= {"pads": np.array([0, 0, 0, 0, 0, 4, 0, 0]), "c": f32(0.123)}
    model = qonnx(graph(nodes, **arrays))
    if how == "constant off the grid":  # which is there for one image only
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert layer(score(model, tmp_path), "second")["activation_bits"] == bits


# One image and many


def test_a_crop_as_large_as_the_batch(tmp_path: Path) -> None:
    """Alone an image is cut to one pixel, which costs next to nothing; in a batch it is looked at as a whole."""
    nodes = [
        node("Shape", ["image"], ["sh"], name="shape", start=0, end=1),
        node("Concat", ["sh", "sh"], ["ends"], name="ends", axis=0),
        node("Slice", ["image", "from", "ends", "axes"], ["cut"], name="cut"),
        node("Conv", ["cut", "w"], ["x"], name="first", pads=[1] * 4),
        node("Relu", ["x"], ["r"], name="relu"),
        node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "v"], ["logits"], name="fc", transB=1),
    ]
    arrays = {"w": weights(4, 3, 3, 3), "v": weights(10, 4), "from": np.array([0, 0]), "axes": np.array([2, 3])}
    report = score(onnx_makers.model(nodes, arrays), tmp_path, images=images())
    assert layer(report, "first")["macs"] == 4 * 27  # what it hoped to be priced at
    cut = [node("Slice", ["image", "from", "ends", "axes"], ["cut"], name="cut"), *nodes[3:]]
    honest = score(onnx_makers.model(cut, {**arrays, "ends": np.array([1, 1])}), tmp_path, images=images())
    assert report.accuracy == honest.accuracy  # what is priced is what runs


def test_honest_networks_are_the_same_in_their_own_engines(tmp_path: Path) -> None:
    for model in (makers.quantised(), onnx_makers.network(), onnx_makers.quantised()):
        assert score(model, tmp_path, images=images()).notes == ()


# Layers that share their weights


def test_shared_weights_are_stored_once_and_run_twice(tmp_path: Path) -> None:
    """Allowed, and no gift: the second use stores nothing, and every operation is charged again."""

    def twice(second: str) -> onnx.ModelProto:
        nodes = [
            node("Conv", ["x", "u"], ["a"], name="one", pads=[1] * 4),
            node("Conv", ["a", second], ["y"], name="two", pads=[1] * 4),
        ]
        extra = {} if second == "u" else {second: weights(4, 4, 3, 3) + 1}
        return graph(nodes, u=weights(4, 4, 3, 3), **extra)

    shared, apart = score(twice("u"), tmp_path), score(twice("u2"), tmp_path)
    assert shared.score.ops == apart.score.ops
    assert apart.measured["weights"] - shared.measured["weights"] == 4 * 4 * 9  # type: ignore[operator]


def test_shared_codes_at_two_scales_are_two_weights(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(-4, 4, (4, 4, 3, 3)).astype(np.int8)
    nodes = [
        node("DequantizeLinear", ["c", "s1"], ["u1"], name="w1"),
        node("DequantizeLinear", ["c", "s2"], ["u2"], name="w2"),
        node("Conv", ["x", "u1"], ["a"], name="one", pads=[1] * 4),
        node("Conv", ["a", "u2"], ["y"], name="two", pads=[1] * 4),
    ]
    report = score(graph(nodes, c=codes, s1=f32(0.1), s2=f32(0.7)), tmp_path)
    assert layer(report, "one")["weights"] == layer(report, "two")["weights"] == 4 * 4 * 9


# Texts


def test_provenance_is_no_place_for_a_network(tmp_path: Path) -> None:
    """A megabyte of text costs nothing, since nothing can read it; a report shows the beginning of each entry."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["provenance"] = {f"k{i}": "x" * 20_000 for i in range(64)}

    report = score(makers.with_manifest(makers.quantised(), change), tmp_path)
    assert report.score == score(makers.quantised(), tmp_path).score
    assert len(str(report.provenance)) < 64 * 2_100


def test_argmax_of_nan_decides_nothing(tmp_path: Path) -> None:
    """NumPy and torch call a NaN the largest. 0 * inf for one class and some images: refused, not ranked."""
    nodes = [node("Div", ["x", "n"], ["d"], name="zero"), node("Mul", ["d", "k"], ["y"], name="nothing")]
    model = graph(nodes, n=f32(0.0), k=f32(1.0))
    with pytest.raises(RefusedError, match="NaN or infinite"):
        score(model, tmp_path, images=images())
