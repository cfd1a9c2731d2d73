"""What an operator sees: one JSON object a log line, Prometheus metrics, a request id on every answer."""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leaderboard.storage.tables import State

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
