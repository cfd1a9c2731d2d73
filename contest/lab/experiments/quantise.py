"""Pruning with quantisation: a grid of sparsity and bits, together and one after the other."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
from torch import Tensor, nn

from contest import pruning
from contest.candidate import Bits
from contest.errors import UsageError
from contest.lab.costs import module_by_module, packed_bytes, torch_latency
from contest.lab.experiments.experiment import (
    ExperimentPlan,
    at_chance,
    begin,
    dense,
    finish,
    report,
    require_method,
    train_on,
)
from contest.lab.onnx_runtime import BIAS_ROUNDING, OnnxModel, agreement, export, onnx_latency
from contest.lab.results import figures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.results.tables import whole
from contest.lab.task import Task
from contest.lab.training import Parameters, Training

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
            "PyTorch ± (ms)": 1e3 * row["torch"]["std_s"],
            "PyTorch median (ms)": 1e3 * row["torch"]["median_s"],
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
    for column in map(str, table.columns):
        if "ONNX" in column or column.startswith("Equal"):  # not measured: empty, not a NaN
            table[column] = table[column].astype(object).where(table[column].notna(), None)
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
        for key, order in ORDERS.items():
            own = table[table["Order"] == order]
            if not len(own):
                continue
            results.add_figure(
                f"accuracy-{key}",
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


@dataclass(frozen=True)
class Quantise(Parameters):
    """The experiment's parameters."""

    sparsities: tuple[float, ...] = (0.0, 0.5, 0.8, 0.9)
    bits: tuple[int, ...] = (32, 8, 4, 2, 1)
    """Of weights and of each layer's input; 32 is float, and binary weights keep 2-bit inputs."""
    orders: tuple[Order, ...] = ("together", "prune-first", "quantise-first", "post-training")
    method: str = "magnitude"
    per_channel: bool = True
    training: Training = field(default_factory=Training)
    """Of the dense float network."""
    tuning: Training = field(default_factory=lambda: Training(epochs=1))
    """After each of the two compressions; `together` trains twice as long after its single step."""
    latency_batch: int = 1
    latency_runs: int = 30
    seed: int = 0
    calibration_samples: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        for order in self.orders:
            if order not in ORDERS:
                raise UsageError(f"order '{order}' is none of {', '.join(ORDERS)}")


def quantise(
    task: Task,
    folder: Path,
    options: Quantise | None = None,
    *,
    progress: bool = False,
    again: Sequence[str] = (),
    questions: Sequence[str] = (),
) -> Results:
    """Run (or finish) the grid. QCDQ files of networks for images [N, C, H, W] in [0, 1] stay in `folder/onnx`.

    Others are quantised and measured all the same, without ONNX.

    Args:
        again: patterns of cells (`together-4-*`) that are computed anew.
        questions: that the page asks.

    Raises:
        UsageError: the model has no layer that can be quantised, or the method cannot score it.
    """
    chosen = options or Quantise()
    require_method(task, chosen.method, samples=chosen.calibration_samples, seed=chosen.seed)
    about = _quantisable(task, chosen)
    points = [(order, s, b) for order in chosen.orders for b in chosen.bits for s in chosen.sparsities]
    tuned = sum(order != "post-training" for order, _, _ in points)
    plan = ExperimentPlan(1 + len(points), chosen.training.epochs + 2 * tuned * chosen.tuning.epochs, 2 * len(points))
    cells, sentences = begin(
        "quantise",
        [task],
        folder,
        chosen,
        plan,
        training=chosen.training,
        growing=("sparsities", "bits", "orders"),
        again=again,
        progress=progress,
    )
    rows: list[Cell] = []
    with cells, module_by_module():  # a fused kernel would pass the quantisers by
        for order, sparsity, bits in points:

            def cell(order: Order = order, sparsity: float = sparsity, bits: int = bits) -> Cell:
                model, _ = dense(task, cells, chosen.training, chosen.seed)
                compressed = _compressed(task, chosen, model, order, sparsity, bits)
                return _measured(task, chosen, cells, compressed, f"{order}-{bits}-{sparsity:g}")

            found = cells(f"{order}-{bits}-{sparsity:g}", cell)
            rows.append({"order": ORDERS[order], "sparsity": sparsity, "bits": bits, **found})
    results = report(
        cells,
        sentences,
        f"Pruning with quantisation: {task.name}",
        f"{chosen.method} pruning and quantisation-aware training, {chosen.tuning.epochs:g} epochs after each step "
        f"(together: {2 * chosen.tuning.epochs:g} after the one step).",
        questions,
    )
    results.notes += about
    present(task, chosen, rows, results)
    return finish(cells, results)


