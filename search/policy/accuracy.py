"""How accurate a compressed network is: a regression on its compression settings, learned from the study's children.

    log2(error of the child / error of its float parent) = w . features(setting) + what is the parent's own

is linear in few features whose weights are known roughly beforehand, from 65 networks of eight studies and docs/record
(docs/search.md has how far off they are), so six short tunings say more than any model that begins from nothing. It is
Bayesian: each forecast has a standard deviation, and the probability to reach a threshold follows. The price needs no
model: it is calculated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from contest.candidate import Architecture, Bits, Candidate
from contest.pruning import methods
from search.candidates import bits_of_layer, inner_layers, kinds
from search.study.trial import TrialRecord, TrialResult

Vector = NDArray[np.float64]

METHODS = sorted(set(methods()) - {"magnitude"})
FEATURES: Sequence[tuple[str, float, float]] = (
    # name, expected weight, sigma of the expectation: doublings of the error for one unit of the feature
    ("intercept", 0.04, 0.08),
    ("weights", 0.25, 0.3),  # the noise of rounding: 4 bits 0.06, 3 bits 0.25, 2 bits 1
    ("activations", 0.7, 0.4),
    ("first", 0.3, 0.3),
    ("last", 0.2, 0.2),
    ("depthwise", 0.35, 0.25),
    ("zeros", 0.3, 0.12),  # z * -log2(1 - z): half of the weights 0.5, 0.7 of them 1.2
    ("channels", 3.0, 2.5),  # -log2(1 - s): on the digits a tenth of the weights cost a doubling (four long tunings)
    ("numbers", 0.02, 0.03),  # 8 bits 1, 6 bits 1.9, 5 bits 4.9
    ("unhealed", 0.8, 0.6),  # of the damage that bits, zeros and channels do, what a short tuning has not healed yet
    ("length", -0.02, 0.03),  # doublings of the tuning's steps
    ("rate", 0.0, 0.05),  # doublings of the tuning's learning rate, beyond the best that is known
    ("rate2", 0.01, 0.02),
    # On the digits, half of the weights, one draw of masks: every other method loses a factor of two and more.
    *((f"pruning {name}", 2.0, 1.2) for name in METHODS),
)
_EXPECTED = {name: expected for name, expected, _ in FEATURES}
SPREAD = 0.10
"""Sigma of log2 of the error between seeds of one setting, besides the chance of the counted images."""
PARENT = 0.10
"""Sigma of what is a parent's own."""
FAR = 0.3
"""Sigma of a forecast for each doubling of the error that counts: ruined networks say little of the others."""
RATE = 0.02
"""The best learning rate of a tuning after a float training of the study, which still learns."""
GIVEN_RATE = 0.009
"""The same after a parent that was given, for `STEPS` steps."""
STEPS = 400.0
HEALING = 60.0
"""Steps of a tuning after which half of the damage of compression is healed that tuning can heal."""
LOSS_SPREAD = 0.15
"""Sigma of log2(loss / error): the loss says with few images what the count of errors cannot."""


def features(candidate: Candidate, images: int) -> Vector:
    """The settings of a child in the order of `FEATURES`; `images` of an epoch."""
    bits = candidate.bits
    weights, inputs, deepest = _noise(candidate.architecture, bits)
    first = bits.layers.get("stem", bits.layers.get("first", (bits.weights, 8)))
    last = bits.layers.get("fc", bits.layers.get("last", (bits.weights, bits.activations)))
    zeros = _removed(candidate.unstructured / (1 - candidate.structured))
    channels = -math.log2(1 - candidate.structured)
    steps = max(1.0, candidate.tune.epochs * images / candidate.tune.batch_size)
    rate = math.log2(max(candidate.tune.learning_rate, 1e-5) / _best_rate(candidate, steps))
    damage = sum(
        _EXPECTED[n] * v
        for n, v in (
            ("weights", weights),
            ("activations", inputs),
            ("depthwise", deepest),
            ("zeros", zeros),
            ("channels", channels),
        )
    )
    return np.array(
        [
            1.0,
            weights,
            inputs,
            _noise_of(min(first)),
            _noise_of(min(last)),
            deepest,
            zeros,
            channels,
            (15 + 4.0 ** (8 - bits.numbers)) / 16 if bits.numbers <= 8 else 0.0,
            damage / (1 + steps / HEALING),
            math.log2(steps / STEPS),
            rate,
            rate * rate,
            *(zeros * (candidate.pruning.partition(":")[0] == name) for name in METHODS),
        ]
    )


