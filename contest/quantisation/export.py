"""A trained quantised network as ONNX, through Brevitas's own exporters."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from contest.errors import UsageError
from contest.quantisation.layers import quantised_layers, weight_quantiser
from contest.quantisation.lsq import integer_range

OPSET = 13
"""The first opset with per-channel QuantizeLinear, which QCDQ needs."""


def export(
    model: nn.Module, path: Path | str, image_shape: tuple[int, int, int], kind: Literal["qcdq", "qonnx"] = "qcdq"
) -> Path:
    """Write a Brevitas (or float) network as ONNX with a free batch size; the model stays as it is.

    QCDQ runs in ONNX Runtime and holds 2 to 8 bits; QONNX holds 1 bit too and runs in the qonnx package.

    Weights on a symmetric grid have one bit more there: +2^(b-1) is no signed number of b bits.

    Raises UsageError for one-bit weights in QCDQ, and for masked one-bit weights, which neither format can say.
    """
    from brevitas.export import export_onnx_qcdq, export_qonnx

    for name, layer in quantised_layers(model).items():
        quantiser = weight_quantiser(layer)
        if quantiser is None or not quantiser.binary:
            continue
        if kind == "qcdq":
            raise UsageError(f"layer '{name}' has weights of 1 bit, which QCDQ cannot hold; export it as qonnx")
        if quantiser.mask is not None and not bool(quantiser.mask.all()):
            raise UsageError(f"layer '{name}' has masked weights of 1 bit, which QONNX cannot hold; keep the model.pt")
    model = copy.deepcopy(model).cpu().eval()
    for layer in quantised_layers(model).values():
        _widen_symmetric(layer)
        for proxy in (layer.get_submodule("weight_quant"), layer.get_submodule("input_quant")):
            proxy.skip_create_quant_tensor = False  # type: ignore[assignment]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write = export_onnx_qcdq if kind == "qcdq" else export_qonnx
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's and the exporter's own deprecations
        write(
            model,
            args=torch.rand(2, *image_shape),
            export_path=str(path),
            opset_version=OPSET,
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            keep_initializers_as_inputs=False,
        )
    return path


def _widen_symmetric(layer: nn.Module) -> None:
    """Give the weights of a symmetric grid the bits that hold all their codes, and take them from the grid."""
    quantiser = weight_quantiser(layer)
    if quantiser is None or quantiser.binary or quantiser.high < 2 ** (quantiser.bits - 1):
        return
    weight = layer.get_parameter("weight")
    weight.data = quantiser(weight)[0].detach()
    quantiser.bits += 1
    quantiser.low, quantiser.high = integer_range(quantiser.bits, True)
