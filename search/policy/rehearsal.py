"""A study rehearsed before it begins: its own policy plays it to the end, and what is known of errors is drawn instead
of trained. So a forecast counts what choosing does: several tries, the luckiest of them, a budget that ends.

A truth is drawn once for each rehearsal: what the settings do (the regression's weights), how good each float parent
turns out. Then each network has its seed's chance, and its errors are counted on as many images as the study has.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, replace

import numpy as np

from search.candidates import compressed
from search.policy.accuracy import FEATURES, LOSS_SPREAD, PARENT, SPREAD, Vector, features
from search.policy.budget import Budget
from search.policy.proposals import next_proposal
from search.policy.ranking import Judge, finalists
from search.policy.situation import Knowledge, Situation
from search.study.trial import Proposal, TrialPrice, TrialRecord, TrialResult, key_of

LOSS = 3.0
"""Cross-entropy of a network by its error; only that it is the same for all matters."""
LONGEST = 400
"""Pieces of work after which a rehearsal ends in any case."""
PAUSED = 0.3, 0.7
"""A float training that ends with the error e has e / (0.3 + 0.7 f) at the fraction f of it (`LearningCurve.end`)."""


@dataclass(frozen=True)
class Ending:
    """What one rehearsal handed in."""

    score: float | None
    """The lowest of the finalists that reached the threshold on the test set; None: none did."""
    accuracy: float
    """On validation, of that one, or of the best where none did."""
    architecture: str


PLAYS = 19
"""Between the second lowest and the second highest of nineteen lies another one with 80 %, ..."""
FEW = 9
"""... as between the lowest and the highest of nine."""


def rehearsals(now: Situation, patience_s: float) -> list[Ending]:
    """As many endings as there is time for, `PLAYS` at most; none where that is not even a few."""
    begun, found = time.monotonic(), list[Ending]()
    while patience_s > 0 and len(found) < PLAYS:
        # The first prices what the others meet again, so it may take half of the time.
        share = min(1.0, max(0.5, (len(found) + 1) / FEW))
        one = rehearse(now, len(found), until=begun + share * patience_s)
        if one is None:
            break
        found.append(one)
    return found if len(found) >= FEW else []


def rehearse(now: Situation, number: int, *, until: float = math.inf) -> Ending | None:
    """Play the study of `now` to its end, in the truth with that number; the same number, the same ending. None: it
    takes longer than `until` (of the monotonic clock)."""
    play = Rehearsal(now, np.random.default_rng(number))
    for _ in range(LONGEST):
        if time.monotonic() > until:
            return None
        if not play.step():
            break
    return play.ending()


class Rehearsal:
    """One rehearsal.

    Args:
        now: the study as it stands; what waits in its queue comes first.
        chance: of everything that is drawn.
    """

    def __init__(self, now: Situation, chance: np.random.Generator) -> None:
        self._start, self._chance = now, chance
        model = now.known.model
        self._weights: Vector = chance.multivariate_normal(model.mean, model.covariance, method="eigh")[: len(FEATURES)]
        self._common = chance.normal()
        self._floats: dict[str, float] = {}
        """By float key: log2 of the error at the end of its training."""
        self._own: dict[str, float] = {}
        """And what its children have in common besides."""
        self._waiting = [r for r in now.known.records if r.result is None and r.state == "WAITING"]
        self.records = [r for r in now.known.records if r.result is not None]
        self.left = now.budget.left()

    def step(self) -> bool:
        """The next piece of work; False: there is none."""
        if self._waiting:
            record = self._waiting.pop(0)
            values = self._start.space.complete(record.params)
            proposal = Proposal(
                record.stage, values, record.candidate, record.rung, record.why, forecast=record.forecast
            )
        else:
            trials, networks = self._start.settings.trials, sum(r.stage != "parent" for r in self.records)
            found = None if trials is not None and networks >= trials else next_proposal(self._situation())
            if found is None:
                return False
            proposal = found
        self.records.append(self._done(proposal))
        return True

    def ending(self) -> Ending:
        """The finalists read on the test set: each reaches the threshold with the chance that the study gives it."""
        judge = Judge(self._start.settings, self.records, round(1 / self._start.known.judge.chance))
        found = [(r, r.result) for r in finalists(judge) if r.result is not None]
        reached = [(r, result) for r, result in found if self._chance.random() < judge.chance_on_test(r)]
        if not found:
            return Ending(None, judge.chance, "")
        record, result = min(reached, key=lambda one: one[1].price.total) if reached else found[0]
        score = result.price.total if reached else None
        return Ending(score, result.accuracy, str(record.candidate.architecture))

    def _situation(self) -> Situation:
        start = self._start
        known = Knowledge(
            start.settings,
            self.records,
            start.space,
            images=start.known.images,
            validation=start.known.validation,
            classes=round(1 / start.known.judge.chance),
        )
        # The same chance for the same decision of every rehearsal: what was priced for one is known to the next.
        return replace(start, known=known, budget=self._budget(), rng=random.Random(len(self.records)))

    def _budget(self) -> Budget:
        return self._start.budget.with_left(self.left)

    def _done(self, proposal: Proposal) -> TrialRecord:
        """The training that never took place."""
        start, candidate, parent = self._start, proposal.candidate, proposal.stage == "parent"
        network = compressed(candidate, dict(proposal.values), tune_epochs=1.0) if parent else candidate
        price = start.trainer.price(network)
        record = TrialRecord(
            number=len(self.records),
            state="COMPLETE",
            key=key_of(candidate),
            stage=proposal.stage,
            rung=proposal.rung,
            candidate=candidate,
            params=start.space.asked(proposal.values),
            estimate=price,
            forecast=proposal.forecast,
            why=proposal.why,
        )
        share = start.settings.rungs[proposal.rung] if parent else 1.0
        trained = self._trained(record, share)
        cost = trained * self._budget().cost(candidate, price.macs, parent=parent)
        self.left -= cost
        if parent:
            log_error = self._float(record, price) - math.log2(PAUSED[0] + PAUSED[1] * share)
        else:
            log_error = self._tuned(record)
        rounds = 2 if candidate.structured else 1  # before and after quantisation
        epochs = trained * (candidate.train.epochs if parent else rounds * candidate.tune.epochs)
        return replace(record, result=self._result(log_error, price, share, epochs, cost))

    def _trained(self, record: TrialRecord, share: float) -> float:
        """What part of its training this visit makes, up to `share` of it; a given parent has been trained."""
        if record.stage != "parent":
            return 1.0
        if record.candidate.start:
            return 0.0
        rungs = [r.rung for r in self.records if r.stage == "parent" and r.float_key == record.float_key]
        return share - max((self._start.settings.rungs[rung] for rung in rungs), default=0.0)

    def _float(self, record: TrialRecord, price: TrialPrice) -> float:
        """log2 of the error of a float network at the end of its training."""
        known, candidate = self._start.known, record.candidate
        if record.float_key not in self._floats:
            if candidate.start and record.forecast is not None:
                error = math.log2(max(1 - record.forecast, 1e-4))
            else:
                images = candidate.train.epochs * known.images
                expected, spread = known.curve.error(
                    candidate.architecture, price.macs, images, candidate.train.optimiser
                )
                # What a data set's trainings have in common is as uncertain as what is one network's own.
                error = math.log2(expected) + spread * (self._common + self._chance.normal()) / math.sqrt(2)
            self._floats[record.float_key] = error
        return self._floats[record.float_key]

    def _tuned(self, record: TrialRecord) -> float:
        """log2 of the error of a compressed network."""
        known, key = self._start.known, record.float_key
        if key not in self._floats:  # its training was no part of this rehearsal
            self._floats[key] = known.parents[key].error.log_error if key in known.parents else math.log2(0.5)
        own = self._own.setdefault(key, PARENT * self._chance.normal())
        setting = float(self._weights @ features(record.candidate, known.images))
        return self._floats[key] + own + setting + SPREAD * self._chance.normal()

    def _result(self, log_error: float, price: TrialPrice, share: float, epochs: float, cost: float) -> TrialResult:
        known = self._start.known
        error = min(max(2**log_error, 1e-4), 1 - known.judge.chance)
        correct = known.validation - int(self._chance.binomial(known.validation, error))
        return TrialResult(
            correct=correct,
            total=known.validation,
            price=price,
            curve=((share, correct / known.validation),),
            images=round(epochs * known.images),
            seconds=cost,
            model="" if share == 1.0 else None,
            loss=LOSS * error * 2 ** (LOSS_SPREAD * self._chance.normal()),
        )
