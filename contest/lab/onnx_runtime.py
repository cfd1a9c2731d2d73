"""Networks in ONNX Runtime: export, run, compare."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.lab.costs import Latency, module_by_module, timed
from contest.lab.task import Task
from contest.pruning.batches import Inputs, Outputs, forward, logits, mapped, samples, take, tensors

TOLERANCE = 1e-4
"""Largest difference of an output between PyTorch and ONNX Runtime for a float network, relative to the largest
output: both sum the same products in another order."""
OPSET = 17
BIAS_ROUNDING = "WeightBiasQuantization"
"""The optimisation of ONNX Runtime that changes what a QCDQ network of few bits predicts."""
LOOKED_AT = 4
"""Batches whose shapes say which dimensions are free."""


class Flat(nn.Module):
    """A model with inputs and outputs of any structure as one from tensors to tensors, which is what ONNX holds."""

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        super().__init__()
        self.model, self.example = model, example

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        own = iter(parts)
        return tuple(tensors(forward(self.model, mapped(self.example, lambda _: next(own)))))


def export(model: nn.Module, task: Task, path: Path) -> OnnxModel:
    """Write a float network as ONNX, or a quantised one as QCDQ, and open it; the number of samples stays free.

    So do other dimensions that differ from batch to batch, such as the length of sequences.

    Raises:
        UsageError: it has binary weights, which QCDQ cannot hold, or the exporter does not know an operation.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    example = task.example(2)
    if any(hasattr(module, "weight_quant") for module in model.modules()):
        from contest.quantisation.layers import export as export_quantised

        if not isinstance(example, Tensor) or example.dim() != 4:
            raise UsageError("quantised networks are exported for images [N, C, H, W] only")
        channels, height, width = example.shape[1:]
        export_quantised(model, path, (channels, height, width))
        return OnnxModel(path, model=model, example=example)
    parts = tensors(example)
    names = [f"inputs{index or ''}" for index in range(len(parts))]
    training = model.training
    flat = Flat(copy.deepcopy(model).cpu().eval(), example)
    with torch.no_grad(), module_by_module():
        outputs = [f"outputs{index or ''}" for index in range(len(flat(*parts)))]
        axes = dict(zip(names, _free(task), strict=True)) | {name: {0: "batch"} for name in outputs}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations and the tracer's remarks
            try:
                torch.onnx.export(
                    flat,
                    tuple(parts),
                    str(path),
                    input_names=names,
                    output_names=outputs,
                    dynamic_axes=axes,
                    opset_version=OPSET,
                    dynamo=False,
                )
            except (RuntimeError, torch.onnx.OnnxExporterError) as error:
                reason = str(error).strip().partition("\n")[0]
                raise UsageError(f"this model cannot be written as ONNX: {reason}") from error
    model.train(training)
    return OnnxModel(path, model=model, example=example)


def _free(task: Task) -> list[dict[int, str]]:
    """For each input tensor its free dimensions: the samples, and what differs between batches."""
    shapes: list[list[tuple[int, ...]]] = []
    for inputs, _ in islice(task.test_batches, LOOKED_AT):
        shapes.append([tuple(tensor.shape) for tensor in tensors(inputs)])
    found = []
    for place in range(len(shapes[0])):
        own = [batch[place] for batch in shapes]
        differing = {d for d in range(1, len(own[0])) if len({shape[d] for shape in own}) > 1}
        found.append({0: "batch"} | {d: f"size{d}" for d in sorted(differing)})
    return found


def obstacle(model: nn.Module, task: Task) -> str:
    """Why a model cannot be exported and run, in one sentence, or nothing; tried on the model as it is."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            runtime = export(model, task, Path(folder) / "model.onnx")
            agreement(model, runtime, task, batches=1)
            task.measure(runtime, batches=1)
        except UsageError as error:
            return str(error)
        except Exception as error:  # ONNX Runtime and a user's metric may raise anything
            return (
                f"it cannot be run in ONNX Runtime: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            )
    return ""


class OnnxModel(nn.Module):
    """An ONNX file as a module with the inputs and outputs of the model it came from, so that metrics fit it."""

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        *,
        round_biases: bool = False,
        model: nn.Module | None = None,
        example: Inputs = None,
    ) -> None:
        """All of ONNX Runtime's optimisations but one; `round_biases=True` is a session as everyone opens it.

        Its WeightBiasQuantization rounds the float bias of a QCDQ layer, in front of a quantiser, to a multiple of
        (step of the inputs) x (step of the weights). At 8 bits nobody notices; at 2 and 3 bits those steps are so
        wide that predictions change (0.65 % of them were seen to).

        Args:
            model, example: what was exported, where its outputs are not one tensor.
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
        self.inputs = [found.name for found in self.session.get_inputs()]
        self.structure: Outputs = None
        if model is not None:
            training = model.training
            with torch.no_grad(), module_by_module():
                self.structure = forward(model.eval(), take(example, 0, 1))
            model.train(training)

    def feed(self, inputs: Inputs) -> dict[str, Any]:
        """The session's inputs; what the exporter found to be unused is left out."""
        arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors(inputs)]
        names = [f"inputs{index or ''}" for index in range(len(arrays))]
        if len(self.inputs) == len(arrays):
            names = self.inputs
        return {name: array for name, array in zip(names, arrays, strict=True) if name in self.inputs}

    def forward(self, *parts: Any, **named: Any) -> Outputs:
        inputs = [*parts, *named.values()]
        device = tensors(inputs)[0].device
        found = [torch.from_numpy(array).to(device) for array in self.session.run(None, self.feed(inputs))]
        if self.structure is None or isinstance(self.structure, Tensor):
            return found[0]
        own = iter(found)
        return mapped(self.structure, lambda _: next(own))


def onnx_latency(model: OnnxModel, inputs: Inputs, *, runs: int = 20, warmup: int = 3) -> Latency:
    """A run of the session on one batch."""
    fed = model.feed(inputs)
    run: Callable[[], object] = lambda: model.session.run(None, fed)  # noqa: E731
    return timed(run, batch=samples(inputs), threads=model.threads, runs=runs, warmup=warmup)


@dataclass(frozen=True)
class Agreement:
    """How far two models agree over all test samples."""

    largest_difference: float
    """Of any output, relative to the largest output."""
    equal_predictions: float
    """Fraction of predictions (of samples, or positions) that are the same, as the task predicts."""
    samples: int


@torch.no_grad()
def agreement(one: nn.Module, other: nn.Module, task: Task, batches: int | None = None) -> Agreement:
    """Compare outputs over the whole test set, or its first batches."""
    one.eval()
    difference = scale = 0.0
    equal = rows = 0
    for inputs, _ in islice(task.test_batches, batches):
        a, b = forward(one, inputs), forward(other, inputs)
        difference = max(difference, float((logits(a) - logits(b)).abs().max()))
        scale = max(scale, float(logits(a).abs().max()))
        same = task.predict(a) == task.predict(b)
        equal += int(same.sum())
        rows += same.numel()
    return Agreement(difference / max(scale, 1e-30), equal / max(rows, 1), rows)
