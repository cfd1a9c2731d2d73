"""What accuracy a float training of so many epochs reaches: known trainings of a data set, then the study's own.

    error(E) = size^-0.25 * (floor + gap * (1 + E / scale)^-exponent)

with E in epochs of the whole training set, size in multiples of a reference's operations. The numbers of CIFAR-10 are
fitted to the trainings of docs/record, those of the digits to a few trainings of 6 to 20 epochs; a data set without a
row has no forecast before its first training, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from contest.candidate import Architecture
from search.study.trial import TrialRecord

SIZE_EXPONENT = 0.25
"""docs/record: 7.0 -> 12.6M operations, 17.3 -> 14.9 % error; 10.8 -> 17.2M, 22.5 -> 19.9 %."""
OTHERS = 1.3
OTHERS_SPREAD = 0.35


@dataclass(frozen=True)
class CurvePrior:
    """The known trainings of one data set. Errors are fractions; `spread` is one sigma of log2 of the error."""

    images: int
    """Of the epochs that E counts."""
    floor: float
    gap: float
    scale: float
    exponent: float
    macs: float
    """Operations of the reference network, a thin network that leaves the full resolution early."""
    converged: float
    """Epochs from which more of them hardly help."""
    spread: float
    kinds: Mapping[str, float] = field(default_factory=dict)
    """By what the error of a kind of network differs from the reference's."""
    slow: Mapping[str, float] = field(default_factory=dict)
    """Epochs by which a kind begins more slowly: its error is 1 + slow / E times as large."""
    worth: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Of another optimiser: how many epochs of SGD its first one is worth, and the epochs from which SGD is ahead."""

    def error(
        self, architecture: Architecture, macs: int, trained_images: float, optimiser: str = "sgd"
    ) -> tuple[float, float]:
        """(expected error, sigma of its log2) of a float training."""
        epochs = self._of_sgd(max(trained_images, 1.0) / self.images, optimiser)
        kind = kind_of(architecture)
        factor = self.kinds.get(kind)
        spread = self.spread if factor is not None else OTHERS_SPREAD
        curve = self.floor + self.gap * (1 + epochs / self.scale) ** -self.exponent
        curve *= 1 + self.slow.get(kind, 0.0) / epochs
        size = (max(macs, 1) / self.macs) ** -SIZE_EXPONENT
        return min(0.9, (factor or OTHERS) * size * curve), spread

    def _of_sgd(self, epochs: float, optimiser: str) -> float:
        """The epochs of SGD that end where those of `optimiser` do: each further one is worth less, at last nothing."""
        first, even = self.worth.get(optimiser, (1.0, math.inf))
        return min(epochs, even) * (first + (1 - first) * min(epochs / even, 1.0))


def kind_of(architecture: Architecture) -> str:
    """`thin-inverted-early`: what of an architecture, besides its size, decides how well it learns."""
    options = architecture.options
    strides = options.get("strides")
    early = "early" if isinstance(strides, tuple) and strides and strides[0] == 2 else ""
    block = str(options.get("block", "")) if options.get("block", "basic") != "basic" else ""
    family = "thin" if architecture.family == "resnet" and early else architecture.family
    tail = "wide" if options.get("tail") == "wide" else ""
    return "-".join(part for part in (family, block, early, tail) if part)


PRIORS: Mapping[str, CurvePrior] = {
    "cifar10": CurvePrior(
        images=45_000,
        floor=0.083,
        gap=0.36,
        scale=4.0,
        exponent=1.2,
        macs=12.5e6,
        converged=75.0,
        spread=0.12,
        # A wide tail is the same network with 12 % fewer operations.
        kinds={"thin-early": 1.0, "thin-inverted-early": 0.82, "thin-inverted-early-wide": 0.795, "resnet": 1.2},
        # 60,000 images: 38.3 % with 18.9M operations, against 35.7 % with 12.5M
        slow={"thin-inverted-early": 0.6, "thin-inverted-early-wide": 0.6},
        # docs/record: after six epochs 14.3 % instead of 16.7 %, after 70 epochs 9.2 instead of 8.4. After 36 it is 8.6
        # instead of 8.9 in float, but what was compressed from it cost more (docs/search.md).
        worth={"muon": (2.0, 30.0)},
    ),
    "digits": CurvePrior(
        images=1_150,
        floor=0.025,
        gap=0.9,
        scale=3.0,
        exponent=2.2,
        macs=10_832.0,
        converged=20.0,
        spread=0.35,
        kinds={"thin-early": 1.0, "resnet": 0.9},
    ),
}


class LearningCurve:
    """The prior of a data set, corrected by the study's finished float trainings.

    Args:
        prior: None: nothing is known, and `known` is False until the first training.
        done: (architecture, macs, images, optimiser, error) of finished float trainings.
        curves: (fraction, accuracy) by epoch of those.
    """

    def __init__(
        self,
        prior: CurvePrior | None,
        done: Sequence[tuple[Architecture, int, float, str, float]],
        curves: Sequence[Sequence[tuple[float, float]]] = (),
    ) -> None:
        self.known = prior is not None or bool(done)
        self._prior = prior or CurvePrior(45_000, 0.1, 0.5, 4.0, 1.0, 1e7, 40.0, 0.5)
        self._curves = [curve for curve in curves if curve]
        shifts = [math.log2(max(error, 1e-4) / self._prior.error(a, m, i, o)[0]) for a, m, i, o, error in done]
        # What is common to all of the study's trainings; a few of them weigh more than the prior's guess.
        weight = len(shifts) / (len(shifts) + (0.25 if prior is None else 1.0))
        self._shift = weight * sum(shifts) / len(shifts) if shifts else 0.0

    def error(
        self, architecture: Architecture, macs: int, images: float, optimiser: str = "sgd"
    ) -> tuple[float, float]:
        """(expected error, sigma of its log2) of a float training of that many images."""
        error, spread = self._prior.error(architecture, macs, images, optimiser)
        return min(0.9, error * 2**self._shift), spread

    def end(self, curve: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """(expected error, sigma of its log2) at the end of a float training that has come as far as `curve`."""
        fraction, error = curve[-1][0], max(1 - max(a for _, a in curve), 1e-4)
        if fraction >= 0.999:
            return error, 0.0
        ratios = [_ratio(done, fraction) for done in self._curves]
        if ratios:
            return error * 2 ** (sum(map(math.log2, ratios)) / len(ratios)), 0.2
        return error * (0.3 + 0.7 * fraction), 0.4


def _ratio(done: Sequence[tuple[float, float]], fraction: float) -> float:
    """error at the end / smallest error up to `fraction`, of one finished curve."""
    until = [a for f, a in done if f <= fraction + 1e-6] or [done[0][1]]
    return max(1 - done[-1][1], 1e-4) / max(1e-4, 1 - max(until))


def fit_curve(dataset: str, done: Sequence[TrialRecord], images: int) -> LearningCurve:
    """The curve of a data set by the float trainings of a study that have come to their end; `images` of an epoch."""
    floats = [(r, r.result) for r in done if r.stage == "parent" and r.at_end and r.result]
    trained = [
        (
            r.candidate.architecture,
            result.price.macs,
            r.candidate.train.epochs * images,
            r.candidate.train.optimiser,
            1 - result.accuracy,
        )
        for r, result in floats
        if r.candidate.train.epochs
    ]
    return LearningCurve(PRIORS.get(dataset), trained, [result.curve for _, result in floats])


def expected_ends(curve: LearningCurve, done: Sequence[TrialRecord]) -> dict[int, tuple[float, float]]:
    """By number: what `curve` lets expect of the float trainings that are paused; see `LearningCurve.end`."""
    paused = [(r.number, r.result) for r in done if r.stage == "parent" and r.result and not r.at_end]
    return {number: curve.end(result.curve or ((0.5, result.accuracy),)) for number, result in paused}
