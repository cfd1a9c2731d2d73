"""The organiser's page of teams, members and class codes. All of it is also in `contest admin`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import Response
from sqlalchemy.orm import Session

from contest.errors import UsageError
from leaderboard.domain import contests, roster
from leaderboard.domain.contests import NotFoundError
from leaderboard.domain.roster import Handout
from leaderboard.service.api import Id, Slug
from leaderboard.storage.tables import Contest, Member
from leaderboard.web.administration import ACTOR, Csrf, check_organiser, find_team
from leaderboard.web.page import TheVisit, Visit

router = APIRouter(prefix="/admin/contests/{slug}")
Line = Annotated[str, Form(max_length=2000)]


@router.get("/roster")
def page(slug: Slug, visit: TheVisit) -> Response:
    """Teams with their members, and the class codes."""
    check_organiser(visit)
    return _page(visit, slug)


@router.post("/roster")
def read(slug: Slug, visit: TheVisit, table: Annotated[str, Form(max_length=60_000)] = "", csrf: Csrf = "") -> Response:
    """Read a pasted table; the new tokens are shown in this answer and never again."""
    return _change(
        visit, csrf, slug, lambda s, contest: roster.import_roster(s, contest, roster.parse(table), ACTOR).handouts
    )


@router.post("/codes")
def make_code(slug: Slug, visit: TheVisit, domain: Line = "", days: Line = "", csrf: Csrf = "") -> Response:
    """A new class code."""

    def change(session: Session, contest: Contest) -> None:
        if days.strip() and not (days.strip().isdecimal() and 0 < int(days) <= 3650):
            raise UsageError(f"'{days[:20]}' is no number of days from 1 on")
        roster.new_code(session, contest, domain, int(days) if days.strip() else None, ACTOR)

    return _change(visit, csrf, slug, change)


@router.post("/codes/revoke")
def revoke_code(slug: Slug, visit: TheVisit, code: Line = "", csrf: Csrf = "") -> Response:
    """Make a class code useless."""
    return _change(visit, csrf, slug, lambda s, contest: roster.revoke(s, contest, code, ACTOR))


@router.post("/teams/{team_id}/rename")
def rename(
    slug: Slug, team_id: Id, visit: TheVisit, name: Line = "", real_name: Line = "", csrf: Csrf = ""
) -> Response:
    """Another name on the board, or for organisers."""
    return _change(
        visit, csrf, slug, lambda s, _: roster.rename(s, find_team(s, slug, team_id), name, real_name, ACTOR)
    )


@router.post("/teams/{team_id}/member")
def add_member(slug: Slug, team_id: Id, visit: TheVisit, mail: Line = "", name: Line = "", csrf: Csrf = "") -> Response:
    """A late member, with a token."""
    return _change(
        visit, csrf, slug, lambda s, _: [roster.add_member(s, find_team(s, slug, team_id), mail, name, ACTOR)]
    )


@router.post("/teams/{team_id}/merge")
def merge(slug: Slug, team_id: Id, visit: TheVisit, into: Annotated[int, Form(ge=1)], csrf: Csrf = "") -> Response:
    """Everything of one team to another."""
    return _change(
        visit,
        csrf,
        slug,
        lambda s, _: roster.merge(s, find_team(s, slug, team_id), find_team(s, slug, into), ACTOR),
    )


@router.post("/teams/{team_id}/rotate")
def rotate(slug: Slug, team_id: Id, visit: TheVisit, csrf: Csrf = "") -> Response:
    """New tokens for a team."""
    return _change(visit, csrf, slug, lambda s, _: roster.rotate(s, find_team(s, slug, team_id), ACTOR))


def _change(
    visit: Visit, csrf: str, slug: str, change: Callable[[Session, Contest], Sequence[Handout] | None]
) -> Response:
    check_organiser(visit, csrf)
    try:
        with visit.board.database.write() as session:
            handouts = change(session, contests.find(session, slug))
    except NotFoundError:
        raise
    except UsageError as error:
        return _page(visit, slug, notice=str(error), status=422)
    return _page(visit, slug, handouts=handouts or ())


def _page(
    visit: Visit, slug: str, *, notice: str = "", handouts: Sequence[Handout] = (), status: int = 200
) -> Response:
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
        people: dict[int | None, list[Member]] = defaultdict(list)
        for member in roster.members(session, contest):
            people[member.team_id].append(member)
        teams, codes = contests.teams(session, contest), roster.codes(session, contest)
    return visit.page(
        "roster.html",
        status=status,
        contest=contest,
        here="admin",
        base=f"/admin/contests/{slug}",
        teams=teams,
        people=people,
        codes=codes,
        notice=notice,
        handouts=handouts,
    )
