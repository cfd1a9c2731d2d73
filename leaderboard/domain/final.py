"""The final phase: each team's counting submission is scored once, hidden until its moment.

Nothing of it stands in a submission's row, its log, the standings or the revision of a contest, from which pages,
ETags and charts are made: what is secret is in one table, and one function decides who may read that.
"""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session, joinedload

from leaderboard.domain import contests, standings
from leaderboard.domain.standings import Verdict
from leaderboard.domain.tokens import Viewer
from leaderboard.storage.tables import SCORED, Contest, FinalResult, State, Submission, Team, now
from scoring.rules import Rule


@dataclass(frozen=True)
class FinalClaim:
    """One worker's right to score one final result."""

    id: int
    submission_id: int
    name: str
    sha256: str
    file_name: str
    rule: Rule
    isolation: str


@dataclass(frozen=True)
class FinalRow:
    """A line of the final ranking; `rank` is None below the threshold or without a result."""

    rank: int | None
    team: Team
    submission_id: int
    state: str
    score: float | None
    accuracy: float | None


def public(contest: Contest) -> bool:
    """Whether everybody may see the final ranking."""
    return contest.final_at is not None and contest.final_at <= now()


def may_see(contest: Contest, viewer: Viewer) -> bool:
    """The one place that decides who sees the final ranking."""
    return contest.final_at is not None and (viewer.admin or public(contest))


def over(session: Session, contest: Contest) -> bool:
    """Whether nobody may hand in any more: the deadline, every extension and the grace are past."""
    if contest.closed_at is not None:
        return True
    extended = session.scalar(select(func.max(Team.deadline)).where(Team.contest_id == contest.id))
    ends = [moment for moment in (contest.deadline, extended) if moment is not None]
    return contest.deadline is not None and max(ends) + timedelta(seconds=contest.grace_s) < now()


def begin_due(session: Session) -> int:
    """Begin the final phase of contests that are over and have nothing in the queue; gives how many results are due."""
    due = select(Contest).where(Contest.final_at.is_not(None), Contest.final_begun_at.is_(None))
    return sum(
        begin(session, contest) for contest in session.scalars(due.with_for_update()) if _ready(session, contest)
    )


def _ready(session: Session, contest: Contest) -> bool:
    waiting = (Submission.contest_id == contest.id, Submission.practice.is_(False))
    states = Submission.state.in_((State.QUEUED, State.RUNNING))
    return over(session, contest) and not session.scalar(select(func.count()).where(*waiting, states))


def begin(session: Session, contest: Contest) -> int:
    """Choose each team's counting submission; without private data its public figures are the final ones."""
    place = func.row_number().over(
        partition_by=Submission.team_id, order_by=standings.counting_order(contest, contest.final_counts)
    )
    chosen = (
        standings.eligible(contest, SCORED).where(Team.baseline.is_(False)).add_columns(place.label("place")).subquery()
    )
    rows = session.execute(select(chosen).where(chosen.c.place == 1)).all()
    for row in rows:
        result = FinalResult(contest_id=contest.id, team_id=row.team_id, submission_id=row.id)
        if not contest.final_data:
            result.state, result.score, result.accuracy, result.finished_at = row.state, row.score, row.accuracy, now()
        session.add(result)
    contest.final_begun_at = now()
    contests.record(session, "deadline", "begin final phase", contest, teams=len(rows))
    session.flush()
    return len(rows) if contest.final_data else 0


def claim(session: Session, worker: str, lease_s: float) -> FinalClaim | None:
    """Take the next final result that is due."""
    first = select(FinalResult).where(FinalResult.state == State.QUEUED).order_by(FinalResult.id).limit(1)
    row = session.scalar(first.with_for_update(skip_locked=True))
    if row is None:
        return None
    row.state, row.attempts, row.claim = State.RUNNING, row.attempts + 1, f"{worker[:50]}/{secrets.token_hex(8)}"
    row.lease_until = now() + timedelta(seconds=lease_s)
    submission, contest = session.get_one(Submission, row.submission_id), session.get_one(Contest, row.contest_id)
    rule = dataclasses.replace(contests.rule_of(contest), dataset=contest.final_data)
    return FinalClaim(
        row.id, submission.id, row.claim, submission.sha256, submission.file_name, rule, contest.isolation
    )


def heartbeat(session: Session, claim: FinalClaim, lease_s: float) -> bool:
    """Prolong the lease; False when the result is no longer this worker's."""
    kept = session.execute(
        update(FinalResult).where(*_held(claim)).values(lease_until=now() + timedelta(seconds=lease_s))
    )
    return bool(kept.rowcount)  # type: ignore[attr-defined]


def finish(session: Session, claim: FinalClaim, verdict: Verdict, attempts: int) -> State | None:
    """Store a final result; one that may be better another time is tried again."""
    row = session.scalar(select(FinalResult).where(*_held(claim)).with_for_update())
    if row is None:
        return None
    row.claim, row.lease_until = "", None
    if (verdict.again or verdict.state == State.FAILED) and row.attempts < attempts:
        row.state = State.QUEUED
        return State.QUEUED
    row.state, row.reason, row.finished_at = verdict.state, verdict.reason, now()
    row.score, row.accuracy = verdict.score(claim.rule), verdict.accuracy
    return verdict.state


def release(session: Session, claim: FinalClaim) -> None:
    """Give a final result back unscored."""
    values = {"state": State.QUEUED, "claim": "", "lease_until": None, "attempts": FinalResult.attempts - 1}
    session.execute(update(FinalResult).where(*_held(claim)).values(**values))


def sweep(session: Session) -> int:
    """Take back what dead workers held; gives how many results wait."""
    lost = update(FinalResult).where(FinalResult.state == State.RUNNING, FinalResult.lease_until < now())
    session.execute(lost.values(state=State.QUEUED, claim="", lease_until=None))
    return session.scalar(select(func.count()).where(FinalResult.state == State.QUEUED)) or 0


def ranking(session: Session, contest: Contest) -> list[FinalRow]:
    """The final ranking: by score, ties by accuracy; then those below the threshold. The caller asks `may_see`."""
    rows = session.scalars(
        select(FinalResult).options(joinedload(FinalResult.team)).where(FinalResult.contest_id == contest.id)
    ).all()

    def order(row: FinalResult) -> tuple[bool, float, float]:
        below = row.state != State.RANKED or row.score is None
        return below, row.score or 0.0 if not below else -(row.accuracy or 0.0), -(row.accuracy or 0.0)

    found, rank = [], 0
    for row in sorted((row for row in rows if row.team.disqualified_at is None), key=order):
        ranked = row.state == State.RANKED
        rank += ranked
        found.append(
            FinalRow(rank if ranked else None, row.team, row.submission_id, row.state, row.score, row.accuracy)
        )
    return found


def _held(claim: FinalClaim) -> tuple[ColumnElement[bool], ...]:
    return FinalResult.id == claim.id, FinalResult.state == State.RUNNING, FinalResult.claim == claim.name
