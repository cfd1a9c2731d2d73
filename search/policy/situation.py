"""What a decision is taken from: what a study knows, what settings cost and gain, budget and plan, and chance."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from contest.candidate import Candidate
from contest.errors import ContestError
from contest.networks.options import Value
from search.candidates import compressed, float_candidate, seeds
from search.policy.accuracy import (
    Measured,
    features,
    fit,
    reach,
)
from search.policy.budget import LEAST, Budget, Plan, account, plan_of
from search.policy.learning_curve import expected_ends, fit_curve
from search.policy.ranking import Judge
from search.space import Space
from search.study.settings import StudySettings
from search.study.study import Snapshot
from search.study.trial import TrialPrice, TrialRecord
from search.trainers.protocol import Trainer

FILE_OVERHEAD = 1.02
"""A network's file costs up to so many times what its price before training says."""
UNEQUAL = 1
"""Weights and inputs differ by at most so many bits: an operation costs what the wider of the two has."""


@dataclass(frozen=True)
class Setting:
    """A child that could be trained: the values of its compression, the candidate, and its price before training."""

    values: Mapping[str, Value]
    candidate: Candidate
    price: TrialPrice


class Pool:
    """Settings for one parent, priced once.

    Args:
        parent: the float candidate; its children share its architecture, recipe and seed.
        values: all dimensions of the parent; its own compression settings are the centre from which others differ.
        tune_epochs: of the children.
    """

    def __init__(
        self, space: Space, trainer: Trainer, parent: Candidate, values: Mapping[str, Value], tune_epochs: float
    ) -> None:
        self._space, self._trainer, self._parent, self._epochs = space, trainer, parent, tune_epochs
        self._values = dict(values)
        self._known: dict[tuple[Value, ...], Setting | None] = {}
        self.names = [name for name in space.compression if name in self._values]

    def setting(self, values: Mapping[str, Value]) -> Setting | None:
        """The child with these values; None if the network cannot be built so."""
        key = tuple(values[name] for name in self.names)
        if key not in self._known:
            whole = {**self._values, **{name: values[name] for name in self.names}}
            try:
                candidate = compressed(self._parent, whole, tune_epochs=self._epochs)
                self._known[key] = Setting(whole, candidate, self._trainer.price(candidate))
            except (ContestError, ValueError, RuntimeError):
                self._known[key] = None
        return self._known[key]

    def grid(self) -> list[Setting]:
        """Bits of weights, of inputs and zeros in all sensible combinations, the rest as the parent has it."""
        dimensions = self._space.dimensions
        found = []
        for weights in self._choices("weight_bits"):
            for inputs in self._choices("activation_bits"):
                if abs(int(weights) - int(inputs)) > UNEQUAL and len(dimensions["activation_bits"].grid()) > 1:
                    continue
                for zeros in self._choices("sparsity"):
                    chosen = {"weight_bits": weights, "activation_bits": inputs, "sparsity": zeros}
                    found.append(self.setting({**self._values, **chosen}))
        return [setting for setting in found if setting is not None]

    def around(self, centres: Sequence[Setting]) -> list[Setting]:
        """Settings one step in one dimension away from one of `centres`."""
        found = [self.setting(values) for centre in centres for values in self._steps(centre.values)]
        return [setting for setting in found if setting is not None]

    def _steps(self, values: Mapping[str, Value]) -> Iterator[dict[str, Value]]:
        for name in self.names:
            for value in self._space.dimensions[name].beside(values[name]):
                yield {**values, name: value}

    def _choices(self, name: str) -> list[Value]:
        return self._space.dimensions[name].grid() if name in self.names else [self._values.get(name, 0)]


def with_length(setting: Setting, epochs: float) -> Setting:
    """The same setting tuned for `epochs`."""
    rounds = 2 if setting.candidate.structured else 1  # before and after quantisation
    tune = replace(setting.candidate.tune, epochs=epochs / rounds)
    return replace(setting, candidate=replace(setting.candidate, tune=tune))


