"""Sensitivity: each layer, or named group of layers, pruned alone at several ratios, the others untouched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from contest import pruning
from contest.errors import UsageError
from contest.files import write_lines
from contest.lab.experiments.experiment import ExperimentPlan, begin, dense, finish, report, require_method, train_on
from contest.lab.results import figures
from contest.lab.results.report import Results
from contest.lab.results.resumable import Cell, Cells
from contest.lab.task import Task
from contest.lab.training import Parameters, Training

STEPS = 60


def equal_loss(
    curves: Mapping[str, Sequence[tuple[float, float]]], weights: Mapping[str, int], target: float
) -> dict[str, float]:
    """Sparsities under which each layer alone costs the same loss, and all together reach `target`.

    Between its measured points a layer's loss is taken as linear, and as never falling when more is pruned. Each layer
    goes as far as a common limit of loss lets it; the limit is found by bisection.

    Args:
        curves: for each layer (sparsity, loss), sparsity 0 among them.
        weights: the number of each layer's weights.
        target: the sparsity of all of them together, in [0, 1).
    """
    points = {}
    for name, curve in curves.items():
        sparsities, losses = np.array(sorted(curve)).T
        points[name] = (sparsities, np.maximum.accumulate(losses - losses[0]))
    total = sum(weights.values())

    def allowed(limit: float) -> dict[str, float]:
        found = {}
        for name, (sparsities, losses) in points.items():
            inside = int(np.searchsorted(losses, limit, side="right"))
            if inside == len(losses):
                found[name] = float(sparsities[-1])
            else:
                low, high = losses[inside - 1], losses[inside]
                share = (limit - low) / (high - low)
                found[name] = float(sparsities[inside - 1] + share * (sparsities[inside] - sparsities[inside - 1]))
        return found

    def reached(ratios: Mapping[str, float]) -> float:
        return sum(ratios[name] * weights[name] for name in weights) / total

    low, high = 0.0, float(max(losses[-1] for _, losses in points.values()))
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(allowed(middle)) >= target else (middle, high)
    return _exactly(allowed(high), weights, target)


def _exactly(ratios: dict[str, float], weights: Mapping[str, int], target: float) -> dict[str, float]:
    """The same ratios scaled to the target: a limit of loss may let layers go further than asked for."""
    total = sum(weights.values())
    reached = sum(ratios[name] * weights[name] for name in weights) / total
    if reached > target:
        return {name: ratio * target / reached for name, ratio in ratios.items()}
    return ratios


RATIOS = "ratios.json"
WAYS = ("uniform", "suggested")


@dataclass(frozen=True)
class Sensitivity(Parameters):
    """The experiment's parameters."""

    sparsities: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(name, (layer or prefix, ...)), such as ("features", ("conv1", "conv2")); each layer alone without any."""
    method: str = "magnitude"
    training: Training = field(default_factory=Training)
    targets: tuple[float, ...] = (0.8,)
    """Sparsities of the whole network for which ratios of the layers are suggested."""
    tuning: Training = field(default_factory=lambda: Training(epochs=1))
    """Of the networks pruned by the suggested ratios and by one for all."""
    seed: int = 0
    scoring_samples: int = 512

    @property
    def reached(self) -> tuple[float, ...]:
        """The targets that the measured sparsities reach."""
        return tuple(target for target in self.targets if target <= max(self.sparsities))


def sensitivity(
    task: Task,
    folder: Path,
    options: Sensitivity | None = None,
    *,
    progress: bool = False,
    again: Sequence[str] = (),
    questions: Sequence[str] = (),
) -> Results:
    """Run (or finish) the experiment and write its tables, figures and page into `folder`.

    It ends with a ratio for each layer, `ratios.json`, that `finetune` and `contest lab finetune --ratios` take.

    Args:
        again: patterns of cells (`conv1-*`) that are computed anew.
        questions: that the page asks.
    """
    chosen = options or Sensitivity()
    require_method(task, chosen.method, samples=chosen.scoring_samples, seed=chosen.seed)
    groups = resolve(list(pruning.prunable(task.new(chosen.seed))), dict(chosen.groups))
    sparsities = [s for s in chosen.sparsities if s > 0]
    total = 1 + len(groups) * len(sparsities) + len(WAYS) * len(chosen.reached)
    epochs = chosen.training.epochs + chosen.tuning.epochs * len(WAYS) * len(chosen.reached)
    cells, sentences = begin(
        "sensitivity",
        [task],
        folder,
        chosen,
        ExperimentPlan(total, epochs, total),
        training=chosen.training,
        growing=("sparsities", "targets"),
        again=again,
        progress=progress,
    )
    with cells:
        model, first = dense(task, cells, chosen.training, chosen.seed)
        rows = _layers(task, chosen, cells, model, first, groups)
        ratios = {target: _ratios(rows, groups, model, target) for target in chosen.reached}
        compared = _compared(task, chosen, cells, model, ratios)
    results = report(
        cells,
        sentences,
        f"Sensitivity: {task.name}",
        f"Each {'group' if chosen.groups else 'layer'} pruned alone by {chosen.method}, without retraining.",
        questions,
    )
    results.notes += [
        f"No ratios for {100 * target:g} %: sparsities are measured up to {100 * max(chosen.sparsities):g} %."
        for target in chosen.targets
        if target not in chosen.reached
    ]
    _present(task, chosen, rows, first, results)
    _suggest(task, chosen, ratios, compared, results)
    return finish(cells, results)


def _layers(
    task: Task, chosen: Sensitivity, cells: Cells, model: nn.Module, first: Cell, groups: Mapping[str, list[str]]
) -> list[Cell]:
    """Metric and loss of each group at each sparsity, all else untouched."""
    scores = pruning.method(chosen.method)(model, task.scoring_batches(chosen.scoring_samples, chosen.seed), task.loss)
    before = pruning.state_of(model)
    rows: list[Cell] = []
    for name, members in groups.items():
        weights = sum(scores[member].numel() for member in members)
        rows.append({"layer": name, "weights": weights, "sparsity": 0.0, **first})
        for sparsity in (s for s in chosen.sparsities if s > 0):

            def alone(sparsity: float = sparsity, members: list[str] = members, weights: int = weights) -> Cell:
                model.load_state_dict(before)
                own = {member: scores[member] for member in members}
                pruning.hold(model, pruning.exact_k(own, pruning.kept(weights, sparsity)))
                return {"metric": task.measure(model), "loss": task.mean_loss(model)}

            cell = cells(f"{name}-{sparsity:g}", alone)
            rows.append({"layer": name, "weights": weights, "sparsity": sparsity, **cell})
    model.load_state_dict(before)
    return rows


def _ratios(rows: Sequence[Cell], groups: Mapping[str, list[str]], model: nn.Module, target: float) -> dict[str, float]:
    """The suggested sparsity of each weight by name; weights in no group stay whole."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        curves.setdefault(row["layer"], []).append((row["sparsity"], row["loss"]))
    sizes = {name: weight.numel() for name, weight in pruning.prunable(model).items()}
    weights = {name: sum(sizes[member] for member in members) for name, members in groups.items()}
    found = equal_loss(curves, weights, target)
    return {member: round(found[name], 4) for name, members in groups.items() for member in members}


