"""Single-shot comparison: several methods prune once, at several compression ratios; every network is trained."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from contest import pruning
from contest.errors import TrainingError, UsageError
from contest.lab.experiments.compare_report import TIMED_SECONDS, TIMED_TESTS, present
from contest.lab.measure.flops import layer_macs
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.starting import Plan, begin, fresh
from contest.lab.task import Task
from contest.lab.training import Training, train
from contest.pruning.registry import TRIED_SAMPLES

CURVE_POINTS = 5
"""A loss curve has at least so many points; a training of fewer epochs is looked at within its epochs."""


@dataclass(frozen=True)
class Compare:
    """The experiment's parameters; methods and ratios are the published ones (labs.md)."""

    methods: tuple[str, ...] = ("random", "magnitude", "snip", "grasp", "synflow")
    ratios: tuple[float, ...] = (1, 2, 5, 10, 15, 20)
    """Compression ratios: c keeps 1/c of the prunable weights."""
    look_at: float = 10
    """The ratio whose networks are looked at layer by layer."""
    training: Training = field(default_factory=lambda: _sgd(10))
    """Of each pruned network."""
    pretraining: Training = field(default_factory=lambda: _sgd(10))
    """Before pruning, for methods that are made for a trained network (200 epochs in the original)."""
    seed: int = 0
    scoring_samples: int = 256


