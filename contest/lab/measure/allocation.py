"""Ratios for each layer from what each layer's own pruning costs: the equal-loss allocation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

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