def _compared(
    task: Task, chosen: Sensitivity, cells: Cells, model: nn.Module, ratios: Mapping[float, Mapping[str, float]]
) -> dict[tuple[float, str], Cell]:
    """The whole network pruned by the suggested ratios, and by one ratio for all of the same weights."""
    before, found = pruning.state_of(model), {}
    for target, suggested in ratios.items():
        ways = {"suggested": dict(suggested), "uniform": dict.fromkeys(suggested, target)}
        for way in WAYS:

            def both(each: dict[str, float] = ways[way]) -> Cell:
                model.load_state_dict(before)
                masks = pruning.fine_grained_masks(model, each)
                pruning.enforce(model, masks)
                pruned = {"pruned": task.measure(model), "sparsity": pruning.sparsity(model, masks).prunable}
                train_on(task, model, chosen.tuning, chosen.seed + 1, masks=masks)
                return {**pruned, "metric": task.measure(model)}

            found[target, way] = cells(f"{way}-{target:g}", both)
    return found


def _present(task: Task, chosen: Sensitivity, rows: list[Cell], first: Cell, results: Results) -> None:
    table = pd.DataFrame(
        {
            "Layer": row["layer"],
            "Weights": row["weights"],
            "Sparsity (%)": 100 * row["sparsity"],
            task.metric.label: row["metric"],
        }
        for row in rows
        if row["sparsity"] in chosen.sparsities
    )
    wide = table.pivot_table(index=["Layer", "Weights"], columns="Sparsity (%)", values=task.metric.label, sort=False)
    wide.columns = pd.Index([f"{column:g} %" for column in wide.columns])
    results.add_table("sensitivity", f"{task.metric.label} when one part alone is pruned", wide.reset_index())
    results.add_figure(
        "sensitivity",
        f"{task.metric.name} over the sparsity of one part, the others untouched. The thin rule is the dense network.",
        figures.lines(
            table,
            "Sparsity (%)",
            task.metric.label,
            "Layer",
            title="Which layer feels pruning most",
            subtitle=f"{task.name}, {chosen.method}, no retraining",
            level=first["metric"],
        ),
    )


