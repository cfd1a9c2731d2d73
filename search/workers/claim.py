"""The next piece of work for a worker: from the queue, or proposed; claimed, so that nobody else does it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from contest.candidate import Candidate
from contest.errors import ContestError
from contest.networks.options import Value
from search.policy.account import account, plan_of
from search.policy.knowledge import Knowledge
from search.policy.parents import ANOTHER, Parents
from search.policy.proposals import next_proposal
from search.policy.ranking import Judge
from search.policy.situation import Proposal, Situation
from search.space.candidates import compressed, to_candidate
from search.study.storage import StudyFullError
from search.study.study import Study, Work
from search.study.trial import Stage, TrialPrice, key_of
from search.trainers.protocol import Trainer

log = logging.getLogger("search")

PATIENCE = 12
"""Proposals that may be refused one after another before nothing is found worth its cost."""
SAMPLED = 0.34
"""Share of further architectures for which TPE is asked; other samplers always are."""
NEARLY = 0.5
"""What the sampler's architecture must promise, of what the best neighbour does."""


def next_work(study: Study, trainer: Trainer, *, new: bool = True) -> Work | None:
    """Claim the next piece of work; None if there is nothing to do now.

    `new` allows new proposals; without it only queued work is taken.
    """
    for _ in range(PATIENCE):
        if not study.waiting():
            now = situation(study, trainer) if new else None
            proposal = next_proposal(now) if now else None
            if now is None or proposal is None:
                return None
            sampled = _sampled(study, now, proposal)
            if sampled is not None:
                trial, proposal = sampled
                return _take(study, trainer, trial, proposal)
            _enqueue(study, proposal)
        trial = study.ask()
        try:
            work = _claim(study, trainer, trial)
        except StudyFullError as error:
            study.refuse(trial, str(error))
            return None
        if work is not None:
            return work
    return None


def situation(study: Study, trainer: Trainer) -> Situation | None:
    """What the next proposal is made from; None: as many networks as were asked for have been begun."""
    if study.settings.trials is not None and study.claims.taken() >= study.settings.trials:
        return None
    records = study.records()
    budget = account(study, trainer.images, records)
    known = Knowledge(
        study.settings,
        records,
        study.space,
        images=trainer.images,
        validation=trainer.validation,
        classes=trainer.classes,
    )
    return Situation(known, study.space, trainer, budget, plan_of(study, budget), study.dice())


def _enqueue(study: Study, proposal: Proposal) -> None:
    study.enqueue(
        study.space.asked(proposal.values),
        proposal.candidate,
        proposal.stage,
        proposal.rung,
        forecast=proposal.forecast,
        why=proposal.why,
    )


def _sampled(study: Study, now: Situation, proposal: Proposal) -> tuple[optuna.Trial, Proposal] | None:
    """Where another architecture is due, Optuna's sampler may name one: it is taken if it promises nearly as much."""
    if proposal.why != ANOTHER or (study.settings.sampler == "tpe" and now.rng.random() > SAMPLED):
        return None
    for _ in range(PATIENCE):
        trial = study.ask()
        values = study.values(trial)
        option = Parents(now).of(values, f"proposed by {study.settings.sampler}")
        if option is not None and option.gain >= NEARLY * proposal.gain:
            return trial, option
        study.refuse(trial, "promises too little" if option else "promises no saving")
    return None


def _take(study: Study, trainer: Trainer, trial: optuna.Trial, proposal: Proposal) -> Work | None:
    """Claim what the sampler has proposed in `trial`."""
    todo = {"forecast": proposal.forecast, "why": proposal.why}
    return _begin(study, trainer, trial, proposal.candidate, proposal.stage, proposal.rung, proposal.values, todo)


def _claim(study: Study, trainer: Trainer, trial: optuna.Trial) -> Work | None:
    """Make `trial`, which comes from the queue, ours, or answer or refuse it (None)."""
    values = study.values(trial)
    todo: Mapping[str, Any] = trial.user_attrs.get("todo", {})
    stage: Stage = todo.get("stage", "long")
    rung = int(todo.get("rung", 0))
    if "candidate" in todo:
        candidate = Candidate.from_json(todo["candidate"])
    else:  # put into Optuna's queue by hand, by its parameters alone
        candidate = to_candidate(values, epochs=study.settings.explore_epochs, seed=study.settings.seed)
    return _begin(study, trainer, trial, candidate, stage, rung, values, todo)


def _begin(
    study: Study,
    trainer: Trainer,
    trial: optuna.Trial,
    candidate: Candidate,
    stage: Stage,
    rung: int,
    values: Mapping[str, Value],
    todo: Mapping[str, Any],
) -> Work | None:
    """Write down what `trial` stands for and make it ours. Raises StudyFullError if no new network may be trained."""
    key = key_of(candidate)
    try:
        price = _price(trainer, candidate, values, stage)
    except (ContestError, ValueError, RuntimeError) as error:
        # A network that libraries refuse to build is the candidate's fault, and the study goes on.
        study.describe(trial, key, candidate, stage, rung, None, todo)
        study.fail(trial, f"cannot be built: {error}")
        return None
    study.describe(trial, key, candidate, stage, rung, price, todo)
    slots = study.settings.trials if stage != "parent" else None
    owner = study.claims.claim(f"{key}:{rung}", trial.number, slots=slots)
    judge = Judge(study.settings, study.records(), trainer.classes)
    if owner != trial.number and not _inherit(study, judge, trial, f"{key}:{rung}", owner):
        return None
    return Work(trial, key, candidate, stage, rung, price)


def _price(trainer: Trainer, candidate: Candidate, values: Mapping[str, Value], stage: Stage) -> TrialPrice:
    """What a network will cost; of a parent, what its child with the parent's own setting would."""
    return trainer.price(compressed(candidate, values, tune_epochs=1.0) if stage == "parent" else candidate)


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
