"""Who is best: the best submission of each team by score, ties by accuracy, then by time.

Below the threshold the order is by accuracy: a score means little there.

A rank is the number of better teams, so no index finds the rank of a row that a filter picks, nor the rows in another
order: each such question would be a pass over all teams. That pass is made once for each revision of a contest, by one
index range, and kept in memory; then questions are slices and comparisons of tuples, and of the submissions only those
of the page are read. The revision is read from the database with every request, so several web processes agree, and
none shows what is out of date. 10,000 teams take about 6 MB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

from sqlalchemy import select, type_coerce
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType

from contest.errors import UsageError
from leaderboard.domain.claims import differences, flattering
from leaderboard.domain.standings import coarse, order_of, shown_accuracy
from leaderboard.storage.database import Cache
from leaderboard.storage.tables import Contest, RecordEntry, Standing, Submission, Team
from leaderboard.text import name_key, one_line

Section = Literal["ranked", "below_threshold"]
SECTIONS: tuple[Section, ...] = ("ranked", "below_threshold")


class Place(NamedTuple):
    """One team's best. `accuracy` is as it may be shown now."""

    rank: int
    team_id: int
    team: str
    key: str
    """The team's name as it is searched and sorted."""
    submission_id: int
    score: float
    params: float
    ops: float
    accuracy: float
    baseline: bool
    """The organiser's own; its rank is 0."""
    submitted: Any
    """The moment as the database writes it: for sorting. Making 10,000 aware moments would take as long as all else."""


SORTS: dict[str, Callable[[Place], Any]] = {
    "score": lambda place: place.score,
    "accuracy": lambda place: place.accuracy,
    "params": lambda place: place.params,
    "ops": lambda place: place.ops,
    "team": lambda place: place.key,
    "time": lambda place: place.submitted,
}


class Places:
    """All teams of one section, by rank."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = tuple(places)
        self._orders: dict[tuple[str, bool], tuple[Place, ...]] = {("", False): self.places}

    def ordered(self, sort: str, descending: bool) -> tuple[Place, ...]:
        """In another order, ties by rank. Two threads may both make an order; they make the same."""
        found = self._orders.get((sort, descending))
        if found is None:
            key = SORTS[sort] if sort else (lambda place: place.rank)
            found = self._orders[sort, descending] = tuple(sorted(self.places, key=key, reverse=descending))
        return found

    @cached_property
    def ranks(self) -> dict[int, int]:
        """Submission -> rank."""
        return {place.submission_id: place.rank for place in self.places if place.rank}


def places_of(session: Session, contest: Contest, section: Section, *, whole: bool = False) -> Places:
    """The ranking of a section as it is in the session's transaction; `whole`: as organisers see it.

    Everybody else sees pseudonyms, or the first places alone, where the contest says so.
    """
    whole = whole or (contest.shown_names == "names" and contest.shown_places is None)
    cache: Cache[Places] | None = session.info.get("cache")
    if cache is None:
        return _read(session, contest, section, whole)
    version = (contest.revision, coarse(contest))
    key = ("places", contest.id, section, whole)
    return cache.get(key, version, lambda: _read(session, contest, section, whole))


def _read(session: Session, contest: Contest, section: Section, whole: bool) -> Places:
    hidden_names = contest.shown_names == "pseudonyms" and not whole
    names = (Team.pseudonym, Team.pseudonym) if hidden_names else (Team.name, Team.name_key)
    statement = (
        select(
            Standing.team_id,
            *names,
            Standing.submission_id,
            Standing.score,
            Standing.params,
            Standing.ops,
            Standing.accuracy,
            Team.baseline,
            type_coerce(Standing.submitted_at, NullType),
        )
        .join(Team, Team.id == Standing.team_id)
        .where(Standing.contest_id == contest.id, Standing.section == section)
        .order_by(*order_of(contest, section))
    )
    places, rank = [], 0
    rows: Sequence[Any] = session.connection().execute(statement).all()
    for row in rows:
        rank += not row.baseline
        places.append(Place(0 if row.baseline else rank, *row))
    if contest.shown_places is not None and not whole:
        most = contest.shown_places if section == "ranked" else 0
        places = [place for place in places if (place.rank or most) <= most and most]
    if coarse(contest):
        places = [place._replace(accuracy=shown_accuracy(contest, place.accuracy)) for place in places]
    return Places(places)


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


def measured_places(
    session: Session, contest: Contest, section: Section, limit: int = _CHUNK, *, whole: bool = False
) -> list[tuple[Place, datetime, Mapping[str, Any]]]:
    """The first `limit` of a section, each with when it came in and what was measured of it: what charts draw."""
    places = places_of(session, contest, section, whole=whole).places[:limit]
    wanted = [place.submission_id for place in places]
    statement = select(Submission.id, Submission.created_at, Submission.measured)
    found = {row.id: row for row in session.execute(statement.where(Submission.id.in_(wanted)))}
    rows = [(place, found[place.submission_id]) for place in places]
    return [(place, row.created_at, row.measured or {}) for place, row in rows]


def points(session: Session, contest: Contest, limit: int = _CHUNK, *, whole: bool = False) -> list[Point]:
    """The best of each team, ranked and below, at most `limit` of each: the dots of the chart as the API gives them."""
    return [
        _point(section, *told)
        for section in SECTIONS
        for told in measured_places(session, contest, section, limit, whole=whole)
    ]


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


def _point(section: Section, place: Place, submitted_at: datetime, measured: Mapping[str, Any]) -> Point:
    def number(key: str) -> float | None:
        value = measured.get(key)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    return Point(
        place.submission_id,
        place.team,
        place.score,
        place.accuracy,
        submitted_at,
        section,
        place.params,
        place.ops,
        number("nonzeros"),
        number("macs"),
        number("q_w"),
        number("q_a"),
        place.baseline,
    )
