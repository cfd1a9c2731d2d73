"""What the grid of sparsity and bits shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pandas as pd

from contest.lab.measure.export import BIAS_ROUNDING
from contest.lab.measure.remarks import at_chance
from contest.lab.results import figures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell
from contest.lab.results.tables import whole
from contest.lab.task import Task

if TYPE_CHECKING:
    from contest.lab.experiments.quantise import Quantise

Order = Literal["together", "prune-first", "quantise-first", "post-training"]
ORDERS: dict[Order, str] = {
    "together": "together",
    "prune-first": "pruned, then quantised",
    "quantise-first": "quantised, then pruned",
    "post-training": "no training after either",
}
FLOAT_BITS = 32


def present(task: Task, chosen: Quantise, rows: list[Cell], results: Results) -> None:
    metric = task.metric.label
    table = pd.DataFrame(
        {
            "Order": row["order"],
            "Bits": row["bits"],
            "Sparsity (%)": 100 * row["sparsity"],
            metric: row["metric"],
            "Size (kB)": row["packed_bytes"] / 1e3,
            "Score": row["score"],
            "PyTorch (ms)": 1e3 * row["torch"]["mean_s"],
            "± (ms)": 1e3 * row["torch"]["std_s"],
            "median (ms)": 1e3 * row["torch"]["median_s"],
            "ONNX Runtime (ms)": row["onnx"] and 1e3 * row["onnx"]["mean_s"],
            "ONNX ± (ms)": row["onnx"] and 1e3 * row["onnx"]["std_s"],
            "ONNX median (ms)": row["onnx"] and 1e3 * row["onnx"]["median_s"],
            f"{metric} in ONNX Runtime": row.get("onnx_metric"),
            "Equal predictions (%)": None if row.get("equal") is None else 100 * row["equal"],
            "Equal, biases rounded (%)": None if row.get("equal") is None else 100 * row["equal_rounded"],
        }
        for row in rows
    )
    if task.score is None:
        table = table.drop(columns="Score")
    table["Sparsity (%)"] = whole(table["Sparsity (%)"])
    results.add_table("grid", "Sparsity and bits", table, digits=3)
    equal = [row["equal"] for row in rows if row.get("equal") is not None]
    table = table.dropna(axis=1, how="all")
    latency = rows[0]["torch"]
    results.notes += remarks_of(table, metric, task.chance)
    results.notes += [
        "Size is packed: codes at their bits behind a bitmask, all other numbers as stored. Weight bits and input bits "
        "are the same except that binary weights keep inputs of 2 bits; the first layer takes the 8-bit image.",
        f"Latency is that of {latency['batch']} sample(s) on {latency['threads']} thread(s). PyTorch simulates "
        "quantisation (it is slower than float); ONNX Runtime runs QCDQ, which holds 2 to 8 bits. Binary weights go to "
        "QONNX, which it does not run.",
    ]
    if equal:
        samples = next(row["samples"] for row in rows if "samples" in row)
        results.notes.append(
            f"ONNX Runtime predicts what PyTorch predicts for at least {100 * min(equal):.2f} % of the {samples} test "
            f"samples. It runs (and is timed) without its optimisation {BIAS_ROUNDING}, which rounds biases to the "
            "product of two quantiser steps and so changes predictions at few bits: the last column is with it."
        )
    if table["Sparsity (%)"].nunique() > 1:
        for order, own in table.groupby("Order", sort=False):
            results.add_figure(
                f"accuracy-{str(order).replace(',', '').replace(' ', '-')}",
                f"{task.metric.name} over sparsity for each number of bits: {order}.",
                figures.lines(
                    own.assign(Bits=[_bits(b) for b in own["Bits"]]),
                    "Sparsity (%)",
                    metric,
                    "Bits",
                    title=f"Pruning and quantisation, {order}",
                    subtitle=task.name,
                ),
            )
    else:  # over one sparsity a line would be a point
        sparsity = table["Sparsity (%)"].iloc[0]
        results.add_figure(
            "accuracy-by-bits",
            f"{task.metric.name} over bits (logarithmic; 32 is float) at {sparsity} % sparsity, a line for each order.",
            figures.lines(
                table,
                "Bits",
                metric,
                "Order",
                title=f"{sparsity:g} % sparse, in each order",
                subtitle=task.name,
                x_log=True,
                x_ticks=sorted(set(table["Bits"])),
            ),
        )
    results.add_figure(
        "accuracy-by-size",
        f"{task.metric.name} over packed size (logarithmic), a line for each order; each point is one sparsity and "
        "number of bits, of which only those are drawn that no smaller network beats.",
        figures.lines(
            _front(table, metric, task.metric.higher_is_better),
            "Size (kB)",
            metric,
            "Order",
            x_log=True,
            title="What a kilobyte buys",
            subtitle=task.name,
        ),
    )


def remarks_of(table: pd.DataFrame, metric: str, chance: float | None) -> list[str]:
    """Which networks of the grid are at chance."""
    fallen = table[[at_chance(value, chance) for value in table[metric]]]
    places = [f"{row['Order']}, {_bits(row['Bits'])}, {row['Sparsity (%)']:g} %" for _, row in fallen.iterrows()]
    return [f"At chance, no better than guessing: {'; '.join(places)}."] if places else []


def _bits(bits: int) -> str:
    return "float" if bits == FLOAT_BITS else f"{bits} bit" + ("s" if bits > 1 else "")


def _front(table: pd.DataFrame, metric: str, higher_is_better: bool) -> pd.DataFrame:
    """The rows of each order that no smaller network of it equals."""
    kept = []
    for _, own in table.groupby("Order", sort=False):
        best = None
        for _, row in own.sort_values("Size (kB)").iterrows():
            value = row[metric] if higher_is_better else -row[metric]
            if best is None or value > best:
                best = value
                kept.append(row)
    return pd.DataFrame(kept)
