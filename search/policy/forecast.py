"""Before anything is trained: the machine's speed and times, the account that is opened, and what it will come to."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from contest.errors import TrainingError, UsageError
from search.candidates import lengthened, seeds, to_candidate
from search.policy.accuracy import Measured
from search.policy.budget import (
    TUNE_SHARE,
    Budget,
    Plan,
    account,
    converged_epochs,
    epoch_ratio,
    make_plan,
    total_images,
    written,
)
from search.policy.proposals import Parents
from search.policy.rehearsal import Ending, rehearsals
from search.policy.situation import CAUTIOUS, Situation, log_error
from search.study.study import ACCOUNT, Study
from search.study.trial import GIVEN, Proposal
from search.trainers.protocol import Speed

if TYPE_CHECKING:
    from search.space import Space
    from search.trainers.pipeline import PipelineTrainer


TIMED_RATE = 0.001
"""Time does not depend on the learning rate, and a training that diverges has none."""


def measure_speed(trainer: PipelineTrainer, space: Space) -> Speed:
    """Images per second of the first starting point, float and quantised, and what a training costs besides.

    A starting point that cannot be trained here (its process dies, say) is passed over. Raises TrainingError if none
    can.
    """
    problem: TrainingError | None = None
    for values in seeds(space):
        candidate = to_candidate(values, epochs=2, seed=0)
        quick: dict[str, Any] = {"epochs": 2.0, "warmup_epochs": 0.0, "distillation": 0.0, "learning_rate": TIMED_RATE}
        candidate = replace(
            candidate,
            structured=0.0,
            train=replace(candidate.train, **quick),
            tune=replace(candidate.tune, **quick),
        )
        try:
            return trainer.measure(candidate)
        except TrainingError as error:
            problem = error
    raise problem or TrainingError("there is no starting point in the space")


READING_STARTS = 1.0
READING_PASSES = 2.0
"""Reading a network on the test set starts a process and takes so many times what its images take in float32: 10.4 s on
CIFAR-10 and 3.6 s on the digits, where a process starts in 3.7 s."""
READING_SHARE = 0.25
"""Of a budget, in which further finalists than the best are read."""
GRACE_S = 10.0
GRACE_SHARE = 0.05
"""By what a network may come after the end of a budget that is just too small for one."""
SOME_S = 6.0
"""What trainings have in any case, where the smallest one is smaller still."""
LEAST_GIVEN = 0.25
"""Float epochs of the smallest budget that is planned for: a given parent's tuning; one epoch where none is given."""


def reading_s(starting_s: float, images_s: float) -> float:
    """Seconds of reading one network on the test set, whose images take so long in float32."""
    return READING_STARTS * starting_s + 0.5 + READING_PASSES * images_s


@dataclass(frozen=True)
class Times:
    """What of a budget of time is no training, in seconds."""

    begun: float
    """When the command began (Unix time)."""
    budget: float
    """Infinite where images are counted."""
    starting: float
    """Until everything was imported: about what each further process takes to start."""
    teaching: float
    reading: float
    """One network on the test set."""
    finalists: int
    """How many are read at most."""

    @property
    def readings(self) -> int:
        """How many finalists time is set aside for."""
        return max(1, int(min(self.finalists, READING_SHARE * self.budget / max(self.reading, 1e-3))))

    @property
    def over_at(self) -> float:
        """The end of the budget (Unix time)."""
        return self.begun + self.budget

    def check(self, speed: Speed, images: int, given: int) -> None:
        """Raises UsageError where no network can come in time; `given` float parents exist.

        images: of an epoch.
        """
        budget = Budget(images, [], ends_at=self.over_at, speed=speed)
        epochs, trainings = (LEAST_GIVEN, given + 1) if given else (1 + TUNE_SHARE, 2)
        training = trainings * budget.fixed() + epochs * budget.epoch(speed.macs, parent=True)
        before = time.time() - self.begun
        least = before + self.teaching + training + self.reading
        if least > self.budget + max(GRACE_S, GRACE_SHARE * self.budget):
            raise too_small(
                self.budget,
                least,
                f"{before:.0f} s went by before the first step, the smallest training takes {training:.0f} s, reading "
                f"the test set {self.reading:.0f} s",
            )


