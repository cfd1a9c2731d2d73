"""Repeated pruning: train, prune a fraction of what remains, and again; three ways to go on after a pruning."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import pandas as pd
from torch import Tensor, nn

from contest import pruning
from contest.errors import UsageError
from contest.lab.measure.latency import torch_latency
from contest.lab.measure.sizes import sizes
from contest.lab.results import figures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.task import Task
from contest.lab.training import Training, train

VARIANTS = {
    "none": "no retraining",
    "kept": "retraining, not rewound",
    "initial": "retraining, rewound",
}
"""Ways to go on after a pruning; a number k is one more: retraining, rewound to step k of the first training."""
MASK = "mask of "
FORMATS = {"dense": "dense float32", "coo": "sparse COO", "csr": "sparse CSR", "packed": "bit-packed"}


@dataclass(frozen=True)
class Repeated:
    """The experiment's parameters; the defaults are the published ones (labs.md)."""

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

    def __post_init__(self) -> None:
        for variant in self.variants:
            if variant not in VARIANTS and not variant.isdecimal():
                raise UsageError(
                    f"variant '{variant}' is none of {', '.join(VARIANTS)} and not a step (a whole number)"
                )

    @property
    def rewind_steps(self) -> tuple[int, ...]:
        return tuple(int(variant) for variant in self.variants if variant.isdecimal())


def repeated(task: Task, folder: Path, options: Repeated | None = None, *, progress: bool = False) -> Results:
    """Run (or finish) the experiment on any task and write its tables, figures and page into `folder`."""
    chosen = options or Repeated()
    configuration = {"experiment": "repeated", "task": task.name, **task.about, **asdict(chosen)}
    total = 1 + chosen.rounds * len(chosen.variants)
    with Cells(folder, configuration, total, progress=progress) as cells:
        rows = _run(task, chosen, cells)
        results = Results(
            folder,
            f"Repeated pruning: {task.name}",
            f"{chosen.rounds} rounds, each removing {chosen.fraction:.0%} of the remaining prunable weights by "
            f"{chosen.method}; {chosen.training.epochs:g} epochs of {chosen.training.optimiser} before the first "
            "round, and after each one in the variants that retrain.",
            cells.configuration,
            cells.machine,
        )
    _present(task, chosen, rows, results)
    return results


def _run(task: Task, chosen: Repeated, cells: Cells) -> dict[str, list[Cell]]:
    model = task.new(chosen.seed)
    initial = pruning.state_of(model)
    origins = {"initial": lambda: initial} | {
        str(step): lambda step=step: cells.load_state(f"step-{step}") for step in chosen.rewind_steps
    }
    samples = task.scoring_batches(chosen.scoring_samples, chosen.seed)

    def dense() -> Cell:
        steps = count(1)

        def note(trained: nn.Module) -> None:
            step = next(steps)
            if step in chosen.rewind_steps:
                cells.save_state(f"step-{step}", trained.state_dict())

        train(model, task.train, task.loss, chosen.training, seed=chosen.seed, after_step=note)
        for step in chosen.rewind_steps:
            if not cells.has_state(f"step-{step}"):
                raise UsageError(f"rewinding to step {step}: the first training had only {next(steps) - 1} steps")
        cells.save_state("dense", model.state_dict())
        return _measured(task, chosen, model, pruning.full(model))

    first = cells("dense", dense)
    rows: dict[str, list[Cell]] = {}
    for variant in chosen.variants:
        rows[variant] = [first]
        before = "dense"
        for index in range(1, chosen.rounds + 1):
            key = f"{variant}-{index:02d}"

            def next_round(before: str = before, variant: str = variant, index: int = index, key: str = key) -> Cell:
                masks = _restore(model, cells.load_state(before))
                origin = origins[variant]() if variant in origins else None
                masks = pruning.prune_what_remains(
                    model, masks, index, chosen.fraction, origin,
                    how=chosen.method, batches=samples, loss=task.loss, seed=chosen.seed,
                )  # fmt: skip
                if variant != "none":
                    train(model, task.train, task.loss, chosen.training, seed=chosen.seed + index,
                          after_step=lambda trained: pruning.hold(trained, masks))  # fmt: skip
                cells.save_state(key, {**model.state_dict(), **{MASK + n: m for n, m in masks.items()}})
                return _measured(task, chosen, model, masks)

            rows[variant].append(cells(key, next_round))
            if before != "dense" and cells.finished(key):
                cells.drop_state(before)
            before = key
    return rows


def _title(variant: str) -> str:
    return VARIANTS.get(variant, f"retraining, rewound to step {variant}")


def _restore(model: nn.Module, state: dict[str, Tensor]) -> pruning.Masks:
    """Give the model the state of a cell, and return the cell's masks."""
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith(MASK)})
    masks = {name.removeprefix(MASK): value for name, value in state.items() if name.startswith(MASK)}
    return masks or pruning.full(model)


