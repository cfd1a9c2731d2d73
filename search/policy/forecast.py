"""What a budget will come to, before anything is trained: this machine's speed, accuracy and score, with their odds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from contest.errors import TrainingError
from search.policy.account import make_plan
from search.policy.accuracy import Measured
from search.policy.knowledge import CAUTIOUS, log_error
from search.policy.parents import Parents
from search.policy.situation import Proposal, Situation
from search.space.candidates import seeds, to_candidate
from search.trainers.protocol import Speed

if TYPE_CHECKING:
    from search.space.space import Space
    from search.trainers.pipeline import PipelineTrainer


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


TIMED_RATE = 0.001
"""Time does not depend on the learning rate, and a training that diverges has none."""
LONGEST = 4096.0
"""Times the budget up to which it is asked what would be enough."""


@dataclass(frozen=True)
class Forecast:
    """Expectations of the network that a study will hand in."""

    known: bool
    """Whether anything is known of trainings on this data set."""
    architecture: str
    accuracy: float
    """On validation, of the setting that most probably reaches the threshold."""
    chance: float
    """That it does."""
    score: float | None
    """Of the cheapest setting that rather reaches the threshold than not; None: none does."""
    band: tuple[float, float] | None
    """Scores of the settings that reach it with 10 and with 90 %."""
    enough: float | None
    """By what factor the budget would have to grow for the threshold to be probable; None: by none that is known."""


def forecast(now: Situation, *, ratio: float, converged: float) -> Forecast | None:
    """What the plan of `now` promises, from what is known of the data set; None: no starting point can be built.

    ratio: cost of a quantised epoch in float ones; converged: epochs of a float training that suffice.
    """
    given = _given(now)
    first, error = given or (Parents(now).first(), None)
    if first is None:
        return None
    means, chances, prices = _settings(now, first, error)
    best = int(np.argmax(chances))
    enough = None
    if chances[best] < CAUTIOUS and error is None:
        factor = 1.0
        while enough is None and factor < LONGEST:
            factor *= 1.25
            more = replace(now, plan=make_plan(factor * now.plan.whole, ratio, converged, images=now.known.images))
            longer = Parents(more).first()
            if longer is not None and float(_settings(more, longer)[1].max()) >= CAUTIOUS:
                enough = factor

    def cheapest(chance: float) -> float | None:
        found = prices[chances >= chance]
        return float(found.min()) if len(found) else None

    low, high = cheapest(0.1), cheapest(0.9)
    band = (low, high) if low is not None and high is not None else None
    accuracy = max(now.known.judge.chance, 1 - 2 ** float(means[best]))
    return Forecast(
        now.known.curve.known,
        str(first.candidate.architecture),
        accuracy,
        float(chances[best]),
        cheapest(0.5),
        band,
        enough,
    )


def _given(now: Situation) -> tuple[Proposal, Measured] | None:
    """The best of the parents that the study was given, with its error as its training says."""
    records = [r for r in now.known.records if r.candidate.start and r.stage == "parent" and r.forecast is not None]
    if not records:
        return None
    best = max(records, key=lambda r: r.forecast or 0.0)
    values = now.space.complete(best.params)
    error = log_error(1 - (best.forecast or 0.0), 0.05)
    return Proposal("parent", values, best.candidate, best.rung, best.why, forecast=best.forecast), error


def _settings(
    now: Situation, parent: Proposal, error: Measured | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean of log2 of the error, probability, price) of all settings of a parent trained or not."""
    options = now.pool(parent.candidate, parent.values, now.long_epochs).grid()
    images = parent.candidate.train.epochs * now.known.images
    if error is None:
        error = log_error(*now.known.curve.error(parent.candidate.architecture, options[0].price.macs, images))
    worth = now.gain.of(options, "", error)
    return worth.means, worth.chances, np.array([setting.price.total for setting in options])
