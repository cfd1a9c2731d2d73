"""The organiser's pages: contests, teams, members, tokens, class codes. All of it is also in `contest admin`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Form, Query
from fastapi.responses import Response
from sqlalchemy.orm import Session

from contest.errors import UsageError
from leaderboard.domain import contests, copies, marks, queue, roster, submissions, tokens
from leaderboard.domain.contests import NotFoundError
from leaderboard.domain.roster import Handout
from leaderboard.domain.tokens import ForbiddenError
from leaderboard.service.api import Id, Slug
from leaderboard.storage.tables import Contest, Member, Team
from leaderboard.text import one_line
from leaderboard.web.page import TheVisit, Visit, see_other

router = APIRouter(prefix="/admin")
Csrf = Annotated[str, Form()]
Line = Annotated[str, Form(max_length=2000)]
Reason = Annotated[str, Form(max_length=2000)]
ACTOR = "organiser, on the page"
_TEAMS = 100


@router.get("")
def page(visit: TheVisit, team: Annotated[str, Query(max_length=120)] = "") -> Response:
    """Everything at a glance; of teams those with a part of a name, where there are many."""
    check_organiser(visit)
    return _page(visit, query=one_line(team, "part of a name", 120, required=False))


@router.post("/contests/{slug}/close")
def close(slug: Slug, visit: TheVisit, csrf: Csrf = "") -> Response:
    """Take no more submissions."""
    return _change(visit, csrf, slug, lambda session, contest: contests.close(session, contest, ACTOR))


@router.post("/contests/{slug}/reopen")
def reopen(slug: Slug, visit: TheVisit, csrf: Csrf = "") -> Response:
    """Take submissions again."""
    return _change(visit, csrf, slug, lambda session, contest: contests.reopen(session, contest, ACTOR))


@router.post("/contests/{slug}/teams")
def add_team(
    slug: Slug, visit: TheVisit, name: Annotated[str, Form(max_length=2000)] = "", csrf: Csrf = ""
) -> Response:
    """A new team and its token, which is shown in this answer and never again."""
    check_organiser(visit, csrf)
    try:
        with visit.board.database.write() as session:
            team = contests.add_team(session, contests.find(session, slug), name, ACTOR)
            token = tokens.create(session, team)
    except UsageError as error:
        return _page(visit, notice=str(error), status=422)
    return _page(visit, token=token, token_of=team.name)


@router.post("/contests/{slug}/teams/{team_id}/token")
def new_token(slug: Slug, team_id: Id, visit: TheVisit, csrf: Csrf = "") -> Response:
    """One more token for a team."""
    check_organiser(visit, csrf)
    with visit.board.database.write() as session:
        team = find_team(session, slug, team_id)
        token = tokens.create(session, team)
        contests.record(session, ACTOR, "new token", team.contest, team=team.name)
    return _page(visit, token=token, token_of=team.name)


@router.post("/contests/{slug}/teams/{team_id}/disqualify")
def disqualify_team(slug: Slug, team_id: Id, visit: TheVisit, reason: Reason = "", csrf: Csrf = "") -> Response:
    """Take a team out of the ranking."""
    return _change(
        visit, csrf, slug, lambda s, _: contests.disqualify_team(s, find_team(s, slug, team_id), reason, ACTOR)
    )


@router.post("/contests/{slug}/teams/{team_id}/readmit")
def readmit_team(slug: Slug, team_id: Id, visit: TheVisit, csrf: Csrf = "") -> Response:
    """Undo that."""
    return _change(visit, csrf, slug, lambda s, _: contests.readmit_team(s, find_team(s, slug, team_id), ACTOR))


@router.post("/submissions/{submission}/disqualify")
def disqualify(submission: Id, visit: TheVisit, reason: Reason = "", csrf: Csrf = "") -> Response:
    """Take one submission out of the ranking."""
    check_organiser(visit, csrf)
    with visit.board.database.write() as session:
        contests.disqualify_submission(session, submissions.find(session, submission, visit.viewer), reason, ACTOR)
    return see_other(f"/submissions/{submission}")


@router.post("/submissions/{submission}/cancel")
def cancel(submission: Id, visit: TheVisit, reason: Reason = "", csrf: Csrf = "") -> Response:
    """Take a waiting or running submission out, free of quota."""
    check_organiser(visit, csrf)
    with visit.board.database.write() as session:
        queue.cancel(session, submissions.find(session, submission, visit.viewer), reason, ACTOR)
    return see_other(f"/submissions/{submission}")


@router.post("/submissions/{submission}/rerun")
def rerun(submission: Id, visit: TheVisit, csrf: Csrf = "") -> Response:
    """Score a submission again, free of quota."""
    check_organiser(visit, csrf)
    with visit.board.database.write() as session:
        queue.rerun(session, submissions.find(session, submission, visit.viewer), ACTOR)
    return see_other(f"/submissions/{submission}")


@router.post("/submissions/{submission}/validate")
def validate(
    submission: Id, visit: TheVisit, remark: Reason = "", undo: Annotated[str, Form()] = "", csrf: Csrf = ""
) -> Response:
    """Say that an organiser looked at it, or take that back."""
    check_organiser(visit, csrf)
    with visit.board.database.write() as session:
        found = submissions.find(session, submission, visit.viewer)
        contests.validate(session, found, remark, undo=bool(undo), actor=ACTOR)
    return see_other(f"/submissions/{submission}")


@router.post("/contests/{slug}/announce")
def announce(
    slug: Slug,
    visit: TheVisit,
    title: Annotated[str, Form(max_length=2000)] = "",
    body: Annotated[str, Form(max_length=20_000)] = "",
    answer: Annotated[str, Form()] = "",
    csrf: Csrf = "",
) -> Response:
    """Tell everybody something."""
    check_organiser(visit, csrf)
    try:
        with visit.board.database.write() as session:
            contest = contests.find(session, slug)
            contests.announce(session, contest, title, body, answer=bool(answer), actor=ACTOR)
    except NotFoundError:
        raise
    except UsageError as error:
        return _page(visit, notice=str(error), status=422)
    return see_other(f"/contests/{slug}/news")


@router.post("/contests/{slug}/about")
def about(slug: Slug, visit: TheVisit, text: Annotated[str, Form(max_length=60_000)] = "", csrf: Csrf = "") -> Response:
    """Change the organiser's text."""
    check_organiser(visit, csrf)
    with visit.board.database.write() as session:
        contests.change(session, contests.find(session, slug), {"about": text.replace("\r\n", "\n")}, ACTOR)
    return see_other(f"/contests/{slug}/news")