def _measured(task: Task, chosen: Repeated, model: nn.Module, masks: pruning.Masks) -> Cell:
    report = pruning.sparsity(model, masks)
    latency = torch_latency(model, task.example(chosen.latency_batch), runs=chosen.latency_runs)
    return {
        "metric": task.measure(model),
        "loss": task.mean_loss(model),
        "sparsity": report.prunable,
        "model_sparsity": report.model,
        "nonzeros": report.nonzeros,
        "parameters": report.parameters,
        "layers": {layer.name: layer.sparsity for layer in report.layers},
        "latency": latency.values(),
        "megabytes": sizes(model).megabytes(),
    }


def _present(task: Task, chosen: Repeated, rows: dict[str, list[Cell]], results: Results) -> None:
    metric = task.metric.label
    long = []
    for variant, cells in rows.items():
        table = pd.DataFrame(
            {
                "Iteration": index,
                "Sparsity (%)": 100 * cell["sparsity"],
                metric: cell["metric"],
                "Latency (s)": cell["latency"]["mean_s"],
                "Disk Size (MB)": cell["megabytes"]["packed"],
                "Whole-model sparsity (%)": 100 * cell["model_sparsity"],
                "Nonzero weights": cell["nonzeros"],
                "Loss": cell["loss"],
                "Latency std (s)": cell["latency"]["std_s"],
            }
            for index, cell in enumerate(cells)
        )
        results.add_table(variant, f"{_title(variant).capitalize()}", table)
        long.append(table.assign(Variant=_title(variant)))
    every = pd.concat(long)
    _add_sizes(next(iter(rows.values())), task.name, results)
    latency = next(iter(rows.values()))[0]["latency"]
    results.notes += [
        "Sparsity is the fraction of prunable weights that are zero; whole-model sparsity counts the zeros among "
        "all parameters. Disk size is bit-packed (32-bit nonzeros behind a bitmask): the one the score believes in.",
        f"Latency is one forward pass of {latency['batch']} samples in PyTorch on {latency['threads']} threads, mean "
        f"of {latency['runs']} runs after warm-up. Single zeros do not make PyTorch faster: the matrices stay dense. "
        "Removed channels do.",
    ]
    dense = rows[next(iter(rows))][0]["metric"]
    results.add_figure(
        "accuracy-by-sparsity",
        f"{task.metric.name} over sparsity. The thin rule is the dense network.",
        figures.lines(every, "Sparsity (%)", metric, "Variant", title="What retraining and rewinding buy",
                      subtitle=task.name, order="Iteration", level=dense),
    )  # fmt: skip
    high = every[every["Sparsity (%)"] >= 75]
    if len(high):
        results.add_figure(
            "accuracy-by-sparsity-end",
            "The same from 75 % sparsity on, over the weights that are left (logarithmic): where each way collapses.",
            figures.lines(high, "Nonzero weights", metric, "Variant", title="Where each way collapses",
                          subtitle=task.name, order="Iteration", x_log=True, level=dense),
        )  # fmt: skip
    # In the figure the median, where the cells have it: other programs' turns on the processor move the mean.
    every["Latency (s)"] = [
        c["latency"].get("median_s", c["latency"]["mean_s"]) for cells in rows.values() for c in cells
    ]
    noise = {"latency": " Masks do not change what is computed: differences are the machine's."}
    for y, name in (("Sparsity (%)", "sparsity"), ("Disk Size (MB)", "disk-size"), ("Latency (s)", "latency")):
        results.add_figure(
            f"{name}-by-accuracy",
            f"{y} over {task.metric.name.lower()}, a line for each variant; each line starts at the dense network."
            + noise.get(name, ""),
            figures.lines(every, metric, y, "Variant", title=f"{y} against {task.metric.name.lower()}",
                          subtitle=task.name, order="Iteration", y_zero=name != "sparsity"),
        )  # fmt: skip
    results.finish()


def _add_sizes(cells: list[Cell], subtitle: str, results: Results) -> None:
    table = pd.DataFrame(
        {"Iteration": i, "Sparsity (%)": 100 * cell["sparsity"],
         **{f"{label} (MB)": cell["megabytes"][name] for name, label in FORMATS.items()}}
        for i, cell in enumerate(cells)
    )  # fmt: skip
    results.add_table("sizes", "Size on disk in each format", table)
    long = table.melt(["Iteration", "Sparsity (%)"], var_name="Format", value_name="Size (MB)")
    long["Format"] = long["Format"].str.removesuffix(" (MB)")
    results.add_figure(
        "sizes",
        "Size on disk over sparsity. Sparse COO pays 8 bytes an index and dimension, so it is larger than the dense "
        "file until about 80 % sparsity.",
        figures.lines(long, "Sparsity (%)", "Size (MB)", "Format", title="What zeros save on disk", subtitle=subtitle,
                      order="Iteration", y_zero=True, level=float(table["dense float32 (MB)"].iloc[0])),
    )  # fmt: skip