def _suggest(
    task: Task,
    chosen: Sensitivity,
    ratios: Mapping[float, Mapping[str, float]],
    compared: Mapping[tuple[float, str], Cell],
    results: Results,
) -> None:
    """The file of ratios, their table, and what they gain over one ratio for all."""
    if not ratios:
        return
    targets = {f"{target:g}": dict(suggested) for target, suggested in ratios.items()}
    write_lines(
        results.folder / RATIOS, json.dumps({"layers": targets[f"{chosen.reached[0]:g}"], "targets": targets}, indent=2)
    )
    names = list(next(iter(ratios.values())))
    table = pd.DataFrame(
        {"Layer": names, **{f"At {100 * t:g} % of all (%)": [100 * r[n] for n in names] for t, r in ratios.items()}}
    )
    results.add_table("ratios", "Suggested sparsity of each layer: the same loss from each", table)
    metric = task.metric.label
    gains = []
    for target in ratios:
        suggested, uniform = compared[target, "suggested"], compared[target, "uniform"]
        gains.append(
            {
                "Sparsity (%)": 100 * target,
                f"{metric}, uniform": uniform["pruned"],
                f"{metric}, suggested": suggested["pruned"],
                "Difference": suggested["pruned"] - uniform["pruned"],
                f"{metric}, uniform, fine-tuned": uniform["metric"],
                f"{metric}, suggested, fine-tuned": suggested["metric"],
                "Difference, fine-tuned": suggested["metric"] - uniform["metric"],
            }
        )
    results.add_table("gain", "Suggested ratios against one ratio for all layers", pd.DataFrame(gains))
    results.notes.append(
        "Suggested ratios let each layer go as far as a common limit of loss allows (equal-loss allocation). They lie "
        f"in {RATIOS}, those of the first target for `contest lab finetune --ratios {RATIOS}`."
    )


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
        if not wanted:
            raise UsageError(f"group '{group}' names no layer")
        for want in wanted:
            matching = [name for name in names if name == want or name.startswith(f"{want}.")]
            if not matching:
                layers = ", ".join(name.removesuffix(".weight") for name in names)
                raise UsageError(f"group '{group}' names '{want}', which is no prunable layer; there are: {layers}")
            found[group] += [name for name in matching if name not in found[group]]
    for name in names:
        if len(both := [group for group, members in found.items() if name in members]) > 1:
            raise UsageError(f"{name} is in the groups {' and '.join(both)}; it can be in one only")
    return found
