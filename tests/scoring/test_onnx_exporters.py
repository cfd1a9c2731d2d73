"""ONNX files of every exporter: torch's two, and what ONNX Runtime makes of them."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from contest.errors import RefusedError
from scoring.readers.onnx_file import load_checked
from scoring.report import Report
from scoring.score import score_file, score_module, sha256
from tests.scoring import students


def scored(path: Path) -> Report:
    return score_file(path, images=students.digits(), rule="digits", trust=True)


def by_runtime(path: Path) -> int:
    """Right answers of the file as ONNX Runtime runs it: the oracle of what was read."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    test = students.digits()
    images = np.ascontiguousarray((test.pixels.float() / 255).numpy())
    answers = session.run(None, {session.get_inputs()[0].name: images})[0]
    return int((answers.argmax(1) == test.labels.numpy()).sum())


def export(path: Path, opset: int, *, batch: bool = True) -> Path:
    axes = {"x": {0: "n"}} if batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            students.trained(),
            (torch.rand(1, 1, 8, 8),),
            str(path),
            opset_version=opset,
            dynamo=False,
            input_names=["x"],
            dynamic_axes=axes,
        )
    return path


@pytest.fixture(scope="module")
def module_report() -> Report:
    return score_module(students.trained(), (1, 8, 8), images=students.digits(), rule="digits")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classic exporter's file, and the one that ONNX Runtime's preprocessing makes of it."""
    folder = tmp_path_factory.mktemp("onnx")
    export(folder / "classic.onnx", 17)
    quant_pre_process(str(folder / "classic.onnx"), str(folder / "preprocessed.onnx"))
    return folder


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self.batches = iter((students.digits().pixels.float() / 255).split(60))

    def get_next(self) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"x": np.ascontiguousarray(batch.numpy())}


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20])
@pytest.mark.parametrize("batch", [True, False])
def test_the_classic_exporter(opset: int, batch: bool, tmp_path: Path, module_report: Report) -> None:
    """Batch norms are folded into convolutions there, so a multiplier a channel less; the rest is the module's."""
    report = scored(export(tmp_path / "classic.onnx", opset, batch=batch))
    assert report.measured["macs"] == module_report.measured["macs"] == 8 * 8 * 6 * 9 + 4 * 4 * 12 * 6 * 9 + 480
    assert report.score.ops == pytest.approx(module_report.score.ops)
    assert report.accuracy is not None
    assert report.accuracy.correct == students.correct(students.trained())
    assert not report.unknown_operations


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
def test_what_onnx_runtime_has_optimised(level: str, exported: Path, tmp_path: Path) -> None:
    """It writes imports of ten operator sets that no node uses, and fuses convolutions with activations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(exported / "classic.onnx"), options, providers=["CPUExecutionProvider"])
    assert len(onnx.load(tmp_path / "optimised.onnx").opset_import) > 5
    before, after = scored(exported / "classic.onnx"), scored(tmp_path / "optimised.onnx")
    assert (after.score, after.accuracy) == (before.score, before.accuracy)


U8, S8, U16, S16, S4 = QuantType.QUInt8, QuantType.QInt8, QuantType.QUInt16, QuantType.QInt16, QuantType.QInt4


@pytest.mark.parametrize(
    ("activations", "weights", "per_channel"),
    [(U8, S8, False), (U8, U8, False), (S8, S8, True), (U16, S8, False), (S16, S16, False), (U8, S4, False)],
)
def test_static_quantisation_has_its_bits(
    activations: QuantType, weights: QuantType, per_channel: bool, exported: Path, tmp_path: Path
) -> None:
    path = tmp_path / "qdq.onnx"
    quantize_static(
        str(exported / "preprocessed.onnx"),
        str(path),
        Calibration(),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=activations,
        weight_type=weights,
    )
    report = scored(path)
    bits = {U8: 8, S8: 8, U16: 16, S16: 16, S4: 4}
    assert (report.measured["q_w"], report.measured["q_a"]) == (bits[weights], bits[activations])
    assert not report.unknown_operations
    assert report.accuracy is not None
    assert abs(report.accuracy.correct - by_runtime(path)) <= 3


@pytest.mark.parametrize("per_channel", [False, True])
def test_operators_on_integers_score_as_quantised_pairs_do(per_channel: bool, exported: Path, tmp_path: Path) -> None:
    reports = []
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        path = tmp_path / f"{form}.onnx"
        quantize_static(
            str(exported / "preprocessed.onnx"),
            str(path),
            Calibration(),
            quant_format=form,
            per_channel=per_channel,
            activation_type=S8,
            weight_type=S8,
        )
        reports.append(scored(path))
        assert reports[-1].accuracy is not None
        assert abs(reports[-1].accuracy.correct - by_runtime(path)) <= 3
    pairs, operators = reports
    assert operators.score.ops == pairs.score.ops
    assert operators.score.params == pytest.approx(pairs.score.params, rel=0.01)


def test_dynamic_quantisation_is_told_to_become_static(exported: Path, tmp_path: Path) -> None:
    quantize_dynamic(str(exported / "preprocessed.onnx"), str(tmp_path / "dynamic.onnx"))
    with pytest.raises(RefusedError, match="quantize_static"):
        scored(tmp_path / "dynamic.onnx")


def test_a_file_for_one_machine_is_told_to_be_written_for_all(exported: Path, tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], domain="com.microsoft.nchwc")
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])
    logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    weight = numpy_helper.from_array(np.ones((2, 1, 8, 8), np.float32), "w")
    model = helper.make_model(helper.make_graph([node], "g", [image], [logits], [weight]))
    (tmp_path / "nchwc.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RefusedError, match="ORT_ENABLE_BASIC"):
        scored(tmp_path / "nchwc.onnx")


def test_arithmetic_on_codes_is_refused_and_not_misread(tmp_path: Path) -> None:
    """Behind QuantizeLinear stand integers; who computes with them by hand must not get real numbers instead."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["y"]),
    ]
    stored = [
        numpy_helper.from_array(np.array(0.1, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.uint8), "z"),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2])
    logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [logits], stored))
    assert model.opset_import[0].version == onnx.defs.onnx_opset_version()  # the newest that the package knows
    (tmp_path / "codes.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RefusedError, match=r"'Cast'.*integer codes"):
        scored(tmp_path / "codes.onnx")


def test_channels_last_graphs_of_tensorflow(tmp_path: Path, module_report: Report) -> None:
    """tf2onnx leaves the image as [N, H, W, C] and turns it before the first convolution."""
    model = onnx.load(export(tmp_path / "classic.onnx", 17))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 8, 8, 1]))
    model.graph.node.insert(0, helper.make_node("Transpose", ["image"], ["x"], "turn", perm=[0, 3, 1, 2]))
    (tmp_path / "last.onnx").write_bytes(model.SerializeToString())
    report = scored(tmp_path / "last.onnx")
    assert report.measured["macs"] == module_report.measured["macs"]
    assert report.accuracy is not None
    assert report.accuracy.correct == students.correct(students.trained())
    first = next(row for row in report.layers if row["macs"])
    assert first["activation_bits"] == 8  # the image keeps its bits through the turns


