"""What to do next: queued work, then promotions, then new candidates that can still win."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from contest.candidate import Candidate
from contest.errors import ContestError
from search.policy.ranking import Judge
from search.space.space import Space, Value, to_candidate
from search.space.starting_points import seeds
from search.study.storage import StudyFullError
from search.study.study import Study, Work, key_of
from search.study.trial import Record, Stage
from search.trainers.protocol import Trainer

log = logging.getLogger("search")

EXPLORE_UNTIL = "explore_until"
"""Study attribute: Unix time after which no new candidate is started."""
PATIENCE = 12
"""Proposals of the sampler that may be refused one after another before a neighbour of a leader is taken."""
FILE_OVERHEAD = 1.02
"""A network's file costs up to so many times what its price before training says."""
NEIGHBOURS = 0.35
"""Share of new candidates that are neighbours of a leader rather than the sampler's: near a good network
there often is a better one, and a change of one or two dimensions is what a sampler of 25 rarely makes."""


def next_work(study: Study, trainer: Trainer, *, new: bool = True) -> Work | None:
    """Claim the next piece of work; None if there is nothing to do now.

    `new` allows new candidates; without it only queued and promoted work is taken.
    """
    refused = 0
    while True:
        rng = study.dice()
        judge = Judge(study.settings, study.records(), trainer.classes)
        if not study.waiting():
            promoted = promotable(study, judge)
            if promoted is not None:
                study.enqueue(promoted.params, promoted.candidate, "explore", promoted.rung + 1)
            elif not new or full(study):
                return None
            elif refused >= PATIENCE or (study.settings.sampler == "tpe" and rng.random() < NEIGHBOURS):
                _enqueue_neighbour(study, trainer, judge, rng)
            if refused > 20 * PATIENCE:
                log.warning("%d proposals in a row cannot win: the space holds nothing below the incumbent", refused)
                return None
        trial = study.ask()
        try:
            work = _claim(study, trainer, judge, trial)
        except StudyFullError as error:
            study.refuse(trial, str(error))
            return None
        if work is not None:
            return work
        refused += 1


def full(study: Study) -> bool:
    """Whether every new candidate that the study was asked for has been started, or their time is over."""
    until = study.optuna.user_attrs.get(EXPLORE_UNTIL)
    if until is not None and time.time() >= float(until):
        return True
    return study.settings.trials is not None and study.claims.taken() >= study.settings.trials