def check_start(budget_s: float | None, started_s: float, processes: int) -> None:
    """Raises UsageError where starting alone took so long that a network cannot come in time.

    processes: those that are still to be started, which each take about as long.
    """
    least = (1 + processes) * started_s
    if budget_s is not None and least > budget_s + max(GRACE_S, GRACE_SHARE * budget_s):
        raise too_small(budget_s, 1.5 * least, f"starting alone took {started_s:.0f} s")


class TooSmallError(UsageError):
    """No network can come in the time that was asked for."""


def too_small(budget_s: float, least: float, because: str) -> TooSmallError:
    return TooSmallError(
        f"--budget {written(budget_s)} is too small for a network here ({because}): the least that helps is about "
        f"--budget {written(math.ceil(least / 10) * 10)}, as this machine is now"
    )


def open_account(study: Study, images: int, *, times: Times | None = None, speed: Speed | None = None) -> Plan:
    """Write down what may be spent from now on; the plan for it.

    times: what was timed; without it, images are counted and nothing is said about time.
    """
    timed = times is not None and times.budget < math.inf
    ends_at = None
    if times is not None and timed:  # a budget that is just too small has a little more
        ends_at = max(times.over_at - times.readings * times.reading, time.time() + SOME_S)
    attribute: dict[str, Any] = {
        "images": images,
        "total": total_images(study.settings, images) if ends_at is None else None,
        "ends_at": ends_at,
        "over_at": times.over_at if times is not None and timed else None,
        "speed": asdict(speed) if speed else None,
        "reading": 0.0 if times is None else times.readings * times.reading,
    }
    study.optuna.set_user_attr(ACCOUNT, attribute)
    records = study.records()
    given = [r for r in records if r.candidate.start and r.stage == "parent"]
    budget = account(study, images, records)
    converged, ratio = converged_epochs(study.settings, images), epoch_ratio(budget)

    def planned(whole: float) -> Plan:
        return make_plan(whole, ratio, converged, images=images, given=bool(given), networks=study.settings.trials)

    if times is None or not timed:
        plan = planned((attribute["total"] or 0.0) / images)
    else:
        macs = speed.macs if speed else 1
        seconds, epoch = budget.left() - times.teaching, budget.epoch(macs, parent=True)
        plan = planned(seconds / epoch)
        # What trainings cost besides their epochs is not there for epochs.
        waiting = sum(1 for r in given if r.result is None)
        seconds -= budget.fixed() * (waiting + (not given) + 1 + plan.shorts + plan.longs)
        plan = planned(max(seconds / epoch, LEAST_GIVEN if given else 1.0))
    study.optuna.set_user_attr(ACCOUNT, {**attribute, "plan": asdict(plan)})
    return plan


LONGEST = 4096.0
"""Times the budget up to which it is asked what would be enough."""


@dataclass(frozen=True)
class Forecast:
    """Expectations of the network that a study will hand in."""

    known: bool
    """Whether anything is known of trainings on this data set."""
    architecture: str
    accuracy: float
    """On validation: of the rehearsal in the middle; without rehearsals, of the setting that most probably reaches the
    threshold."""
    chance: float
    """That the study reaches it; without rehearsals, that this setting does."""
    score: float | None
    """What the rehearsal in the middle hands in; without them, of the cheapest setting that rather reaches the
    threshold than not. None: none does."""
    band: tuple[float, float | None] | None = None
    """What a tenth of the rehearsals stay below, and what a tenth exceed (None: they hand in nothing); without
    rehearsals there is none."""
    enough: Plan | None = None
    """That of the budget with which the threshold is probable; None: none is known, or it is probable."""


