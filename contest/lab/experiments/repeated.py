"""Repeated pruning: train, prune a fraction of what remains, and again; three ways to go on after a pruning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from contest import pruning
from contest.errors import UsageError
from contest.lab.experiments.repeated_report import FORMATS, present
from contest.lab.measure.latency import torch_latency
from contest.lab.measure.sizes import sizes
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.starting import Plan, begin, fresh, require_method
from contest.lab.task import Task
from contest.lab.training import Training, train

VARIANTS = {
    "none": "no retraining",
    "kept": "retraining, not rewound",
    "initial": "retraining, rewound",
}
"""Ways to go on after a pruning; a number k is one more: retraining, rewound to step k of the first training."""
MASK = "mask of "


@dataclass(frozen=True)
class Repeated:
    """The experiment's parameters; the defaults are the published ones (docs/lab.md)."""

    rounds: int = 10
    fraction: float = 0.33
    """Of the remaining weights, removed in each round."""
    method: str = "magnitude"
    variants: tuple[str, ...] = ("none", "kept", "initial")
    training: Training = field(default_factory=Training)
    """Of the dense network, and again after each pruning in the variants that retrain."""
    seed: int = 0
    scoring_samples: int = 512
    latency_batch: int = 256
    latency_runs: int = 20
    latency_warmup: int = 3
    disk: Literal["dense", "coo", "csr", "packed"] = "packed"
    """The format whose size stands in the tables and the plot; all of them have a table of their own."""

    def __post_init__(self) -> None:
        for variant in self.variants:
            if variant not in VARIANTS and not variant.isdecimal():
                raise UsageError(
                    f"variant '{variant}' is none of {', '.join(VARIANTS)} and not a step (a whole number)"
                )
        if self.disk not in FORMATS:
            raise UsageError(f"disk format '{self.disk}' is none of {', '.join(FORMATS)}")

    @property
    def rewind_steps(self) -> tuple[int, ...]:
        return tuple(int(variant) for variant in self.variants if variant.isdecimal())


def repeated(
    task: Task,
    folder: Path,
    options: Repeated | None = None,
    *,
    progress: bool = False,
    again: Sequence[str] = (),
    questions: Sequence[str] = (),
) -> Results:
    """Run (or finish) the experiment on any task and write its tables, figures and page into `folder`.

    Args:
        again: patterns of cells (`kept-0*`) that are computed anew.
        questions: that the page asks.
    """
    chosen = options or Repeated()
    require_method(task, chosen.method, samples=chosen.scoring_samples, seed=chosen.seed)
    trained = sum(variant != "none" for variant in chosen.variants)
    plan = Plan(
        1 + chosen.rounds * len(chosen.variants),
        chosen.training.epochs * (1 + chosen.rounds * trained),
        1 + chosen.rounds * len(chosen.variants),
    )
    cells, sentences = begin(
        "repeated",
        [task],
        folder,
        chosen,
        plan,
        training=chosen.training,
        growing=("variants", "rounds", "disk"),
        again=again,
        progress=progress,
    )
    with cells:
        first, rows = _run(task, chosen, cells)
    results = Results(
        folder,
        f"Repeated pruning: {task.name}",
        f"{chosen.rounds} rounds, each removing {chosen.fraction:.0%} of the remaining prunable weights by "
        f"{chosen.method}; {chosen.training.epochs:g} epochs of {chosen.training.optimiser} before the first "
        "round, and after each one in the variants that retrain.",
        cells.configuration,
        cells.machine,
        questions=questions,
    )
    results.notes += sentences
    present(task, chosen, {_title(v): [first, *own] for v, own in rows.items()}, results)
    results.notes.append(cells.cost())
    results.finish()
    return results


