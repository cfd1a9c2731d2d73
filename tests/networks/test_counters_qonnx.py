"""QONNX's `inference_cost` on the graph that Brevitas exports, against the costs table of the saved network."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch

from contest import networks
from contest.candidate import Bits

onnx = pytest.importorskip("onnx")
pytest.importorskip("qonnx")

SHAPE = (3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("resnet:depth=8,width=8", Bits(3, 4)),
        ("thin:block=separable,widths=8-16,depths=1-1", Bits(2, 3, layers={"fc": (5, 6)})),
        ("thin:block=bottleneck,groups=2,widths=8-16,depths=1-1", Bits(8, 2)),
        ("mobilenet:width=0.1,head_width=16", Bits(4, 4, per_channel=False)),
        ("thin:block=inverted,widths=8-16,depths=1-2,tail=wide", Bits(4, 5)),
    ],
)
def test_macs_by_bits_agree_with_qonnx(name: str, bits: Bits, tmp_path: Path) -> None:
    from contest.model_file import freeze, save
    from contest.quantisation import quantise
    from contest.quantisation.layers import export
    from scoring.analysis.cost_model import analyse
    from scoring.readers.read import read

    architecture = networks.parse(name)
    torch.manual_seed(0)
    model = quantise(networks.build(architecture).eval(), bits, torch.rand(16, *SHAPE)).eval()
    export(model, tmp_path / "net.onnx", SHAPE, "qonnx")
    save(freeze(model, architecture, image_shape=SHAPE, classes=10), tmp_path / "model.pt")

    ours: Counter[tuple[int, int]] = Counter()
    for operation in analyse(read(tmp_path / "model.pt").graph).operations:
        if operation.macs:
            ours[operation.activation_bits, operation.weight_bits] += operation.macs
    # QONNX takes the network's input for 32-bit floats; the contest knows that an image has 8 bits.
    image = next(key for key in ours if key[0] == 8)
    ours[32, image[1]] += ours.pop(image)
    assert qonnx_macs(tmp_path / "net.onnx") == ours


def qonnx_macs(path: Path) -> Counter[tuple[int, int]]:
    """(activation bits, weight bits) -> MACs for one image. Constants stay unfolded: QONNX would fold them through
    graphs of the newest ONNX version, which ONNX Runtime refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.transformation.infer_datatypes import InferDataTypes
        from qonnx.transformation.infer_shapes import InferShapes
        from qonnx.util.inference_cost import inference_cost

        proto = onnx.load(str(path))
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        graph = ModelWrapper(proto)
        for node in graph.get_nodes_by_op_type("Quant"):
            node.domain = "qonnx.custom_op.general"
        graph = graph.transform(InferShapes()).transform(InferDataTypes(allow_scaledint_dtypes=True))
        cost = inference_cost(graph, preprocess=False, discount_sparsity=False)["total_cost"]
    found: Counter[tuple[int, int]] = Counter()
    for key, macs in cost.items():
        if key.startswith("op_mac_"):
            activation, weight = (int(bits) for bits in re.findall(r"(\d+)", key))
            found[activation, weight] += int(macs)
    return found
