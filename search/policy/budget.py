"""The budget of a study and its plan: what is left, what a training takes, and how much of it each kind may have."""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from contest.candidate import Candidate
from contest.errors import UsageError
from search.policy.learning_curve import PRIORS
from search.study.settings import StudySettings
from search.study.study import Snapshot, Study
from search.study.trial import TrialPrice, TrialRecord
from search.trainers.protocol import Speed

FIRST_SHARE = 0.15
"""Of the time that is left, what a first float training leaves for the network that is made from it."""
LATE = 1.5
"""A float training that takes so many times what it promised is shortened."""
FIXED_SHARE = 0.3
"""Of the time of a step, what does not shrink with the network's operations."""


def parse_duration(text: str) -> float:
    """`2h`, `90m`, `1h30m`, `45s` in seconds. Raises UsageError for anything else and for nothing."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    if not found or not any(found.groups()):
        raise UsageError(f"--budget {text}: write a time such as 2h, 90m, 1h30m or 45s")
    hours, minutes, seconds = (float(group or 0) for group in found.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise UsageError(f"--budget {text}: is no time at all; write at least 5s")
    return total


def written(seconds: float) -> str:
    """A time as --budget takes it: `1m50s`."""
    minutes, rest = int(seconds // 60), seconds % 60
    return f"{minutes}m{rest:g}s" if minutes and rest else f"{minutes}m" if minutes else f"{rest:g}s"


class Budget:
    """The account of a study. Without a speed its unit is a training image, with one a second.

    Args:
        images: of an epoch.
        total: images that may be trained in all; in seconds mode ignored.
        ends_at: Unix time of the end; None: images count.
        speed: needed with `ends_at`.
    """

    def __init__(
        self,
        images: int,
        records: Sequence[TrialRecord],
        *,
        total: float = float("inf"),
        ends_at: float | None = None,
        speed: Speed | None = None,
    ) -> None:
        self.images, self.total, self.ends_at = images, total, ends_at
        self._fixed: float | None = None
        self._speed = None if speed is None or ends_at is None else corrected(speed, records)
        self._none = not any(r.is_network for r in records)
        self._spent = float(sum(r.result.images for r in records if r.result))
        running = [r for r in records if r.state == "RUNNING" and r.result is None]
        self._promised = sum(
            self.cost(r.candidate, r.price.macs if r.price else 1, parent=r.stage == "parent") for r in running
        )

    def with_left(self, amount: float) -> Budget:
        """This account when so much is left of it: the machine as fast as it is now, the clock standing still."""
        found = copy.copy(self)
        found._fixed = amount
        return found

    @property
    def timed(self) -> bool:
        return self._speed is not None

    def left(self) -> float:
        """Images or seconds that may still be spent by whoever asks now."""
        if self._fixed is not None:
            return self._fixed
        if self.ends_at is not None:
            return self.ends_at - time.time()
        return self.total - self._spent - self._promised

    def epoch(self, macs: int, *, parent: bool) -> float:
        """What an epoch costs, float or quantised."""
        if self._speed is None:
            return float(self.images)
        speed = self._speed.float_images_per_s if parent else self._speed.tuned_images_per_s
        size = FIXED_SHARE + (1 - FIXED_SHARE) * macs / max(self._speed.macs, 1)
        return (self.images / speed + self._speed.validation_s) * size

    def fixed(self) -> float:
        """What any training costs besides its epochs."""
        return self._speed.start_s if self._speed else 0.0

    def takes(self, plan: Plan) -> float:
        """What the trainings of a plan cost, its epochs being those of the network that was timed."""
        trainings = (plan.parent > 0) + 1 + plan.shorts + plan.longs
        macs = self._speed.macs if self._speed else 1
        return trainings * self.fixed() + plan.whole * self.epoch(macs, parent=True)

    def cost(self, candidate: Candidate, macs: int, *, parent: bool) -> float:
        """What the float training of a parent, or the tuning of a child, costs."""
        if parent:
            return self.fixed() + candidate.train.epochs * self.epoch(macs, parent=True)
        rounds = 2 if candidate.structured else 1
        return self.fixed() + rounds * candidate.tune.epochs * self.epoch(macs, parent=False)

    def deadline(self, candidate: Candidate, stage: str, price: TrialPrice | None) -> float | None:
        """When the last step of a training that begins now should be made (Unix time); None where images count.

        A float training leaves time for a first network, and does not take much more than it promised.
        """
        if self.ends_at is None:
            return None
        now, end = time.time(), self.ends_at - self.fixed()
        if stage != "parent":
            return end
        if self._none:
            end -= self.fixed() + FIRST_SHARE * max(end - now, 0.0)
        return min(end, now + LATE * self.cost(candidate, price.macs if price else 1, parent=True))

    def epochs_for(self, amount: float, macs: int, *, parent: bool) -> float:
        """How many epochs `amount` buys, a training's fixed costs taken off."""
        return max(0.0, amount - self.fixed()) / self.epoch(macs, parent=parent)


def corrected(speed: Speed, records: Sequence[TrialRecord]) -> Speed:
    """The speed by what the study's own trainings took: the machine may be busier now than when it was timed."""
    return Speed(
        speed.macs,
        speed.float_images_per_s / _slower(speed, records, parent=True),
        speed.tuned_images_per_s / _slower(speed, records, parent=False),
        speed.validation_s * _slower(speed, records, parent=True),
        speed.start_s,
        speed.float32_s,
    )


