"""Signing in with a token, and out again. There are no passwords."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Query
from fastapi.responses import Response

from contest.errors import UsageError
from leaderboard.domain import roster, tokens
from leaderboard.domain.tokens import SESSION_S
from leaderboard.service.access import status_of
from leaderboard.service.middleware import SESSION_COOKIE, Buckets
from leaderboard.storage.tables import Team
from leaderboard.web.page import TheVisit, Visit, see_other

router = APIRouter()


@router.get("/login")
def form(visit: TheVisit, next: str = "/") -> Response:
    """The form."""
    return visit.page("login.html", here="login", next=own_path(next), notice="")


@router.post("/login")
def sign_in(
    visit: TheVisit,
    token: Annotated[str, Form(max_length=200)] = "",
    csrf: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Begin a session of whoever holds the token."""
    visit.check_csrf(csrf)
    with visit.board.database.read() as session:
        viewer = tokens.check(session, token.strip())
        team = session.get(Team, viewer.team_id) if viewer and viewer.team_id else None
        home = f"/contests/{team.contest.slug}" if team else "/admin"
    if viewer is None:
        notice = visit.say("This token is unknown, revoked or out of date.")
        return visit.page("login.html", status=401, here="login", next=own_path(next), notice=notice)
    goal = own_path(next)
    response = see_other(goal if goal != "/" else home)
    visit.start_session(response, visit.board.signer.new_session(viewer.token_key))
    return response


@router.get("/join")
def join_form(visit: TheVisit, code: Annotated[str, Query(max_length=60)] = "") -> Response:
    """The form of a class."""
    return _join_form(visit, {"code": code})


@router.post("/join")
def join(
    visit: TheVisit,
    code: Annotated[str, Form(max_length=200)] = "",
    mail: Annotated[str, Form(max_length=2000)] = "",
    team: Annotated[str, Form(max_length=2000)] = "",
    name: Annotated[str, Form(max_length=2000)] = "",
    csrf: Annotated[str, Form()] = "",
) -> Response:
    """Let a person of a class in: the token is shown in this answer and never again.

    Failures are counted by address: many people of a class may come from one, but they do not guess codes.
    """
    visit.check_csrf(csrf)
    fields = {"code": code, "mail": mail, "team": team, "name": name}
    failures: Buckets = visit.request.app.state.join_failures
    client = visit.request.client.host if visit.request.client else ""
    if failures.empty(client):
        return _join_form(visit, fields, visit.say("Too many attempts that failed; try again in some minutes."), 429)
    try:
        with visit.board.database.write() as session:
            handout = roster.join(session, code, mail, team, name)
            viewer = tokens.check(session, handout.token)
    except (roster.JoinError, UsageError) as error:
        failures.take(client)
        return _join_form(visit, fields, str(error), status_of(error))
    assert viewer is not None and viewer.team_id is not None
    with visit.board.database.read() as session:
        contest = session.get_one(Team, viewer.team_id).contest
    response = visit.page("joined.html", contest=contest, here="login", handout=handout)
    visit.start_session(response, visit.board.signer.new_session(viewer.token_key))
    return response


def _join_form(visit: Visit, fields: dict[str, str], notice: str = "", status: int = 200) -> Response:
    shown = {key: fields.get(key, "")[:254] for key in ("code", "mail", "team", "name")}
    return visit.page("join.html", status=status, here="login", notice=notice, fields=shown)


@router.post("/logout")
def sign_out(visit: TheVisit, csrf: Annotated[str, Form()] = "") -> Response:
    """End the session, also for whoever kept a copy of its cookie."""
    visit.check_csrf(csrf)
    known = visit.board.signer.read_session(visit.cookie)
    if known is not None and known.token_key:
        with visit.board.database.write() as session:
            tokens.end_session(session, known.name, timedelta(seconds=SESSION_S))
    response = see_other("/")
    response.delete_cookie(SESSION_COOKIE)
    return response


def own_path(path: str) -> str:
    """A path on this site, or '/': no address from outside sends anybody elsewhere."""
    safe = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if safe and len(path) <= 500 else "/"
