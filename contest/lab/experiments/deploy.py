"""Deployment: unpruned and pruned networks in PyTorch and in ONNX Runtime, latency and agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from torch import nn

from contest import pruning
from contest.errors import TrainingError, UsageError
from contest.lab.costs import packed_bytes, torch_latency
from contest.lab.experiments.experiment import ExperimentPlan, begin, dense, finish, report, require_method, train_on
from contest.lab.onnx_runtime import TOLERANCE, agreement, export, obstacle, onnx_latency
from contest.lab.results import figures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.results.tables import whole
from contest.lab.task import Task
from contest.lab.training import Parameters, Training

ZEROS, REMOVED = "zeros", "channels removed"


@dataclass(frozen=True)
class Deploy(Parameters):
    """The experiment's parameters."""

    sparsities: tuple[float, ...] = (0.0, 0.5, 0.8, 0.9, 0.95)
    """Single weights set to zero, by `method`."""
    removed: tuple[float, ...] = (0.5, 0.8)
    """Fractions of the weights that go with whole channels (networks for images only)."""
    method: str = "magnitude"
    training: Training = field(default_factory=Training)
    tuning: Training = field(default_factory=lambda: Training(epochs=1))
    """After a pruning."""
    batch: int = 1
    runs: int = 50
    warmup: int = 10
    seed: int = 0
    scoring_samples: int = 512


def deploy(
    task: Task,
    folder: Path,
    options: Deploy | None = None,
    *,
    progress: bool = False,
    again: Sequence[str] = (),
    questions: Sequence[str] = (),
) -> Results:
    """Run (or finish) the experiment; the ONNX files stay in `folder/onnx`.

    The export and the removal of channels are tried on the untrained network before anything is trained.

    Args:
        again: patterns of cells (`zeros-*`) that are computed anew.
        questions: that the page asks.

    Raises:
        UsageError: the model cannot be exported, or the method cannot score it.
    """
    chosen = options or Deploy()
    require_method(task, chosen.method, samples=chosen.scoring_samples, seed=chosen.seed)
    if why := obstacle(task.new(chosen.seed), task):
        raise UsageError(f"task '{task.name}': {why}")
    removed, left_out = _removable(task, chosen)
    total = 1 + len(chosen.sparsities) + len(removed)
    tuned = sum(sparsity > 0 for sparsity in chosen.sparsities) + len(removed)
    plan = ExperimentPlan(total, chosen.training.epochs + tuned * chosen.tuning.epochs, 2 * total)
    cells, sentences = begin(
        "deploy",
        [task],
        folder,
        chosen,
        plan,
        training=chosen.training,
        growing=("sparsities", "removed"),
        again=again,
        progress=progress,
    )
    rows: dict[str, Cell] = {}
    with cells:
        for kind, asked in [(ZEROS, s) for s in chosen.sparsities] + [(REMOVED, f) for f in removed]:

            def cell(kind: str = kind, asked: float = asked) -> Cell:
                model = (_zeros if kind == ZEROS else _removed)(task, chosen, cells, asked)
                return _measured(task, chosen, cells, _key(kind, asked), model, kind, asked)

            rows[_key(kind, asked)] = cells(_key(kind, asked), cell)
    results = report(
        cells,
        sentences,
        f"Deployment: {task.name}",
        f"Networks pruned by {chosen.method}, and networks without some of their channels, run by two engines.",
        questions,
    )
    results.notes += left_out
    _present(task, chosen, rows, results)
    return finish(cells, results)


def _removable(task: Task, chosen: Deploy) -> tuple[tuple[float, ...], list[str]]:
    """The fractions of weights that can go with whole channels, and sentences on those that cannot."""
    possible, sentences = [], []
    for fraction in chosen.removed:
        try:
            _smaller(task, task.new(chosen.seed), fraction)
        except (UsageError, TrainingError) as error:
            sentences.append(f"No channels are removed at {100 * fraction:g} %: {error}.")
        else:
            possible.append(fraction)
    return tuple(possible), sentences


def _smaller(task: Task, model: nn.Module, fraction: float) -> nn.Module:
    from contest.pruning.structured import remove_channels

    return remove_channels(model, fraction, example=task.example(1))


def _key(kind: str, asked: float) -> str:
    return f"{kind.split()[-1]}-{asked:g}"


def _zeros(task: Task, chosen: Deploy, cells: Cells, sparsity: float) -> nn.Module:
    model, _ = dense(task, cells, chosen.training, chosen.seed)
    masks = pruning.prune(
        model,
        chosen.method,
        sparsity,
        loss=task.loss,
        seed=chosen.seed,
        batches=task.scoring_batches(chosen.scoring_samples, chosen.seed),
    )
    pruning.enforce(model, masks)
    if sparsity:
        train_on(task, model, chosen.tuning, chosen.seed + 1, masks=masks)
    return model


def _removed(task: Task, chosen: Deploy, cells: Cells, fraction: float) -> nn.Module:
    model, _ = dense(task, cells, chosen.training, chosen.seed)
    smaller = _smaller(task, model, fraction)
    train_on(task, smaller, chosen.tuning, chosen.seed + 1)
    return smaller


