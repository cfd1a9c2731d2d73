"""Prune, fine-tune, look: one pruning of a trained network, and what the network looks like at each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from contest import pruning
from contest.errors import UsageError
from contest.lab.costs import MEBIBYTE, sizes
from contest.lab.experiments.experiment import (
    ExperimentPlan,
    begin,
    finish,
    fresh,
    remarks,
    report,
    require_method,
    train_on,
)
from contest.lab.results import figures, pictures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.task import Task
from contest.lab.training import Parameters, Training, train
from contest.pruning.batches import forward

STAGES = {"dense": "before", "pruned": "pruned", "tuned": "fine-tuned"}


@dataclass(frozen=True)
class FineTune(Parameters):
    """The experiment's parameters; the defaults are the published ones (docs/lab.md)."""

    sparsity: float = 0.9
    layers: tuple[tuple[str, float], ...] = ()
    """Parameter names with a sparsity of their own (fine-grained); then all others stay whole."""
    method: str = "fine-grained"
    """`fine-grained` takes `sparsity` from each weight tensor, the other methods from all together or as they do."""
    layer_by_layer: bool = False
    """Prune and retrain one layer after another (Li 2016, Luo 2017), each by the same fraction."""
    training: Training = Training(epochs=5, optimiser="adadelta", learning_rate=1.0, schedule="step", gamma=0.7)  # noqa: RUF009
    tuning: Training = Training(  # noqa: RUF009
        epochs=2, optimiser="sgd", learning_rate=0.1, momentum=0.9, weight_decay=1e-4, schedule="cosine"
    )
    """With the mask held after each step."""
    seed: int = 0
    scoring_samples: int = 512
    look_at: str = ""
    """The convolution whose kernels are drawn; the first one by default."""
    kernels: int = 64
    """How many of them at most."""
    images: int = 10
    """In the strip of samples."""


def finetune(
    task: Task,
    folder: Path,
    options: FineTune | None = None,
    *,
    progress: bool = False,
    again: Sequence[str] = (),
    questions: Sequence[str] = (),
) -> Results:
    """Run (or finish) the experiment and write its tables, figures and page into `folder`.

    Args:
        again: patterns of cells (`tuned`) that are computed anew.
        questions: that the page asks.
    """
    chosen = options or FineTune()
    require_method(task, chosen.method, samples=chosen.scoring_samples, seed=chosen.seed)
    _check(task, chosen)
    trainings = len(chosen.layers or pruning.prunable(task.new(chosen.seed))) if chosen.layer_by_layer else 1
    plan = ExperimentPlan(len(STAGES), chosen.training.epochs + trainings * chosen.tuning.epochs, len(STAGES))
    cells, sentences = begin(
        "finetune", [task], folder, chosen, plan, training=chosen.training, again=again, progress=progress
    )
    with cells:
        stages = _run(task, chosen, cells)
        what = "each layer as given" if chosen.layers else f"{chosen.sparsity:.0%}"
        results = report(
            cells,
            sentences,
            f"Prune, fine-tune, look: {task.name}",
            f"{chosen.training.epochs:g} epochs of {chosen.training.optimiser}, then {what} pruned by {chosen.method}, "
            f"then {chosen.tuning.epochs:g} epochs of {chosen.tuning.optimiser} with the mask held after each step.",
            questions,
        )
        _present(task, chosen, stages, cells, results)
    return finish(cells, results)


def _check(task: Task, chosen: FineTune) -> None:
    """Raise UsageError for layers that do not exist, before anything is trained."""
    weights = pruning.prunable(task.new(chosen.seed))
    pruning.exact_k_each(weights, dict(chosen.layers))
    convolutions = [name for name, weight in weights.items() if weight.ndim == 4]
    if chosen.look_at and chosen.look_at not in convolutions:
        raise UsageError(
            f"'{chosen.look_at}' is no convolution's weight; there are: {', '.join(convolutions) or 'none'}"
        )


