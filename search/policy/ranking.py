"""What a study thinks of its candidates: who leads, what cannot win, and in what order to go on with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from contest.candidate import Candidate
from search.policy.extrapolation import Foresight, bits_of_candidate
from search.study.settings import Settings
from search.study.study import trained
from search.study.trial import Price, Record


@dataclass(frozen=True)
class Verdict:
    """Why a candidate is not trained. `violation` is by how much accuracy would miss, where that is the reason."""

    reason: str
    violation: float | None = None


class Judge:
    """Opinions on candidates from what the study has finished so far.

    Args:
        settings: the study's.
        records: everything in the study.
        classes: of the data set; 1 / classes is guessing.
    """

    def __init__(self, settings: Settings, records: Sequence[Record], classes: int) -> None:
        self.settings = settings
        self.records = [r for r in records if r.result is not None and r.answered_by is None]
        self.foresight = Foresight(self.records, epochs_ratio=settings.epochs_ratio, chance=1 / classes)
        self._predicted: dict[int, tuple[Record, float]] = {}

    def predicted(self, record: Record) -> float:
        """The accuracy on validation that `record` has or, before its long training, is expected to reach."""
        known = self._predicted.get(id(record))
        if known is None:  # (the record is kept with it, so that no other can have the same id)
            known = self._predicted[id(record)] = record, self._predict(record)
        return known[1]

    def _predict(self, record: Record) -> float:
        assert record.result is not None
        if record.stage == "refine":
            return record.result.lower(self.settings.margin)
        return self.foresight.refined(record.result.curve).expected

    def violation(self, predicted: float) -> float:
        """Above 0: infeasible, by that much accuracy. Without a threshold nothing is."""
        return self.settings.threshold - predicted if self.settings.objective == "constrained" else 0.0

    def feasible(self, record: Record) -> bool:
        return self.violation(self.predicted(record)) <= 0

    def rank(self, record: Record) -> tuple[float, ...]:
        """The smaller, the better: what the objective asks for, with accuracy that is missing before all."""
        return self._order(record, self.predicted(record))

    def _order(self, record: Record, predicted: float) -> tuple[float, ...]:
        assert record.result is not None
        total = record.result.price.total
        if self.settings.objective == "constrained":
            missing = max(0.0, self.violation(predicted))
            return (missing, total) if missing else (0.0, total)
        if self.settings.objective == "target":
            assert self.settings.target_score is not None
            return max(0.0, total - self.settings.target_score), -predicted
        return float(self._dominators(record, predicted, total)), total

    def ranked(self, records: Sequence[Record]) -> list[Record]:
        return sorted(records, key=self.rank)

    def leaders(self) -> list[Record]:
        """Each trained candidate at its furthest explore visit, best first."""
        return list(self._leaders)

    @cached_property
    def _leaders(self) -> list[Record]:
        return self.ranked([r for r in self._by_key.values() if r.state == "COMPLETE"])

    @cached_property
    def _by_key(self) -> dict[str, Record]:
        """Each candidate that has a result, at its furthest explore visit."""
        return trained(self.records)

    def reached(self, record: Record) -> bool:
        """Whether a network that exists has reached the threshold: measured, not forecast."""
        result = record.result
        if result is None or result.model is None:
            return False
        return self.violation(result.lower(self.settings.margin)) <= 0

    def confirmed(self) -> Record | None:
        """The incumbent: the best network that has reached the threshold, after a long training or a short one."""
        return min((r for r in self.records if self.reached(r)), key=self.rank_measured, default=None)

    def rank_measured(self, record: Record) -> tuple[float, ...]:
        """Like `rank`, from what was measured on validation: how finalists are ordered."""
        assert record.result is not None
        return self._order(record, record.result.lower(self.settings.margin))

    def best(self) -> Record | None:
        """The best so far: confirmed, or the best of those with a long training, or the most promising."""
        refined = self.ranked([r for r in self.records if r.stage == "refine"])
        return self.confirmed() or next(iter([*refined, *self.leaders()]), None)

    def limit(self) -> float | None:
        """A score that a new candidate must stay below to be worth training; None while everything is.

        Constrained: the incumbent's, and while none is confirmed the score of the candidate that would be
        the last finalist: a forecast may be wrong, as many forecasts as there are finalists rarely are.
        """
        if self.settings.objective == "target":
            return self.settings.target_score
        if self.settings.objective == "pareto":
            return None
        incumbent = self.confirmed()
        if incumbent is not None and incumbent.result is not None:
            # Nothing but a lower score wins, however accurate it is.
            return incumbent.result.price.total
        promising = [r for r in self.leaders() if self.feasible(r) and r.result and r.rung == self._top]
        if len(promising) < self.settings.finalists:
            return None
        last = promising[self.settings.finalists - 1].result
        return None if last is None else last.price.total

    def before(self, candidate: Candidate, price: Price) -> Verdict | None:
        """Why `candidate` should not be trained, from its price alone; None: train it."""
        limit = self.limit()
        if limit is not None and price.total >= limit:
            return Verdict(f"score {price.total:.5f} cannot get below {limit:.5f}")
        forecast = self.foresight.by_size(price, bits_of_candidate(candidate))
        if forecast is None:
            return None
        if self._misses(forecast.optimistic):
            return Verdict(
                f"too small: at best {forecast.optimistic:.1%} from {price.macs:,} MACs",
                self.settings.threshold - forecast.expected,
            )
        if self.settings.objective == "pareto" and self._dominated(price.total, forecast.optimistic):
            return Verdict(f"dominated even at {forecast.optimistic:.1%}")
        return None

    def hopeless(self, curve: Sequence[tuple[float, float]], price: Price) -> Verdict | None:
        """Why a training that has come as far as `curve` should end here; None: go on."""
        optimistic = self.foresight.refined(curve).optimistic
        if self._misses(optimistic):
            return Verdict(f"at best {optimistic:.1%}", self.settings.threshold - optimistic)
        if self.settings.objective == "pareto" and self._dominated(price.total, optimistic):
            return Verdict(f"dominated even at {optimistic:.1%}")
        if self.settings.objective == "target":
            done = [r for r in self.leaders() if r.rung == self._top]
            if len(done) >= self.settings.finalists:
                worst = self.predicted(done[self.settings.finalists - 1])
                if optimistic < worst:
                    return Verdict(f"at best {optimistic:.1%}, and {len(done)} candidates reach {worst:.1%}")
        return None

    def _misses(self, optimistic: float) -> bool:
        """Whether even an optimist sees the threshold missed, in a study that knows of somebody who reaches it.

        Until there is one, the most accurate candidates are all that a study has.
        """
        return self.settings.objective == "constrained" and optimistic < self.settings.threshold and self._somebody

    @cached_property
    def _somebody(self) -> bool:
        return any(self.feasible(r) for r in self.records if r.state == "COMPLETE")

    @property
    def _top(self) -> int:
        return len(self.settings.rungs) - 1

    def _dominated(self, total: float, accuracy: float) -> bool:
        """Whether a candidate that was explored to its end is better in both."""
        return bool(np.any((self._whole[0] <= total) & (self._whole[1] > accuracy)))

    def _dominators(self, record: Record, predicted: float, total: float) -> int:
        """How many other candidates are better in both; the front has none."""
        totals, accuracies = self._plane
        better = int(np.count_nonzero((totals <= total) & (accuracies > predicted)))
        mine = self._by_key.get(record.key) if better else None
        if mine is not None and mine.result and mine.result.price.total <= total and self.predicted(mine) > predicted:
            better -= 1  # the same candidate, at another visit
        return better

    @cached_property
    def _plane(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._scores_and_accuracies(list(self._by_key.values()))

    @cached_property
    def _whole(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._scores_and_accuracies([r for r in self._leaders if r.rung == self._top])

    def _scores_and_accuracies(self, records: Sequence[Record]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        totals = [r.result.price.total for r in records if r.result]
        return np.array(totals), np.array([self.predicted(r) for r in records if r.result])
