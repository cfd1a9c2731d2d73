"""What the single-shot comparison shows: tables ratio x method, loss curves, layers, weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from contest import pruning
from contest.lab.measure.remarks import remarks
from contest.lab.results import figures, pictures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.results.tables import whole
from contest.lab.task import Task

if TYPE_CHECKING:
    from contest.lab.experiments.compare import Compare

TIMED_TESTS, TIMED_SECONDS = 3, 10.0
"""So many passes over the test set are timed, as long as they take no longer than that."""


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
        results.notes += remarks({name: cells for name, cells in lines.items() if cells}, task.chance, "place")


def _for_remarks(row: Cell) -> Cell:
    layers = {layer["layer"]: 1 - layer["nonzeros"] / max(layer["weights"], 1) for layer in row["layers"]}
    return {**row, "layers": layers, "curve": [loss for _, loss, _ in row["curve"]]}


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
