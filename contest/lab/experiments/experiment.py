"""What every experiment has: its folder and plan, networks to start from, and why one of them predicts nothing."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contest import pruning
from contest.errors import UsageError
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells, minutes
from contest.lab.task import Task
from contest.lab.training import Training, train
from contest.pruning.registry import method

KEY, INITIAL = "dense", "initial"
TIMED_STEPS = 3


@dataclass(frozen=True)
class ExperimentPlan:
    """How much work an experiment is."""

    cells: int
    epochs: float
    """Of all its trainings together."""
    measurements: int
    """Passes over the test set."""


def describe(experiment: str, tasks: Sequence[Task], options: Any) -> dict[str, Any]:
    """The configuration that a results folder belongs to, and that runs again with `contest lab run`."""
    described = [{"task": task.name, **task.about, **_prunable(task)} for task in tasks]
    own = {"tasks": described} if experiment == "compare" else described[0]
    return {"experiment": experiment, **own, **asdict(options)}


def _prunable(task: Task) -> dict[str, list[str]]:
    """The task's choice of weights, where it is said in names."""
    if callable(task.prunable) or not all(isinstance(choice, str) for choice in task.prunable):
        return {}
    return {"prunable": [task.prunable] if isinstance(task.prunable, str) else [str(c) for c in task.prunable]}


def begin(
    experiment: str,
    tasks: Sequence[Task],
    folder: Path,
    options: Any,
    plan: ExperimentPlan,
    *,
    training: Training,
    growing: Sequence[str] = (),
    again: Sequence[str] = (),
    progress: bool = False,
) -> tuple[Cells, list[str]]:
    """The experiment's cells, and sentences for its report: what of each model is prunable, which epoch counts.

    Each task is tried on a batch first. Where progress is shown, the time that it will take is said before it begins.

    Raises:
        UsageError: a task does not work, or the folder belongs to another configuration.
    """
    sentences = [task.check() if len(tasks) == 1 else f"{task.name}: {task.check()}" for task in tasks]
    sentences.append(f"{tasks[0].metric.name} is that of each training's last epoch: none is chosen on the test set.")
    cells = Cells(
        folder, describe(experiment, tasks, options), plan.cells, growing=growing, again=again, progress=progress
    )
    if progress and cells.unfinished:
        seconds = sum(forecast(task, training, plan) for task in tasks) / len(tasks)
        share = cells.unfinished / plan.cells
        cells.expected = seconds / plan.cells
        cells.say(
            f"{cells.unfinished} of {plan.cells} cells to do, {plan.epochs * share:g} epochs and "
            f"{plan.measurements * share:.0f} tests: about {minutes(seconds * share)} on this machine"
        )
    return cells, sentences


def forecast(task: Task, training: Training, plan: ExperimentPlan) -> float:
    """Seconds that the plan will take on this machine, from a few timed steps and a timed part of a test."""
    model = task.new(0)
    batches = list(_first(task, TIMED_STEPS + 1))
    few = replace(training, epochs=1.0, schedule="constant")
    with torch.random.fork_rng():
        train(model, batches[:1], task.loss, few)  # allocation and caches
        started = time.perf_counter()
        train(model, batches[1:] or batches, task.loss, few)
        step = (time.perf_counter() - started) / max(len(batches) - 1, 1)
        started = time.perf_counter()
        task.measure(model, batches=1)
        test = (time.perf_counter() - started) * _length(task.test_batches)
    # A test also takes the mean loss, another pass over the test set.
    return plan.epochs * _length(task.train_batches) * step + 2 * plan.measurements * test


def _first(task: Task, number: int) -> Any:
    for index, batch in enumerate(task.train_batches):
        if index >= number:
            return
        yield batch


def _length(batches: Any) -> int:
    try:
        return len(batches)
    except TypeError:
        return 1


def fresh(task: Task, cells: Cells, seed: int, prefix: str = "") -> nn.Module:
    """The untrained network: drawn once and kept in the folder, so that every start and rewinding has the same one."""
    model = task.new(seed)
    name = f"{prefix}{INITIAL}"
    if cells.has_state(name):
        model.load_state_dict(cells.load_state(name))
    else:
        cells.save_state(name, model.state_dict())
    return model


