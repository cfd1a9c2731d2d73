"""The queue, and what its workers do: a submission from claim to end, whatever happens on the way.

huey carries messages, `domain.queue` decides. huey takes a message out of its table before the task runs, so a worker
that is killed loses the message. Therefore a message only wakes a worker, which takes the submission whose turn it is,
whatever number the message has: so one that comes back to the queue keeps its place. The row's state and lease are the
truth, a message too many does nothing, and `sweep` announces again what was lost. huey was chosen over procrastinate
since it has both storages that are needed, SQLite and PostgreSQL (LISTEN/NOTIFY), without a second driver or a service.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huey import Huey, PostgresHuey, SqliteHuey
from huey.consumer import Consumer, Scheduler
from huey.registry import Message
from huey.serializer import Serializer
from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy.exc import DBAPIError

from contest.errors import ContestError, DataError, RefusedError, UsageError
from leaderboard.domain import final, queue
from leaderboard.domain.final import FinalClaim
from leaderboard.domain.queue import Claim
from leaderboard.domain.standings import Verdict, judge
from leaderboard.settings import BoardSettings
from leaderboard.storage.database import Database
from leaderboard.storage.file_store import FileStore
from leaderboard.storage.tables import State
from scoring.report import Report
from scoring.rules import Rule

if TYPE_CHECKING:
    from contest.datasets import Images


Scorer = Callable[[Path, Rule, str], Report]
"""From a file, a rule and the weakest isolation allowed (empty: any) to the report.

RefusedError: the file is to blame; anything else: we are.
"""


def file_scorer(data: Path | None) -> Scorer:
    """The real thing. Images are loaded once and stay in memory (CIFAR-10: 31 MB)."""
    load = functools.cache(functools.partial(_test_images, data))

    def score(path: Path, rule: Rule, isolation: str) -> Report:
        from scoring.score import score_file

        images, classes = load(rule.dataset)
        return score_file(
            path, images=images, rule=rule, trust=False, classes=classes, details=True, minimum_level=isolation or None
        )

    return score


def _test_images(data: Path | None, dataset: str) -> tuple[Images, tuple[str, ...]]:
    from contest.datasets import load  # torch takes seconds to import: only a worker needs it

    loaded = load(dataset, data, download=False)
    if loaded.test is None:
        raise DataError(f"data set '{dataset}' has no test images; give the worker's --data a folder that has them")
    return loaded.test, loaded.classes


log = logging.getLogger("leaderboard.scoring_queue")
RETRY_S = 1.0
_OUR_FAULT = "this does not count against your quota"


class ScoringWork:
    """What a worker does with a submission; several threads may share it."""

    def __init__(
        self, settings: BoardSettings, database: Database, files: FileStore, scorer: Scorer | None = None
    ) -> None:
        self.settings, self.database, self.files = settings, database, files
        self.scorer = scorer or file_scorer(settings.data)
        self.on_end: Callable[[State, float], None] = lambda state, seconds: None
        self._active: dict[str, Claim | FinalClaim] = {}

    def score(self, submission_id: int | None = None) -> None:
        """Score one submission if it is still waiting; None: the one whose turn it is, if any."""
        with self.database.write() as session:
            claim = queue.claim(session, submission_id, self.settings.worker_name, self.settings.lease_s)
        if claim is None:
            if submission_id is None:
                self._score_final()
            return
        submission_id, started = claim.submission_id, time.monotonic()
        self._active[claim.name] = claim
        try:
            with self._heartbeat(claim):
                state = self._finish(claim, self._verdict(claim))
        finally:
            self._active.pop(claim.name, None)
        if state is None:
            log.warning("submission %d was taken over meanwhile; result dropped", submission_id)
            return
        seconds = time.monotonic() - started
        self.on_end(state, seconds)
        extra = {"submission": submission_id, "state": state, "seconds": round(seconds, 3)}
        log.info("submission %d is %s", submission_id, state, extra=extra)

    def _score_final(self) -> None:
        """Score what is due in a final phase; no state, no figure and no metric of it goes anywhere but its row."""
        with self.database.write() as session:
            claim = final.claim(session, self.settings.worker_name, self.settings.lease_s)
        if claim is None:
            return
        self._active[claim.name] = claim
        try:
            with self._heartbeat(claim):
                self._finish(claim, self._verdict(claim))
        finally:
            self._active.pop(claim.name, None)
        log.info("final result %d is done", claim.id)

    def release(self) -> None:
        """Give back what this process is still scoring: when it stops."""
        for claim in list(self._active.values()):
            with contextlib.suppress(DBAPIError), self.database.write() as session:  # else the lease runs out
                if isinstance(claim, FinalClaim):
                    final.release(session, claim)
                else:
                    queue.release(session, claim)
            log.info("submission %d goes back to the queue", claim.submission_id)

    def _verdict(self, claim: Claim | FinalClaim) -> Verdict:
        try:
            if not self.files.verify(claim.sha256):
                log.error("file %s of submission %d is missing or damaged", claim.sha256, claim.submission_id)
                return Verdict(State.FAILED, "the stored file is missing or damaged", our_fault=True)
            with self.files.opened_as(claim.sha256, claim.file_name) as path:
                try:
                    return judge(self.scorer(path, claim.rule, claim.isolation), claim.rule)
                except RefusedError as error:
                    # The reader knows the file by our name for it, the team by its own.
                    told = str(error).replace(str(path), path.name).replace(path.name, claim.file_name)
                    return Verdict(State.REFUSED, told)
        except UsageError as error:  # no test data, a wrong folder: the same the next time
            log.error("submission %d cannot be scored here: %s", claim.submission_id, error)
        except (ContestError, OSError, MemoryError) as error:  # no time, no memory, no process
            log.warning("submission %d could not be scored: %s", claim.submission_id, error)
            reason = f"this machine could not score it; {_OUR_FAULT}"
            return Verdict(State.FAILED, reason, our_fault=True, again=True)
        except Exception:
            # Not narrower: torch and the readers raise what they like, and whatever it is, the submission must end in
            # a state. Its owner gets no traceback.
            log.exception("scoring submission %d failed", claim.submission_id)
        return Verdict(State.FAILED, f"scoring failed through no fault of yours; {_OUR_FAULT}", our_fault=True)

    def _finish(self, claim: Claim | FinalClaim, verdict: Verdict) -> State | None:
        """Store the verdict, however long the database is away: past the lease another worker does it again."""
        deadline = time.monotonic() + 10 * self.settings.lease_s
        while True:
            try:
                with self.database.write() as session:
                    if isinstance(claim, FinalClaim):
                        return final.finish(session, claim, verdict, self.settings.attempts)
                    return queue.finish(session, claim, verdict, self.settings.attempts)
            except DBAPIError as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("submission %d cannot be stored yet: %s", claim.submission_id, error.orig)
                time.sleep(RETRY_S)

    @contextlib.contextmanager
    def _heartbeat(self, claim: Claim | FinalClaim) -> Iterator[None]:
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self.settings.lease_s / 3):
                try:
                    with self.database.write() as session:
                        lease_s = self.settings.lease_s
                        if isinstance(claim, FinalClaim):
                            kept = final.heartbeat(session, claim, lease_s)
                        else:
                            kept = queue.heartbeat(session, claim, lease_s)
                        if not kept:
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
            waiting = queue.sweep(session, self.settings.attempts)
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
