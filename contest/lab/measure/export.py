"""Networks in ONNX Runtime: export, run, compare."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.lab.measure.latency import Latency, timed
from contest.lab.task import Task

TOLERANCE = 1e-4
"""Largest difference of an output between PyTorch and ONNX Runtime for a float network, relative to the largest
output: both sum the same products in another order."""
OPSET = 17
BIAS_ROUNDING = "WeightBiasQuantization"
"""The optimisation of ONNX Runtime that changes what a QCDQ network of few bits predicts."""


def export(model: nn.Module, example: Tensor, path: Path) -> Path:
    """Write a float network as ONNX, or a quantised one as QCDQ; the batch size stays free.

    Args:
        example: one batch of inputs, for its shape.

    Raises:
        UsageError: it has binary weights, which QCDQ cannot hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if any(hasattr(module, "weight_quant") for module in model.modules()):
        from contest.quantisation.export import export as export_quantised

        if example.dim() != 4:
            raise UsageError(f"quantised networks are exported for images [N, C, H, W], not {list(example.shape)}")
        channels, height, width = example.shape[1:]
        return export_quantised(model, path, (channels, height, width))
    training = model.training
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations and the tracer's remarks
        torch.onnx.export(
            model.eval(),
            (example,),
            str(path),
            input_names=["inputs"],
            output_names=["outputs"],
            dynamic_axes={"inputs": {0: "batch"}, "outputs": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model.train(training)
    return path


class OnnxModel(nn.Module):
    """An ONNX file as a module, so that every metric can be measured on it. One input, the first output."""

    def __init__(self, path: Path, threads: int | None = None, *, round_biases: bool = False) -> None:
        """All of ONNX Runtime's optimisations but one; `round_biases=True` is a session as everyone opens it.

        Its WeightBiasQuantization rounds the float bias of a QCDQ layer, in front of a quantiser, to a multiple of
        (step of the inputs) x (step of the weights). At 8 bits nobody notices; at 2 and 3 bits those steps are so
        wide that predictions change (0.65 % of them were seen to).
        """
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.threads: int = options.intra_op_num_threads
        self.session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[] if round_biases else [BIAS_ROUNDING],
        )
        self.input = self.session.get_inputs()[0].name

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.session.run(None, {self.input: inputs.detach().cpu().contiguous().numpy()})[0]
        return torch.from_numpy(found).to(inputs.device)


def onnx_latency(model: OnnxModel, inputs: Tensor, *, runs: int = 20, warmup: int = 3) -> Latency:
    """A run of the session on one batch."""
    array = inputs.cpu().contiguous().numpy()
    return timed(
        lambda: model.session.run(None, {model.input: array}),
        batch=len(inputs), threads=model.threads, runs=runs, warmup=warmup,
    )  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """How far two models agree over all test samples."""

    largest_difference: float
    """Of any output, relative to the largest output."""
    equal_predictions: float
    """Fraction of rows (samples, or positions) whose largest output is the same one."""
    samples: int


@torch.no_grad()
def agreement(one: nn.Module, other: nn.Module, task: Task) -> Agreement:
    """Compare outputs over the whole test set."""
    one.eval()
    difference = scale = 0.0
    equal = rows = 0
    for inputs, _ in task.test:
        a, b = one(inputs), other(inputs)
        difference = max(difference, float((a - b).abs().max()))
        scale = max(scale, float(a.abs().max()))
        equal += int((a.argmax(-1) == b.argmax(-1)).sum())
        rows += a[..., 0].numel()
    return Agreement(difference / max(scale, 1e-30), equal / max(rows, 1), rows)
