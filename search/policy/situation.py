"""What a decision is taken from: knowledge, space, budget and plan, together with chance."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from contest.candidate import Candidate
from contest.networks.options import Value
from search.policy.account import LEAST, Plan
from search.policy.budget import Budget
from search.policy.compression import Pool
from search.policy.knowledge import Gain, Knowledge
from search.space.candidates import float_candidate, seeds
from search.space.space import Space
from search.study.settings import StudySettings
from search.study.trial import Stage, float_key
from search.trainers.protocol import Trainer

DEARER = 1.5
"""By what the score from which a saving counts lies above the dearest starting point's."""


@dataclass(frozen=True)
class Proposal:
    """A piece of work that is worth its cost, and why."""

    stage: Stage
    values: Mapping[str, Value]
    candidate: Candidate
    rung: int
    why: str
    gain: float = 0.0
    forecast: float | None = None
    """Accuracy on validation that is expected of the network."""


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
        return {float_key(r.candidate) for r in self.known.records if r.stage == "parent"}

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