def _run(task: Task, chosen: Repeated, cells: Cells) -> tuple[Cell, dict[str, list[Cell]]]:
    model = fresh(task, cells, chosen.seed)
    initial = pruning.state_of(model)
    origins: dict[str, Callable[[], dict[str, Tensor]]] = {"initial": lambda: initial}
    origins |= {str(step): lambda step=step: cells.load_state(f"step-{step}") for step in chosen.rewind_steps}  # type: ignore[misc]
    samples = task.scoring_batches(chosen.scoring_samples, chosen.seed)

    def dense() -> Cell:
        steps, curve = count(1), []

        def note(trained: nn.Module) -> None:
            step = next(steps)
            if step in chosen.rewind_steps:
                cells.save_state(f"step-{step}", trained.state_dict())

        train(
            model,
            task.train_batches,
            task.loss,
            chosen.training,
            seed=chosen.seed,
            after_step=note,
            watch=lambda _, loss: curve.append(loss),
        )
        for step in chosen.rewind_steps:
            if not cells.has_state(f"step-{step}"):
                raise UsageError(f"rewinding to step {step}: the first training had only {next(steps) - 1} steps")
        cells.save_state("dense", model.state_dict())
        return _measured(task, chosen, model, pruning.full(model), curve)

    def round_of(variant: str, index: int) -> Cell:
        """Round `index` of a variant, from the state of the round before."""
        before = f"{variant}-{index - 1:02d}" if index > 1 else "dense"
        if not cells.has_state(before):  # given back when the rounds after it were finished
            round_of(variant, index - 1)
        masks = _restore(model, cells.load_state(before))
        origin = origins[variant]() if variant in origins else None
        masks = pruning.prune_what_remains(
            model,
            masks,
            index,
            chosen.fraction,
            origin,
            how=chosen.method,
            batches=samples,
            loss=task.loss,
            seed=chosen.seed,
        )
        curve: list[float] = []
        if variant != "none":
            train(
                model,
                task.train_batches,
                task.loss,
                chosen.training,
                seed=chosen.seed + index,
                after_step=lambda trained: pruning.hold(trained, masks),
                watch=lambda _, loss: curve.append(loss),
            )
        state = {**model.state_dict(), **{MASK + n: m for n, m in masks.items()}}
        cells.save_state(f"{variant}-{index:02d}", state)
        return _measured(task, chosen, model, masks, curve)

    first = cells("dense", dense)
    rows: dict[str, list[Cell]] = {}
    for variant in chosen.variants:
        rows[variant] = []
        for index in range(1, chosen.rounds + 1):
            key = f"{variant}-{index:02d}"
            rows[variant].append(cells(key, lambda variant=variant, index=index: round_of(variant, index)))  # type: ignore[misc]
            if index > 1 and cells.finished(key):
                cells.drop_state(f"{variant}-{index - 1:02d}")
    return first, rows


def _title(variant: str) -> str:
    return VARIANTS.get(variant, f"retraining, rewound to step {variant}")


def _restore(model: nn.Module, state: dict[str, Tensor]) -> pruning.Masks:
    """Give the model the state of a cell, and return the cell's masks."""
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith(MASK)})
    masks = {name.removeprefix(MASK): value for name, value in state.items() if name.startswith(MASK)}
    return masks or pruning.full(model)


def _measured(task: Task, chosen: Repeated, model: nn.Module, masks: pruning.Masks, curve: list[float]) -> Cell:
    report = pruning.sparsity(model, masks)
    latency = torch_latency(
        model, task.example(chosen.latency_batch), runs=chosen.latency_runs, warmup=chosen.latency_warmup
    )
    return {
        "metric": task.measure(model),
        "loss": task.mean_loss(model),
        "sparsity": report.prunable,
        "model_sparsity": report.model,
        "nonzeros": report.nonzeros,
        "weights": report.weights,
        "parameters": report.parameters,
        "layers": {layer.name: layer.sparsity for layer in report.layers},
        "sizes": {layer.name: layer.weights for layer in report.layers},
        "curve": curve,
        "latency": latency.values(),
        "megabytes": sizes(model).megabytes(),
    }
