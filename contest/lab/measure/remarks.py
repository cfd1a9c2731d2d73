"""Why a network predicts nothing: what a table of figures alone leaves unexplained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from contest.lab.results.resumable import Cell

NEAR_POINTS = 1.5
"""So near to guessing, in points of accuracy, is at chance."""
LEARNED = 0.9
"""A training whose loss stays above this share of its first value has not learned."""


def at_chance(metric: float, chance: float | None) -> bool:
    """Whether an accuracy is one that guessing reaches."""
    return chance is not None and metric <= chance + NEAR_POINTS


def empty_layers(layers: Mapping[str, float]) -> list[str]:
    """The layers of which not a weight is left."""
    return [name for name, sparsity in layers.items() if sparsity >= 1]


def remarks(rows: Mapping[str, Sequence[Cell]], chance: float | None) -> list[str]:
    """For each line of cells that falls to chance, a sentence: from when on, and why.

    Args:
        rows: cells by line, in their order, the unpruned network first; each has `metric` and `layers` (sparsities by
            name), `curve` (training losses) where it was trained, and `place`, what it is called (else its round).
    """
    found = []
    for name, cells in rows.items():
        for index, cell in enumerate(cells):
            if math.isnan(cell["metric"]):
                found.append(f"{name}: the metric is not a number in {_place(cells, index)}.")
        guessing = [at_chance(cell["metric"], chance) for cell in cells]
        fallen = next((i for i in range(len(cells)) if all(guessing[i:])), None)
        if fallen is not None:
            metric = cells[fallen]["metric"]
            since = f" from {_place(cells, fallen)} on" if len(cells) > 1 else ""
            found.append(f"{name}: at chance ({metric:.2f}){since}; {_why(cells, fallen)}.")
    return found


def _place(cells: Sequence[Cell], index: int) -> str:
    return str(cells[index].get("place", f"round {index}"))


def _why(cells: Sequence[Cell], fallen: int) -> str:
    empty = empty_layers(cells[fallen].get("layers", {}))
    if empty:
        first = next(i for i, cell in enumerate(cells) if set(empty) & set(empty_layers(cell.get("layers", {}))))
        since = f" since {_place(cells, first)}" if len(cells) > 1 else ""
        return f"{', '.join(empty)} has had no weight left{since}, so that no signal passes"
    curve = cells[fallen].get("curve", [])
    if curve and curve[-1] > LEARNED * curve[0]:
        return (
            f"no layer is empty, but the training did not converge (loss {curve[0]:.3f} in its first and "
            f"{curve[-1]:.3f} in its last epoch)"
        )
    layers = cells[fallen].get("layers", {})
    if layers:
        name = max(layers, key=lambda key: layers[key])
        return f"no layer is empty; {name} has lost most, {100 * layers[name]:.2f} % of its weights"
    return "no layer is empty"
