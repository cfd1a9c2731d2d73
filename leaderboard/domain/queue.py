"""The queue: whose turn it is, who scores what, and what organisers take out or put back.

The row of a submission is the queue's record; messages only wake workers. A worker owns a submission only while its
lease lasts, and a result is taken only from the claim that owns it; `sweep` gives back what a dead worker held and
announces again what nobody heard of.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from contest.errors import UsageError
from leaderboard.domain import copies, standings
from leaderboard.domain.contests import record, rule_columns, scoring_rule
from leaderboard.domain.standings import Verdict
from leaderboard.domain.submissions import log_line, requeue
from leaderboard.storage.tables import SCORED, TERMINAL, Contest, Result, State, Submission, now
from leaderboard.text import one_line
from scoring.rules import Rule

ANNOUNCE_AGAIN = timedelta(seconds=30)
"""A queued submission whose message is older was perhaps never heard of."""
QUEUE_ORDER = (Submission.priority, Submission.id)
"""Whose turn it is. A message only wakes a worker, so one that goes back into the queue keeps its place."""


@dataclass(frozen=True)
class Claim:
    """One worker's right to score one submission, until the lease runs out."""

    submission_id: int
    name: str
    sha256: str
    file_name: str
    rule: Rule
    isolation: str


def claim(session: Session, submission_id: int | None, worker: str, lease_s: float) -> Claim | None:
    """Take a queued submission (None: the one whose turn it is); None when somebody else has it or it is done."""
    name = f"{worker[:50]}/{secrets.token_hex(8)}"
    due = or_(Submission.retry_at.is_(None), Submission.retry_at <= now())
    if submission_id is None:
        first = select(Submission.id).where(Submission.state == State.QUEUED, due).order_by(*QUEUE_ORDER).limit(1)
        submission_id = session.scalar(first.with_for_update(skip_locked=True))
        if submission_id is None:
            return None
    taken = session.execute(
        update(Submission)
        .where(Submission.id == submission_id, Submission.state == State.QUEUED)
        .values(
            state=State.RUNNING,
            claim=name,
            attempts=Submission.attempts + 1,
            started_at=now(),
            retry_at=None,
            lease_until=now() + timedelta(seconds=lease_s),
        )
    )
    if not taken.rowcount:  # type: ignore[attr-defined]
        return None
    row = session.get_one(Submission, submission_id)
    row.log += log_line(f"scoring begins, attempt {row.attempts}")
    contest = session.get_one(Contest, row.contest_id)
    return Claim(submission_id, name, row.sha256, row.file_name, scoring_rule(contest), contest.isolation)


def heartbeat(session: Session, claim: Claim, lease_s: float) -> bool:
    """Prolong the lease; False when the submission is no longer this worker's."""
    kept = session.execute(
        update(Submission).where(*_held(claim)).values(lease_until=now() + timedelta(seconds=lease_s))
    )
    return bool(kept.rowcount)  # type: ignore[attr-defined]


def finish(session: Session, claim: Claim, verdict: Verdict, attempts: int = 1) -> State | None:
    """Store how a scoring ended: gives the submission's state; None, and nothing is stored, when it is no longer ours.

    A verdict that may be better another time goes back to the queue, until `attempts` were made.
    """
    submission = session.scalar(select(Submission).where(*_held(claim)).with_for_update())
    if submission is None:
        return None
    if verdict.again and submission.attempts < attempts:
        submission.state, submission.claim, submission.lease_until = State.QUEUED, "", None
        submission.announced_at = now()  # so that `sweep` waits a while before it announces it again
        submission.retry_at = now() + ANNOUNCE_AGAIN
        submission.log += log_line(f"{verdict.reason}; tried again in about {ANNOUNCE_AGAIN.total_seconds():.0f} s")
        return State.QUEUED
    contest = session.execute(select(Contest).where(Contest.id == submission.contest_id).with_for_update()).scalar_one()
    if verdict.state in SCORED and claim.rule.version != contest.rule_version:
        why = (
            f"{verdict.reason}; this is version {claim.rule.version} of the rule and the ranking is of version "
            f"{contest.rule_version}, so it counts once the organiser runs `contest admin rescore`"
        )
        verdict = replace(verdict, reason=why)
    _end(submission, verdict)
    if verdict.report is not None:
        session.add(
            Result(
                submission_id=submission.id,
                state=verdict.state,
                reason=verdict.reason,
                rule_name=claim.rule.name,
                rule_version=claim.rule.version,
                score=verdict.score(claim.rule),
                accuracy=verdict.accuracy,
                report=verdict.report.to_json(),
            )
        )
    for column, value in verdict.columns(claim.rule).items():
        setattr(submission, column, value)
    if verdict.report is not None and verdict.report.predictions is not None:
        copies.store(session, submission.id, contest.dataset, verdict.report.predictions)
    standings.update(session, contest, submission)
    return verdict.state


def release(session: Session, claim: Claim) -> None:
    """Give a submission back unscored (the worker is shutting down); the attempt does not count."""
    session.execute(
        update(Submission)
        .where(*_held(claim))
        .values(state=State.QUEUED, claim="", lease_until=None, announced_at=None, attempts=Submission.attempts - 1)
    )


