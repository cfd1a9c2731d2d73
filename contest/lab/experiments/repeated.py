"""Repeated pruning: train, prune a fraction of what remains, and again; three ways to go on after a pruning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal

import pandas as pd
from torch import Tensor, nn

from contest import pruning
from contest.errors import UsageError
from contest.lab.costs import sizes, torch_latency
from contest.lab.experiments.experiment import (
    ExperimentPlan,
    begin,
    empty_layers,
    finish,
    fresh,
    remarks,
    report,
    require_method,
    train_on,
)
from contest.lab.results import figures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.task import Task
from contest.lab.training import Parameters, Training, length

VARIANTS = {"none": "no retraining", "kept": "retraining, not rewound", "initial": "retraining, rewound"}
"""Ways to go on after a pruning; a number k is one more: retraining, rewound to step k of the first training."""
MASK = "mask of "


@dataclass(frozen=True)
class Repeated(Parameters):
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
        super().__post_init__()
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
    steps = math.ceil(chosen.training.epochs * length(task.train_batches))
    for step in chosen.rewind_steps:
        if not 1 <= step <= steps:
            raise UsageError(f"rewinding to step {step}: the first training has steps 1 to {steps}; 0 is `initial`")
    trained = sum(variant != "none" for variant in chosen.variants)
    plan = ExperimentPlan(
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
    results = report(
        cells,
        sentences,
        f"Repeated pruning: {task.name}",
        f"{chosen.rounds} rounds, each removing {chosen.fraction:.0%} of the remaining prunable weights by "
        f"{chosen.method}; {chosen.training.epochs:g} epochs of {chosen.training.optimiser} before the first "
        "round, and after each one in the variants that retrain.",
        questions,
    )
    present(task, chosen, {_title(v): [first, *own] for v, own in rows.items()}, results)
    return finish(cells, results)


def _run(task: Task, chosen: Repeated, cells: Cells) -> tuple[Cell, dict[str, list[Cell]]]:
    model = fresh(task, cells, chosen.seed)
    initial = pruning.state_of(model)
    origins: dict[str, Callable[[], dict[str, Tensor]]] = {"initial": lambda: initial}
    origins |= {str(step): lambda step=step: cells.load_state(f"step-{step}") for step in chosen.rewind_steps}  # type: ignore[misc]
    samples = task.scoring_batches(chosen.scoring_samples, chosen.seed)

    def dense() -> Cell:
        steps = count(1)

        def note(trained: nn.Module) -> None:
            step = next(steps)
            if step in chosen.rewind_steps:
                cells.save_state(f"step-{step}", trained.state_dict())

        start = _spreads(model)
        curve = train_on(task, model, chosen.training, chosen.seed, after_step=note)
        cells.save_state("dense", model.state_dict())
        measured = _measured(task, chosen, model, pruning.full(model), curve)
        return {**measured, "initial_std": start, "trained_std": _spreads(model)}

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
            curve = train_on(task, model, chosen.training, chosen.seed + index, masks=masks)
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


def _spreads(model: nn.Module) -> dict[str, float]:
    """The standard deviation of each weight tensor: global magnitude takes the smallest weights of all of them."""
    return {
        name: float(weight.detach().std()) for name, weight in pruning.prunable(model).items() if weight.numel() > 1
    }


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


FORMATS = {"dense": "dense float32", "coo": "sparse COO", "csr": "sparse CSR", "packed": "bit-packed"}


def present(task: Task, chosen: Repeated, rows: dict[str, list[Cell]], results: Results) -> None:
    metric = task.metric.label
    keys = dict(zip(rows, chosen.variants, strict=True))
    every = []
    for variant, cells in rows.items():
        table = pd.DataFrame(
            {
                "Iteration": index,
                "Sparsity (%)": 100 * cell["sparsity"],
                metric: cell["metric"],
                "Latency (s)": cell["latency"]["mean_s"],
                "Disk Size (MB)": cell["megabytes"][chosen.disk],
                "Whole-model sparsity (%)": 100 * cell["model_sparsity"],
                "Nonzero weights": cell["nonzeros"],
                "Loss": cell["loss"],
                "Latency std (s)": cell["latency"]["std_s"],
                "Latency median (s)": cell["latency"]["median_s"],
                "Empty layers": ", ".join(empty_layers(cell["layers"])) or "none",
            }
            for index, cell in enumerate(cells)
        )
        results.add_table(keys[variant], variant.capitalize(), table)
        every.append(table.assign(Variant=variant))
    first = next(iter(rows.values()))[0]
    _add_layers(rows, keys, first, task.name, results)
    _add_sizes(next(iter(rows.values())), task.name, results)
    latency = first["latency"]
    results.notes += [
        f"The model has {first['parameters']:,} parameters, of which {first['weights']:,} are prunable. Sparsity is "
        "the fraction of these that are zero; whole-model sparsity counts the zeros among all parameters.",
        f"Disk size is {FORMATS[chosen.disk]}; the table of sizes has all formats. The score believes in the "
        "bit-packed one (32-bit nonzeros behind a bitmask).",
        f"Latency is one forward pass of {latency['batch']} samples in PyTorch on {latency['threads']} thread(s), mean "
        f"and standard deviation of {latency['runs']} runs after {chosen.latency_warmup} for warm-up. Single zeros do "
        "not make PyTorch faster: the matrices stay dense. Removed channels do.",
        *remarks(rows, task.chance),
    ]
    _add_figures(task, pd.concat(every), first["metric"], results)


def _add_layers(rows: dict[str, list[Cell]], keys: dict[str, str], first: Cell, name: str, results: Results) -> None:
    """What of each layer is gone, round by round: where a curve collapses, a layer is empty or nearly so."""
    for variant, cells in rows.items():
        table = pd.DataFrame(
            {
                "Iteration": index,
                **{f"{layer} (%)": 100 * value for layer, value in cell["layers"].items()},
                "All prunable (%)": 100 * cell["sparsity"],
                "Whole model (%)": 100 * cell["model_sparsity"],
            }
            for index, cell in enumerate(cells)
        )
        results.add_table(f"layers-{keys[variant]}", f"Sparsity of each layer: {variant}", table)
    weights = first.get("sizes", {})
    results.add_table(
        "parameters",
        f"Parameters: {first['parameters']:,} in all, {first['weights']:,} of them prunable",
        pd.DataFrame(
            {
                "Weight": name,
                "Number": number,
                "Std at the start": first.get("initial_std", {}).get(name),
                "Std, trained": first.get("trained_std", {}).get(name),
            }
            for name, number in weights.items()
        ),
    )
    shown = next((v for v in rows if keys[v] == "none"), next(iter(rows)))
    long = results.tables[f"layers-{keys[shown]}"].melt(
        ["Iteration", "All prunable (%)", "Whole model (%)"], var_name="Layer", value_name="Sparsity of the layer (%)"
    )
    long["Layer"] = long["Layer"].str.removesuffix(" (%)")
    results.add_figure(
        "layers",
        f"Sparsity of each layer over that of all prunable weights ({shown}). A layer that reaches 100 % ends the "
        "network; layers that begin with smaller weights are emptied first.",
        figures.lines(
            long,
            "All prunable (%)",
            "Sparsity of the layer (%)",
            "Layer",
            title="Which layer is emptied",
            subtitle=name,
            order="Iteration",
        ),
    )


def _add_figures(task: Task, every: pd.DataFrame, dense: float, results: Results) -> None:
    metric = task.metric.label
    results.add_figure(
        "accuracy-by-sparsity",
        f"{task.metric.name} over sparsity. The thin rule is the dense network.",
        figures.lines(
            every,
            "Sparsity (%)",
            metric,
            "Variant",
            title="What retraining and rewinding buy",
            subtitle=task.name,
            order="Iteration",
            level=dense,
        ),
    )
    high = every[every["Sparsity (%)"] >= 75]
    if len(high):
        results.add_figure(
            "accuracy-by-sparsity-end",
            "The same from 75 % sparsity on, over the weights that are left (logarithmic): where each way collapses.",
            figures.lines(
                high,
                "Nonzero weights",
                metric,
                "Variant",
                title="Where each way collapses",
                subtitle=task.name,
                order="Iteration",
                x_log=True,
                level=dense,
            ),
        )
    # In the figure the median: other programs' turns on the processor move the mean.
    every = every.assign(**{"Latency (s)": every["Latency median (s)"]})
    noise = {"latency": " Medians; masks do not change what is computed: differences are the machine's."}
    for y, name in (("Sparsity (%)", "sparsity"), ("Disk Size (MB)", "disk-size"), ("Latency (s)", "latency")):
        results.add_figure(
            f"{name}-by-accuracy",
            f"{y} over {task.metric.name.lower()}, a line for each variant; each line starts at the dense network."
            + noise.get(name, ""),
            figures.lines(
                every,
                metric,
                y,
                "Variant",
                title=f"{y} against {task.metric.name.lower()}",
                subtitle=task.name,
                order="Iteration",
                y_zero=name != "sparsity",
            ),
        )


def _add_sizes(cells: list[Cell], subtitle: str, results: Results) -> None:
    table = pd.DataFrame(
        {
            "Iteration": i,
            "Sparsity (%)": 100 * cell["sparsity"],
            **{f"{label} (MB)": cell["megabytes"][name] for name, label in FORMATS.items()},
            "Packed, times smaller": cells[0]["megabytes"]["dense"] / cell["megabytes"]["packed"],
        }
        for i, cell in enumerate(cells)
    )
    results.add_table("sizes", "Size on disk in each format", table)
    long = table.drop(columns="Packed, times smaller").melt(
        ["Iteration", "Sparsity (%)"], var_name="Format", value_name="Size (MB)"
    )
    long["Format"] = long["Format"].str.removesuffix(" (MB)")
    results.add_figure(
        "sizes",
        "Size on disk over sparsity. Sparse COO pays 8 bytes an index and dimension, so it is larger than the dense "
        "file until about 80 % sparsity.",
        figures.lines(
            long,
            "Sparsity (%)",
            "Size (MB)",
            "Format",
            title="What zeros save on disk",
            subtitle=subtitle,
            order="Iteration",
            y_zero=True,
            level=float(table["dense float32 (MB)"].iloc[0]),
        ),
    )
