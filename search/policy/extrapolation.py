"""What a trial will come to: learned from this study's own finished trials, and careful until it can be.

A candidate is hopeless if even an optimistic forecast misses the threshold. It is never judged by the
median of the others: on the way to the lowest score the winners are among the least accurate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contest.candidate import Candidate
from search.study.trial import Price, Record

Curve = Sequence[tuple[float, float]]

ENOUGH: Final = 4
"""Finished curves from which a study's own ratios are believed."""
ENOUGH_SIZES: Final = 8
EARLIEST: Final = 0.2
"""Fraction of a training before which nothing is stopped."""
LONGER: Final = 0.18
LONGER_AT_BEST: Final = 0.5
"""A training R times longer divides the error by R**x: ResNet-20 on CIFAR-10 goes from 9.6 % in 24 epochs
to 8.0 % in 200 (x = 0.09), the 12.5M-MAC ResNet-8 from 15.4 % in 15 to about 11 % in 60 with a teacher
(x = 0.24), and from 24 % in 6 to 15.4 % in 15 (x = 0.48). Expected, and at best."""


@dataclass(frozen=True)
class Forecast:
    """Accuracy at the end of the training: as expected, and as an optimist sees it."""

    expected: float
    optimistic: float


class Foresight:
    """Forecasts fitted to finished records.

    Args:
        records: everything that the study has finished.
        epochs_ratio: how much longer the refine stage trains than the explore stage.
        chance: accuracy of guessing.
    """

    def __init__(self, records: Sequence[Record], *, epochs_ratio: float = 1.0, chance: float = 0.1) -> None:
        finished = [r for r in records if r.result is not None and r.state == "COMPLETE"]
        self._curves = [
            r.result.curve
            for r in finished
            if r.stage == "explore" and r.result and r.result.curve and r.result.curve[-1][0] >= 0.999
        ]
        self._at: dict[float, tuple[float, float, float]] = {}
        self._ratio = epochs_ratio
        self._longer = _longer(finished, epochs_ratio)
        self._sizes = _fit_sizes(finished, self, chance)

    def end(self, curve: Curve) -> Forecast:
        """The end of a training that has come as far as `curve` (points of fraction and accuracy)."""
        if not curve:
            return Forecast(1.0, 1.0)
        fraction, accuracy = curve[-1]
        error = 1 - max(a for _, a in curve)
        if fraction >= 0.999:
            return Forecast(accuracy, accuracy)
        if len(self._curves) < ENOUGH:
            # Annealed schedules win most of their accuracy at the end, so until this study knows better
            # an optimist lets the error fall to a tenth at the start and in proportion later.
            # What is expected comes from the finished curves as soon as there is one: a paused candidate that was
            # forecast by the rule of thumb would pass finished ones that were ahead of it when they paused.
            expected = min(self._ratios(round(fraction, 4))[1], 1.0) if self._curves else 0.3 + 0.7 * fraction
            return Forecast(1 - error * expected, 1 - error * min(expected, 0.1 + 0.9 * fraction**2))
        low, middle, spread = self._ratios(round(fraction, 4))
        return Forecast(1 - error * min(middle, 1.0), 1 - error * max(0.0, min(low - spread, 1.0)))

    def _ratios(self, fraction: float) -> tuple[float, float, float]:
        """Lowest, median and spread of what error the finished curves kept from `fraction` to their end."""
        known = self._at.get(fraction)
        if known is None:
            ratios = [_ratio_at(done, fraction) for done in self._curves]
            known = self._at[fraction] = min(ratios), float(np.median(ratios)), float(np.std(ratios))
        return known

    def refined(self, curve: Curve) -> Forecast:
        """The end of the long training of a candidate whose short training came as far as `curve`."""
        end = self.end(curve)
        return Forecast(
            1 - (1 - end.expected) * self._ratio ** -self._longer[0],
            1 - (1 - end.optimistic) * self._ratio ** -self._longer[1],
        )

    def by_size(self, price: Price, bits: tuple[float, float]) -> Forecast | None:
        """The refined accuracy that networks of this size and bit-width reach; None before enough is known."""
        if self._sizes is None:
            return None
        weights, spread, low, high = self._sizes
        features = _features(price, bits)
        # Outside of what has been seen the straight line is not believed further than its edge.
        expected = float(np.clip(features, low, high) @ weights)
        reach = 2.5 * spread + float(np.maximum(features - high, 0).sum())
        return Forecast(_logistic(expected), _logistic(expected + reach))


