"""Who is best: the best submission of each team by score, ties by accuracy, then by time.

`Standing` holds that one row per team, `RecordEntry` who held the record when. Both are changed by `update` in the
transaction that ends a scoring, so that reading is one short index range however many submissions there are.
Below the threshold the order is by accuracy: a score means little there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select
from sqlalchemy.orm import QueryableAttribute, Session, contains_eager

from contest.errors import UsageError
from leaderboard.models import Contest, RecordEntry, Standing, State, Submission, Team
from leaderboard.text import name_key, one_line

Section = Literal["ranked", "below_threshold"]
SECTIONS: tuple[Section, ...] = ("ranked", "below_threshold")
COARSE_STEP = 0.005
"""Accuracies are shown in these steps under coarse feedback."""
CLAIM_TOLERANCE = 1e-6

_COLUMNS: dict[str, QueryableAttribute[Any]] = {
    "score": Standing.score,
    "accuracy": Standing.accuracy,
    "params": Submission.params,
    "ops": Submission.ops,
    "team": Team.name_key,
    "time": Standing.submitted_at,
}
SORTS = tuple(_COLUMNS)


@dataclass(frozen=True)
class Row:
    """One line of the ranking. Accuracies are fractions; score terms are relative to the rule's reference."""

    rank: int
    team_id: int
    team: str
    submission_id: int
    score: float
    params: float
    ops: float
    score_with_bitmask: float
    accuracy: float
    accuracy_low: float | None
    accuracy_high: float | None
    submitted_at: datetime
    rule_name: str
    rule_version: int
    measured: dict[str, Any]
    claimed: dict[str, Any] | None
    differences: tuple[str, ...]
    """Keys that were claimed and measured differently."""


@dataclass(frozen=True)
class Page:
    """A part of the ranking; `total` counts all rows that match the filters."""

    rows: tuple[Row, ...]
    total: int
    page: int
    size: int

    @property
    def pages(self) -> int:
        return max(1, math.ceil(self.total / self.size))


@dataclass(frozen=True)
class Point:
    """One dot of the chart."""

    submission_id: int
    team: str
    score: float
    accuracy: float
    submitted_at: datetime
    section: str


@dataclass(frozen=True)
class Record:
    """A submission that was the best when it came in."""

    submission_id: int
    team: str
    score: float
    accuracy: float
    submitted_at: datetime


def page(
    session: Session,
    contest: Contest,
    section: Section = "ranked",
    *,
    sort: str = "",
    descending: bool = False,
    query: str = "",
    max_score: float | None = None,
    min_accuracy: float | None = None,
    page: int = 1,
    size: int = 50,
) -> Page:
    """One page. Filters and other orders keep a row's true rank. Raises UsageError for an unknown order."""
    if sort and sort not in _COLUMNS:
        raise UsageError(f"sort '{sort[:40]}' is none of {', '.join(SORTS)}")
    mine = _mine(contest, section)
    filters = _filters(query, max_score, min_accuracy)
    offset = (max(page, 1) - 1) * size
    natural = not sort and not descending
    if natural and not filters:
        total = session.scalar(select(func.count()).select_from(Standing).where(*mine)) or 0
        statement = _joined().where(*mine).order_by(*_order(section)).offset(offset).limit(size)
        found = [(offset + i + 1, s) for i, s in enumerate(session.scalars(statement))]
    else:
        place = func.row_number().over(order_by=_order(section)).label("rank")
        ranks = select(Standing.submission_id, place).where(*mine).subquery()
        rank = ranks.c.rank
        matching = (
            select(func.count())
            .select_from(Standing)
            .join(Standing.team)
            .join(Standing.submission)
            .where(*mine, *filters)
        )
        total = session.scalar(matching) or 0
        column = _COLUMNS[sort] if sort else rank
        ranked = (
            _joined()
            .add_columns(rank)
            .join(ranks, ranks.c.submission_id == Standing.submission_id)
            .where(*mine, *filters)
            .order_by(column.desc() if descending else column.asc(), rank)
            .offset(offset)
            .limit(size)
        )
        found = [(place_, standing) for standing, place_ in session.execute(ranked)]
    return Page(tuple(_row(contest, place_, standing) for place_, standing in found), total, max(page, 1), size)