def _measured(task: Task, chosen: Deploy, cells: Cells, key: str, model: nn.Module, kind: str, asked: float) -> Cell:
    example = task.example(chosen.batch)
    path = cells.folder / "onnx" / f"{key}.onnx"
    runtime = export(model, task, path)
    same = agreement(model, runtime, task)
    return {
        "kind": kind,
        "asked": asked,
        "weights": pruning.sparsity(model).weights,
        "nonzeros": pruning.sparsity(model).nonzeros,
        "metric": task.measure(model),
        "onnx_metric": task.measure(runtime),
        "torch": torch_latency(model, example, runs=chosen.runs, warmup=chosen.warmup).values(),
        "onnx": onnx_latency(runtime, example, runs=chosen.runs, warmup=chosen.warmup).values(),
        "difference": same.largest_difference,
        "equal": same.equal_predictions,
        "samples": same.samples,
        "onnx_bytes": path.stat().st_size,
        "packed_bytes": packed_bytes(model),
    }


def _present(task: Task, chosen: Deploy, rows: dict[str, Cell], results: Results) -> None:
    metric = task.metric.label
    table = pd.DataFrame(
        {
            "Pruning": cell["kind"],
            "Pruned (%)": 100 * cell["asked"],
            "Weights": cell["weights"],
            "Nonzero": cell["nonzeros"],
            metric: cell["metric"],
            f"{metric} in ONNX Runtime": cell["onnx_metric"],
            "PyTorch (ms)": 1e3 * cell["torch"]["mean_s"],
            "PyTorch ± (ms)": 1e3 * cell["torch"]["std_s"],
            "PyTorch median (ms)": 1e3 * cell["torch"]["median_s"],
            "ONNX Runtime (ms)": 1e3 * cell["onnx"]["mean_s"],
            "ONNX ± (ms)": 1e3 * cell["onnx"]["std_s"],
            "ONNX median (ms)": 1e3 * cell["onnx"]["median_s"],
            "Largest difference": cell["difference"],
            "Equal predictions (%)": 100 * cell["equal"],
            "ONNX file (MB)": cell["onnx_bytes"] / 1e6,
            "Packed (MB)": cell["packed_bytes"] / 1e6,
        }
        for cell in rows.values()
    )
    table["Pruned (%)"] = whole(table["Pruned (%)"])
    results.add_table("deploy", "Pruned networks in PyTorch and ONNX Runtime", table, digits=3)
    first = next(iter(rows.values()))
    worst = max(cell["difference"] for cell in rows.values())
    results.notes += [
        f"Latency of one forward pass of {first['torch']['batch']} sample(s), mean ± standard deviation of "
        f"{chosen.runs} runs after {chosen.warmup} for warm-up, {first['torch']['threads']} thread(s) in both.",
        "Zeros alone make neither PyTorch nor ONNX Runtime faster: their kernels multiply with them all the same, and "
        "the ONNX file stores them. Removing channels makes the network smaller and faster.",
        f"ONNX Runtime's outputs are those of PyTorch: the largest difference over {first['samples']} test samples is "
        f"{worst:.1e} of the largest output (tolerance {TOLERANCE:g})"
        + ("." if worst <= TOLERANCE else ", which is MORE than the tolerance."),
    ]
    long = pd.DataFrame(
        {
            "Pruned (%)": 100 * cell["asked"],
            "Runs in": f"{engine}, {cell['kind']}",
            metric: cell["metric"],
            "Latency (ms)": 1e3 * cell[key]["median_s"],
            "low": 1e3 * cell[key]["low_s"],
            "high": 1e3 * cell[key]["high_s"],
        }
        for key, engine in (("torch", "PyTorch"), ("onnx", "ONNX Runtime"))
        for cell in [*rows.values(), *[{**rows["zeros-0"], "kind": REMOVED} for _ in range(_has(rows))]]
    )
    threads = first["torch"]["threads"]
    results.add_figure(
        "latency",
        "Median latency over the fraction pruned, with the middle half of the runs. Zeros leave it where it was.",
        figures.lines(
            long,
            "Pruned (%)",
            "Latency (ms)",
            "Runs in",
            title="Latency of pruned networks",
            y_log=True,
            spread=("low", "high"),
            subtitle=f"{task.name}, {threads} thread(s), batch {chosen.batch}",
        ),
    )
    results.add_figure(
        "accuracy",
        f"{task.metric.name} over the fraction pruned.",
        figures.lines(
            long[long["Runs in"].str.startswith("PyTorch")].assign(
                Pruning=long["Runs in"].str.removeprefix("PyTorch, ")
            ),
            "Pruned (%)",
            metric,
            "Pruning",
            title=f"{task.metric.name} of pruned networks",
            subtitle=task.name,
        ),
    )
    results.add_figure(
        "accuracy-by-latency",
        f"{task.metric.name} over latency in both engines; a line runs from the dense network to the most pruned one.",
        figures.lines(
            long,
            "Latency (ms)",
            metric,
            "Runs in",
            order="Pruned (%)",
            title=f"{task.metric.name} against latency",
            subtitle=f"{task.name}, {threads} thread(s)",
        ),
    )


def _has(rows: dict[str, Cell]) -> int:
    """1 where channels were removed and there is a dense network to begin that line with."""
    return int("zeros-0" in rows and any(key.startswith("removed") for key in rows))
