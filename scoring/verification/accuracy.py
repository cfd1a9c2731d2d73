"""Accuracy from predictions: intervals, tables, loss, and whether two accuracies differ by more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


@dataclass(frozen=True)
class Accuracy:
    """`value` = correct / total, unrounded; low and high: the Wilson 95 % interval; loss in nats, with three digits."""

    value: float
    correct: int
    total: int
    low: float
    high: float
    loss: float | None = None


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Accuracy:
    """Accuracy and mean cross-entropy of logits [N, classes] for labels [N]."""
    correct, total = int((logits.argmax(1) == labels).sum()), len(labels)
    low, high = wilson(correct, total)
    # Three digits: with all of them, logits can be made so that the loss spells out the labels.
    loss = float(f"{cross_entropy(logits, labels):.3g}")
    return Accuracy(correct / total, correct, total, low, high, loss)


def wilson(correct: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927, JASA 22, p. 209)."""
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"{correct} correct out of {total}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, spread = correct / total, z * z / total
    middle = (p + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(p * (1 - p) / total + spread / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean of -log softmax(logits)[label]."""
    x = logits.astype(np.float64)
    x -= x.max(1, keepdims=True)
    chosen = x[np.arange(len(labels)), labels]
    return float((np.log(np.exp(x).sum(1)) - chosen).mean())


def confusion(predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """[classes, classes]: rows are true classes, columns predictions."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (labels, predictions), 1)
    return table


def difference_p_value(correct_a: int, total_a: int, correct_b: int, total_b: int) -> float:
    """Two-sided p-value that two proportions are equal: the pooled two-proportion z-test."""
    pooled = (correct_a + correct_b) / (total_a + total_b)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / total_a + 1 / total_b))
    if spread == 0:
        return 1.0
    z = abs(correct_a / total_a - correct_b / total_b) / spread
    return 2 * (1 - NormalDist().cdf(z))