def _best_rate(candidate: Candidate, steps: float) -> float:
    """A given parent has been trained to its end: a high rate destroys what it is, the more the longer it lasts.

    Tried: 10 and 80 epochs of CIFAR-10 at 0.005 and 0.008 (docs/record), 2.67 at 0.005 rather than 0.0025 or 0.01.
    """
    return GIVEN_RATE * (STEPS / steps) ** 0.25 if candidate.start else RATE


@lru_cache(maxsize=16384)
def _noise(architecture: Architecture, bits: Bits) -> tuple[float, float, float]:
    """Mean noise of inner layers' weights, of their inputs, and of depthwise layers (the noisier of both)."""
    deep = {name for name, kind in kinds(architecture).items() if kind == "depthwise"}
    pairs = {name: bits_of_layer(bits, name) for name in inner_layers(architecture)}
    inner = [pair for name, pair in pairs.items() if name not in deep] or [(bits.weights, bits.activations)]
    return (
        _mean([_noise_of(w, bits.symmetric) for w, _ in inner]),
        _mean([_noise_of(a) for _, a in inner]),
        _mean([max(_noise_of(pairs[name][0], bits.symmetric), _noise_of(pairs[name][1])) for name in deep]),
    )


def _noise_of(bits: int, symmetric: bool = False) -> float:
    """Squared error of rounding, 1 at 2 bits; a level more on the positive side makes it 0.56 of that."""
    return 4.0 ** (2 - bits) * ((1 - 2.0**-bits) ** 2 if symmetric else 1.0) if bits <= 8 else 0.0


def _removed(share: float) -> float:
    return -share * math.log2(max(1 - share, 1e-3))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@dataclass(frozen=True)
class Measured:
    """An error as validation images show it: log2 of it, and the sigma of that."""

    log_error: float
    sigma: float


def measured(correct: int, total: int, loss: float | None, loss_ratio: float | None) -> Measured:
    """Errors counted and, where the study knows how losses go with errors, the loss, weighed by their certainty."""
    error = (total - correct + 0.5) / (total + 1)
    variance = (1 - error) / (total * error) / math.log(2) ** 2
    counted = math.log2(error)
    if loss is None or loss_ratio is None or loss <= 0:
        return Measured(counted, math.sqrt(variance))
    weight = LOSS_SPREAD**2 / (LOSS_SPREAD**2 + variance)
    combined = weight * counted + (1 - weight) * (math.log2(loss) - loss_ratio)
    return Measured(combined, math.sqrt(1 / (1 / variance + 1 / LOSS_SPREAD**2)))


def loss_ratio(results: Sequence[TrialResult]) -> float | None:
    """log2(loss / error) of a study's results; None before three are known."""
    known = [(r.total - r.correct + 0.5, r.total + 1, r.loss) for r in results if r.loss is not None and r.loss > 0]
    if len(known) < 3:
        return None
    weights = [wrong for wrong, _, _ in known]  # the certainty of a count grows with it
    ratios = [math.log2(loss * total / wrong) for wrong, total, loss in known]
    return sum(w * r for w, r in zip(weights, ratios, strict=True)) / sum(weights)


@dataclass(frozen=True)
class Observation:
    """A tuned child: its settings, its parent, and the two errors."""

    features: Vector
    parent: str
    parent_error: Measured
    error: Measured


