"""Who asks over HTTP, what they may do, and how a no is told.

A no is an RFC 9457 problem document that names what is wrong and never shows a path or a traceback.
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from contest.errors import ContestError, RefusedError, UsageError
from leaderboard.board import Board
from leaderboard.domain import contests, submissions, tokens
from leaderboard.domain.contests import ClosedError, NotFoundError
from leaderboard.domain.submissions import DisqualifiedError, QuotaError
from leaderboard.domain.tokens import PUBLIC, ForbiddenError, UnauthorizedError, Viewer
from leaderboard.storage.database import DatabaseError
from leaderboard.storage.file_store import TooLargeError
from leaderboard.storage.tables import Contest, Submission, Team

# The first class that fits decides, so subclasses stand before their bases.
_STATUS: tuple[tuple[type[ContestError], int], ...] = (
    (NotFoundError, 404),
    (TooLargeError, 413),
    (QuotaError, 429),
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (ClosedError, 403),
    (DisqualifiedError, 403),
    (DatabaseError, 503),
    (RefusedError, 422),
    (UsageError, 422),
)


def status_of(error: ContestError) -> int:
    """The HTTP status of an error; 500 for those that no request should cause."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def detail_of(error: ContestError) -> str:
    """What a stranger may read: the message of errors that requests cause, nothing of the machine's own."""
    if status_of(error) == 500:
        return "something went wrong here; organisers find it in the log"
    if isinstance(error, DatabaseError):
        return "the database is out of reach; try again in a moment"
    return str(error)


def problem(status: int, detail: str) -> JSONResponse:
    """The document for an API client."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = "5"
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def the_board(request: Request) -> Board:
    """The board of this application."""
    board: Board = request.app.state.board
    return board


TheBoard = Annotated[Board, Depends(the_board)]


async def the_viewer(board: TheBoard, authorization: Annotated[str | None, Header()] = None) -> Viewer:
    """Who asks: nobody known without a token, UnauthorizedError with one that is no good."""

    def check(token: str) -> Viewer | None:
        with board.database.read() as session:
            return tokens.check(session, token)

    token = bearer(authorization)
    if token is None:
        if authorization:
            raise UnauthorizedError("the Authorization header must be 'Bearer <token>'")
        return PUBLIC
    viewer = await run_in_threadpool(check, token)
    if viewer is None:
        raise UnauthorizedError("this token is unknown, revoked or out of date")
    return viewer


TheViewer = Annotated[Viewer, Depends(the_viewer)]


def upload_limit(board: Board, contest: Contest) -> int:
    """The most bytes that a file of this contest may have here."""
    return min(contest.max_bytes, board.settings.max_upload_bytes)


def declared_bytes(request: Request) -> int:
    """The body's length as the request says it; 0 where it says none."""
    declared = request.headers.get("content-length", "0")
    return int(declared) if declared.isdecimal() else 0


def check_declared(request: Request, allowed: int, limit: int) -> None:
    """Raise TooLargeError when the request says that its body is larger: before any of it is read."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > allowed:
        raise TooLargeError(limit)


def submitting_team(session: Session, contest: Contest, viewer: Viewer) -> Team:
    """The team that the viewer submits for. Raises UnauthorizedError or ForbiddenError."""
    if viewer.role == "public":
        raise UnauthorizedError("submitting needs a team's token: Authorization: Bearer <token>")
    if viewer.team_id is None or viewer.contest_id != contest.id:
        raise ForbiddenError(f"this token is not one of a team of contest '{contest.slug}'")
    return session.get_one(Team, viewer.team_id)


def owned(session: Session, submission: int, viewer: Viewer) -> Submission:
    """A submission whose inner affairs the viewer may see. Raises NotFoundError, ForbiddenError."""
    found = submissions.find(session, submission, viewer)
    if not viewer.owns(found.team_id):
        raise ForbiddenError(f"only the team of submission {submission} and organisers may see this")
    return found


def revision_tag(contest: Contest, viewer: Viewer, *parts: str) -> str:
    """The ETag of anything that changes only with the contest's revision (and its privacy) and these parts."""
    key = (contest.id, contest.revision, contests.is_private(contest), contests.clock(contest), viewer.admin, *parts)
    return f'W/"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}"'


def check_public(contest: Contest, viewer: Viewer) -> None:
    """Raise ForbiddenError while the ranking is private."""
    if contests.is_private(contest) and not viewer.admin:
        raise ForbiddenError(f"the ranking is private until {contest.private_until:%Y-%m-%d %H:%M} UTC")
