"""A piece of work: what is done next, claimed so that nobody else does it, trained up to a rung, written down."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import optuna

from contest.errors import ContestError
from contest.files import write_text
from search.candidates import compressed
from search.policy.budget import account
from search.policy.proposals import ANOTHER, Parents, next_proposal
from search.policy.situation import Situation, situation
from search.study.storage import check_writable
from search.study.study import Study, Work
from search.study.trial import Proposal, TrialResult
from search.trainers.protocol import Progress, Trained, Trainer

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
        snapshot, sampled = study.snapshot(), None
        if not snapshot.waiting:
            now = situation(snapshot, trainer) if new else None
            proposal = next_proposal(now) if now else None
            if now is None or proposal is None:
                return None
            sampled = _sampled(study, now, proposal)
            if sampled is None:
                study.enqueue(
                    study.space.asked(proposal.values),
                    proposal.candidate,
                    proposal.stage,
                    proposal.rung,
                    forecast=proposal.forecast,
                    why=proposal.why,
                )
        taken = sampled or study.next_waiting()
        if taken is None:
            continue
        trial, todo = taken
        try:
            network = todo.candidate
            if todo.stage == "parent":  # which costs what its child with the parent's own setting does
                network = compressed(todo.candidate, todo.values, tune_epochs=1.0)
            price = trainer.price(network)
        except (ContestError, ValueError, RuntimeError) as error:
            # A network that libraries refuse to build is the candidate's fault, and the study goes on.
            study.describe(trial, todo, None)
            study.fail(trial, f"cannot be built: {error}")
            continue
        work = study.begin(trial, todo, price)
        if work is not None:
            return work
    return None


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


CURVE = "curve.json"


class Lost(Exception):  # noqa: N818 - not an error: the study goes on elsewhere
    """Another worker has been given this work, since nothing was heard of us for too long."""


class _Pause(Exception):  # noqa: N818 - ends a training at a rung
    pass


Watch = Callable[[Work, Progress], None]


def run(
    study: Study,
    trainer: Trainer,
    work: Work,
    *,
    watch: Watch | None = None,
    on_step: Callable[[Work, str, float], None] | None = None,
    is_lost: Callable[[], bool] | None = None,
) -> None:
    """Do `work` and tell the study. A training that fails is recorded; KeyboardInterrupt goes through.

    watch: is called after each epoch; on_step: within one, with the stage and the fraction of the whole training.
    is_lost: whether somebody else has been given the work.
    """
    directory = work.directory(study)
    curve = read_curve(directory)
    started, images = time.monotonic(), 0
    end = study.settings.rungs[work.rung] if work.stage == "parent" else 1.0

    def on_epoch(progress: Progress) -> None:
        nonlocal images
        if is_lost is not None and is_lost():
            raise Lost
        images += progress.images
        if not curve or progress.fraction > curve[-1][0] + 1e-9:
            curve.append((round(progress.fraction, 4), progress.accuracy))
            write_curve(directory, curve)
        if watch is not None:
            watch(work, progress)
        if end - 1e-9 <= progress.fraction < 0.999:
            raise _Pause

    trained = None
    try:
        trained = trainer.train(
            work.candidate,
            directory,
            on_epoch,
            ends_at=account(study, trainer.images, study.records()).deadline(work.candidate, work.stage, work.price),
            on_step=None if on_step is None else lambda stage, share: on_step(work, stage, share),
        )
    except _Pause:
        pass
    except Lost:
        log.warning("trial %d was given to another worker; its result here is dropped", work.trial.number)
        return
    except Exception as error:
        _write_down(study, work, error)
        return
    result = _result(study, trainer, work, trained, curve, images, time.monotonic() - started)
    try:
        study.finish(work, result)
    except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
        # Optuna's tell raises ValueError where the trial is no longer running.
        log.warning("trial %d was given to another worker; its result here is dropped", work.trial.number)


def _write_down(study: Study, work: Work, error: Exception) -> None:
    """Whatever goes wrong inside one training (out of memory, NaN, a width that libraries refuse, the death of its
    process) must not end a study of a thousand; it is written down with its type and text. Where nothing can be written
    any more, every other training would fail too: the study ends, and this one is left to its resumption."""
    check_writable(study.directory, error)
    if not isinstance(error, ContestError):
        log.warning("trial %d failed", work.trial.number, exc_info=error)
    study.fail(work.trial, f"{type(error).__name__}: {str(error).strip() or 'no message'}"[:500])


def _result(
    study: Study,
    trainer: Trainer,
    work: Work,
    trained: Trained | None,
    curve: list[tuple[float, float]],
    images: int,
    seconds: float,
) -> TrialResult:
    """What the training gave; of one that waits at a rung, what its last epoch showed."""
    if trained is None:
        correct, total = round(curve[-1][1] * trainer.validation), trainer.validation
        return TrialResult(correct, total, work.price, tuple(curve), images, round(seconds, 3))
    last = (1.0, trained.correct / trained.total)
    if curve and curve[-1][0] >= 0.999:
        curve = curve[:-1]
    return TrialResult(
        correct=trained.correct,
        total=trained.total,
        # A float parent counts as the network that it promises to become.
        price=work.price if work.stage == "parent" else trained.price,
        curve=(*curve, last),
        images=images,
        seconds=round(seconds, 3),
        model=str(trained.model.relative_to(study.directory)),
        loss=trained.loss,
    )


def read_curve(directory: Path) -> list[tuple[float, float]]:
    """The epochs behind the candidate, of this worker or any before it: (fraction, accuracy)."""
    path = directory / CURVE
    return [(float(f), float(a)) for f, a in json.loads(path.read_text())] if path.exists() else []


def write_curve(directory: Path, curve: list[tuple[float, float]]) -> None:
    write_text(directory / CURVE, json.dumps(curve))