def _slower(speed: Speed, records: Sequence[TrialRecord], *, parent: bool) -> float:
    """By what factor the last trainings were slower than timed."""
    rate = speed.float_images_per_s if parent else speed.tuned_images_per_s
    taken = expected = 0.0
    done = [r for r in records if r.result and r.result.images and (r.stage == "parent") == parent]
    for record in done[-4:]:
        assert record.result is not None
        size = FIXED_SHARE + (1 - FIXED_SHARE) * record.result.price.macs / max(speed.macs, 1)
        taken += max(record.result.seconds - speed.start_s, 0.05)
        expected += record.result.images / rate * size
    return min(max(taken / expected, 0.2), 20.0) if expected else 1.0


FEW = 10.0
SEARCHES = 20.0
FEW_GIVEN = 3.0
"""The same for a parent that is given: a first network and one long tuning."""
TUNE_SHARE = 0.1
"""Of the first network's epochs where it takes all of the budget; measured, docs/search.md."""
FLOAT_SHARE = 0.4
LONG_SHARE = 0.35
"""Of the epochs of a float training: a tuning that has converged."""
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
    networks: int | None = None,
    tune_share: float = TUNE_SHARE,
) -> Plan:
    """Spend `whole` float epochs of so many `images`, where a tuned epoch costs `ratio` float ones.

    converged: epochs from which a float training hardly gains; given: the parent exists already; networks: how many may
    be tuned, of which the last is tuned long; None: as many as there is time for.
    """
    whole = max(whole, 0.0)
    if networks == 1:
        parent = 0.0 if given else min(converged, (1 - tune_share) * whole)
        child = min((whole - parent) / ratio, LONG_SHARE * converged)
        return Plan(whole, parent, child, 0.0, 0, 0.0, 0, parent)
    if whole < FEW_GIVEN and given:
        return Plan(whole, 0.0, 0.3 * whole / ratio, 0.0, 0, 0.7 * whole / ratio, 1)
    if whole < FEW and not given:
        parent = (1 - tune_share) * whole
        return Plan(whole, parent, tune_share * whole / ratio, 0.0, 0, 0.0, 0, parent)
    most_longs = math.inf if networks is None else networks - 1
    shorts = int(min(SHORT_TUNES, most_longs - 1))
    few = (whole <= SEARCHES and not given) or not shorts
    most = (CHILD_IMAGES / images, SHORT_IMAGES / images, LONG_IMAGES / images)
    tunings = (
        min(most[0], 0.15 * converged)
        + shorts * min(most[1], 0.12 * converged)
        + 2 * min(most[2], LONG_SHARE * converged)
    )
    another = min(converged, 0.6 * whole if few else max(FLOAT_SHARE * whole, whole - ratio * tunings))
    parent = 0.0 if given else another
    trained = converged if given else parent
    rest = whole - parent
    child = min(0.15 * trained, 0.25 * rest / ratio, most[0])
    if few:
        longs = int(min(2, most_longs))
        long = min(LONG_SHARE * trained, (rest - child * ratio) / ratio / longs)
        return Plan(whole, parent, child, 0.0, 0, long, longs, another)
    short = min(0.12 * trained, SHORT_SHARE * whole / SHORT_TUNES / ratio, 0.3 * rest / SHORT_TUNES / ratio, most[1])
    rest -= child * ratio + shorts * short * ratio
    most_longs -= shorts
    long = min(LONG_SHARE * trained, rest / ratio / min(2, most_longs))
    longs = int(min(max(1, int(rest / ratio / max(long, LEAST))), most_longs))
    return Plan(whole, parent, child, short, shorts, long, longs, another)


CONVERGED = 40.0
"""Epochs of a float training that hardly gains any more, of a data set of which nothing is known."""
DECIDING_S = 0.3
"""Between two trainings: 8 s of thirty trainings of the digits (one core)."""


def epoch_ratio(budget: Budget) -> float:
    """What a quantised epoch costs in float ones."""
    return budget.epoch(1, parent=False) / budget.epoch(1, parent=True)


def account(study: Study | Snapshot, images: int, records: Sequence[TrialRecord]) -> Budget:
    """What is left, for any worker of the study."""
    known = study.account or {"total": total_images(study.settings, images)}
    speed = Speed(**known["speed"]) if known.get("speed") else None
    total = math.inf if known.get("total") is None else known["total"]
    return Budget(images, records, total=total, ends_at=known.get("ends_at"), speed=speed)


def what_is_left(study: Study, records: Sequence[TrialRecord]) -> Budget | None:
    """The account, for who has no data set at hand; None where images count and the study does not say how many an
    epoch has."""
    known = study.account or {}
    if known.get("ends_at") is None and "images" not in known:
        return None
    return account(study, known.get("images", 1), records)


def plan_of(study: Study | Snapshot, budget: Budget) -> Plan:
    """The plan that was written down, or the one for the budget as it was before anything was spent."""
    known = study.account
    if known is not None and "plan" in known:
        return Plan(**known["plan"])
    converged = converged_epochs(study.settings, budget.images)
    networks = study.settings.trials
    return make_plan(budget.total / budget.images, 1.0, converged, images=budget.images, networks=networks)


def seconds_left(study: Study, images: int, records: Sequence[TrialRecord], fraction: float = 0.0) -> float | None:
    """Seconds until the study ends; None where nothing was timed.

    fraction: of the training that runs now, what is done.
    """
    known = study.account or {}
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
