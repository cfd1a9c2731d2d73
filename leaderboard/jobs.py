"""The queue: huey carries messages, `submissions` decides.

huey takes a message out of its table before the task runs, so a worker that is killed loses the message. Therefore a
message only says "look at submission 17": the row's state and lease are the truth, a message too many does nothing,
and `sweep` announces again what was lost. huey was chosen over procrastinate since it has both
storages that are needed, SQLite and PostgreSQL (LISTEN/NOTIFY), without a second driver or a service.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from huey import Huey, PostgresHuey, SqliteHuey
from huey.consumer import Consumer, Scheduler
from huey.registry import Message
from huey.serializer import Serializer
from sqlalchemy.exc import DBAPIError

from contest.errors import RefusedError
from leaderboard import submissions
from leaderboard.database import Database
from leaderboard.files import FileStore
from leaderboard.models import State
from leaderboard.outcome import Outcome, judge
from leaderboard.scorer import Scorer, file_scorer
from leaderboard.settings import Settings
from leaderboard.submissions import Claim

log = logging.getLogger("leaderboard.jobs")


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

    def __init__(self, settings: Settings, database: Database, files: FileStore, scorer: Scorer | None = None) -> None:
        self.settings, self.database, self.files = settings, database, files
        self.scorer = scorer or file_scorer(settings.data)
        self.huey = _huey(settings, database)
        self.huey.sweep_s = settings.sweep_s
        self._score = self.huey.task(name="score")(self.score)
        self.huey.sweep = self.sweep
        self._active: dict[str, Claim] = {}

    def announce(self, submission_id: int) -> None:
        """Wake a worker. A queue out of reach is no error: the sweep announces again."""
        try:
            self._score(submission_id)
        except Exception as error:  # any storage's own exceptions: sqlite3, psycopg
            log.warning("submission %d could not be announced: %s", submission_id, error)

    def score(self, submission_id: int) -> None:
        """Score one submission if it is still waiting: the task of a worker."""
        with self.database.write() as session:
            claim = submissions.claim(session, submission_id, self.settings.worker_name, self.settings.lease_s)
        if claim is None:
            return
        started = time.monotonic()
        self._active[claim.name] = claim
        try:
            with self._heartbeat(claim):
                outcome = self._outcome(claim)
            self._finish(claim, outcome)
        finally:
            self._active.pop(claim.name, None)
        log.info(
            "submission %d is %s",
            submission_id,
            outcome.state,
            extra={
                "submission": submission_id,
                "state": outcome.state,
                "seconds": round(time.monotonic() - started, 3),
            },
        )

    def sweep(self) -> None:
        """Announce what is queued and was never heard of, or was lost by a dead worker."""
        with self.database.write() as session:
            waiting = submissions.sweep(session, self.settings.attempts)
        for submission_id in waiting:
            self.announce(submission_id)

    def worker(self, threads: int) -> Worker:
        """A consumer with so many scoring threads; `start()` and `stop(graceful=True)` it."""
        return Worker(self.huey, workers=threads, max_delay=0.5, scheduler_interval=1, shutdown_timeout=20)

    def release(self) -> None:
        """Give back what this process was scoring: after the worker was stopped."""
        for claim in list(self._active.values()):
            with contextlib.suppress(DBAPIError), self.database.write() as session:  # else the lease runs out
                submissions.release(session, claim)
            log.info("submission %d goes back to the queue", claim.submission_id)

    def _outcome(self, claim: Claim) -> Outcome:
        path = self.files.path(claim.sha256)
        try:
            if not self.files.verify(claim.sha256):
                return Outcome(
                    State.FAILED, "the stored file is missing or damaged; organisers were told", our_fault=True
                )
            return judge(self.scorer(path, claim.rule), claim.rule, claim.isolation)
        except RefusedError as error:
            return Outcome(State.REFUSED, str(error).replace(str(path), "the file"))
        except Exception:
            # Whatever a scoring raises, the submission must end in a state. The owner gets no traceback.
            log.exception("scoring submission %d failed", claim.submission_id)
            reason = "scoring failed through no fault of yours; this does not count against your quota"
            return Outcome(State.FAILED, reason, our_fault=True)

    def _finish(self, claim: Claim, outcome: Outcome) -> None:
        """Store the outcome, however long the database is away: past the lease another worker does it again."""
        deadline = time.monotonic() + 10 * self.settings.lease_s
        while True:
            try:
                with self.database.write() as session:
                    if not submissions.finish(session, claim, outcome):
                        log.warning("submission %d was taken over meanwhile; result dropped", claim.submission_id)
                return
            except DBAPIError as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("submission %d cannot be stored yet: %s", claim.submission_id, error.orig)
                time.sleep(1)

    @contextlib.contextmanager
    def _heartbeat(self, claim: Claim) -> Iterator[None]:
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self.settings.lease_s / 3):
                try:
                    with self.database.write() as session:
                        if not submissions.heartbeat(session, claim, self.settings.lease_s):
                            return
                except DBAPIError as error:
                    log.warning("heartbeat of submission %d: %s", claim.submission_id, error.orig)

        thread = threading.Thread(target=beat, name=f"heartbeat-{claim.submission_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _huey(settings: Settings, database: Database) -> Huey:
    common: dict[str, Any] = {"name": "contest", "results": False, "serializer": JsonSerializer()}
    if database.sqlite:
        return SqliteHuey(filename=str(settings.directory / "queue.sqlite"), timeout=30, **common)
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return PostgresHuey(dsn=url, **common)
