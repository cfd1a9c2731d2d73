"""Signing in with a token, and out again. There are no passwords."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import Response

from leaderboard.domain import tokens
from leaderboard.service.security import SESSION_COOKIE
from leaderboard.storage.signer import SESSION_S
from leaderboard.storage.tables import Team
from leaderboard.web.page import TheVisit, see_other

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
        notice = "This token is unknown, revoked or out of date."
        return visit.page("login.html", status=401, here="login", next=own_path(next), notice=notice)
    goal = own_path(next)
    response = see_other(goal if goal != "/" else home)
    visit.start_session(response, visit.board.signer.new_session(viewer.token_key))
    return response


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
