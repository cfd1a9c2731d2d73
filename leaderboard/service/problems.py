"""Errors over HTTP: RFC 9457 problem documents that name what is wrong and never show a path or a traceback."""

from __future__ import annotations

import logging
from http import HTTPStatus

from starlette.responses import JSONResponse

from contest.errors import ContestError, RefusedError, UsageError
from leaderboard.domain.admission import DisqualifiedError, QuotaError
from leaderboard.domain.contests import ClosedError, NotFoundError
from leaderboard.domain.tokens import ForbiddenError, UnauthorizedError
from leaderboard.storage.database import DatabaseError
from leaderboard.storage.file_store import TooLargeError

log = logging.getLogger("leaderboard.service.problems")

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