def place(session: Session, contest: Contest, submission_id: int) -> int | None:
    """The rank of a submission if it is its team's best among the ranked."""
    own = session.scalar(
        select(Standing).where(*_mine(contest, "ranked"), Standing.submission_id == submission_id).limit(1)
    )
    if own is None:
        return None
    better = or_(
        Standing.score < own.score,
        and_(Standing.score == own.score, Standing.accuracy > own.accuracy),
        and_(
            Standing.score == own.score,
            Standing.accuracy == own.accuracy,
            or_(
                Standing.submitted_at < own.submitted_at,
                and_(Standing.submitted_at == own.submitted_at, Standing.submission_id < own.submission_id),
            ),
        ),
    )
    count = session.scalar(select(func.count()).select_from(Standing).where(*_mine(contest, "ranked"), better))
    return (count or 0) + 1


def points(session: Session, contest: Contest, limit: int = 1000) -> list[Point]:
    """The best of each team, ranked and below, at most `limit` of each: what the chart draws."""
    result = []
    for section in SECTIONS:
        statement = (
            select(Standing, Team.name)
            .join(Standing.team)
            .where(*_mine(contest, section))
            .order_by(*_order(section))
            .limit(limit)
        )
        for standing, team in session.execute(statement):
            shown = shown_accuracy(contest, standing.accuracy)
            result.append(Point(standing.submission_id, team, standing.score, shown, standing.submitted_at, section))
    return result


def history(session: Session, contest: Contest) -> list[Record]:
    """The record's history, the oldest first: scores fall from one to the next."""
    statement = (
        select(RecordEntry, Team.name)
        .join(RecordEntry.submission)
        .join(Submission.team)
        .where(RecordEntry.contest_id == contest.id)
        .order_by(RecordEntry.submitted_at, RecordEntry.submission_id)
    )
    return [
        Record(e.submission_id, team, e.score, shown_accuracy(contest, e.accuracy), e.submitted_at)
        for e, team in session.execute(statement)
    ]


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


def shown_accuracy(contest: Contest, accuracy: float) -> float:
    """An accuracy as it may be shown: in steps, rounded down, while a contest with coarse feedback is open."""
    if coarse(contest):
        return math.floor(accuracy / COARSE_STEP + 1e-9) * COARSE_STEP
    return accuracy


def coarse(contest: Contest) -> bool:
    """Whether accuracies are hidden behind steps now."""
    return contest.feedback == "coarse" and contest.closed_at is None


def differences(measured: dict[str, Any] | None, claimed: dict[str, Any] | None) -> tuple[str, ...]:
    """Keys that a file claims otherwise than they were measured (relative to 1e-6)."""
    if not measured or not claimed:
        return ()
    found = []
    for key, claim in claimed.items():
        value = measured.get(key)
        if claim is None or key not in measured:
            continue
        if isinstance(claim, int | float) and isinstance(value, int | float):
            same = math.isclose(claim, value, rel_tol=CLAIM_TOLERANCE, abs_tol=1e-9)
        else:
            same = claim == value
        if not same:
            found.append(key)
    return tuple(found)


def _mine(contest: Contest, section: Section) -> tuple[ColumnElement[bool], ...]:
    return Standing.contest_id == contest.id, Standing.section == section


def _order(section: Section) -> tuple[ColumnElement[Any], ...]:
    if section == "ranked":
        return Standing.score.asc(), Standing.accuracy.desc(), Standing.submitted_at.asc(), Standing.submission_id.asc()
    return Standing.accuracy.desc(), Standing.score.asc(), Standing.submitted_at.asc(), Standing.submission_id.asc()


def _joined() -> Select[Standing]:
    return (
        select(Standing)
        .join(Standing.submission)
        .join(Standing.team)
        .options(contains_eager(Standing.submission), contains_eager(Standing.team))
    )


def _filters(query: str, max_score: float | None, min_accuracy: float | None) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if wanted := one_line(query, "team filter", 120, required=False):
        filters.append(Team.name_key.contains(name_key(wanted), autoescape=True))
    if max_score is not None:
        filters.append(Standing.score <= max_score)
    if min_accuracy is not None:
        filters.append(Standing.accuracy >= min_accuracy)
    return filters


def _row(contest: Contest, rank: int, standing: Standing) -> Row:
    submission, hidden = standing.submission, coarse(contest)
    return Row(
        rank=rank,
        team_id=standing.team_id,
        team=standing.team.name,
        submission_id=submission.id,
        score=standing.score,
        params=submission.params or 0.0,
        ops=submission.ops or 0.0,
        score_with_bitmask=submission.score_with_bitmask or standing.score,
        accuracy=shown_accuracy(contest, standing.accuracy),
        accuracy_low=None if hidden else submission.accuracy_low,
        accuracy_high=None if hidden else submission.accuracy_high,
        submitted_at=standing.submitted_at,
        rule_name=submission.rule_name,
        rule_version=submission.rule_version,
        measured=submission.measured or {},
        claimed=submission.claimed,
        differences=differences(submission.measured, submission.claimed),
    )


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