def _run(task: Task, chosen: FineTune, cells: Cells) -> dict[str, Cell]:
    model = fresh(task, cells, chosen.seed)

    def dense() -> Cell:
        curve = train_on(task, model, chosen.training, chosen.seed)
        return _stage(task, chosen, cells, "dense", model, pruning.full(model), curve)

    def pruned() -> Cell:
        model.load_state_dict(cells.load_state("dense"))
        return _stage(task, chosen, cells, "pruned", model, _prune(task, chosen, model), [])

    def tuned() -> Cell:
        model.load_state_dict(cells.load_state("pruned"))
        masks = {name: mask.bool() for name, mask in cells.load_state("masks").items()}
        curve = train_on(task, model, chosen.tuning, chosen.seed + 1, masks=masks)
        return _stage(task, chosen, cells, "tuned", model, masks, curve)

    return {"dense": cells("dense", dense), "pruned": cells("pruned", pruned), "tuned": cells("tuned", tuned)}


def _prune(task: Task, chosen: FineTune, model: nn.Module) -> pruning.Masks:
    samples = task.scoring_batches(chosen.scoring_samples, chosen.seed)
    if chosen.layer_by_layer:
        each = dict(chosen.layers) or dict.fromkeys(pruning.prunable(model), chosen.sparsity)
        seeds = count(chosen.seed + 100)
        return pruning.layer_after_layer(
            model,
            chosen.method,
            each,
            batches=samples,
            loss=task.loss,
            retrain=lambda trained, hold: train(
                trained, task.train_batches, task.loss, chosen.tuning, seed=next(seeds), after_step=hold
            ),
        )
    if chosen.layers:
        masks = pruning.fine_grained_masks(model, dict(chosen.layers))
    elif chosen.method == "fine-grained":
        masks = pruning.fine_grained_masks(model, chosen.sparsity)
    else:
        masks = pruning.prune(model, chosen.method, chosen.sparsity, batches=samples, loss=task.loss, seed=chosen.seed)
    pruning.enforce(model, masks)
    return masks


def _stage(
    task: Task, chosen: FineTune, cells: Cells, key: str, model: nn.Module, masks: pruning.Masks, curve: list[float]
) -> Cell:
    cells.save_state("masks", masks)
    cells.save_state(key, model.state_dict())
    report = pruning.sparsity(model, masks)
    return {
        "metric": task.measure(model),
        "loss": task.mean_loss(model),
        "sparsity": report.prunable,
        "nonzeros": report.nonzeros,
        "layers": {layer.name: [layer.weights, layer.nonzeros] for layer in report.layers},
        "packed_bytes": sizes(model).packed_bytes,
        "curve": curve,
        "predictions": _predictions(model, task, chosen.images),
    }


def _predictions(model: nn.Module, task: Task, images: int) -> list[int]:
    """Predictions of the sample images; none where the task has no names for classes or predicts more than one each."""
    shown = sample_images(task, images)
    if shown is None:
        return []
    model.eval()
    with torch.no_grad():
        found = task.predict(forward(model, shown[0].to(task.device)))
    return found.tolist() if found.dim() == 1 else []


def sample_images(task: Task, number: int) -> tuple[Tensor, list[int]] | None:
    """Test images with their classes, one of each class first, then the first others; None where they are no images."""
    if not task.classes:
        return None
    pixels, classes, later = [], [], []
    for inputs, targets in task.test_batches:
        if not isinstance(inputs, Tensor) or inputs.dim() != 4 or inputs.shape[1] not in (1, 3) or targets.dim() != 1:
            return None
        for image, target in zip(inputs.cpu(), targets.tolist(), strict=True):
            if target in classes:
                later.append((image, int(target)))
            else:
                pixels.append(image)
                classes.append(int(target))
        if len(classes) >= min(number, len(task.classes)):
            break
    order = sorted(range(len(classes)), key=classes.__getitem__)
    chosen = [(pixels[i], classes[i]) for i in order] + later
    return torch.stack([image for image, _ in chosen[:number]]), [target for _, target in chosen[:number]]


