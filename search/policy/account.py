"""The budget of a study and its plan (first network, comparisons, long tunings), as every worker reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.policy.budget import Budget, Speed
from search.policy.learning_curve import PRIORS
from search.study.settings import StudySettings
from search.study.study import Study
from search.study.trial import TrialRecord

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


def open_account(
    study: Study, images: int, *, ends_at: float | None = None, speed: Speed | None = None, teaching_s: float = 0.0
) -> Plan:
    """Write down what may be spent from now on; the plan for it.

    teaching_s: seconds of it in which a teacher answers.
    """
    attribute: dict[str, Any] = {
        "total": total_images(study.settings, images) if ends_at is None else None,
        "ends_at": ends_at,
        "speed": asdict(speed) if speed else None,
    }
    study.optuna.set_user_attr(ACCOUNT, attribute)
    records = study.records()
    budget = account(study, images, records)
    whole = (budget.left() - teaching_s) / budget.epoch(speed.macs if speed else 1, parent=True)
    if ends_at is None:
        whole = (attribute["total"] or 0.0) / images
    given = any(r.candidate.start for r in records)
    plan = make_plan(whole, epoch_ratio(budget), converged_epochs(study.settings, images), images=images, given=given)
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
