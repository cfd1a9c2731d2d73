"""What a study knows: its float parents, what their children have shown, and the two models fitted to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contest.candidate import Candidate
from contest.networks.draws import Value
from search.policy.accuracy import CompressionModel, Measured, Observation, features, loss_ratio, measured
from search.policy.learning_curve import PRIORS, LearningCurve
from search.policy.ranking import SIGMAS, Judge
from search.space.space import Space
from search.study.settings import Settings
from search.study.study import float_key
from search.study.trial import Record, wilson_lower


@dataclass(frozen=True)
class Parent:
    """A float network of the study, at its furthest visit."""

    key: str
    values: Mapping[str, Value]
    candidate: Candidate
    record: Record
    error: Measured
    """At the end of its training: as measured, or as its curve lets expect."""
    macs: int

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
        self, settings: Settings, records: Sequence[Record], space: Space, *, images: int, validation: int, classes: int
    ) -> None:
        self.settings, self.records, self.space = settings, list(records), space
        self.images, self.validation, self.classes = images, validation, classes
        self.judge = Judge(settings, records, classes)
        done = self.judge.records
        self._ratio = loss_ratio([(r.result.correct, r.result.total, r.result.loss) for r in done if r.result])
        floats = [r for r in done if r.stage == "parent" and r.at_end and r.result]
        self.curve = LearningCurve(
            PRIORS.get(settings.dataset),
            [
                (
                    r.candidate.architecture,
                    r.result.price.macs,
                    r.candidate.train.epochs * images,
                    1 - r.result.accuracy,
                )
                for r in floats
                if r.result and r.candidate.train.epochs
            ],
            [r.result.curve for r in floats if r.result],
        )
        self.parents = self._parents(done)
        self.model = CompressionModel([o for r in self.judge.networks if (o := self._observation(r))])

    def _parents(self, done: Sequence[Record]) -> dict[str, Parent]:
        found: dict[str, Parent] = {}
        for record in done:
            if record.stage != "parent" or record.result is None:
                continue
            key = float_key(record.candidate)
            known = found.get(key)
            if known is not None and known.record.rung > record.rung:
                continue
            values = self.space.complete(record.params)
            error = self.measured(record)
            if not record.at_end:
                end, sigma = self.curve.end(record.result.curve or ((0.5, record.result.accuracy),))
                error = Measured(math.log2(max(end, 1e-4)), math.hypot(sigma, error.sigma))
            found[key] = Parent(key, values, record.candidate, record, error, record.result.price.macs)
        return found

    def measured(self, record: Record) -> Measured:
        assert record.result is not None
        return measured(record.result.correct, record.result.total, record.result.loss, self._ratio)

    def _observation(self, record: Record) -> Observation | None:
        parent = self.parents.get(float_key(record.candidate))
        if parent is None or record.result is None:
            return None
        return Observation(features(record.candidate, self.images), parent.key, parent.error, self.measured(record))

    def children(self, parent: str) -> list[Record]:
        """Everything that has been begun from that parent, in whatever state but failed."""
        return [
            r
            for r in self.records
            if r.stage in ("child", "long") and r.state != "FAIL" and float_key(r.candidate) == parent
        ]

    @property
    def needed_error(self) -> float:
        """The largest error on validation whose lower bound of accuracy still reaches the threshold."""
        settings = self.settings
        if settings.margin is not None:
            return max(1e-3, 1 - settings.threshold - settings.margin)
        low, high = settings.threshold, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if wilson_lower(middle, self.validation, SIGMAS) < settings.threshold else (low, middle)
            )
        return max(1 - high, 0.5 / self.validation)
