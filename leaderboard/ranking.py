"""Who is best: the best submission of each team by score, ties by accuracy, then by time.

Read from `Standing` (one row per team) and `RecordEntry`, which `leaderboard.standings` keeps up to date: one short
index range however many submissions there are.
Below the threshold the order is by accuracy: a score means little there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session, contains_eager

from contest.errors import UsageError
from leaderboard.models import Contest, RecordEntry, Standing, Submission, Team
from leaderboard.standings import rebuild as rebuild
from leaderboard.text import name_key, one_line

Section = Literal["ranked", "below_threshold"]
SECTIONS: tuple[Section, ...] = ("ranked", "below_threshold")
COARSE_STEP = 0.005
"""Accuracies are shown in these steps under coarse feedback."""
CLAIM_TOLERANCE = 1e-6

SORTS = ("score", "accuracy", "params", "ops", "team", "time")


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
    if sort and sort not in SORTS:
        raise UsageError(f"sort '{sort[:40]}' is none of {', '.join(SORTS)}")
    wanted = one_line(query, "team filter", 120, required=False)
    offset, mine = (max(page, 1) - 1) * size, _mine(contest, section)
    if not (sort or descending or wanted or max_score is not None or min_accuracy is not None):
        total = session.scalar(select(func.count()).select_from(Standing).where(*mine)) or 0
        statement = _joined().where(*mine).order_by(*_order(section)).offset(offset).limit(size)
        rows = [_row(contest, offset + i + 1, s) for i, s in enumerate(session.scalars(statement))]
        return Page(tuple(rows), total, max(page, 1), size)
    # Every row gets its true rank in one pass over the index; only then rows are filtered and put in another order.
    order = _order(section)
    ranks = select(Standing, func.row_number().over(order_by=order).label("rank")).where(*mine).subquery()
    matching = select(ranks.c.team_id, ranks.c.rank).join(Team, Team.id == ranks.c.team_id)
    columns: dict[str, ColumnElement[Any]] = {
        "score": ranks.c.score,
        "accuracy": ranks.c.accuracy,
        "time": ranks.c.submitted_at,
        "team": Team.name_key.expression,
        "params": Submission.params.expression,
        "ops": Submission.ops.expression,
    }
    column = columns.get(sort, ranks.c.rank)
    if sort in ("params", "ops"):
        matching = matching.join(Submission, Submission.id == ranks.c.submission_id)
    if wanted:
        matching = matching.where(Team.name_key.contains(name_key(wanted), autoescape=True))
    if max_score is not None:
        matching = matching.where(ranks.c.score <= max_score)
    if min_accuracy is not None:
        matching = matching.where(ranks.c.accuracy >= min_accuracy)
    total = session.scalar(select(func.count()).select_from(matching.subquery())) or 0
    ordered = matching.order_by(column.desc() if descending else column.asc(), ranks.c.rank)
    places = dict(session.execute(ordered.offset(offset).limit(size)).all())
    found = session.scalars(_joined().where(*mine, Standing.team_id.in_(places)))
    standings = {standing.team_id: standing for standing in found}
    ordered_rows = tuple(_row(contest, rank, standings[team]) for team, rank in places.items())
    return Page(ordered_rows, total, max(page, 1), size)


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
