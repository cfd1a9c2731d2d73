"""Keeps the tables that the ranking is read from: the best of each team, and who held the record when.

`update` runs in the transaction that ends a scoring; `rebuild` makes everything anew from the submissions.
"""

from __future__ import annotations

import math
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, func, or_, select
from sqlalchemy.orm import Session

from leaderboard.models import Contest, RecordEntry, Standing, State, Submission, Team


def update(session: Session, contest: Contest, submission: Submission) -> None:
    """Bring standings and records up to date after one submission of a team was scored, or lost its score.

    The caller holds the contest's row lock, so that two workers cannot both think theirs is the team's best.
    """
    session.flush()
    _update_team(session, contest, submission.team_id)
    known = session.get(RecordEntry, (contest.id, submission.id))
    if known is not None:
        rebuild_records(session, contest)  # a record holder changed (scored anew, disqualified): rare
    elif _counts(session, contest, submission):
        _insert_record(session, contest, submission)
    contest.revision += 1


def rebuild(session: Session, contest: Contest) -> None:
    """Make standings and records of a contest anew from its submissions."""
    session.flush()
    session.execute(delete(Standing).where(Standing.contest_id == contest.id))
    for team_id in session.scalars(select(Team.id).where(Team.contest_id == contest.id)).all():
        _update_team(session, contest, team_id)
    rebuild_records(session, contest)
    contest.revision += 1


def rebuild_records(session: Session, contest: Contest) -> None:
    """Make the history of the record anew: the running minimum over time."""
    session.execute(delete(RecordEntry).where(RecordEntry.contest_id == contest.id))
    best = math.inf
    statement = (
        select(Submission.id, Submission.score, Submission.accuracy, Submission.created_at)
        .join(Submission.team)
        .where(*_eligible(contest, State.RANKED), Team.disqualified_at.is_(None))
        .order_by(Submission.created_at, Submission.id)
    )
    for submission_id, score, accuracy, at in session.execute(statement):
        if score is not None and accuracy is not None and score < best:
            best = score
            session.add(_record(contest.id, submission_id, score, accuracy, at))
    session.flush()


def _eligible(contest: Contest, state: State) -> tuple[ColumnElement[bool], ...]:
    return (
        Submission.contest_id == contest.id,
        Submission.state == state,
        Submission.disqualified_at.is_(None),
        Submission.rule_name == contest.rule_name,
        Submission.rule_version == contest.rule_version,
    )


def _counts(session: Session, contest: Contest, submission: Submission) -> bool:
    eligible = (
        select(Submission.id)
        .join(Submission.team)
        .where(*_eligible(contest, State.RANKED), Submission.id == submission.id, Team.disqualified_at.is_(None))
    )
    return session.scalar(eligible) is not None


def _update_team(session: Session, contest: Contest, team_id: int) -> None:
    team = session.get_one(Team, team_id)
    session.execute(delete(Standing).where(Standing.contest_id == contest.id, Standing.team_id == team_id))
    if team.disqualified_at is not None:
        return
    for section, order in (
        (State.RANKED, (Submission.score.asc(), Submission.accuracy.desc())),
        (State.BELOW_THRESHOLD, (Submission.accuracy.desc(), Submission.score.asc())),
    ):
        best = session.scalar(
            select(Submission)
            .where(*_eligible(contest, section), Submission.team_id == team_id)
            .order_by(*order, Submission.created_at, Submission.id)
            .limit(1)
        )
        if best is not None and best.score is not None and best.accuracy is not None:
            session.add(
                Standing(
                    contest_id=contest.id,
                    team_id=team_id,
                    section=section,
                    submission_id=best.id,
                    score=best.score,
                    accuracy=best.accuracy,
                    submitted_at=best.created_at,
                )
            )
            break  # who is ranked is not listed below the threshold as well
    session.flush()


def _insert_record(session: Session, contest: Contest, submission: Submission) -> None:
    """Scorings end in any order: what counts is the time of submission."""
    score, at = submission.score, submission.created_at
    assert score is not None and submission.accuracy is not None
    earlier = or_(
        RecordEntry.submitted_at < at, and_(RecordEntry.submitted_at == at, RecordEntry.submission_id < submission.id)
    )
    mine = RecordEntry.contest_id == contest.id
    best = session.scalar(select(func.min(RecordEntry.score)).where(mine, earlier))
    if best is not None and best <= score:
        return
    session.execute(delete(RecordEntry).where(mine, ~earlier, RecordEntry.score >= score))
    session.add(_record(contest.id, submission.id, score, submission.accuracy, at))
    session.flush()


def _record(contest_id: int, submission_id: int, score: float, accuracy: float, at: datetime) -> RecordEntry:
    return RecordEntry(
        contest_id=contest_id, submission_id=submission_id, score=score, accuracy=accuracy, submitted_at=at
    )