@router.get("/contests/{slug}/marks")
def marks_page(slug: Slug, visit: TheVisit, formula: Annotated[str, Query(max_length=600)] = "") -> Response:
    """The marks as a table; with points where there is a formula. And networks that answer alike."""
    check_organiser(visit)
    notice, points = "", None
    try:
        points = marks.Formula.parse(formula) if formula.strip() else None
    except UsageError as error:
        notice = str(error)
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
        rows, alike = marks.rows(session, contest, points), copies.find(session, contest)
    return visit.page(
        "marks.html",
        status=422 if notice else 200,
        contest=contest,
        here="admin",
        rows=rows,
        formula=formula,
        notice=notice,
        alike=alike,
        names=marks.NAMES,
    )


@router.get("/contests/{slug}/marks.csv")
def marks_table(slug: Slug, visit: TheVisit, formula: Annotated[str, Query(max_length=600)] = "") -> Response:
    """The same as a file."""
    check_organiser(visit)
    points = marks.Formula.parse(formula) if formula.strip() else None
    with visit.board.database.read() as session:
        text = marks.to_csv(marks.rows(session, contests.find(session, slug), points))
    headers = {"Content-Disposition": f'attachment; filename="{slug}-marks.csv"'}
    return Response(text.encode("utf-8-sig"), media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/submissions/{submission}/readmit")
def readmit(submission: Id, visit: TheVisit, csrf: Csrf = "") -> Response:
    """Undo that."""
    check_organiser(visit, csrf)
    with visit.board.database.write() as session:
        contests.readmit_submission(session, submissions.find(session, submission, visit.viewer), ACTOR)
    return see_other(f"/submissions/{submission}")


def _change(visit: Visit, csrf: str, slug: str, change: Callable[[Session, Contest], None]) -> Response:
    check_organiser(visit, csrf)
    try:
        with visit.board.database.write() as session:
            change(session, contests.find(session, slug))
    except NotFoundError:
        raise
    except UsageError as error:
        return _page(visit, notice=str(error), status=422)
    return see_other("/admin")


def check_organiser(visit: Visit, csrf: str | None = None) -> None:
    """Raise ForbiddenError unless an organiser asks, for changes by a form of this site."""
    if not visit.viewer.admin:
        raise ForbiddenError("only organisers may do this: sign in with an organiser's token")
    if csrf is not None:
        visit.check_csrf(csrf)


def find_team(session: Session, slug: str, team_id: int) -> Team:
    """A team of a contest. Raises NotFoundError."""
    team = session.get(Team, team_id)
    if team is None or team.contest.slug != slug:
        raise NotFoundError(f"contest '{slug}' has no team {team_id}")
    return team


def _page(
    visit: Visit, *, notice: str = "", token: str = "", token_of: str = "", query: str = "", status: int = 200
) -> Response:
    with visit.board.database.read() as session:
        boards = [
            {
                "contest": contest,
                "rule": contests.told_rule(contest),
                "counts": contests.count_submissions(session, contest),
                "teams": contests.teams(session, contest, query, _TEAMS),
                "team_count": contests.count_teams(session, contest),
                "events": contests.events(session, contest, 30),
            }
            for contest in contests.listing(session)
        ]
    return visit.page(
        "admin.html",
        status=status,
        here="admin",
        boards=boards,
        notice=notice,
        token=token,
        token_of=token_of,
        query=query,
    )


@router.get("/contests/{slug}/roster")
def roster_page(slug: Slug, visit: TheVisit) -> Response:
    """Teams with their members, and the class codes."""
    check_organiser(visit)
    return _roster(visit, slug)


@router.post("/contests/{slug}/roster")
def read_roster(
    slug: Slug, visit: TheVisit, table: Annotated[str, Form(max_length=60_000)] = "", csrf: Csrf = ""
) -> Response:
    """Read a pasted table; the new tokens are shown in this answer and never again."""
    return _change_roster(
        visit, csrf, slug, lambda s, contest: roster.import_roster(s, contest, roster.parse(table), ACTOR).handouts
    )


@router.post("/contests/{slug}/codes")
def make_code(slug: Slug, visit: TheVisit, domain: Line = "", days: Line = "", csrf: Csrf = "") -> Response:
    """A new class code."""

    def change(session: Session, contest: Contest) -> None:
        if days.strip() and not (days.strip().isdecimal() and 0 < int(days) <= 3650):
            raise UsageError(f"'{days[:20]}' is no number of days from 1 on")
        roster.new_code(session, contest, domain, int(days) if days.strip() else None, ACTOR)

    return _change_roster(visit, csrf, slug, change)


@router.post("/contests/{slug}/codes/revoke")
def revoke_code(slug: Slug, visit: TheVisit, code: Line = "", csrf: Csrf = "") -> Response:
    """Make a class code useless."""
    return _change_roster(visit, csrf, slug, lambda s, contest: roster.revoke(s, contest, code, ACTOR))


@router.post("/contests/{slug}/teams/{team_id}/rename")
def rename_team(
    slug: Slug, team_id: Id, visit: TheVisit, name: Line = "", real_name: Line = "", csrf: Csrf = ""
) -> Response:
    """Another name on the board, or for organisers."""
    return _change_roster(
        visit, csrf, slug, lambda s, _: roster.rename(s, find_team(s, slug, team_id), name, real_name, ACTOR)
    )


@router.post("/contests/{slug}/teams/{team_id}/member")
def add_member(slug: Slug, team_id: Id, visit: TheVisit, mail: Line = "", name: Line = "", csrf: Csrf = "") -> Response:
    """A late member, with a token."""
    return _change_roster(
        visit, csrf, slug, lambda s, _: [roster.add_member(s, find_team(s, slug, team_id), mail, name, ACTOR)]
    )


@router.post("/contests/{slug}/teams/{team_id}/merge")
def merge_teams(
    slug: Slug, team_id: Id, visit: TheVisit, into: Annotated[int, Form(ge=1)], csrf: Csrf = ""
) -> Response:
    """Everything of one team to another."""
    return _change_roster(
        visit,
        csrf,
        slug,
        lambda s, _: roster.merge(s, find_team(s, slug, team_id), find_team(s, slug, into), ACTOR),
    )


@router.post("/contests/{slug}/teams/{team_id}/rotate")
def rotate_tokens(slug: Slug, team_id: Id, visit: TheVisit, csrf: Csrf = "") -> Response:
    """New tokens for a team."""
    return _change_roster(visit, csrf, slug, lambda s, _: roster.rotate(s, find_team(s, slug, team_id), ACTOR))


def _change_roster(
    visit: Visit, csrf: str, slug: str, change: Callable[[Session, Contest], Sequence[Handout] | None]
) -> Response:
    check_organiser(visit, csrf)
    try:
        with visit.board.database.write() as session:
            handouts = change(session, contests.find(session, slug))
    except NotFoundError:
        raise
    except UsageError as error:
        return _roster(visit, slug, notice=str(error), status=422)
    return _roster(visit, slug, handouts=handouts or ())


def _roster(
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