def _present(task: Task, chosen: FineTune, stages: dict[str, Cell], cells: Cells, results: Results) -> None:
    metric = task.metric.label
    results.add_table(
        "stages",
        "The network at each stage",
        pd.DataFrame(
            {
                "Stage": STAGES[key],
                metric: cell["metric"],
                "Loss": cell["loss"],
                "Sparsity (%)": 100 * cell["sparsity"],
                "Nonzero weights": cell["nonzeros"],
                "Size (MiB)": 4 * cell["nonzeros"] / MEBIBYTE,
                "Times smaller": stages["dense"]["nonzeros"] / max(cell["nonzeros"], 1),
                "Packed (MiB)": cell["packed_bytes"] / MEBIBYTE,
            }
            for key, cell in stages.items()
        ),
    )
    layers = pd.DataFrame(
        {"Layer": name, "Weights": weights, "Nonzero": nonzeros, "Sparsity (%)": 100 * (1 - nonzeros / weights)}
        for name, (weights, nonzeros) in stages["tuned"]["layers"].items()
    )
    results.add_table("layers", "Sparsity of each layer", layers)
    results.notes.append(
        "Size counts the nonzero prunable weights at 4 bytes, as the published figure does; the packed size is the "
        "whole network on disk, with biases and the bitmask that says where the weights are."
    )
    chart = figures.bars(layers, "Layer", "Sparsity (%)", title="Sparsity of each layer", subtitle=task.name)
    results.add_figure("layers", "Sparsity of each prunable layer.", chart)
    weights = {key: _weights(task, cells.load_state(key), chosen.seed) for key in STAGES}
    for key, stage in STAGES.items():
        values = {name: array.ravel() for name, array in weights[key].items()}
        chart = pictures.histograms(values, title=f"Weights of each layer: {stage}", subtitle=task.name)
        results.add_figure(f"weights-{key}", f"Nonzero weights of each layer, {stage}.", chart)
    _add_kernels(chosen, weights, results)
    _add_samples(task, chosen, stages, results)
    lines = {stage: [_for_remarks(stages[key])] for key, stage in STAGES.items()}
    results.notes += remarks(lines, task.chance)


def _for_remarks(cell: Cell) -> Cell:
    return {**cell, "layers": {n: 1 - nonzeros / max(weights, 1) for n, (weights, nonzeros) in cell["layers"].items()}}


def _weights(
    task: Task, state: dict[str, Tensor], seed: int
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    model = task.new(seed)
    model.load_state_dict(state)
    return {name: weight.detach().float().cpu().numpy() for name, weight in pruning.prunable(model).items()}


def _add_kernels(
    chosen: FineTune, weights: dict[str, dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]], results: Results
) -> None:
    convolutions = [name for name, weight in weights["dense"].items() if weight.ndim == 4]
    if not convolutions:
        return
    name = chosen.look_at or convolutions[0]
    for key, stage in STAGES.items():
        results.add_figure(
            f"kernels-{key}",
            f"Kernels of {name}, {stage}: the darker, the larger the magnitude; the number is the value, a white "
            "square is a pruned weight.",
            pictures.kernels(weights[key][name], title=f"Kernels of {name}: {stage}", limit=chosen.kernels),
        )


def _add_samples(task: Task, chosen: FineTune, stages: dict[str, Cell], results: Results) -> None:
    samples = sample_images(task, chosen.images)
    if samples is None or not stages["dense"]["predictions"]:
        return
    pixels = (samples[0].clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()
    for key, stage in STAGES.items():
        predicted = stages[key]["predictions"][: chosen.images]
        truth = samples[1][: len(predicted)]
        captions = [
            f"{task.classes[p]}" + ("" if p == t else f"\n(is {task.classes[t]})")
            for p, t in zip(predicted, truth, strict=True)
        ]
        wrong = [p != t for p, t in zip(predicted, truth, strict=True)]
        results.add_figure(
            f"samples-{key}",
            f"{len(predicted)} test images, one of each class, with the prediction under each, {stage}; wrong ones "
            "are framed.",
            pictures.strip(
                pixels,
                captions,
                wrong,
                title=f"Predictions: {stage}",
                subtitle=f"{len(predicted) - sum(wrong)} of {len(predicted)} right",
            ),
        )
