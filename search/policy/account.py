"""The budget of a study and its plan (first network, comparisons, long tunings), as every worker reads them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from contest.errors import UsageError
from search.policy.budget import Budget
from search.policy.learning_curve import PRIORS
from search.study.settings import StudySettings
from search.study.study import Study
from search.study.trial import TrialRecord
from search.trainers.protocol import Speed

FEW = 10.0
SEARCHES = 20.0
FEW_GIVEN = 3.0
"""The same for a parent that is given: a first network and one long tuning."""
TUNE_SHARE = 0.1
"""Of the first network's epochs where it takes all of the budget; measured, docs/search.md."""
FLOAT_SHARE = 0.4
SHORT_SHARE = 0.18
SHORT_TUNES = 6
CHILD_IMAGES = 100_000
SHORT_IMAGES = 30_000
LONG_IMAGES = 300_000
"""Training images beyond which tunings gain little, whatever the epoch is: of the first network, of one that is only
compared (230 steps rank bits and zeros), and of one that is handed in (docs/record: ten epochs of 45,000 images did as
well as a hundred and twenty). A float training has what these leave."""
LEAST = 0.05
"""Epochs below which a training is no training."""


@dataclass(frozen=True)
class Plan:
    """Epochs of each kind of training; `whole` is the budget in float epochs of the first network."""

    whole: float
    parent: float
    child: float
    short: float
    shorts: int
    long: float
    longs: int
    another: float = 0.0
    """Float epochs of a further parent."""

    @property
    def searches(self) -> bool:
        return self.shorts > 0


def make_plan(
    whole: float,
    ratio: float,
    converged: float,
    *,
    images: int = 1,
    given: bool = False,
    tune_share: float = TUNE_SHARE,
) -> Plan:
    """Spend `whole` float epochs of so many `images`, where a tuned epoch costs `ratio` float ones.

    converged: epochs from which a float training hardly gains; given: the parent exists already.
    """
    whole = max(whole, 0.0)
    if whole < FEW_GIVEN and given:
        return Plan(whole, 0.0, 0.3 * whole / ratio, 0.0, 0, 0.7 * whole / ratio, 1)
    if whole < FEW and not given:
        parent = (1 - tune_share) * whole
        return Plan(whole, parent, tune_share * whole / ratio, 0.0, 0, 0.0, 0, parent)
    few = whole <= SEARCHES and not given
    most = (CHILD_IMAGES / images, SHORT_IMAGES / images, LONG_IMAGES / images)
    tunings = (
        min(most[0], 0.15 * converged)
        + SHORT_TUNES * min(most[1], 0.12 * converged)
        + 2 * min(most[2], 0.35 * converged)
    )
    another = min(converged, 0.6 * whole if few else max(FLOAT_SHARE * whole, whole - ratio * tunings))
    parent = 0.0 if given else another
    trained = converged if given else parent
    rest = whole - parent
    child = min(0.15 * trained, 0.25 * rest / ratio, most[0])
    if few:
        long = min(0.35 * trained, (rest - child * ratio) / ratio / 2)
        return Plan(whole, parent, child, 0.0, 0, long, 2, another)
    short = min(0.12 * trained, SHORT_SHARE * whole / SHORT_TUNES / ratio, 0.3 * rest / SHORT_TUNES / ratio, most[1])
    rest -= child * ratio + SHORT_TUNES * short * ratio
    long = min(0.35 * trained, rest / ratio / 2)
    longs = max(1, int(rest / ratio / max(long, LEAST)))
    return Plan(whole, parent, child, short, SHORT_TUNES, long, longs, another)


ACCOUNT = "account"
"""Study attribute: images in all, or the end of the time (Unix) with the machine's speed, and the plan."""
CONVERGED = 40.0
"""Epochs of a float training that hardly gains any more, of a data set of which nothing is known."""


READING_STARTS = 1.0
READING_PASSES = 2.0
"""Reading a network on the test set starts a process and takes so many times what its images take in float32: 10.4 s on
CIFAR-10 and 3.6 s on the digits, where a process starts in 3.7 s."""
READING_SHARE = 0.25
"""Of a budget, in which further finalists than the best are read."""
GRACE_S = 10.0
GRACE_SHARE = 0.05
"""By what a network may come after the end of a budget that is just too small for one."""
DECIDING_S = 0.3
"""Between two trainings: 8 s of thirty trainings of the digits (one core)."""
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


def too_small(budget_s: float, least: float, because: str) -> UsageError:
    return UsageError(
        f"--budget {written(budget_s)} is too small for a network here ({because}): the least that helps is about "
        f"--budget {written(math.ceil(least / 10) * 10)}, as this machine is now"
    )