class CompressionModel:
    """Bayesian linear regression with the priors of `FEATURES`; exact, in milliseconds.

    needed: the error asked for; what is far above it, and above its parent's, weighs less. 1: all weigh the same.
    """

    def __init__(self, observations: Sequence[Observation], needed: float = 1.0) -> None:
        self.parents = sorted({o.parent for o in observations})
        size = len(FEATURES) + len(self.parents)
        mean = np.zeros(size)
        mean[: len(FEATURES)] = [expected for _, expected, _ in FEATURES]
        variance = np.full(size, PARENT**2)
        variance[: len(FEATURES)] = [sigma**2 for _, _, sigma in FEATURES]
        for place, parent in enumerate(self.parents, start=len(FEATURES)):
            # A parent's error is known as well as its images say; its children share that mistake.
            variance[place] += max(o.parent_error.sigma for o in observations if o.parent == parent) ** 2
        precision, right = np.diag(1 / variance), mean / variance
        for o in observations:
            row = self._row(o.features, o.parent)
            ruined = max(o.error.log_error - max(o.parent_error.log_error, math.log2(needed)), 0.0)
            weight = 1 / (SPREAD**2 + o.error.sigma**2 + (FAR * ruined) ** 2)
            precision += weight * np.outer(row, row)
            right += weight * (o.error.log_error - o.parent_error.log_error) * row
        self.covariance = np.linalg.inv(precision)
        self.mean = self.covariance @ right

    def _row(self, feature: Vector, parent: str) -> Vector:
        row = np.zeros(len(FEATURES) + len(self.parents))
        row[: len(FEATURES)] = feature
        if parent in self.parents:
            row[len(FEATURES) + self.parents.index(parent)] = 1.0
        return row

    def predict(self, settings: Sequence[Vector], parent: str, parent_error: Measured) -> tuple[Vector, Vector]:
        """Mean and sigma of log2 of the error of each of `settings` on that parent."""
        rows = np.stack([self._row(setting, parent) for setting in settings])
        variance = np.einsum("ij,jk,ik->i", rows, self.covariance, rows) + SPREAD**2
        if parent not in self.parents:
            variance = variance + PARENT**2 + parent_error.sigma**2
        return parent_error.log_error + rows @ self.mean, np.sqrt(variance)

    def weight(self, name: str) -> float:
        """The fitted weight of a feature."""
        return float(self.mean[[n for n, _, _ in FEATURES].index(name)])


def reach(mean: Vector, sigma: Vector, needed: float, total: int) -> Vector:
    """The probability that an error counted on `total` images is at most `needed`."""
    chance = math.sqrt((1 - needed) / (total * needed)) / math.log(2)
    z = (math.log2(needed) - mean) / np.sqrt(sigma**2 + chance**2)
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in z])


@dataclass(frozen=True)
class AccuracyModels:
    """What a study's trainings say of errors."""

    parents: Mapping[str, tuple[TrialRecord, Measured]]
    """By float key: a float network at its furthest visit, and its error at the end of its training: as measured, or as
    its curve lets expect."""
    compression: CompressionModel


def fit(
    done: Sequence[TrialRecord], expected: Mapping[int, tuple[float, float]], images: int, needed: float
) -> AccuracyModels:
    """Errors of float networks and of the settings of their children, from the records of a study that have a result.

    Args:
        expected: by the number of a float training that is paused, its error at the end and the sigma of its log2.
        images: of an epoch.
        needed: the error asked for.
    """
    results = [(record, record.result) for record in done if record.result is not None]
    ratio = loss_ratio([result for _, result in results])
    errors = {r.number: measured(result.correct, result.total, result.loss, ratio) for r, result in results}
    parents: dict[str, tuple[TrialRecord, Measured]] = {}
    for record, _ in results:
        if record.stage != "parent":
            continue
        if record.float_key in parents and parents[record.float_key][0].rung > record.rung:
            continue
        error = errors[record.number]
        if record.number in expected:
            end, sigma = expected[record.number]
            error = Measured(math.log2(max(end, 1e-4)), math.hypot(sigma, error.sigma))
        parents[record.float_key] = (record, error)
    tuned = [r for r, _ in results if r.is_network and r.float_key in parents]
    observations = [
        Observation(features(r.candidate, images), r.float_key, parents[r.float_key][1], errors[r.number])
        for r in tuned
    ]
    return AccuracyModels(parents, CompressionModel(observations, needed))
