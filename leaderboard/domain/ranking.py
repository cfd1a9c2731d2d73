"""Who is best: the best submission of each team by score, ties by accuracy, then by time.

Below the threshold the order is by accuracy: a score means little there. The order of all teams is in memory
(`leaderboard.domain.ranking_cache`); of the submissions only those of the page are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from contest.errors import UsageError
from leaderboard.domain.ranking_cache import SECTIONS as SECTIONS
from leaderboard.domain.ranking_cache import SORTS as SORTS
from leaderboard.domain.ranking_cache import Place, Section, places_of
from leaderboard.domain.standings import COARSE_STEP as COARSE_STEP
from leaderboard.domain.standings import coarse as coarse
from leaderboard.domain.standings import shown_accuracy as shown_accuracy
from leaderboard.storage.tables import Contest, RecordEntry, Submission, Team
from leaderboard.text import name_key, one_line

MEASURED_AS = {"p_s": ("p_s_weights", "p_s_ops")}
"""What a file claims under one name is measured as two: either may be meant."""
_MORE_IS_BETTER = ("p_s", "p_s_weights", "p_s_ops", "p_u", "accuracy")
_ROUNDING = {
    "p_s": 5e-4,
    "p_s_weights": 5e-4,
    "p_s_ops": 5e-4,
    "p_u": 5e-4,
    "accuracy": 5e-5,
    "q_w": 5e-3,
    "q_a": 5e-3,
    "q_ops": 5e-3,
}
"""Half a unit of the last digit that anybody writes: a tenth of a percent, a hundredth of a bit."""
_RELATIVE_ROUNDING = 5e-4
_CHUNK = 1000


@dataclass(frozen=True)
class Row:
    """One line of the ranking: the best submission of a team.

    Accuracies are fractions; score terms are relative to the rule's reference. `differences` are the keys that were
    claimed and measured differently.
    """

    rank: int
    """0 for a baseline, which has none."""
    baseline: bool
    validated: bool
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
    flattering: tuple[str, ...]
    """Those of the differences that would have helped the claimer."""


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
    """A dot of the chart. What was not measured is null."""

    submission_id: int
    team: str
    score: float
    accuracy: float
    submitted_at: datetime
    section: str
    params: float
    ops: float
    nonzeros: float | None
    macs: float | None
    q_w: float | None
    q_a: float | None
    baseline: bool


@dataclass(frozen=True)
class HeldRecord:
    """A submission that held the record when it came in."""

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
    whole: bool = False,
) -> Page:
    """One page. Filters and other orders keep a row's true rank. Raises UsageError for an unknown order.

    whole: as organisers see it, whatever is hidden from others.
    """
    if sort and sort not in SORTS:
        raise UsageError(f"sort '{sort[:40]}' is none of {', '.join(SORTS)}")
    wanted = name_key(one_line(query, "team filter", 120, required=False))
    found: Sequence[Place] = places_of(session, contest, section, whole=whole).ordered(sort, descending)
    if wanted:
        found = [place for place in found if wanted in place.key]
    if max_score is not None:
        found = [place for place in found if place.score <= max_score]
    if min_accuracy is not None:
        found = [place for place in found if place.accuracy >= min_accuracy]
    offset = (max(page, 1) - 1) * size
    rows = _rows(session, contest, found[offset : offset + size])
    return Page(tuple(rows), len(found), max(page, 1), size)


def leader(session: Session, contest: Contest, *, whole: bool = False) -> Place | None:
    """Who is first."""
    return next((place for place in places_of(session, contest, "ranked", whole=whole).places if place.rank), None)


def count(session: Session, contest: Contest) -> int:
    """How many teams are ranked."""
    return len(places_of(session, contest, "ranked", whole=True).ranks)


def place(session: Session, contest: Contest, submission_id: int) -> int | None:
    """The rank of a submission if it is its team's best among the ranked."""
    return places_of(session, contest, "ranked", whole=True).ranks.get(submission_id)


def shown_teams(session: Session, contest: Contest) -> set[int] | None:
    """The teams of which everybody sees something; None is all."""
    if contest.shown_places is None:
        return None
    return {place.team_id for place in places_of(session, contest, "ranked").places}


def points(session: Session, contest: Contest, limit: int = _CHUNK, *, whole: bool = False) -> list[Point]:
    """The best of each team, ranked and below, at most `limit` of each: what the chart draws."""
    result = []
    for section in SECTIONS:
        places = places_of(session, contest, section, whole=whole).places[:limit]
        wanted = [place.submission_id for place in places]
        statement = select(Submission.id, Submission.created_at, Submission.measured)
        found = {row.id: row for row in session.execute(statement.where(Submission.id.in_(wanted)))}
        result += [_point(place, section, found[place.submission_id]) for place in places]
    return result


