"""Brevitas's exporters understand our quantisers: ONNX Runtime predicts what PyTorch predicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from contest import networks
from contest.candidate import Bits
from contest.errors import UsageError
from contest.quantisation import quantise, set_masks
from contest.quantisation.layers import export

SHAPE = (3, 16, 16)


def network(bits: Bits) -> nn.Module:
    torch.manual_seed(0)
    model = networks.build(networks.parse("thin:widths=8-16,depths=1-1"), SHAPE, 10)
    model.train()(torch.rand(16, *SHAPE))
    return quantise(model.eval(), bits, torch.rand(32, *SHAPE))


@pytest.mark.parametrize("weights", range(2, 9))
def test_qcdq_runs_in_onnx_runtime(weights: int, tmp_path: Path) -> None:
    model = network(Bits(weights, 3))
    path = export(model, tmp_path / "model.onnx", SHAPE)
    session = onnxruntime.InferenceSession(path)
    images = torch.rand(50, *SHAPE)  # another batch size than at export
    logits = session.run(None, {"images": images.numpy()})[0]
    with torch.no_grad():
        expected = model(images).numpy()
    assert np.mean(logits.argmax(1) == expected.argmax(1)) >= 0.98
    assert np.quantile(np.abs(logits - expected).max(1), 0.9) < 1e-4  # all but the rare value on a rounding edge


def test_qonnx_says_one_bit(tmp_path: Path) -> None:
    graph = onnx.load(export(network(Bits(1, 4)), tmp_path / "model.onnx", SHAPE, "qonnx")).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("BipolarQuant") == 7 and kinds.count("Quant") == 6


def test_what_the_formats_cannot_hold_is_refused(tmp_path: Path) -> None:
    model = network(Bits(1, 4))
    with pytest.raises(UsageError, match="qonnx"):
        export(model, tmp_path / "model.onnx", SHAPE)
    set_masks(model, {"fc.weight": torch.zeros(10, 16, dtype=torch.bool)})
    with pytest.raises(UsageError, match="'fc' has masked weights"):
        export(model, tmp_path / "model.onnx", SHAPE, "qonnx")


def test_a_wide_tail_and_pooled_shortcuts_cost_the_same_as_onnx(tmp_path: Path) -> None:
    """Mean, padding and the factor before the classifier are free and covered in both forms."""
    from contest.model_file import freeze, save
    from scoring.analysis.cost_model import analyse
    from scoring.readers.read import read

    architecture = networks.parse("thin:block=inverted,widths=8-16,depths=1-2,tail=wide,shortcut=pool")
    torch.manual_seed(0)
    model = quantise(networks.build(architecture, SHAPE).eval(), Bits(4, 5), torch.rand(16, *SHAPE)).eval()
    export(model, tmp_path / "model.onnx", SHAPE)
    save(freeze(model, architecture, image_shape=SHAPE, classes=10), tmp_path / "model.pt")
    stored, written = (analyse(read(tmp_path / f"model.{kind}").graph) for kind in ("pt", "onnx"))
    assert not stored.unknown_operations and not written.unknown_operations
    priced = [[(o.macs, o.nonzeros, o.weight_bits, o.activation_bits) for o in c.operations] for c in (stored, written)]
    assert priced[0] == priced[1] and stored.macs == networks.macs_and_weights(architecture, SHAPE, 10)[0]
