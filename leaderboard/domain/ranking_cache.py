"""A ranking in memory: made once for each revision of a contest, by one index range.

A rank is the number of better teams, so no index finds the rank of a row that a filter picks, nor the rows in another
order: each such question would be a pass over all teams. That pass is made once for a revision; then questions are
slices and comparisons of tuples. The revision is read from the database with every request, so several web processes
agree, and none shows what is out of date. 10,000 teams take about 6 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

from sqlalchemy import select, type_coerce
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType

from leaderboard.cache import Cache
from leaderboard.domain.standings import coarse, order_of, shown_accuracy
from leaderboard.storage.tables import Contest, Standing, Team

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