def _longer(finished: Sequence[Record], epochs_ratio: float) -> tuple[float, float]:
    """Expected and best exponent of a longer training: what this study's refinements gained, once there are two."""
    if epochs_ratio <= 1 or not any(r.stage == "refine" for r in finished):
        return LONGER, LONGER_AT_BEST
    short = {
        tuple(sorted(r.params.items())): 1 - r.result.accuracy
        for r in finished
        if r.stage == "explore" and r.result and r.result.curve and r.result.curve[-1][0] >= 0.999
    }
    seen = [
        math.log(max(short[key], 1e-4) / max(1e-4, 1 - r.result.accuracy)) / math.log(epochs_ratio)
        for r in finished
        if r.stage == "refine" and r.result and (key := tuple(sorted(r.params.items()))) in short
    ]
    if len(seen) < 2:
        return LONGER, LONGER_AT_BEST
    expected = min(max(float(np.median(seen)), 0.0), LONGER_AT_BEST)
    return expected, max(expected, max(seen)) + 0.05


def _ratio_at(done: Curve, fraction: float) -> float:
    """error at the end / smallest error up to `fraction`, of one finished curve."""
    until = [a for f, a in done if f <= fraction + 1e-6] or [done[0][1]]
    return (1 - done[-1][1]) / max(1e-6, 1 - max(until))


def bits_of_candidate(candidate: Candidate) -> tuple[float, float]:
    """Bits of weights and activations; more than 16 do not help accuracy."""
    return float(min(candidate.bits.weights, 16)), float(min(candidate.bits.activations, 16))


def _features(price: Price, bits: tuple[float, float]) -> NDArray[np.float64]:
    return np.array([1.0, math.log(max(price.macs, 1)), math.log(max(price.weights, 1)), *(math.log2(b) for b in bits)])


Sizes = tuple[NDArray[np.float64], float, NDArray[np.float64], NDArray[np.float64]]


def _fit_sizes(finished: Sequence[Record], foresight: Foresight, chance: float) -> Sizes | None:
    """Ridge regression of the logit of the forecast on logs of size and bits: weights, spread, range seen.

    Networks that guess are left out: they failed by their recipe, not by their size.
    """
    rows, targets = [], []
    for record in finished:
        assert record.result is not None
        if record.result.accuracy > 1.5 * chance:
            # `refined` needs no size model, so the half-built object is enough here.
            forecast = foresight.refined(record.result.curve).expected
            if record.stage == "refine":
                forecast = record.result.accuracy
            rows.append(_features(record.result.price, bits_of_candidate(record.candidate)))
            targets.append(_logit(forecast))
    if len(rows) < ENOUGH_SIZES:
        return None
    X, y = np.stack(rows), np.array(targets)
    scale = np.diag([0.0, 0.3, 0.3, 0.3, 0.3])
    weights = np.linalg.solve(X.T @ X + scale, X.T @ y)
    weights[1:] = np.maximum(weights[1:], 0.0)  # more is never worse
    weights[0] = float(np.mean(y - X[:, 1:] @ weights[1:]))
    spread = float(np.std(y - X @ weights) * math.sqrt(len(y) / max(1, len(y) - X.shape[1])))
    return weights, max(spread, 0.1), X.min(axis=0), X.max(axis=0)


def _logit(p: float) -> float:
    p = min(max(p, 1e-4), 1 - 1e-4)
    return math.log(p / (1 - p))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