def _quantisable(task: Task, chosen: Quantise) -> list[str]:
    """Sentences on what of the model is quantised and why it does not go to ONNX; tried before any training."""
    from contest import quantisation

    model = task.new(chosen.seed)
    inputs = task.scoring_batches(chosen.calibration_samples, chosen.seed)[0][0]
    bits = min((b for b in chosen.bits if b < FLOAT_BITS), default=FLOAT_BITS)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sentences = []
    try:
        with module_by_module():
            model = quantisation.quantise(model, Bits(bits, max(bits, 2), chosen.per_channel), inputs)
            task.measure(model, batches=1)
    except UsageError as error:
        raise UsageError(f"task '{task.name}': {error}") from error
    except Exception as error:  # a user's forward pass may do anything with its layers
        raise UsageError(
            f"task '{task.name}' does not run with quantised layers: {type(error).__name__}: {error}"
        ) from error
    quantised = sum(layer.get_parameter("weight").numel() for layer in quantisation.quantised_layers(model).values())
    if bits < FLOAT_BITS and quantised < 0.9 * parameters:
        sentences.append(
            f"Only {100 * quantised / parameters:.2f} % of the parameters are quantised: the weights of "
            "two-dimensional convolutions and linear layers. The others stay float32."
        )
    if not _is_image(task):
        sentences.append("Latency and predictions in ONNX Runtime are left out: QCDQ is written for images only.")
    return sentences


def _is_image(task: Task) -> bool:
    example = task.example(1)
    return isinstance(example, Tensor) and example.dim() == 4


def _compressed(task: Task, chosen: Quantise, model: nn.Module, order: Order, sparsity: float, bits: int) -> nn.Module:
    """The trained float model after both compressions, in the order asked for."""
    samples = task.scoring_batches(chosen.calibration_samples, chosen.seed)
    masks = pruning.full(model)

    def prune() -> None:
        masks.update(pruning.prune(model, chosen.method, sparsity, batches=samples, loss=task.loss, seed=chosen.seed))
        pruning.enforce(model, masks)

    def quantise_() -> None:
        nonlocal model
        if bits < FLOAT_BITS:
            from contest import quantisation

            inputs = samples[0][0]
            model = quantisation.quantise(model, Bits(bits, max(bits, 2), chosen.per_channel), inputs)
            pruning.enforce(model, masks)

    def tune(epochs: float) -> None:
        training = Training(**{**asdict(chosen.tuning), "epochs": epochs})
        train_on(task, model, training, chosen.seed + 1, masks=masks)

    epochs = chosen.tuning.epochs
    if order in ("together", "post-training"):
        prune()
        quantise_()
        if order == "together":
            tune(2 * epochs)
    else:
        steps = (prune, quantise_) if order == "prune-first" else (quantise_, prune)
        for step in steps:
            step()
            tune(epochs)
    return model


def _measured(task: Task, chosen: Quantise, cells: Cells, model: nn.Module, key: str) -> Cell:
    example = task.example(chosen.latency_batch)
    cell: Cell = {
        "metric": task.measure(model),
        "packed_bytes": packed_bytes(model),
        "torch": torch_latency(model, example, runs=chosen.latency_runs).values(),
        "score": None if task.score is None else task.score(copy.deepcopy(model)),
        "onnx": None,
    }
    if _binary(model) or not _is_image(task):
        return cell
    path = cells.folder / "onnx" / f"{key}.onnx"
    runtime = export(model, task, path)
    same = agreement(model, runtime, task)
    cell["onnx"] = onnx_latency(runtime, example, runs=chosen.latency_runs).values()
    cell |= {
        "onnx_metric": task.measure(runtime),
        "equal": same.equal_predictions,
        "equal_rounded": agreement(model, OnnxModel(path, round_biases=True), task).equal_predictions,
        "samples": same.samples,
    }
    return cell


def _binary(model: nn.Module) -> bool:
    return any(
        getattr(getattr(getattr(module, "weight_quant", None), "tensor_quant", None), "binary", False)
        for module in model.modules()
    )
