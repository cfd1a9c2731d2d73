"""The web application, and how it is served: API, health, metrics, and pages where `leaderboard.web` is installed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hmac
import importlib.util
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import generate_latest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from contest import __version__
from contest.errors import ContestError
from leaderboard.board import Board, open_board
from leaderboard.domain import queue, tokens
from leaderboard.domain.contests import NotFoundError
from leaderboard.domain.tokens import ForbiddenError
from leaderboard.scoring_queue import Scorer
from leaderboard.service import api
from leaderboard.service.access import bearer, detail_of, problem, status_of
from leaderboard.service.middleware import (
    SESSION_COOKIE,
    BelowPrefix,
    BodyLimit,
    BodyTooLargeError,
    BodyTooSlowError,
    HeadAsGet,
    Metrics,
    Observe,
    RateLimit,
    SecurityHeaders,
)
from leaderboard.settings import BoardSettings
from leaderboard.storage.database import Cache, DatabaseError
from leaderboard.storage.tables import State, Submission, now

log = logging.getLogger("leaderboard.app")
_ANSWERS = 200
"""Answers of the API that are kept, the ones used last: about 40 kB each."""


def create_app(settings: BoardSettings, scorer: Scorer | None = None, *, pages: bool = True) -> FastAPI:
    """An application on an open board; its worker threads run while the application does. `pages`: not only the API."""
    board = open_board(settings, scorer)
    app = FastAPI(
        title="contest leaderboard",
        version=__version__,
        summary="Neural-network compression contests: submit, rank, compare.",
        lifespan=_lifespan,
        docs_url=None,  # the documentation pages load scripts from elsewhere; the document itself is at /openapi.json
        redoc_url=None,
        servers=[{"url": settings.prefix}] if settings.prefix else None,
    )
    app.state.board, app.state.metrics = board, Metrics()
    app.state.answers = Cache[bytes](_ANSWERS)
    app.include_router(api.router)
    _operations(app)
    if pages:
        _pages(app)
    # The last one added is the outermost.
    app.add_middleware(HeadAsGet)
    _errors(app)
    if settings.hosts:
        own = ("localhost", "127.0.0.1")  # health checks
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*settings.hosts, *own], www_redirect=False)
    app.add_middleware(BodyLimit, settings=settings, is_upload=_is_upload)
    app.add_middleware(RateLimit, settings=settings, holder=functools.partial(_holder, board))
    app.add_middleware(SecurityHeaders, tls=settings.secure_cookies)
    app.add_middleware(Observe, metrics=app.state.metrics)
    if settings.prefix:
        app.add_middleware(BelowPrefix, prefix=settings.prefix)
    return app


def settle() -> None:
    """Tell the garbage collector that what is there now stays, before serving begins.

    A full collection goes through modules and schemas of some hundred thousand objects: a tenth of a second in the
    middle of somebody's request.
    """
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    board: Board = app.state.board
    worker = board.jobs.worker(board.settings.workers) if board.settings.workers else None
    if worker is not None:
        worker.start()
    log.info("serving", extra={"workers": board.settings.workers, "version": __version__})
    yield
    if worker is not None:
        await run_in_threadpool(worker.stop, graceful=True)
        await run_in_threadpool(board.work.release)
    board.close()
    log.info("stopped")


def _pages(app: FastAPI) -> None:
    """`leaderboard.web` brings `router`, and may bring `mount(app)` for static files and `app.state.error_page`."""
    if importlib.util.find_spec("leaderboard.web") is None:
        return
    web = importlib.import_module("leaderboard.web")
    if hasattr(web, "router"):
        app.include_router(web.router)
    if hasattr(web, "mount"):
        web.mount(app)


def _is_upload(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["method"] == "POST" and path.rstrip("/").endswith("/submissions")


def _holder(board: Board, scope: Scope) -> str:
    """The public half of the good token that a request carries, itself or through its session; '' without one."""
    request = Request(scope)
    if token := bearer(request.headers.get("authorization")):
        with contextlib.suppress(SQLAlchemyError, ContestError), board.database.read() as session:
            viewer = tokens.check(session, token)
            return viewer.token_key if viewer else ""
        return ""  # the database is away, which the request itself will say
    known = board.signer.read_session(request.cookies.get(SESSION_COOKIE, ""))
    return known.token_key if known else ""


def _operations(app: FastAPI) -> None:
    @app.get("/healthz", include_in_schema=False)
    def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok", "version": __version__}

    @app.get("/readyz", include_in_schema=False)
    def ready(request: Request) -> Response:
        """The database answers and has this version's schema, and files can be written."""
        board: Board = request.app.state.board
        board.database.ready()
        with board.files.incoming(1):
            pass
        return Response('{"status":"ready"}', media_type="application/json")

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        """For Prometheus."""
        board: Board = request.app.state.board
        if not board.settings.metrics:
            raise NotFoundError("this service shows no metrics")
        expected = board.settings.metrics_token
        given = bearer(request.headers.get("authorization")) or ""
        if expected and not hmac.compare_digest(given.encode(), expected.encode()):
            raise ForbiddenError("the metrics need their token")
        with board.database.read() as session:
            waiting = queue.queue_depth(session)
            oldest = session.scalar(select(func.min(Submission.created_at)).where(Submission.state == State.QUEUED))
        age_s = (now() - oldest).total_seconds() if oldest else 0.0
        body = request.app.state.metrics.render(waiting, age_s) + generate_latest(board.jobs.registry)
        return Response(body, media_type="text/plain; version=0.0.4")