def promotable(study: Study, judge: Judge) -> Record | None:
    """A paused candidate to go on with: of each rung the best 1 / reduction, as in ASHA (Li 2018, 1810.05934).

    Rank is the study's objective on forecasts, so small networks are not measured against large ones. When no new
    candidates are left, the best are promoted until there are enough finalists.
    """
    top = len(study.settings.rungs) - 1
    if top == 0:
        return None
    begun = {(r.key, r.rung) for r in study.records() if r.stage == "explore"}
    leaders = judge.leaders()
    limit = judge.limit()
    for rung in reversed(range(top)):
        reached = [r for r in judge.records if r.stage == "explore" and r.rung == rung and r.state == "COMPLETE"]
        allowed = -(-len(reached) // study.settings.reduction)
        gone = sum((r.key, rung + 1) in begun for r in reached)
        paused = [r for r in leaders if r.rung == rung and (r.key, rung + 1) not in begun and _can_win(r, limit)]
        finalists = sum(r.rung == top for r in leaders)
        short = full(study) and not study.running() and finalists < study.settings.finalists
        if paused and (gone < allowed or short):
            return paused[0]
    return None


def _can_win(record: Record, limit: float | None) -> bool:
    return limit is None or (record.result is not None and record.result.price.total < limit)


def _claim(study: Study, trainer: Trainer, judge: Judge, trial: optuna.Trial) -> Work | None:
    """Make `trial` ours, or answer or refuse it (None). Raises StudyFullError if no new trial may start."""
    values = study.values(trial)
    todo: Mapping[str, Any] = trial.user_attrs.get("todo", {})
    stage: Stage = todo.get("stage", "explore")
    rung, retries = int(todo.get("rung", 0)), int(todo.get("retries", 0))
    if "candidate" in todo:
        candidate = Candidate.from_json(todo["candidate"])
    else:
        candidate = to_candidate(values, epochs=study.settings.explore_epochs, seed=study.settings.seed)
    key = key_of(candidate)
    try:
        price = trainer.price(candidate)
    except (ContestError, ValueError, RuntimeError) as error:
        # A network that libraries refuse to build is the candidate's fault, and the study goes on.
        study.describe(trial, key, candidate, stage, rung, None, retries)
        study.fail(trial, f"cannot be built: {error}")
        return None
    study.describe(trial, key, candidate, stage, rung, price, retries)
    if stage == "explore" and rung == 0 and retries == 0:
        verdict = judge.before(candidate, price)
        if verdict is not None:
            study.refuse(trial, verdict.reason, violation=verdict.violation)
            return None
    slots = study.settings.trials if stage == "explore" and rung == 0 else None
    owner = study.claims.claim(f"{key}:{rung}", trial.number, slots=slots)
    if owner != trial.number and not _inherit(study, judge, trial, f"{key}:{rung}", owner):
        return None
    return Work(trial, key, candidate, stage, rung, price)


def _inherit(study: Study, judge: Judge, trial: optuna.Trial, name: str, owner: int) -> bool:
    """Take over what a dead worker left, or answer `trial` from the study. Whether it is ours now."""
    frozen = study.trial(owner)
    if frozen is not None and frozen.state == TrialState.FAIL and "reason" not in frozen.user_attrs:
        if study.claims.take_over(name, owner, trial.number):
            return True
        study.refuse(trial, "another worker goes on with it")
        return False
    earlier = next((r for r in study.records() if r.number == owner), None)
    if earlier is None or earlier.result is None or earlier.state != "COMPLETE":
        state = earlier.reason or earlier.state.lower() if earlier else "taken"
        study.refuse(trial, f"the same as trial {owner} ({state})")
    else:
        predicted = judge.predicted(earlier)
        study.answer(trial, earlier, judge.violation(predicted), predicted)
    return False


def _enqueue_neighbour(study: Study, trainer: Trainer, judge: Judge, rng: random.Random) -> None:
    """Queue an untried neighbour of one of the leaders that the judge would train, if one is found quickly."""
    leaders = judge.leaders()[: max(3, study.settings.finalists)]
    if not leaders:
        return
    known = {r.key for r in study.records()}
    for values in _neighbours(study.space, leaders, rng):
        candidate = to_candidate(values, epochs=study.settings.explore_epochs, seed=study.settings.seed)
        if key_of(candidate) in known:
            continue
        try:
            price = trainer.price(candidate)
        except (ContestError, ValueError, RuntimeError):
            continue  # not buildable: as good as not there
        if judge.before(candidate, price) is None:
            study.enqueue(study.space.asked(values), candidate, "explore", 0)
            return


def _neighbours(space: Space, leaders: list[Record], rng: random.Random) -> Iterator[dict[str, Value]]:
    """Up to 60 points one to three dimensions away from a leader."""
    for _ in range(60):
        leader = rng.choice(leaders)
        values = space.complete(leader.params)
        for name in rng.sample(sorted(values), k=rng.choice((1, 1, 2, 3))):
            values[name] = _step(space, name, values[name], rng)
        yield space.complete(values)


def _step(space: Space, name: str, value: Value, rng: random.Random) -> Value:
    """A neighbouring value: the next choice up or down, the next grid point, a factor for floats."""
    dimension = space.dimensions[name]
    if dimension.choices:
        place = dimension.choices.index(value) + rng.choice((-1, 1))
        return dimension.choices[max(0, min(place, len(dimension.choices) - 1))]
    assert not isinstance(value, str)
    if dimension.step:
        return dimension.nearest(value + rng.choice((-1, 1)) * dimension.step)
    return dimension.nearest(value * rng.choice((0.6, 0.8, 1.25, 1.6)))


def enqueue_seeds(study: Study, trainer: Trainer | None = None) -> None:
    """Queue the known good starting points, as ordinary candidates, once per study.

    Where accuracy below a score is asked for, each is made as wide as that score allows (prices come from `trainer`).
    """
    if study.records():
        return
    points = seeds(study.space)
    if trainer is not None and study.settings.target_score is not None:
        points = [_widest(point, study, trainer, study.settings.target_score) for point in points]
    for values in points[: max(1, (study.settings.trials or 100) // 4)]:
        candidate = to_candidate(values, epochs=study.settings.explore_epochs, seed=study.settings.seed)
        study.enqueue(study.space.asked(values), candidate, "explore", 0)


def _widest(values: dict[str, Value], study: Study, trainer: Trainer, target: float) -> dict[str, Value]:
    """`values` with the largest width of the grid whose price stays below `target`; unchanged if none does."""
    widths = study.space.dimensions["width"].grid()
    low, high = -1, len(widths)  # prices rise with the width: halve the range
    while high - low > 1:
        middle = (low + high) // 2
        candidate = to_candidate({**values, "width": widths[middle]}, epochs=study.settings.explore_epochs)
        if trainer.price(candidate).total * FILE_OVERHEAD < target:
            low = middle
        else:
            high = middle
    return {**values, "width": widths[low]} if low >= 0 else values