def _sgd(epochs: float) -> Training:
    return Training(epochs, "sgd", 0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine")


def compare(
    tasks: Sequence[Task],
    folder: Path,
    options: Compare | None = None,
    *,
    progress: bool = False,
    again: Sequence[str] = (),
    questions: Sequence[str] = (),
) -> Results:
    """Run (or finish) the experiment on one or more tasks (architectures) and write everything into `folder`.

    Each method is tried on one batch before anything is trained; one that cannot score a model is an empty column,
    and the report says why. Methods and ratios can be added to a finished folder.

    Args:
        again: patterns of cells (`0-snip-*`) that are computed anew.
        questions: that the page asks.
    """
    chosen = options or Compare()
    late = [name for name in chosen.methods if pruning.method(name).when == "after"]
    obstacles = _obstacles(tasks, chosen)
    cells_each = bool(late) + len({_key("", method, ratio) for method in chosen.methods for ratio in chosen.ratios})
    total = len(tasks) * cells_each
    plan = Plan(
        total,
        len(tasks) * (chosen.pretraining.epochs * bool(late) + chosen.training.epochs * (cells_each - bool(late))),
        total,
    )
    cells, sentences = begin(
        "compare",
        tasks,
        folder,
        chosen,
        plan,
        training=chosen.training,
        growing=("methods", "ratios"),
        again=again,
        progress=progress,
    )
    for sentence in obstacles.values():
        cells.say(sentence)
    rows: list[Cell] = []
    with cells:
        for number, task in enumerate(tasks):
            prefix = f"{number}-"
            if late:
                _pretrain(task, chosen, cells, prefix)
            for method in chosen.methods:
                if (task.name, method) not in obstacles:
                    rows += [_cell(task, chosen, cells, prefix, method, ratio) for ratio in chosen.ratios]
    results = Results(
        folder,
        "Single-shot comparison: " + ", ".join(task.name for task in tasks),
        f"{', '.join(chosen.methods)} prune once; every network is trained for {chosen.training.epochs:g} epochs; "
        + (f"before {' and '.join(late)}, {chosen.pretraining.epochs:g} epochs of training." if late else ""),
        cells.configuration,
        cells.machine,
        questions=questions,
    )
    results.notes += [*sentences, *(f"Empty column: {sentence}." for sentence in obstacles.values())]
    if not rows:
        raise UsageError("no method can score this model: " + "; ".join(obstacles.values()))
    results.notes += _fairness(chosen, late)
    results.notes += [f"{row['key']}: {row['failed']}." for row in rows if "failed" in row]
    present(tasks, chosen, rows, cells, results)
    results.notes.append(cells.cost())
    results.finish()
    return results


def _obstacles(tasks: Sequence[Task], chosen: Compare) -> dict[tuple[str, str], str]:
    """Why a method cannot score a task's model, for those that cannot."""
    found = {}
    for task in tasks:
        samples = task.scoring_batches(TRIED_SAMPLES, chosen.seed)
        for name in chosen.methods:
            obstacle = pruning.method(name).obstacle(task.new(chosen.seed), samples, task.loss)
            if obstacle:
                found[task.name, name] = f"{name} on {task.name}: {obstacle}"
    return found


def _fairness(chosen: Compare, late: Sequence[str]) -> list[str]:
    notes = []
    if late and chosen.pretraining.epochs:
        notes.append(
            f"Unequal training: networks pruned after training ({', '.join(late)}) had {chosen.pretraining.epochs:g} + "
            f"{chosen.training.epochs:g} epochs, the others {chosen.training.epochs:g}. Compare such a column with its "
            "own first row."
        )
    return notes


def _pretrain(task: Task, chosen: Compare, cells: Cells, prefix: str) -> None:
    def compute() -> Cell:
        model = fresh(task, cells, chosen.seed, prefix)
        train(model, task.train_batches, task.loss, chosen.pretraining, seed=chosen.seed)
        cells.save_state(f"{prefix}pretrained", model.state_dict())
        return {"metric": task.measure(model)}

    cells(f"{prefix}pretrained", compute)


def _key(prefix: str, method: str, ratio: float) -> str:
    """At ratio 1 nothing is pruned: all methods of one kind train the same network, so they share its cell."""
    if ratio > 1:
        return f"{prefix}{method.replace(':', '.')}-{ratio:g}"
    return f"{prefix}dense-{pruning.method(method).when}"


def _cell(task: Task, chosen: Compare, cells: Cells, prefix: str, method: str, ratio: float) -> Cell:
    key = _key(prefix, method, ratio)

    def compute() -> Cell:
        model = fresh(task, cells, chosen.seed, prefix)
        if pruning.method(method).when == "after":
            model.load_state_dict(cells.load_state(f"{prefix}pretrained"))
        samples = task.scoring_batches(chosen.scoring_samples, chosen.seed)
        masks = (
            pruning.full(model)
            if ratio == 1
            else pruning.prune(
                model, method, pruning.sparsity_of_compression(ratio), batches=samples, loss=task.loss, seed=chosen.seed
            )
        )
        pruning.enforce(model, masks)
        curve: list[list[float]] = []
        try:
            train(
                model,
                task.train_batches,
                task.loss,
                chosen.training,
                seed=chosen.seed + 1,
                after_step=(lambda trained: pruning.hold(trained, masks)) if ratio > 1 else None,
                watch=lambda epoch, loss: curve.append([epoch, loss, task.mean_loss(model)]),
                watch_every=min(1.0, chosen.training.epochs / CURVE_POINTS) if ratio == chosen.look_at else 1.0,
            )
        except TrainingError as error:  # the other networks go on
            return {**_measured(task, model, masks, curve), "metric": math.nan, "failed": str(error)}
        if ratio == chosen.look_at:
            cells.save_state(key, model.state_dict())
        return _measured(task, model, masks, curve)

    return {"task": task.name, "method": method, "ratio": ratio, "key": key, **cells(key, compute)}


def _measured(task: Task, model: nn.Module, masks: pruning.Masks, curve: list[list[float]]) -> Cell:
    times: list[float] = []
    while len(times) < TIMED_TESTS and (not times or sum(times) < TIMED_SECONDS):
        start = time.perf_counter()
        metric = task.measure(model)
        times.append(time.perf_counter() - start)
    report = pruning.sparsity(model, masks)
    macs = layer_macs(model, task.example(1))
    return {
        "metric": metric,
        "testing_s": statistics.median(times),
        "testing_std_s": statistics.stdev(times) if len(times) > 1 else None,
        "sparsity": report.prunable,
        "layers": [
            {"layer": layer.name, "weights": layer.weights, "nonzeros": layer.nonzeros, "macs": macs[layer.name]}
            for layer in report.layers
        ],
        "curve": curve,
    }