def history(session: Session, contest: Contest, *, whole: bool = False) -> list[HeldRecord]:
    """The record's history, the oldest first: scores fall from one to the next."""
    hidden_names = contest.shown_names == "pseudonyms" and not whole
    statement = (
        select(RecordEntry, Team.pseudonym if hidden_names else Team.name)
        .join(RecordEntry.submission)
        .join(Submission.team)
        .where(RecordEntry.contest_id == contest.id)
        .order_by(RecordEntry.submitted_at, RecordEntry.submission_id)
    )
    shown = None if whole else shown_teams(session, contest)
    if shown is not None:
        statement = statement.where(Submission.team_id.in_(shown))
    return [
        HeldRecord(e.submission_id, team, e.score, shown_accuracy(contest, e.accuracy), e.submitted_at)
        for e, team in session.execute(statement)
    ]


def differences(measured: Mapping[str, Any] | None, claimed: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Keys that a file claims otherwise than they were measured, beyond rounding.

    A claim of something that could not be measured differs, unless it claims nothing (null or 0). `p_s` is one number
    of the formula and two of a network, of weights and of operations: a claim agrees if it is one of them.
    """
    if not measured or not claimed:
        return ()
    return tuple(key for key, claim in claimed.items() if claim is not None and not _agrees(key, claim, measured))


def flattering(measured: Mapping[str, Any] | None, claimed: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The differences that would have helped the claimer: more removed, fewer bits, smaller counts than measured.

    Zeros and removed channels are one saving: when channels turn out to be dead, their zeros count as removed, so a
    claim of p_u is no better than the truth while p_s and p_u together are not.
    """
    if not measured or not claimed:
        return ()
    found = [key for key in differences(measured, claimed) if _helps(key, claimed[key], measured)]
    together = [_number(claimed.get("p_s", 0.0)), _number(claimed.get("p_u"))]
    truth = [_number(measured.get("p_s_weights", 0.0)), _number(measured.get("p_u"))]
    known = [number for number in (*together, *truth) if number is not None]
    if "p_u" in found and len(known) == 4 and known[0] + known[1] <= known[2] + known[3] + _ROUNDING["p_u"]:
        found.remove("p_u")
    return tuple(found)


def _helps(key: str, claim: object, measured: Mapping[str, Any]) -> bool:
    known = [_number(measured.get(name)) for name in MEASURED_AS.get(key, (key,))]
    values = [value for value in known if value is not None]
    number = _number(claim)
    if number is None:
        return True  # a text where a number belongs helps nobody, but is no rounding either
    if not values:
        return number > 0 and key in _MORE_IS_BETTER
    return number > max(values) if key in _MORE_IS_BETTER else number < min(values)


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]


def _agrees(key: str, claim: object, measured: Mapping[str, Any]) -> bool:
    names = [name for name in MEASURED_AS.get(key, (key,)) if name in measured]
    values = [measured[name] for name in names if measured[name] is not None]
    if not names or (not values and claim == 0):
        return True
    return any(_same(key, claim, value) for value in values)


def _same(key: str, claim: object, value: object) -> bool:
    if isinstance(claim, int | float) and isinstance(value, int | float):
        rounding = _ROUNDING.get(key, 0.0)
        return math.isclose(claim, value, rel_tol=0 if rounding else _RELATIVE_ROUNDING, abs_tol=rounding + 1e-9)
    return claim == value


def _rows(session: Session, contest: Contest, places: Sequence[Place]) -> list[Row]:
    columns = (
        Submission.id,
        Submission.created_at,
        Submission.score_with_bitmask,
        Submission.accuracy_low,
        Submission.accuracy_high,
        Submission.rule_name,
        Submission.rule_version,
        Submission.measured,
        Submission.claimed,
        Submission.validated_at,
    )
    found: dict[int, Any] = {}
    for start in range(0, len(places), _CHUNK):
        wanted = [place.submission_id for place in places[start : start + _CHUNK]]
        found.update((row.id, row) for row in session.execute(select(*columns).where(Submission.id.in_(wanted))))
    hidden = coarse(contest)
    return [_row(place, found[place.submission_id], hidden) for place in places]


def _row(place: Place, submission: Any, hidden: bool) -> Row:
    return Row(
        rank=place.rank,
        baseline=place.baseline,
        validated=submission.validated_at is not None,
        team_id=place.team_id,
        team=place.team,
        submission_id=place.submission_id,
        score=place.score,
        params=place.params,
        ops=place.ops,
        score_with_bitmask=submission.score_with_bitmask or place.score,
        accuracy=place.accuracy,
        accuracy_low=None if hidden else submission.accuracy_low,
        accuracy_high=None if hidden else submission.accuracy_high,
        submitted_at=submission.created_at,
        rule_name=submission.rule_name,
        rule_version=submission.rule_version,
        measured=submission.measured or {},
        claimed=submission.claimed,
        differences=differences(submission.measured, submission.claimed),
        flattering=flattering(submission.measured, submission.claimed),
    )


def _point(place: Place, section: Section, submission: Any) -> Point:
    def number(key: str) -> float | None:
        value = (submission.measured or {}).get(key)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    return Point(
        place.submission_id,
        place.team,
        place.score,
        place.accuracy,
        submission.created_at,
        section,
        place.params,
        place.ops,
        number("nonzeros"),
        number("macs"),
        number("q_w"),
        number("q_a"),
        place.baseline,
    )
