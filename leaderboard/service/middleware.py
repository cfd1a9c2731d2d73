"""What stands around every request: its log line and metrics, headers that protect browsers, limits.

An operator sees one JSON object a log line, Prometheus metrics, and a request id on every answer. Forms (by
`leaderboard.web`) use a session cookie plus a CSRF token; the API takes bearer tokens only, so that no other site can
make a browser use it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leaderboard.service.access import problem
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import State

SESSION_COOKIE = "contest_session"

# No eval, no inline scripts or styles, nothing from elsewhere. Charts draw into blob: and data: images for download.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class HeadAsGet:
    """Answers HEAD as GET without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self.app(scope, receive, send)

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        return await self.app({**scope, "method": "GET"}, receive, without_body)


class BelowPrefix:
    """Behind a proxy that shows the service below a path: requests may come with it or without, redirects go there."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if scope["path"] == self.prefix or scope["path"].startswith(f"{self.prefix}/"):
            path = scope["path"][len(self.prefix) :] or "/"
            scope = {**scope, "path": path, "raw_path": path.encode()}

        async def prefixed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (name, self.prefix.encode() + value if name.lower() == b"location" and value[:1] == b"/" else value)
                    for name, value in message["headers"]
                ]
                message = {**message, "headers": headers}
            await send(message)

        return await self.app(scope, receive, prefixed)


class SecurityHeaders:
    """Adds the headers above to every answer; HSTS only where the service is known to be behind TLS."""

    def __init__(self, app: ASGIApp, *, tls: bool = False) -> None:
        self.app = app
        self.headers = HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if tls else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
                # What says nothing else may be private: a file, a log, who a token belongs to.
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


SMALL_BODY_BYTES = 64 * 1024
"""For everything that is no upload."""
FORM_OVERHEAD_BYTES = 64 * 1024
"""What a form may add to the file in it: boundaries, headers, other fields."""
_CLIENTS = 10_000


class BodyTooLargeError(Exception):
    """More bytes arrive than allowed."""


class BodyTooSlowError(Exception):
    """Too little arrives in too long a time."""


class BodyLimit:
    """Cuts bodies off while they stream: by size, by silence, by total time."""

    def __init__(self, app: ASGIApp, settings: BoardSettings, is_upload: Callable[[Scope], bool]) -> None:
        self.app, self.settings, self.is_upload = app, settings, is_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        limit = SMALL_BODY_BYTES
        if self.is_upload(scope):
            limit = self.settings.max_upload_bytes + FORM_OVERHEAD_BYTES
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            return await _answer(413, f"the body is larger than {limit} bytes")(scope, receive, send)
        started, received, begun = time.monotonic(), 0, False

        async def limited() -> Message:
            nonlocal received
            patience = min(self.settings.upload_idle_s, self.settings.upload_total_s - (time.monotonic() - started))
            try:
                message = await asyncio.wait_for(receive(), max(patience, 0.001))
            except TimeoutError:
                raise BodyTooSlowError from None
            received += len(message.get("body", b""))
            if received > limit:
                raise BodyTooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        waits = dict(scope["headers"]).keys() & {b"content-length", b"transfer-encoding"}
        try:
            # Without a body, `receive` waits for the client to hang up: that may take as long as it likes.
            await self.app(scope, limited if waits else receive, watched)
        except BodyTooLargeError:
            if not begun:
                await _answer(413, f"the body is larger than {limit} bytes")(scope, receive, send)
        except BodyTooSlowError:
            if not begun:
                await _answer(408, "the body arrives too slowly")(scope, receive, send)


@dataclass
class Buckets:
    """Token buckets: `per_minute` requests a minute for each client, as many at once; the oldest are forgotten."""

    per_minute: int
    levels: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def empty(self, client: str) -> bool:
        """Whether nothing is left, without taking any."""
        level, last = self.levels.get(client, (float(self.per_minute), 0.0))
        return level + (time.monotonic() - last) * self.per_minute / 60 < 1

    def take(self, client: str, present: float | None = None) -> float:
        """Take one; 0.0 if it was there, else the seconds to wait."""
        present = time.monotonic() if present is None else present
        rate = self.per_minute / 60
        level, last = self.levels.pop(client, (float(self.per_minute), present))
        level = min(self.per_minute, level + (present - last) * rate)
        wait = 0.0 if level >= 1 else (1 - level) / rate
        self.levels[client] = (level - 1 if level >= 1 else level, present)
        if len(self.levels) > _CLIENTS:
            self.levels.popitem(last=False)
        return wait


class RateLimit:
    """Answers 429 with Retry-After to whoever asks too often, counted in this process.

    Holders of a good token have a bucket each, since a class often shares one address; everybody else is counted by
    address. `holder` says whose token or session a request carries ('' for nobody's). A token that is new here costs
    its address one read before it is looked up: guesses at tokens find no fresh bucket.
    """

    def __init__(self, app: ASGIApp, settings: BoardSettings, holder: Callable[[Scope], str]) -> None:
        self.app, self.holder = app, holder
        self.reads, self.writes = Buckets(settings.requests_per_minute), Buckets(settings.writes_per_minute)
        self._holders: OrderedDict[bytes, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ("/healthz", "/readyz"):
            return await self.app(scope, receive, send)
        buckets = self.reads if scope["method"] in ("GET", "HEAD", "OPTIONS") else self.writes
        address = scope["client"][0] if scope.get("client") else ""
        wait = buckets.take(await self._known(scope, address) or address)
        if wait:
            seconds = int(wait) + 1
            detail = f"too many requests: at most {buckets.per_minute} a minute; try again in {seconds} s"
            response = _answer(429, detail)
            response.headers["Retry-After"] = str(seconds)
            return await response(scope, receive, send)
        return await self.app(scope, receive, send)

    async def _known(self, scope: Scope, address: str) -> str:
        headers = dict(scope["headers"])
        shown = headers.get(b"authorization", b"") + b"\n" + headers.get(b"cookie", b"")
        if len(shown) == 1:
            return ""
        digest = hashlib.sha256(shown).digest()
        if digest not in self._holders:
            if self.reads.take(address):
                return ""
            self._holders[digest] = await run_in_threadpool(self.holder, scope)
            if len(self._holders) > _CLIENTS:
                self._holders.popitem(last=False)
        return self._holders[digest]


def _answer(status: int, detail: str) -> Response:
    response = problem(status, detail)
    if status in (408, 413):
        response.headers["Connection"] = "close"  # what is left of the body will not be read
    return response


log = logging.getLogger("leaderboard.access")
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, and whatever `extra` gave."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def configure_logging(level: int = logging.INFO) -> None:
    """Send all logs of this process to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("huey", "huey.consumer", "alembic", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class Metrics:
    """The metrics of one application; its own registry, so that two applications in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "contest_http_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "contest_http_request_seconds",
            "Time to the end of the answer.",
            ("method", "route"),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
            registry=self.registry,
        )
        self.uploads = Counter("contest_upload_bytes", "Bytes of stored uploads.", registry=self.registry)
        self.waiting = Gauge("contest_submissions", "Submissions not yet ended.", ("state",), registry=self.registry)
        self.oldest = Gauge("contest_queue_age_seconds", "Age of the oldest queued submission.", registry=self.registry)

    def render(self, waiting: dict[str, int], oldest_s: float) -> bytes:
        """The text that Prometheus reads."""
        for state in (State.QUEUED, State.RUNNING):
            self.waiting.labels(state).set(waiting.get(state, 0))
        self.oldest.set(oldest_s)
        return generate_latest(self.registry)


class Observe:
    """Logs and counts every request under its route (not its path: there may be a million submissions)."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status, request_id = time.perf_counter(), 0, secrets.token_hex(8)
        scope["request_id"] = request_id

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, marked)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "") or "other"
            self.metrics.requests.labels(scope["method"], route, str(status or "lost")).inc()
            self.metrics.seconds.labels(scope["method"], route).observe(seconds)
            log.info(
                "request",
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "ms": round(seconds * 1000, 2),
                    "client": (scope.get("client") or ("",))[0],
                },
            )