@dataclass(frozen=True)
class FloatParent:
    """A float network of the study, at its furthest visit."""

    key: str
    values: Mapping[str, Value]
    candidate: Candidate
    record: TrialRecord
    error: Measured
    """At the end of its training: as measured, or as its curve lets expect."""

    @property
    def macs(self) -> int:
        assert self.record.result is not None
        return self.record.result.price.macs

    @property
    def finished(self) -> bool:
        return self.record.state == "COMPLETE" and self.record.at_end


class Knowledge:
    """Models of accuracy from everything that a study has finished.

    Args:
        images: of an epoch of its training split.
        validation: images of its validation split.
    """

    def __init__(
        self,
        settings: StudySettings,
        records: Sequence[TrialRecord],
        space: Space,
        *,
        images: int,
        validation: int,
        classes: int,
    ) -> None:
        self.settings, self.records = settings, list(records)
        self.images, self.validation = images, validation
        self.judge = Judge(settings, records, classes)
        # The error on validation that is the threshold on other images: less the allowance for choosing by it.
        enough = 1 - settings.threshold - self.judge.allowance(validation)
        self.enough_error = max(enough, 1e-3, 0.5 / validation)
        done = self.judge.records
        self.curve = fit_curve(settings.dataset, done, images)
        expected = expected_ends(self.curve, done)
        models = fit(done, expected, images, self.enough_error)
        self.model = models.compression
        self.parents = {
            key: FloatParent(key, space.complete(record.params), record.candidate, record, error)
            for key, (record, error) in models.parents.items()
        }

    def children(self, parent: str) -> list[TrialRecord]:
        """Everything that has been begun from that parent, in whatever state but failed."""
        return [r for r in self.records if r.stage in ("child", "long") and r.state != "FAIL" and r.float_key == parent]


DRAW = 0.4
"""Share of the model's uncertainty in a draw: with more, settings of one or two bits are compared that never win."""
REACHES = 0.05
"""A probability below this is none."""
CAUTIOUS = 0.8
"""Probability of reaching the threshold that the first child of a parent has, as a share of the surest setting's."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Worth:
    """Of each setting: its gain (log of the saving that is expected over what the study would hand in without it;
    accuracy where that is asked for), the mean of log2 of its error, and the probability that it reaches the threshold
    on other images than validation's."""

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
        """The setting with the largest gain among those that reach the threshold nearly as probably as any."""
        gains = np.where(self.chances >= CAUTIOUS * self.chances.max(), self.gains, -1.0)
        return int(np.argmax(gains)) if gains.max() > 0 else int(np.argmin(self.means))


class Gain:
    """Values settings for one decision.

    Args:
        reference: the score from which a saving counts where no network reaches the threshold.
        target: the score below which accuracy is asked for; None: the lowest score at the threshold is.
        epochs: of the long tuning after which the settings would be handed in.
    """

    def __init__(
        self, known: Knowledge, rng: random.Random, *, reference: float, target: float | None, epochs: float
    ) -> None:
        self._known, self._rng, self._target, self._epochs = known, rng, target, epochs
        at_hand = known.judge.outcomes() if target is None else []
        missing = 1 - sum(chance for _, chance in at_hand)
        # Where nothing at hand reaches the threshold, any network that does is a gain.
        self._outcomes = [*at_hand, (max(reference, *(score for score, _ in at_hand), 0.0), missing)]

    def of(self, options: Sequence[Setting], parent: str, error: Measured, *, draw: bool = False) -> Worth:
        """The worth of settings on a parent with that error; `draw`: in one draw of what the model thinks possible."""
        known = self._known
        lengthened = [with_length(s, max(s.candidate.tune.epochs, self._epochs)) for s in options]
        mean, sigma = known.model.predict([features(s.candidate, known.images) for s in lengthened], parent, error)
        if draw:
            mean = mean + np.array([self._rng.gauss(0, DRAW) * s for s in sigma])
        prices = np.array([s.price.total * FILE_OVERHEAD for s in options])
        if self._target is not None:
            return self._of_accuracy(prices, mean, self._target)
        chances = reach(mean, sigma, known.enough_error, known.validation)
        chances = np.where(chances < REACHES, 0.0, chances)  # or what nothing is known of would look best
        saved = sum(p * np.maximum(np.log(score / prices), 0.0) for score, p in self._outcomes)
        return Worth(saved * chances, mean, chances)

    def _of_accuracy(self, prices: Vector, mean: Vector, target: float) -> Worth:
        networks = [r for r in self._known.judge.networks if r.result and r.result.price.total <= target]
        best = max(map(self._known.judge.predicted, networks), default=0.0)
        accuracy = 1 - 2**mean
        gains = np.where(prices <= target, accuracy - best, 0.0)
        return Worth(gains, np.where(prices <= target, mean, mean + 10.0), np.ones(len(prices)))


