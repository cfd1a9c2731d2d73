"""Honest ONNX constructions: priced, not blocked, and run as ONNX Runtime runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from scoring.graph.interpreter import example_images, logits_of
from scoring.readers.read import read
from tests.attacks.planted import N, f32, i64, network
from tests.attacks.scored import score

CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "constant first": (
        [N("Mul", ["c", "x"], ["m"]), N("Add", ["c", "m"], ["y"])],
        {"c": f32(np.arange(1, 17)).reshape(1, 16, 1, 1)},
    ),
    "LayerNormalization": (
        [N("LayerNormalization", ["x", "g", "b"], ["y"], axis=1)],
        {"g": f32(np.full((16, 8, 8), 1.5)), "b": f32(np.zeros((16, 8, 8)))},
    ),
    "InstanceNormalization": (
        [N("InstanceNormalization", ["x", "g", "b"], ["y"])],
        {"g": f32(np.arange(1, 17)), "b": f32(np.ones(16))},
    ),
    "Max of two": ([N("Neg", ["x0"], ["n"]), N("Max", ["x", "n"], ["y"])], {}),
    "Max of a number": ([N("Max", ["x0", "zero"], ["y"])], {"zero": f32(0)}),
    "Sum of three": ([N("Sum", ["x", "x0", "x"], ["y"])], {}),
    "Tile": (
        [N("Tile", ["x", "reps"], ["t"]), N("Slice", ["t", "from", "to", "axis"], ["y"])],
        {"reps": i64(1, 2, 1, 1), "from": i64(8), "to": i64(24), "axis": i64(1)},
    ),
    "blocks": ([N("DepthToSpace", ["x"], ["d"], blocksize=2), N("SpaceToDepth", ["d"], ["y"], blocksize=2)], {}),
    "nearest by half pixels": (
        [
            N("Resize", ["x", "", "s"], ["u"], mode="nearest"),
            N("MaxPool", ["u"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        {"s": f32([1, 1, 2, 2])},
    ),
    "bilinear": (
        [
            N("Resize", ["x", "", "s"], ["u"], mode="linear"),
            N("AveragePool", ["u"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        {"s": f32([1, 1, 2, 2])},
    ),
    "HardSigmoid": ([N("HardSigmoid", ["x0"], ["y"])], {}),
    "ThresholdedRelu": ([N("ThresholdedRelu", ["x"], ["y"], alpha=0.5)], {}),
    "Sqrt": ([N("Sqrt", ["x"], ["y"])], {}),
    "Exp": ([N("Neg", ["x"], ["n"]), N("Exp", ["n"], ["y"])], {}),
    "Where": ([N("Greater", ["x0", "zero"], ["c"]), N("Where", ["c", "x", "x0"], ["y"])], {"zero": f32(0.1)}),
    "largest over channels": ([N("ReduceMax", ["x"], ["m"], axes=[1], keepdims=1), N("Add", ["x", "m"], ["y"])], {}),
    "Pow": ([N("Pow", ["x", "power"], ["y"])], {"power": f32(1.5)}),
}


@pytest.mark.parametrize("name", CASES)
def test_honest_constructions_are_priced(name: str, tmp_path: Path) -> None:
    model = network(*CASES[name])
    report = score(model, tmp_path)
    assert report.unknown_operations == () and report.file_problems == ()
    images = example_images((3, 8, 8), 3)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"image": images.numpy()})[0]
    found = logits_of(read(tmp_path / "model.onnx").graph, images).numpy()
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)