def sweep(session: Session, attempts: int) -> list[int]:
    """Take back what dead workers held, and give the submissions that must be announced (again)."""
    present = now()
    lost = session.scalars(
        select(Submission)
        .where(Submission.state == State.RUNNING, Submission.lease_until < present)
        .with_for_update(skip_locked=True)
    ).all()
    for submission in lost:
        if submission.attempts >= attempts:
            reason = f"the scoring process died {submission.attempts} times; this does not count against your quota"
            _end(submission, Verdict(State.FAILED, reason, our_fault=True))
        else:
            submission.state, submission.claim, submission.lease_until = State.QUEUED, "", None
            submission.announced_at = None
            submission.log += log_line("the worker fell silent; back in the queue")
    session.flush()
    unheard = session.scalars(
        select(Submission.id)
        .where(
            Submission.state == State.QUEUED,
            or_(Submission.announced_at.is_(None), Submission.announced_at < present - ANNOUNCE_AGAIN),
        )
        .order_by(*QUEUE_ORDER)
        .limit(500)
    ).all()
    if unheard:
        session.execute(update(Submission).where(Submission.id.in_(unheard)).values(announced_at=present))
    return list(unheard)


def queued(session: Session, contest: Contest) -> list[int]:
    """The queued submissions of a contest, the oldest first."""
    mine = (Submission.contest_id == contest.id, Submission.state == State.QUEUED)
    return list(session.scalars(select(Submission.id).where(*mine).order_by(Submission.id)))


def expected_s(session: Session, before: int) -> float | None:
    """Seconds until a submission with so many before it is scored, by the last twenty; None when none was scored."""
    ended = select(Submission.started_at, Submission.finished_at)
    ended = ended.where(Submission.state.in_((*SCORED, State.REFUSED)), Submission.finished_at.is_not(None))
    rows = session.execute(ended.order_by(Submission.id.desc()).limit(20)).all()
    times = [(end - start).total_seconds() for start, end in rows if start and end and end >= start]
    if not times:
        return None
    working = session.scalar(select(func.count()).where(Submission.state == State.RUNNING)) or 1
    return (before + 1) / working * sum(times) / len(times)


def queue_depth(session: Session) -> dict[str, int]:
    """Submissions that are queued or running, for metrics."""
    query = (
        select(Submission.state, func.count())
        .where(Submission.state.in_((State.QUEUED, State.RUNNING)))
        .group_by(Submission.state)
    )
    counts: dict[str, int] = {State.QUEUED: 0, State.RUNNING: 0}
    counts.update(session.execute(query).all())
    return counts


def ahead(session: Session, submission: Submission) -> int:
    """How many submissions are queued before this one."""
    mine, place = submission.priority, Submission.priority
    earlier = or_(place < mine, and_(place == mine, Submission.id < submission.id))
    return session.scalar(select(func.count()).where(Submission.state == State.QUEUED, earlier)) or 0


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return Submission.id == claim.submission_id, Submission.state == State.RUNNING, Submission.claim == claim.name


def rescore(session: Session, contest: Contest, rule: Rule, actor: str = "command line") -> int:
    """Put every submission back into the queue under a new rule; gives how many. Earlier results stay as they are."""
    for column, value in rule_columns(rule).items():
        setattr(contest, column, value)
    session.flush()
    queued = session.execute(
        update(Submission)
        .where(Submission.contest_id == contest.id)
        .values(
            state=State.QUEUED,
            claim="",
            lease_until=None,
            attempts=0,
            announced_at=None,
            our_fault=False,
            priority=1,
            retry_at=None,
        )
    )
    count = int(queued.rowcount)  # type: ignore[attr-defined]
    session.expire_all()
    standings.rebuild(session, contest)
    record(session, actor, "rescore", contest, rule=rule.name, version=rule.version, submissions=count)
    return count


def cancel(session: Session, submission: Submission, reason: str, actor: str = "command line") -> None:
    """Take a waiting or running submission out; it does not count against the quota. A worker's result is dropped."""
    if submission.state in TERMINAL:
        raise UsageError(f"submission {submission.id} has ended already: {submission.state.replace('_', ' ')}")
    reason = one_line(reason, "reason", 500)
    _end(submission, Verdict(State.CANCELLED, f"cancelled by the organisers: {reason}", our_fault=True))
    record(session, actor, "cancel", submission.contest, submission=submission.id, reason=reason)


def rerun(session: Session, submission: Submission, actor: str = "command line") -> None:
    """Score a submission again, free of quota, at its own place in the queue. Earlier results stay stored."""
    contest = session.execute(select(Contest).where(Contest.id == submission.contest_id).with_for_update()).scalar_one()
    requeue(submission, "scored again by the organisers")
    submission.announced_at = None
    standings.update(session, contest, submission)
    record(session, actor, "run again", contest, submission=submission.id)


def _end(submission: Submission, verdict: Verdict) -> None:
    assert verdict.state in TERMINAL
    submission.state, submission.reason = verdict.state, verdict.reason
    submission.our_fault, submission.finished_at = verdict.our_fault, now()
    submission.claim, submission.lease_until, submission.priority = "", None, 0
    for line in verdict.log:
        submission.log += log_line(line)
    submission.log += log_line(f"{verdict.state}: {verdict.reason}")
