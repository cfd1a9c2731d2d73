"""Single-shot comparison: several methods prune once, at several compression ratios; every network is trained."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from torch import nn

from contest import pruning
from contest.errors import TrainingError, UsageError
from contest.lab.costs import TIMED_TESTS, layer_macs, timed_tests
from contest.lab.experiments.experiment import ExperimentPlan, begin, finish, fresh, remarks, report, train_on
from contest.lab.results import figures, pictures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.results.tables import whole
from contest.lab.task import Task
from contest.lab.training import Parameters, Training, train
from contest.pruning.registry import TRIED_SAMPLES

CURVE_POINTS = 5
"""A loss curve has at least so many points; a training of fewer epochs is looked at within its epochs."""


@dataclass(frozen=True)
class Compare(Parameters):
    """The experiment's parameters; methods and ratios are the published ones (docs/lab.md)."""

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
    if len(obstacles) == len(tasks) * len(chosen.methods):
        raise UsageError("no method can score this model: " + "; ".join(obstacles.values()))
    cells_each = bool(late) + len({_key("", method, ratio) for method in chosen.methods for ratio in chosen.ratios})
    total = len(tasks) * cells_each
    plan = ExperimentPlan(
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
    results = report(
        cells,
        sentences,
        "Single-shot comparison: " + ", ".join(task.name for task in tasks),
        f"{', '.join(chosen.methods)} prune once; every network is trained for {chosen.training.epochs:g} epochs; "
        + (f"before {' and '.join(late)}, {chosen.pretraining.epochs:g} epochs of training." if late else ""),
        questions,
    )
    results.notes += [f"Empty column: {sentence}." for sentence in obstacles.values()]
    if chosen.look_at not in chosen.ratios:
        ratios = ", ".join(f"{ratio:g}" for ratio in chosen.ratios)
        results.notes.append(f"No layers are shown: compression {chosen.look_at:g} is none of the ratios {ratios}.")
    results.notes += _fairness(chosen, late)
    results.notes += [f"{row['key']}: {row['failed']}." for row in rows if "failed" in row]
    present(tasks, chosen, rows, cells, results)
    return finish(cells, results)


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
    if not (late and chosen.pretraining.epochs):
        return []
    return [
        f"Unequal training: networks pruned after training ({', '.join(late)}) had {chosen.pretraining.epochs:g} + "
        f"{chosen.training.epochs:g} epochs, the others {chosen.training.epochs:g}. Compare such a column with its "
        "own first row."
    ]


def _pretrain(task: Task, chosen: Compare, cells: Cells, prefix: str) -> None:
    def compute() -> Cell:
        model = fresh(task, cells, chosen.seed, prefix)
        train_on(task, model, chosen.pretraining, chosen.seed)
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
    metric, times = timed_tests(lambda: task.measure(model))
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


def _mflops(cell: Cell) -> tuple[float, float, float]:
    """(masked, dense, scored) millions of floating point operations of convolutions and linear layers for one sample.

    Masked counts 2 x MACs x the layer's density, as papers do; the score counts a float network's dense
    operations, since zeros inside a kernel are multiplied all the same.
    """
    masked = sum(2e-6 * layer["macs"] * layer["nonzeros"] / layer["weights"] for layer in cell["layers"])
    dense = sum(2e-6 * layer["macs"] for layer in cell["layers"])
    return masked, dense, dense


def present(tasks: Sequence[Task], chosen: Compare, rows: list[Cell], cells: Cells, results: Results) -> None:
    """The comparison's tables, figures and notes."""
    metric = tasks[0].metric.label
    long = pd.DataFrame(
        {
            "Network": row["task"],
            "Method": row["method"],
            "Compression": row["ratio"],
            metric: row["metric"],
            "Sparsity (%)": 100 * row["sparsity"],
            "Testing time (s)": row["testing_s"],
            "Testing time std (s)": row.get("testing_std_s"),
            **dict(zip(("MFLOPs, masked", "MFLOPs, dense", "MFLOPs, scored"), _mflops(row), strict=True)),
        }
        for row in rows
    )
    long["FLOPs, fraction of dense"] = long["MFLOPs, masked"] / long["MFLOPs, dense"]
    look = long[long["Compression"] == chosen.look_at]
    if len(look):
        wide = look.pivot_table(index="Network", columns="Method", values=metric, sort=False, dropna=False)
        wide = wide.reindex(columns=list(chosen.methods)).reset_index()
        results.add_table("networks-by-method", f"{metric} at compression {chosen.look_at:g}", wide)
    results.notes += [
        "FLOPs are twice the multiply-accumulates of the prunable weights for one sample. Masked ones are "
        "times each layer's density; the score counts the dense ones, since single zeros lower no operations on real "
        "machines. At compression 1 nothing is pruned, so methods of one kind share one trained network.",
        _noise(long),
    ]
    for number, task in enumerate(tasks):
        suffix = f"-{number}" if len(tasks) > 1 else ""
        _add_ratios(task, chosen, long[long["Network"] == task.name], results, suffix)
        _add_curves(task, chosen, rows, results, suffix)
        _add_layers(task, chosen, rows, cells, results, suffix)
        lines = {
            f"{method} ({task.name})": [
                _for_remarks(row) for row in rows if row["task"] == task.name and row["method"] == method
            ]
            for method in chosen.methods
        }
        results.notes += remarks({name: cells for name, cells in lines.items() if cells}, task.chance)


def _for_remarks(row: Cell) -> Cell:
    layers = {layer["layer"]: 1 - layer["nonzeros"] / max(layer["weights"], 1) for layer in row["layers"]}
    return {**row, "layers": layers, "curve": [loss for _, loss, _ in row["curve"]], "place": f"{row['ratio']:g}x"}


def _noise(long: pd.DataFrame) -> str:
    """Whether testing times differ by more than the same network's own from one pass to the next."""
    deviations = long["Testing time std (s)"].dropna()
    spread = float(long["Testing time (s)"].max() - long["Testing time (s)"].min())
    if not len(deviations):
        return "Testing times are of one pass each: their differences cannot be told from noise."
    own = float(deviations.median())
    # The largest of many differences reaches four deviations by chance alone.
    verdict = "no difference within noise" if spread <= 4 * own else "more than the noise of these passes"
    return (
        f"Testing times are medians of {TIMED_TESTS} passes at most; they lie within {spread:.3g} s of each other, and "
        f"a network's own passes scatter by {own:.3g} s (standard deviation): {verdict}."
    )


def _add_ratios(task: Task, chosen: Compare, own: pd.DataFrame, results: Results, suffix: str) -> None:
    """The tables ratio x method and their curves."""
    metric = task.metric.label
    columns = {
        metric: "accuracy",
        "Testing time (s)": "testing-time",
        "MFLOPs, masked": "flops",
        "FLOPs, fraction of dense": "flops-fraction",
    }
    for column, name in columns.items():
        wide = own.pivot_table(index="Compression", columns="Method", values=column, sort=False, dropna=False)
        wide = wide.reindex(columns=list(chosen.methods)).reset_index()
        dense = float(own["MFLOPs, dense"].iloc[0])
        if name == "flops":
            wide["dense"], wide["scored"] = dense, float(own["MFLOPs, scored"].iloc[0])
        wide.insert(1, "Sparsity (%)", 100 * (1 - 1 / wide["Compression"]))
        wide["Compression"] = whole(wide["Compression"])
        results.add_table(f"{name}{suffix}", f"{column} by compression and method: {task.name}", wide)
        more = " The thin rule is what the score counts." if name == "flops" else ""
        results.add_figure(
            f"{name}{suffix}",
            f"{column} over the compression ratio, a line for each method.{more}",
            figures.lines(
                own,
                "Compression",
                column,
                "Method",
                title=f"{column.split(',')[0]} by compression",
                x_log=True,
                x_ticks=chosen.ratios,
                y_log=name.startswith("flops"),
                subtitle=task.name,
                y_zero=name == "testing-time",
                level=dense if name == "flops" else None,
            ),
        )


def _add_curves(task: Task, chosen: Compare, rows: list[Cell], results: Results, suffix: str) -> None:
    points = [
        {"Method": row["method"], "Epoch": epoch, "Training loss": training, "Test loss": test}
        for row in rows
        if row["task"] == task.name and row["ratio"] == chosen.look_at
        for epoch, training, test in row["curve"]
    ]
    if not points:
        return
    table = pd.DataFrame(points)
    table["Epoch"] = whole(table["Epoch"])
    results.add_table(f"curves{suffix}", f"Loss at compression {chosen.look_at:g}: {task.name}", table, digits=4)
    for column in ("Training loss", "Test loss"):
        results.add_figure(
            f"{column.lower().replace(' ', '-')}{suffix}",
            f"{column} during training at compression {chosen.look_at:g}"
            + ("; each point is the mean since the last one." if column == "Training loss" else "."),
            figures.lines(
                table, "Epoch", column, "Method", title=f"{column}, {chosen.look_at:g}x compressed", subtitle=task.name
            ),
        )


def _add_layers(task: Task, chosen: Compare, rows: list[Cell], cells: Cells, results: Results, suffix: str) -> None:
    looked = [r for r in rows if r["task"] == task.name and r["ratio"] == chosen.look_at and "failed" not in r]
    if not looked:
        return
    table = pd.DataFrame(
        {
            "Method": row["method"],
            "Layer": layer["layer"].removesuffix(".weight"),
            "Weights": layer["weights"],
            "Sparsity (%)": 100 * (1 - layer["nonzeros"] / layer["weights"]),
            "MFLOPs, masked": 2e-6 * layer["macs"] * layer["nonzeros"] / layer["weights"],
            "MFLOPs, dense": 2e-6 * layer["macs"],
        }
        for row in looked
        for layer in row["layers"]
    )
    results.add_table(f"layers{suffix}", f"Each layer at compression {chosen.look_at:g}: {task.name}", table)
    for column, name in (("Sparsity (%)", "layer-sparsity"), ("MFLOPs, masked", "layer-flops")):
        results.add_figure(
            f"{name}{suffix}",
            f"{column} of each layer, from the image to the classes, at compression {chosen.look_at:g}.",
            figures.profile(
                table,
                "Layer",
                column,
                "Method",
                subtitle=task.name,
                title=f"{column.split(',')[0]} of each layer, {chosen.look_at:g}x",
            ),
        )
    for row in looked:
        model = task.new(chosen.seed)
        model.load_state_dict(cells.load_state(row["key"]))
        weights = {
            n.removesuffix(".weight"): w.detach().cpu().numpy().ravel() for n, w in pruning.prunable(model).items()
        }
        results.add_figure(
            f"weights-{row['method'].replace(':', '.')}{suffix}",
            f"Nonzero weights of each layer after {row['method']} at compression {chosen.look_at:g} and training.",
            pictures.histograms(
                weights,
                title=f"Weights of each layer: {row['method']}, {chosen.look_at:g}x compressed",
                subtitle=task.name,
                columns=4,
            ),
        )
