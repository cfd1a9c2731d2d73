"""What a study thinks of its candidates: who leads, who has reached the threshold, and in what order they stand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.study.settings import Settings
from search.study.trial import Record

SIGMAS = 2.0
"""The lower bound of accuracy that must reach the threshold: so many sigma below what validation shows. Of several
networks the luckiest is chosen, so one sigma is missed on the test set in a third of cases (docs/record)."""


class Judge:
    """Opinions on candidates from what the study has finished so far.

    Args:
        settings: the study's.
        records: everything in the study.
        classes: of the data set; 1 / classes is guessing.
    """

    def __init__(self, settings: Settings, records: Sequence[Record], classes: int) -> None:
        self.settings = settings
        self.chance = 1 / classes
        self.records = [r for r in records if r.result is not None and r.answered_by is None]

    @property
    def networks(self) -> list[Record]:
        """The records that ended with a network that may be handed in."""
        return [r for r in self.records if r.is_network]

    def predicted(self, record: Record) -> float:
        """What `record` counts as: the lower bound of a network's accuracy; of a float parent what it promises."""
        assert record.result is not None
        if record.stage == "parent":
            return record.forecast if record.forecast is not None else record.result.accuracy
        return record.result.lower(self.settings.margin, SIGMAS)

    def violation(self, predicted: float) -> float:
        """Above 0: infeasible, by that much accuracy. Without a threshold nothing is."""
        return self.settings.threshold - predicted if self.settings.objective == "constrained" else 0.0

    def feasible(self, record: Record) -> bool:
        return self.violation(self.predicted(record)) <= 0

    def rank(self, record: Record) -> tuple[float, ...]:
        """The smaller, the better: what the objective asks for, with accuracy that is missing before all."""
        assert record.result is not None
        predicted, total = self.predicted(record), record.result.price.total
        if self.settings.objective == "constrained":
            missing = max(0.0, self.violation(predicted))
            return (missing, total)
        if self.settings.objective == "target":
            assert self.settings.target_score is not None
            return max(0.0, total - self.settings.target_score), -predicted
        return float(self._dominators(record, predicted, total)), total

    rank_measured = rank
    """Finalists are ordered by what was measured on validation, which is what a network counts as."""

    def ranked(self, records: Sequence[Record]) -> list[Record]:
        return sorted(records, key=self.rank)

    def leaders(self) -> list[Record]:
        """Every network, best first."""
        return list(self._leaders)

    @cached_property
    def _leaders(self) -> list[Record]:
        return self.ranked([r for r in self.networks if r.state == "COMPLETE"])

    def reached(self, record: Record) -> bool:
        """Whether a network that exists has reached the threshold."""
        return record.is_network and self.feasible(record)

    def confirmed(self) -> Record | None:
        """The incumbent: the best network that has reached the threshold."""
        return next((r for r in self._leaders if self.reached(r)), None)

    def best(self) -> Record | None:
        """The best network so far, or the most promising parent while there is none."""
        parents = [r for r in self.records if r.stage == "parent"]
        return next(iter(self._leaders), None) or min(parents, key=self.rank, default=None)

    def limit(self) -> float | None:
        """A score that a new network must stay below to be worth training; None while every score is."""
        if self.settings.objective == "target":
            return self.settings.target_score
        incumbent = self.confirmed() if self.settings.objective == "constrained" else None
        return incumbent.result.price.total if incumbent is not None and incumbent.result is not None else None

    def _dominators(self, record: Record, predicted: float, total: float) -> int:
        """How many other networks are better in both; the front has none."""
        totals, accuracies = self._plane
        return int(np.count_nonzero((totals <= total) & (accuracies > predicted)))

    @cached_property
    def _plane(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        networks = self.networks
        totals = [r.result.price.total for r in networks if r.result]
        return np.array(totals), np.array([self.predicted(r) for r in networks])
