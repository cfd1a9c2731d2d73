"""The queue: huey carries messages, `submissions` decides.

huey takes a message out of its table before the task runs, so a worker that is killed loses the message. Therefore a
message only wakes a worker, which takes the submission whose turn it is, whatever number the message has: so one that
comes back to the queue keeps its place. The row's state and lease are the truth, a message too many does nothing, and
`sweep` announces again what was lost. huey was chosen over procrastinate since it has both storages that are needed,
SQLite and PostgreSQL (LISTEN/NOTIFY), without a second driver or a service.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

from huey import Huey, PostgresHuey, SqliteHuey
from huey.consumer import Consumer, Scheduler
from huey.registry import Message
from huey.serializer import Serializer
from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy.exc import DBAPIError

from leaderboard.domain import final, submissions
from leaderboard.scoring_queue.score_submission import ScoringWork
from leaderboard.settings import BoardSettings
from leaderboard.storage.database import Database
from leaderboard.storage.tables import State

log = logging.getLogger("leaderboard.scoring_queue.queue")


class JsonSerializer(Serializer):
    """Messages as JSON: huey's own are pickles, which run code when somebody can write into the queue's table."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(tuple(data)).encode()

    def _deserialize(self, data: bytes) -> Any:
        return Message(*json.loads(data))


class Sweeper(Scheduler):
    """huey's scheduler, sweeping itself: in the queue, a sweep would wait behind the work that it should rescue."""

    def __init__(self, huey: Huey, stop_flag: threading.Event, interval: int, periodic: bool) -> None:
        super().__init__(huey, stop_flag, interval, periodic)
        self.periodic_task_seconds = huey.sweep_s

    def enqueue_periodic_tasks(self, now: object = None) -> None:
        try:
            self.huey.sweep()
        except DBAPIError as error:
            log.warning("no sweep, the database is out of reach: %s", error.orig)


class Worker(Consumer):
    """A consumer in threads. The program around it (uvicorn, the command line) handles signals."""

    scheduler_class = Sweeper

    def _set_signal_handlers(self) -> None:
        pass


class Jobs:
    """Announces submissions to workers, and is a worker where `worker()` is started."""

    def __init__(self, settings: BoardSettings, database: Database, work: ScoringWork) -> None:
        self.settings, self.database, self.work = settings, database, work
        self.huey = _huey(settings, database)
        self.huey.sweep_s, self.huey.sweep = settings.sweep_s, self.sweep
        self._score = self.huey.task(name="score")(lambda submission_id: work.score())
        self.registry = CollectorRegistry()
        scored = Counter("contest_scored", "Scorings by state.", ("state",), registry=self.registry)
        durations = Histogram(
            "contest_scoring_seconds",
            "Time of one scoring.",
            buckets=(0.1, 1, 5, 15, 30, 60, 120, 300, 900),
            registry=self.registry,
        )

        def count(state: State, seconds: float) -> None:
            scored.labels(state).inc()
            durations.observe(seconds)

        work.on_end = count

    def announce(self, submission_id: int) -> None:
        """Wake a worker. A queue out of reach is no error: the sweep announces again."""
        try:
            self._score(submission_id)
        except Exception as error:  # any storage's own exceptions: sqlite3, psycopg
            log.warning("submission %d could not be announced: %s", submission_id, error)

    def sweep(self) -> None:
        """Announce what is queued and was never heard of, or was lost by a dead worker."""
        with self.database.write() as session:
            waiting = submissions.sweep(session, self.settings.attempts)
            final.begin_due(session)
            waiting += [0] * final.sweep(session)  # any message wakes a worker
        for submission_id in waiting:
            self.announce(submission_id)

    def close(self) -> None:
        """Let go of the queue's tables."""
        self.huey.storage.close()

    def worker(self, threads: int) -> Worker:
        """A consumer with so many scoring threads; `start()` and `stop(graceful=True)` it."""
        return Worker(self.huey, workers=threads, max_delay=0.5, scheduler_interval=1, shutdown_timeout=20)


def _huey(settings: BoardSettings, database: Database) -> Huey:
    common: dict[str, Any] = {"name": "contest", "results": False, "serializer": JsonSerializer()}
    if database.sqlite:
        return SqliteHuey(filename=str(settings.directory / "queue.sqlite"), timeout=30, **common)
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return PostgresHuey(dsn=url, **common)
