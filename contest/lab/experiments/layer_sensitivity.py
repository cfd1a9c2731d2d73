"""Sensitivity: each layer, or named group of layers, pruned alone at several ratios, the others untouched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from contest import pruning
from contest.errors import UsageError
from contest.lab.dense import dense
from contest.lab.results import figures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.task import Task
from contest.lab.training import Training


@dataclass(frozen=True)
class Sensitivity:
    """The experiment's parameters."""

    sparsities: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(name, (layer or prefix, ...)), such as ("features", ("conv1", "conv2")); each layer alone without any."""
    method: str = "magnitude"
    training: Training = field(default_factory=Training)
    seed: int = 0
    scoring_samples: int = 512


def sensitivity(task: Task, folder: Path, options: Sensitivity | None = None, *, progress: bool = False) -> Results:
    """Run (or finish) the experiment and write its tables, figures and page into `folder`."""
    chosen = options or Sensitivity()
    configuration = {"experiment": "sensitivity", "task": task.name, **task.about, **asdict(chosen)}
    groups = resolve(list(pruning.prunable(task.new(chosen.seed))), dict(chosen.groups))
    sparsities = [s for s in chosen.sparsities if s > 0]
    with Cells(folder, configuration, 1 + len(groups) * len(sparsities), progress=progress) as cells:
        model, first = dense(task, cells, chosen.training, chosen.seed)
        scores = pruning.method(chosen.method)(
            model, task.scoring_batches(chosen.scoring_samples, chosen.seed), task.loss
        )  # fmt: skip
        before = pruning.state_of(model)
        rows: list[dict[str, object]] = []
        for name, members in groups.items():
            weights = sum(scores[member].numel() for member in members)
            if 0.0 in chosen.sparsities:
                rows.append(
                    {"Layer": name, "Weights": weights, "Sparsity (%)": 0.0, task.metric.label: first["metric"]}
                )
            for sparsity in sparsities:

                def alone(sparsity: float = sparsity, members: list[str] = members, weights: int = weights) -> Cell:
                    model.load_state_dict(before)
                    chosen_scores = {member: scores[member] for member in members}
                    pruning.hold(model, pruning.exact_k(chosen_scores, pruning.kept(weights, sparsity)))
                    return {"metric": task.measure(model), "loss": task.mean_loss(model)}

                cell = cells(f"{name}-{sparsity:g}", alone)
                rows.append({"Layer": name, "Weights": weights, "Sparsity (%)": 100 * sparsity,
                             task.metric.label: cell["metric"]})  # fmt: skip
        results = Results(
            folder,
            f"Sensitivity: {task.name}",
            f"Each {'group' if chosen.groups else 'layer'} pruned alone by {chosen.method}, without retraining.",
            cells.configuration,
            cells.machine,
        )
    table = pd.DataFrame(rows)
    results.add_table("sensitivity", f"{task.metric.name} when one part alone is pruned", _wide(table, task))
    results.add_figure(
        "sensitivity",
        f"{task.metric.name} over the sparsity of one part, the others untouched. The thin rule is the dense network.",
        figures.lines(table, "Sparsity (%)", task.metric.label, "Layer", title="Which layer feels pruning most",
                      subtitle=f"{task.name}, {chosen.method}, no retraining", level=first["metric"]),
    )  # fmt: skip
    results.finish()
    return results


def resolve(names: list[str], groups: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Parameter names of each group, by layer name or prefix; without groups each layer is its own.

    Raises:
        UsageError: a layer named in a group does not exist.
    """
    if not groups:
        return {name.removesuffix(".weight"): [name] for name in names}
    found: dict[str, list[str]] = {}
    for group, wanted in groups.items():
        found[group] = []
        for want in wanted:
            matching = [name for name in names if name == want or name.startswith(f"{want}.")]
            if not matching:
                layers = ", ".join(name.removesuffix(".weight") for name in names)
                raise UsageError(f"group '{group}' names '{want}', which is no prunable layer; there are: {layers}")
            found[group] += [name for name in matching if name not in found[group]]
    return found


def _wide(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    wide = table.pivot_table(index=["Layer", "Weights"], columns="Sparsity (%)", values=task.metric.label, sort=False)
    wide.columns = pd.Index([f"{column:g} %" for column in wide.columns])
    return wide.reset_index()
