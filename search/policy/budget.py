"""From a time budget to a plan for this machine: a few steps are timed, epochs and trials follow.

The plan is made once, printed with its expected end, and corrected when the refine stage starts, from what
the explore stage really took.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from contest.errors import UsageError
from search.study.settings import Settings
from search.study.trial import Record

EXPLORE_SHARE = 0.4
REFINE_SHARE = 0.52
"""Of the time; the rest is for reading data, freezing networks and the test set."""
TEACHER_SHARE = 0.2
MIN_EPOCHS, MAX_EPOCHS = 2, 30
TYPICAL_TRIALS = 24
TEACHER_EPOCHS = 12
"""Fewer epochs do not make a teacher that is worth its time."""


@dataclass(frozen=True)
class Speed:
    """What this machine does with a network of the study's usual size."""

    float_images_per_s: float
    quantised_images_per_s: float
    validation_s: float
    """Of one epoch."""
    images: int
    """Of one epoch."""
    teacher_images_per_s: float = 0.0

    def epoch_s(self) -> float:
        """Mean of a float and a quantised epoch, with its validation."""
        return 0.5 * self.images * (1 / self.float_images_per_s + 1 / self.quantised_images_per_s) + self.validation_s


@dataclass(frozen=True)
class Plan:
    """Settings with epochs and trials filled in, and how long each stage is expected to take, in seconds."""

    settings: Settings
    teacher_s: float
    explore_s: float
    refine_s: float
    epoch_s: float
    reading_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.teacher_s + self.explore_s + self.refine_s + self.reading_s


def parse_duration(text: str) -> float:
    """`2h`, `90m`, `1h30m`, `45s` in seconds. Raises UsageError for anything else."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    if not found or not any(found.groups()):
        raise UsageError(f"--budget {text}: write a time such as 2h, 90m, 1h30m or 45s")
    hours, minutes, seconds = (float(group or 0) for group in found.groups())
    return 3600 * hours + 60 * minutes + seconds


def halving_share(settings: Settings) -> float:
    """Mean fraction of a trial's epochs that is trained, when of each rung one in `reduction` goes on."""
    share, previous, alive = 0.0, 0.0, 1.0
    for rung in settings.rungs:
        share += alive * (rung - previous)
        previous, alive = rung, alive / settings.reduction
    return share


def make_plan(settings: Settings, speed: Speed, budget_s: float, *, epochs_given: bool = False) -> Plan:
    """Choose epochs, trials and stages so that they end within `budget_s` on a machine of that speed.

    Few trials of at least two epochs come first; then epochs of exploring; a teacher only where a fifth of the time
    trains one. `epochs_given`: the user chose the explore epochs.
    """
    epoch_s, share = speed.epoch_s(), halving_share(settings)
    teacher_epochs = 0.0
    if not settings.teachers and speed.teacher_images_per_s > 0:
        affordable = TEACHER_SHARE * budget_s * speed.teacher_images_per_s / speed.images
        teacher_epochs = float(int(min(affordable, 40))) if affordable >= TEACHER_EPOCHS else 0.0
    teacher_s = teacher_epochs * speed.images / speed.teacher_images_per_s if teacher_epochs else 0.0
    left = budget_s - teacher_s
    explore_s = EXPLORE_SHARE * left
    if epochs_given:
        epochs = settings.explore_epochs
    else:
        wanted = explore_s / ((settings.trials or TYPICAL_TRIALS) * epoch_s * share)
        epochs = float(int(min(max(wanted, MIN_EPOCHS), MAX_EPOCHS)))
    affordable_trials = int(explore_s / (epochs * epoch_s * share))
    if settings.trials is None:
        # Cheap networks train faster than the one that was timed, so time ends the stage, not this number.
        trials = None
        expected = max(1, affordable_trials)
    else:
        trials = expected = settings.trials
    explore_s = min(explore_s, expected * epochs * epoch_s * share)
    return _with_refine(
        dataclasses.replace(
            settings, trials=trials, explore_epochs=epochs, teacher_epochs=teacher_epochs, budget_s=budget_s
        ),
        left - explore_s,
        epoch_s,
        teacher_s,
        explore_s,
    )


def plan_refine(settings: Settings, left_s: float, epoch_s: float) -> Settings:
    """The refine stage for the time that is really left."""
    return _with_refine(settings, left_s, epoch_s, 0.0, 0.0).settings


def _with_refine(settings: Settings, left_s: float, epoch_s: float, teacher_s: float, explore_s: float) -> Plan:
    """Long trainings of as many finalists as get at least twice the explore epochs, variants in what is left."""
    usable = left_s * REFINE_SHARE / (1 - EXPLORE_SHARE)
    count = settings.finalists * settings.seeds
    while count > 1 and usable / (count * epoch_s) < 2 * settings.explore_epochs:
        count -= 1
    # A fifth of the stage is kept for the variants, which share the float training.
    epochs = float(int(0.8 * usable / (count * epoch_s)))
    if epochs < settings.explore_epochs:
        return Plan(dataclasses.replace(settings, refine_epochs=0.0), teacher_s, explore_s, 0.0, epoch_s)
    seeds = max(1, count // settings.finalists)
    changed = dataclasses.replace(
        settings, refine_epochs=epochs, seeds=seeds, refined=max(1, min(settings.finalists, count // seeds))
    )
    return Plan(changed, teacher_s, explore_s, min(usable, count * epochs * epoch_s / 0.8), epoch_s)


def measured_epoch_s(records: list[Record], images: int, candidates: int = 3) -> float | None:
    """Seconds an epoch of the best candidates took in this study; None before there are any."""
    timed = [r.result for r in records if r.result is not None and r.result.images > 0][-4 * candidates :]
    if not timed:
        return None
    return images * sum(t.seconds for t in timed) / sum(t.images for t in timed)