def train_on(
    task: Task,
    model: nn.Module,
    training: Training,
    seed: int,
    *,
    masks: pruning.Masks | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
) -> list[float]:
    """Train on the task's batches in place, with `masks` held after each step; returns each epoch's mean loss."""
    curve: list[float] = []
    if masks is not None:
        after_step = functools.partial(pruning.hold, masks=masks)
    train(
        model,
        task.train_batches,
        task.loss,
        training,
        seed=seed,
        after_step=after_step,
        watch=lambda _, loss: curve.append(loss),
    )
    return curve


def report(cells: Cells, sentences: Sequence[str], title: str, summary: str, questions: Sequence[str]) -> Results:
    """The results of an experiment whose cells are finished, with its first sentences."""
    about = (cells.configuration, cells.machine)
    return Results(cells.folder, title, summary, *about, notes=list(sentences), questions=questions)


def finish(cells: Cells, results: Results) -> Results:
    """The same results with what their cells took, written as a page."""
    results.notes.append(cells.cost())
    results.finish()
    return results


def dense(task: Task, cells: Cells, training: Training, seed: int) -> tuple[nn.Module, Cell]:
    """The trained network and its cell (metric, loss, training-loss curve); both come from the folder if they can."""
    model = fresh(task, cells, seed)

    def compute() -> Cell:
        curve = train_on(task, model, training, seed)
        cells.save_state(KEY, model.state_dict())
        return {"metric": task.measure(model), "loss": task.mean_loss(model), "curve": curve}

    cell = cells(KEY, compute)
    model.load_state_dict(cells.load_state(KEY))
    return model, cell


def require_method(task: Task, name: str, *, samples: int, seed: int) -> None:
    """Raise UsageError with the reason where a method cannot score the task's model, tried before any training."""
    obstacle = method(name).obstacle(copy.deepcopy(task.new(seed)), task.scoring_batches(samples, seed), task.loss)
    if obstacle:
        raise UsageError(obstacle)


NEAR_POINTS = 1.5
"""So near to guessing, in points of accuracy, is at chance."""
LEARNED = 0.9
"""A training whose loss stays above this share of its first value has not learned."""


def at_chance(metric: float, chance: float | None) -> bool:
    """Whether an accuracy is one that guessing reaches."""
    return chance is not None and metric <= chance + NEAR_POINTS


def empty_layers(layers: Mapping[str, float]) -> list[str]:
    """The layers of which not a weight is left."""
    return [name for name, sparsity in layers.items() if sparsity >= 1]


def remarks(rows: Mapping[str, Sequence[Cell]], chance: float | None) -> list[str]:
    """For each line of cells that falls to chance, a sentence: from when on, and why.

    Args:
        rows: cells by line, in their order, the unpruned network first; each has `metric` and `layers` (sparsities by
            name), `curve` (training losses) where it was trained, and `place`, what it is called (else its round).
    """
    found = []
    for name, cells in rows.items():
        for index, cell in enumerate(cells):
            if math.isnan(cell["metric"]):
                found.append(f"{name}: the metric is not a number in {_place(cells, index)}.")
        guessing = [at_chance(cell["metric"], chance) for cell in cells]
        fallen = next((i for i in range(len(cells)) if all(guessing[i:])), None)
        if fallen is not None:
            metric = cells[fallen]["metric"]
            since = f" from {_place(cells, fallen)} on" if len(cells) > 1 else ""
            found.append(f"{name}: at chance ({metric:.2f}){since}; {_why(cells, fallen)}.")
    return found


def _place(cells: Sequence[Cell], index: int) -> str:
    return str(cells[index].get("place", f"round {index}"))


def _why(cells: Sequence[Cell], fallen: int) -> str:
    empty = empty_layers(cells[fallen].get("layers", {}))
    if empty:
        first = next(i for i, cell in enumerate(cells) if set(empty) & set(empty_layers(cell.get("layers", {}))))
        since = f" since {_place(cells, first)}" if len(cells) > 1 else ""
        return f"{', '.join(empty)} has had no weight left{since}, so that no signal passes"
    curve = cells[fallen].get("curve", [])
    if curve and curve[-1] > LEARNED * curve[0]:
        return (
            f"no layer is empty, but the training did not converge (loss {curve[0]:.3f} in its first and "
            f"{curve[-1]:.3f} in its last epoch)"
        )
    layers = cells[fallen].get("layers", {})
    if layers:
        name = max(layers, key=lambda key: layers[key])
        return f"no layer is empty; {name} has lost most, {100 * layers[name]:.2f} % of its weights"
    return "no layer is empty"