def test_weights_in_a_file_beside_it(exported: Path, tmp_path: Path) -> None:
    """What `torch.onnx.export` writes unless it is told otherwise; the oracle is the file that holds everything."""
    model = onnx.load(exported / "classic.onnx")
    onnx.save(model, str(tmp_path / "net.onnx"), save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    assert not any(
        tensor.raw_data for tensor in onnx.load(tmp_path / "net.onnx", load_external_data=False).graph.initializer
    )
    for report in (scored(tmp_path / "net.onnx"), score_file(tmp_path / "net.onnx", rule="digits")):  # and isolated
        assert report.score.total == scored(exported / "classic.onnx").score.total
    first = sha256(tmp_path / "net.onnx")
    content = bytearray((tmp_path / "net.onnx.data").read_bytes())
    content[0] ^= 1
    (tmp_path / "net.onnx.data").write_bytes(content)
    assert sha256(tmp_path / "net.onnx") != first  # a grade belongs to both files
    (tmp_path / "net.onnx.data").write_bytes(content[:100])
    with pytest.raises(RefusedError, match="not of one export"):
        scored(tmp_path / "net.onnx")
    (tmp_path / "net.onnx.data").unlink()
    with pytest.raises(RefusedError, match="external_data=False"):
        scored(tmp_path / "net.onnx")


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/hostname"])
def test_files_elsewhere_are_not_opened(place: str, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    (tmp_path / "sub").mkdir()
    model = onnx.load(exported / "classic.onnx")
    for tensor in model.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, place)
        tensor.ClearField("raw_data")
    (tmp_path / "sub" / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RefusedError, match="external data"):
        scored(tmp_path / "sub" / "net.onnx")


def test_nodes_in_any_order(exported: Path, tmp_path: Path) -> None:
    """As ONNX Runtime's conversion to half leaves them; its own engine runs such files."""
    model = onnx.load(exported / "classic.onnx")
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    report = scored(tmp_path / "net.onnx")
    assert report.accuracy is not None
    assert report.accuracy.correct == by_runtime(tmp_path / "net.onnx")


def test_images_of_any_size_get_those_of_the_test_set(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported / "classic.onnx")
    for i, name in ((2, "h"), (3, "w")):
        model.graph.input[0].type.tensor_type.shape.dim[i].dim_param = name
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert scored(tmp_path / "net.onnx").measured == scored(exported / "classic.onnx").measured
    with pytest.raises(RefusedError, match="let the batch alone be dynamic"):
        score_file(tmp_path / "net.onnx", rule="digits", trust=True)


def test_two_outputs_are_cut_by_the_command_that_is_named(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported / "classic.onnx")
    inner = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")
    model.graph.output.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, ["n", 6, 8, 8]))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RefusedError, match="extract_model") as refused:
        scored(tmp_path / "net.onnx")
    program = str(refused.value).split("python -c ")[1].strip('"').replace("FILE", str(tmp_path / "net.onnx"))
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    assert scored(tmp_path / "logits.onnx").accuracy == scored(exported / "classic.onnx").accuracy


def test_scales_per_channel_in_an_old_opset_name_the_one_that_is_needed(tmp_path: Path) -> None:
    """ONNX Runtime's quantiser gives DequantizeLinear an axis whatever the opset is; before 13 it has none."""
    scales = [numpy_helper.from_array(np.ones(2, t), n) for n, t in (("codes", np.int8), ("scale", np.float32))]
    node = helper.make_node("DequantizeLinear", ["codes", "scale"], ["y"], axis=0)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([node], "g", [], [output], scales)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), tmp_path / "q.onnx")
    with pytest.raises(RefusedError, match=r"axis for operator DequantizeLinear.* need opset 13: export with"):
        load_checked(tmp_path / "q.onnx")