def forecast(now: Situation, *, ratio: float, converged: float, patience_s: float = 0.0) -> Forecast | None:
    """What the plan of `now` promises, from what is known of the data set; None: no starting point can be built.

    ratio: cost of a quantised epoch in float ones; converged: epochs of a float training that suffice. patience_s: for
    rehearsals, which are made where some fit in.
    """
    first, error = _first(now)
    if first is None:
        return None
    means, chances, prices = _settings(now, first, error)
    best, enough = int(np.argmax(chances)), prices[chances >= 0.5]
    found = Forecast(
        now.known.curve.known,
        str(first.candidate.architecture),
        max(now.known.judge.chance, 1 - 2 ** float(means[best])),
        float(chances[best]),
        float(enough.min()) if len(enough) else None,
    )
    endings = rehearsals(now, patience_s) if found.known else []
    if endings:
        found = rehearsed(endings)
    if error is None and (found.chance < 0.5 or chances[best] < CAUTIOUS):
        found = replace(found, enough=_enough(now, ratio, converged))
    return found


def rehearsed(endings: Sequence[Ending]) -> Forecast:
    """What the rehearsals say: the one in the middle, and where four fifths of them lie."""
    ordered = sorted(endings, key=lambda one: (math.inf if one.score is None else one.score, -one.accuracy))
    tenth = (len(ordered) + 1) // 10
    low, middle, high = ordered[tenth - 1], ordered[len(ordered) // 2], ordered[len(ordered) - tenth]
    chance = sum(one.score is not None for one in ordered) / len(ordered)
    band = None if low.score is None else (low.score, high.score)
    return Forecast(True, middle.architecture, middle.accuracy, chance, middle.score, band)


def _enough(now: Situation, ratio: float, converged: float) -> Plan | None:
    """The plan with which a setting reaches the threshold probably."""
    factor = 1.0
    while factor < LONGEST:
        factor *= 1.25
        more = replace(now, plan=make_plan(factor * now.plan.whole, ratio, converged, images=now.known.images))
        longer, _ = _first(more)
        if longer is not None and float(_settings(more, longer)[1].max()) >= CAUTIOUS:
            return more.plan
    return None


def _first(now: Situation) -> tuple[Proposal | None, Measured | None]:
    """The float network with which the study begins, and its error where it has been trained.

    The best of the parents that the study was given, with its error as its training says; the first recipe that it was
    given, with the plan's epochs; else the best known.
    """
    waiting = [
        r for r in now.known.records if r.stage == "parent" and r.why == GIVEN and not (r.candidate.start or r.result)
    ]
    trained = [r for r in now.known.records if r.candidate.start and r.stage == "parent" and r.forecast is not None]
    if not (trained or waiting):
        return Parents(now).first(), None
    best = max(trained, key=lambda r: r.forecast or 0.0) if trained else waiting[0]
    candidate, error = best.candidate, None
    if best.candidate.start:
        error = log_error(1 - (best.forecast or 0.0), 0.05)
    else:
        candidate = lengthened(candidate, now.plan.parent or now.plan.another)
    values = now.space.complete(best.params)
    return Proposal("parent", values, candidate, best.rung, best.why, forecast=best.forecast), error


def _settings(
    now: Situation, parent: Proposal, error: Measured | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean of log2 of the error, probability, price) of all settings of a parent trained or not."""
    options = now.pool(parent.candidate, parent.values, now.long_epochs).grid()
    images = parent.candidate.train.epochs * now.known.images
    if error is None:
        candidate, macs = parent.candidate, options[0].price.macs
        error = log_error(*now.known.curve.error(candidate.architecture, macs, images, candidate.train.optimiser))
    worth = now.gain.of(options, "", error)
    return worth.means, worth.chances, np.array([setting.price.total for setting in options])