def _errors(app: FastAPI) -> None:
    """Every error becomes a problem document, or a page of `leaderboard.web` for a browser."""

    def answer(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
        page = getattr(app.state, "error_page", None)
        if page is not None and not request.url.path.startswith("/api/"):
            response: Response = page(request, status, detail)
        else:
            response = problem(status, detail)
        response.headers.update(headers or {})
        return response

    @app.exception_handler(ContestError)
    def contest_error(request: Request, error: ContestError) -> Response:
        if status_of(error) == 500:
            log.error("unexpected error", exc_info=error, extra={"request_id": request.scope.get("request_id")})
        return answer(request, status_of(error), detail_of(error))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        return answer(request, error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, 422, "; ".join(_complaint(entry) for entry in error.errors()))

    @app.exception_handler(SQLAlchemyError)
    def database_error(request: Request, error: SQLAlchemyError) -> Response:
        gone = isinstance(error, OperationalError) or (isinstance(error, DBAPIError) and error.connection_invalidated)
        log.error("database error", exc_info=error, extra={"request_id": request.scope.get("request_id")})
        if gone:
            return answer(request, 503, detail_of(DatabaseError("")))
        return answer(request, 500, "something went wrong here; organisers find it in the log")

    # Not an exception handler for Exception: Starlette runs that outside of all middleware, so without their headers.
    app.add_middleware(Faults, answer=answer)


class Faults:
    """Whatever nobody expected is logged with its traceback and answered without."""

    def __init__(self, app: ASGIApp, answer: Callable[[Request, int, str], Response]) -> None:
        self.app, self.answer = app, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except (BodyTooLargeError, BodyTooSlowError):
            raise
        except Exception as error:  # the one place where a request may end in whatever it likes
            if scope["type"] != "http" or begun:
                raise
            log.error("unexpected error", exc_info=error, extra={"request_id": scope.get("request_id")})
            response = self.answer(Request(scope), 500, "something went wrong here; organisers find it in the log")
            await response(scope, receive, send)


def _complaint(entry: Any) -> str:
    where = ".".join(str(part) for part in entry["loc"][1:]) or "body"
    return f"'{where}': {entry['msg']}"


HEADER_S = 15.0
_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class HeaderDeadline(H11Protocol):
    """Cuts a connection whose header does not end: uvicorn itself waits for the rest of a header for ever.

    The time runs from the opening of the connection, or from the first byte of the next request on it. (How long a
    connection may lie idle between two requests, and how long a body may take, others see to.)
    """

    header_s = HEADER_S
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(self.header_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._header_timer is None and self.conn.trailing_data[0]:
            self._header_timer = self.loop.call_later(self.header_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TIMEOUT)
            self.transport.close()


def run(app: Any, host: str, port: int, proxies: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=HeaderDeadline,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=proxies,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=20,
        limit_concurrency=500,
    )
