"""What a setting is worth: the saving that it promises, times the probability that it keeps the promise."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.policy.accuracy import Measured, features, reach
from search.policy.compression import FILE_OVERHEAD, Setting, with_length
from search.policy.knowledge import Knowledge

REACHES = 0.05
"""A probability below this is none."""
CAUTIOUS = 0.8
"""Probability of reaching the threshold that the first child of a parent has, where some setting has it."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Worth:
    """Of each setting: its gain (log of the saving times its probability; accuracy where that is asked for), the mean
    of log2 of its error, and the probability that it reaches the threshold."""

    gains: Vector
    means: Vector
    chances: Vector

    def order(self) -> list[int]:
        """Largest gain first; where settings have none, the most accurate first."""
        return [int(place) for place in np.lexsort((self.means, -self.gains))]

    def best(self) -> int:
        """The setting with the largest gain; the most accurate one where none has any."""
        return int(np.argmax(self.gains)) if self.gains.max() > 0 else int(np.argmin(self.means))

    def safe(self) -> int:
        """The setting with the largest gain among those that reach the threshold with some certainty."""
        limit = min(CAUTIOUS, float(self.chances.max()))
        gains = np.where(self.chances >= limit - 1e-9, self.gains, -1.0)
        return int(np.argmax(gains)) if gains.max() > 0 else int(np.argmin(self.means))


class Gain:
    """Values settings for one decision.

    Args:
        reference: the score from which a saving counts while no network has reached the threshold.
        target: the score below which accuracy is asked for; None: the lowest score at the threshold is.
        epochs: of the long tuning after which the settings would be handed in.
    """

    def __init__(
        self, known: Knowledge, rng: random.Random, *, reference: float, target: float | None, epochs: float
    ) -> None:
        self._known, self._rng, self._target, self._epochs = known, rng, target, epochs
        limit = known.judge.limit() if target is None else None
        self._reference = limit if limit is not None else reference

    def of(self, options: Sequence[Setting], parent: str, error: Measured, *, draw: bool = False) -> Worth:
        """The worth of settings on a parent with that error; `draw`: in one draw of what the model thinks possible."""
        known = self._known
        lengthened = [with_length(s, max(s.candidate.tune.epochs, self._epochs)) for s in options]
        mean, sigma = known.model.predict([features(s.candidate, known.images) for s in lengthened], parent, error)
        if draw:
            mean = mean + np.array([self._rng.gauss(0, 0.7) * s for s in sigma])
        prices = np.array([s.price.total * FILE_OVERHEAD for s in options])
        if self._target is not None:
            return self._of_accuracy(prices, mean, self._target)
        chances = reach(mean, sigma, known.needed_error, known.validation)
        cheaper = prices < self._reference
        gains = np.where(cheaper, np.log(self._reference / prices) * chances, 0.0)
        return Worth(gains, mean, chances)

    def _of_accuracy(self, prices: Vector, mean: Vector, target: float) -> Worth:
        networks = [r for r in self._known.judge.networks if r.result and r.result.price.total <= target]
        best = max(map(self._known.judge.predicted, networks), default=0.0)
        accuracy = 1 - 2**mean
        gains = np.where(prices <= target, accuracy - best, 0.0)
        return Worth(gains, np.where(prices <= target, mean, mean + 10.0), np.ones(len(prices)))


def log_error(error: float, spread: float) -> Measured:
    return Measured(math.log2(max(error, 1e-4)), spread)