def written(seconds: float) -> str:
    """A time as --budget takes it: `1m50s`."""
    minutes, rest = int(seconds // 60), seconds % 60
    return f"{minutes}m{rest:g}s" if minutes and rest else f"{minutes}m" if minutes else f"{rest:g}s"


def open_account(study: Study, images: int, *, times: Times | None = None, speed: Speed | None = None) -> Plan:
    """Write down what may be spent from now on; the plan for it.

    times: what was timed; without it, images are counted and nothing is said about time.
    """
    timed = times is not None and times.budget < math.inf
    ends_at = None
    if times is not None and timed:  # a budget that is just too small has a little more
        ends_at = max(times.over_at - times.readings * times.reading, time.time() + SOME_S)
    attribute: dict[str, Any] = {
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
    if times is None or not timed:
        whole = (attribute["total"] or 0.0) / images
        plan = make_plan(whole, ratio, converged, images=images, given=bool(given))
    else:
        macs = speed.macs if speed else 1
        seconds, epoch = budget.left() - times.teaching, budget.epoch(macs, parent=True)
        plan = make_plan(seconds / epoch, ratio, converged, images=images, given=bool(given))
        # What trainings cost besides their epochs is not there for epochs.
        waiting = sum(1 for r in given if r.result is None)
        seconds -= budget.fixed() * (waiting + (not given) + 1 + plan.shorts + plan.longs)
        plan = make_plan(
            max(seconds / epoch, LEAST_GIVEN if given else 1.0), ratio, converged, images=images, given=bool(given)
        )
    study.optuna.set_user_attr(ACCOUNT, {**attribute, "plan": asdict(plan)})
    return plan


def epoch_ratio(budget: Budget) -> float:
    """What a quantised epoch costs in float ones."""
    return budget.epoch(1, parent=False) / budget.epoch(1, parent=True)


def account(study: Study, images: int, records: Sequence[TrialRecord]) -> Budget:
    """What is left, for any worker of the study."""
    known = study.optuna.user_attrs.get(ACCOUNT)
    if known is None:
        return Budget(images, records, total=total_images(study.settings, images))
    speed = Speed(**known["speed"]) if known.get("speed") else None
    if known.get("ends_at") is None:
        return Budget(images, records, total=known["total"])
    return Budget(images, records, ends_at=known["ends_at"], speed=speed)


def plan_of(study: Study, budget: Budget) -> Plan:
    """The plan that was written down, or the one for the budget as it was before anything was spent."""
    known = study.optuna.user_attrs.get(ACCOUNT)
    if known is not None and "plan" in known:
        return Plan(**known["plan"])
    converged = converged_epochs(study.settings, budget.images)
    return make_plan(budget.total / budget.images, 1.0, converged, images=budget.images)


def seconds_left(study: Study, images: int, records: Sequence[TrialRecord], fraction: float = 0.0) -> float | None:
    """Seconds until the study ends; None where nothing was timed.

    fraction: of the training that runs now, what is done.
    """
    known = study.optuna.user_attrs.get(ACCOUNT, {})
    if known.get("over_at") is not None:
        return max(0.0, float(known["over_at"]) - time.time())
    if not known.get("speed"):
        return None
    speed = Speed(**known["speed"])
    clock, budget = Budget(images, records, ends_at=time.time(), speed=speed), account(study, images, records)
    plan = plan_of(study, budget)
    running = [r for r in records if r.state == "RUNNING" and r.result is None]
    seconds = sum(
        clock.cost(r.candidate, r.price.macs if r.price else speed.macs, parent=r.stage == "parent") for r in running
    ) * (1 - fraction)
    macs = next((r.result.price.macs for r in reversed(records) if r.result), speed.macs)
    left, begun = max(0.0, budget.left() / images), [r for r in records if r.result or r.state == "RUNNING"]
    if not any(r.stage == "parent" for r in begun):
        left -= plan.parent
        seconds += clock.fixed() + plan.parent * clock.epoch(macs, parent=True)
    networks = sum(r.stage != "parent" for r in begun)
    still = max(0, 1 + plan.shorts + plan.longs - networks)
    tuned = (networks == 0) * plan.child + max(0, min(plan.shorts, 1 + plan.shorts - networks)) * plan.short
    tuned += min(still, plan.longs) * plan.long
    if study.settings.trials is not None and still:
        tuned *= min(1.0, max(0, study.settings.trials - networks) / still)
        still = min(still, max(0, study.settings.trials - networks))
    seconds += still * (clock.fixed() + DECIDING_S) + min(tuned, max(left, 0.0)) * clock.epoch(macs, parent=False)
    return seconds + float(known.get("reading", 0.0))


def total_images(settings: StudySettings, images: int) -> float:
    """Without a time: those that were asked for, or as many epochs for each trial."""
    if settings.images is not None:
        return float(settings.images)
    return (settings.trials or 1) * settings.explore_epochs * images


def converged_epochs(settings: StudySettings, images: int) -> float:
    """Epochs of the first network's float training that help it: asked for, or known of the data set."""
    prior = PRIORS.get(settings.dataset)
    known = prior.converged * prior.images / images if prior else CONVERGED
    return settings.float_epochs or known
