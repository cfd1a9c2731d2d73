"""What repeated pruning shows: a table for each variant, the layers, the sizes, and the plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from contest.lab.measure.remarks import empty_layers, remarks
from contest.lab.results import figures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell
from contest.lab.task import Task

if TYPE_CHECKING:
    from contest.lab.experiments.repeated import Repeated

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
        f"Latency is one forward pass of {latency['batch']} samples in PyTorch on {latency['threads']} threads, mean "
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
        pd.DataFrame({"Weight": weights.keys(), "Number": weights.values()}),
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
