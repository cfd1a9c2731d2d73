"""Single-shot comparison: several methods prune once, at several compression ratios; every network is trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
from torch import nn

from contest import pruning
from contest.lab.measure.flops import layer_macs
from contest.lab.results import figures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.results.tables import whole
from contest.lab.task import Task
from contest.lab.training import Training, train

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


def compare(tasks: Sequence[Task], folder: Path, options: Compare | None = None, *, progress: bool = False) -> Results:
    """Run (or finish) the experiment on one or more tasks (architectures) and write everything into `folder`."""
    chosen = options or Compare()
    configuration = {
        "experiment": "compare", "tasks": [{"task": task.name, **task.about} for task in tasks], **asdict(chosen),
    }  # fmt: skip
    late = [name for name in chosen.methods if pruning.method(name).when == "after"]
    total = len(tasks) * (bool(late) + len(chosen.methods) * len(chosen.ratios))
    rows: list[Cell] = []
    with Cells(folder, configuration, total, progress=progress) as cells:
        for number, task in enumerate(tasks):
            prefix = f"{number}-"
            if late:
                _pretrain(task, chosen, cells, prefix)
            for method in chosen.methods:
                rows += [_cell(task, chosen, cells, prefix, method, ratio) for ratio in chosen.ratios]
        results = Results(
            folder,
            "Single-shot comparison: " + ", ".join(task.name for task in tasks),
            f"{', '.join(chosen.methods)} prune once; every network is trained for {chosen.training.epochs:g} epochs; "
            + (f"before {' and '.join(late)}, {chosen.pretraining.epochs:g} epochs of training." if late else ""),
            cells.configuration,
            cells.machine,
        )
        _present(tasks, chosen, rows, cells, results)
    return results


def _pretrain(task: Task, chosen: Compare, cells: Cells, prefix: str) -> None:
    def compute() -> Cell:
        model = task.new(chosen.seed)
        train(model, task.train, task.loss, chosen.pretraining, seed=chosen.seed)
        cells.save_state(f"{prefix}pretrained", model.state_dict())
        return {"metric": task.measure(model)}

    cells(f"{prefix}pretrained", compute)


def _cell(task: Task, chosen: Compare, cells: Cells, prefix: str, method: str, ratio: float) -> Cell:
    after = pruning.method(method).when == "after"
    # At ratio 1 nothing is pruned: all methods of one kind train the same network, so they share its cell.
    key = (
        f"{prefix}{method.replace(':', '.')}-{ratio:g}"
        if ratio > 1
        else f"{prefix}dense-{'after' if after else 'before'}"
    )

    def compute() -> Cell:
        model = task.new(chosen.seed)
        if after:
            model.load_state_dict(cells.load_state(f"{prefix}pretrained"))
        samples = task.scoring_batches(chosen.scoring_samples, chosen.seed)
        masks = pruning.full(model) if ratio == 1 else pruning.prune(
            model, method, pruning.sparsity_of_compression(ratio), batches=samples, loss=task.loss, seed=chosen.seed
        )  # fmt: skip
        pruning.enforce(model, masks)
        curve: list[list[float]] = []
        train(
            model, task.train, task.loss, chosen.training, seed=chosen.seed + 1,
            after_step=(lambda trained: pruning.hold(trained, masks)) if ratio > 1 else None,
            watch=lambda epoch, loss: curve.append([epoch, loss, task.mean_loss(model)]),
            watch_every=min(1.0, chosen.training.epochs / CURVE_POINTS) if ratio == chosen.look_at else 1.0,
        )  # fmt: skip
        if ratio == chosen.look_at:
            cells.save_state(key, model.state_dict())
        return _measured(task, model, masks, curve)

    return {"task": task.name, "method": method, "ratio": ratio, "key": key, **cells(key, compute)}


def _measured(task: Task, model: nn.Module, masks: pruning.Masks, curve: list[list[float]]) -> Cell:
    start = time.perf_counter()
    metric = task.measure(model)
    seconds = time.perf_counter() - start
    report = pruning.sparsity(model, masks)
    macs = layer_macs(model, task.example(1))
    return {
        "metric": metric,
        "testing_s": seconds,
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


def _present(tasks: Sequence[Task], chosen: Compare, rows: list[Cell], cells: Cells, results: Results) -> None:
    metric = tasks[0].metric.label
    long = pd.DataFrame(
        {"Network": row["task"], "Method": row["method"], "Compression": row["ratio"], metric: row["metric"],
         "Sparsity (%)": 100 * row["sparsity"], "Testing time (s)": row["testing_s"],
         **dict(zip(("MFLOPs, masked", "MFLOPs, dense", "MFLOPs, scored"), _mflops(row), strict=True))}
        for row in rows
    )  # fmt: skip
    look = long[long["Compression"] == chosen.look_at]
    if len(look):
        results.add_table(
            "networks-by-method",
            f"{metric} at compression {chosen.look_at:g}",
            look.pivot_table(index="Network", columns="Method", values=metric, sort=False).reset_index(),
        )
    many = len(tasks) > 1
    results.notes.append(
        "FLOPs are twice the multiply-accumulates of convolutions and linear layers for one sample. Masked ones are "
        "times each layer's density; the score counts the dense ones, since single zeros lower no operations on real "
        "machines: testing times differ by what else the machine did. At compression 1 nothing is pruned, so methods "
        "of one kind share one trained network."
    )
    for number, task in enumerate(tasks):
        own = long[long["Network"] == task.name]
        suffix = f"-{number}" if many else ""
        for column, name in ((metric, "accuracy"), ("Testing time (s)", "testing-time"), ("MFLOPs, masked", "flops")):
            wide = own.pivot_table(index="Compression", columns="Method", values=column, sort=False).reset_index()
            if name == "flops":
                wide["dense"], wide["scored"] = (
                    float(own["MFLOPs, dense"].iloc[0]),
                    float(own["MFLOPs, scored"].iloc[0]),
                )
            wide["Compression"] = whole(wide["Compression"])
            results.add_table(f"{name}{suffix}", f"{column} by compression and method: {task.name}", wide)
            level = float(own["MFLOPs, dense"].iloc[0]) if name == "flops" else None
            more = " The thin rule is what the score counts." if level else ""
            results.add_figure(
                f"{name}{suffix}",
                f"{column} over the compression ratio, a line for each method.{more}",
                figures.lines(own, "Compression", column, "Method", title=f"{column.split(',')[0]} by compression",
                              x_log=True, x_ticks=chosen.ratios, y_log=name == "flops", subtitle=task.name,
                              y_zero=name == "testing-time", level=level),
            )  # fmt: skip
        _add_curves(task, chosen, rows, results, suffix)
        _add_layers(task, chosen, rows, cells, results, suffix)
    results.finish()


def _add_curves(task: Task, chosen: Compare, rows: list[Cell], results: Results, suffix: str) -> None:
    points = [
        {"Method": row["method"], "Epoch": epoch, "Training loss": training, "Test loss": test}
        for row in rows if row["task"] == task.name and row["ratio"] == chosen.look_at
        for epoch, training, test in row["curve"]
    ]  # fmt: skip
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
            figures.lines(table, "Epoch", column, "Method", title=f"{column}, {chosen.look_at:g}x compressed",
                          subtitle=task.name),
        )  # fmt: skip


def _add_layers(task: Task, chosen: Compare, rows: list[Cell], cells: Cells, results: Results, suffix: str) -> None:
    looked = [row for row in rows if row["task"] == task.name and row["ratio"] == chosen.look_at]
    if not looked:
        return
    table = pd.DataFrame(
        {"Method": row["method"], "Layer": layer["layer"].removesuffix(".weight"), "Weights": layer["weights"],
         "Sparsity (%)": 100 * (1 - layer["nonzeros"] / layer["weights"]),
         "MFLOPs, masked": 2e-6 * layer["macs"] * layer["nonzeros"] / layer["weights"],
         "MFLOPs, dense": 2e-6 * layer["macs"]}
        for row in looked for layer in row["layers"]
    )  # fmt: skip
    results.add_table(f"layers{suffix}", f"Each layer at compression {chosen.look_at:g}: {task.name}", table)
    for column, name in (("Sparsity (%)", "layer-sparsity"), ("MFLOPs, masked", "layer-flops")):
        results.add_figure(
            f"{name}{suffix}",
            f"{column} of each layer, from the image to the classes, at compression {chosen.look_at:g}.",
            figures.profile(table, "Layer", column, "Method", subtitle=task.name,
                            title=f"{column.split(',')[0]} of each layer, {chosen.look_at:g}x"),
        )  # fmt: skip
    for row in looked:
        model = task.new(chosen.seed)
        model.load_state_dict(cells.load_state(row["key"]))
        weights = {
            n.removesuffix(".weight"): w.detach().cpu().numpy().ravel() for n, w in pruning.prunable(model).items()
        }
        results.add_figure(
            f"weights-{row['method'].replace(':', '.')}{suffix}",
            f"Nonzero weights of each layer after {row['method']} at compression {chosen.look_at:g} and training.",
            figures.histograms(weights, title=f"Weights of each layer: {row['method']}, {chosen.look_at:g}x compressed",
                               subtitle=task.name, columns=4),
        )  # fmt: skip