def log_error(error: float, spread: float) -> Measured:
    return Measured(math.log2(max(error, 1e-4)), spread)


DEARER = 1.5
"""By what the score from which a saving counts lies above the dearest starting point's."""


@dataclass(frozen=True)
class Situation:
    """Everything a proposal may depend on. The same situation gives the same proposal."""

    known: Knowledge
    space: Space
    trainer: Trainer
    budget: Budget
    plan: Plan
    rng: random.Random

    @property
    def settings(self) -> StudySettings:
        return self.known.settings

    @cached_property
    def begun(self) -> set[str]:
        """Keys of candidates that somebody has begun."""
        return {r.key for r in self.known.records if r.state != "FAIL"}

    @cached_property
    def begun_parents(self) -> set[str]:
        return {r.float_key for r in self.known.records if r.stage == "parent"}

    @cached_property
    def running_parents(self) -> bool:
        """Whether somebody trains a float parent now."""
        return any(r.stage == "parent" and r.state == "RUNNING" and r.result is None for r in self.known.records)

    @cached_property
    def long_epochs(self) -> float:
        return max(self.plan.long, self.plan.child, LEAST)

    @cached_property
    def target(self) -> float | None:
        """The score below which accuracy is asked for; on the way to a front one drawn anew for each decision."""
        if self.settings.objective == "target":
            return self.settings.target_score
        if self.settings.objective == "constrained" or not self._prices:
            return None
        low, high = 0.3 * min(self._prices), 1.5 * max(self._prices)
        return math.exp(self.rng.uniform(math.log(low), math.log(high)))

    @cached_property
    def gain(self) -> Gain:
        reference = DEARER * max(self._prices, default=1.0)
        return Gain(self.known, self.rng, reference=reference, target=self.target, epochs=self.long_epochs)

    def pool(self, parent: Candidate, values: Mapping[str, Value], epochs: float) -> Pool:
        return Pool(self.space, self.trainer, parent, values, epochs)

    @cached_property
    def _prices(self) -> list[float]:
        """Scores of the starting points with their own settings."""
        settings = [
            self.pool(float_candidate(values, epochs=1.0), values, 1.0).setting(values) for values in seeds(self.space)
        ]
        return [setting.price.total for setting in settings if setting is not None]


def situation(study: Snapshot, trainer: Trainer) -> Situation | None:
    """What the next proposal is made from; None: as many networks as were asked for have been begun."""
    settings, records = study.settings, study.records
    if settings.trials is not None and study.begun >= settings.trials:
        return None
    budget = account(study, trainer.images, records)
    plan = plan_of(study, budget)
    sizes = {"images": trainer.images, "validation": trainer.validation, "classes": trainer.classes}
    known = Knowledge(settings, records, study.space, **sizes)
    return Situation(known, study.space, trainer, budget, plan, random.Random(str(study.seed)))
