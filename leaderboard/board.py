"""A leaderboard, opened: database, files, queue and secret of one deployment, for the service and the command line.

`run_worker` is a process on it that does nothing but score.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from leaderboard.domain import submissions
from leaderboard.domain.submissions import QuotaError
from leaderboard.domain.tokens import Signer, load_signer
from leaderboard.scoring_queue import Jobs, Scorer, ScoringWork
from leaderboard.settings import BoardSettings
from leaderboard.storage.database import Database, open_database
from leaderboard.storage.file_store import FileStore, Incoming
from leaderboard.storage.tables import Contest, State, Submission, Team
from scoring.sandbox.namespaces import check_private

log = logging.getLogger("leaderboard.board")
_LEFTOVER_S = 24 * 3600
_HEALTH_S = 10
UPLOADS_AT_ONCE = 10
"""Of one team: what has not yet arrived takes room on the disk, too."""


@dataclass(frozen=True)
class Board:
    """Everything that one process of a deployment holds."""

    settings: BoardSettings
    database: Database
    files: FileStore
    signer: Signer
    work: ScoringWork
    jobs: Jobs
    _uploads: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(
        self,
        contest: Contest,
        team: Team,
        incoming: Incoming,
        *,
        name: str = "",
        note: str = "",
        at: datetime | None = None,
    ) -> tuple[Submission, bool]:
        """Enter a file that has arrived and wake a worker: gives the submission and whether it is new."""
        submission, new = enter_file(self.database, contest, team, incoming, name=name, note=note, at=at)
        if submission.state == State.QUEUED:
            self.jobs.announce(submission.id)
        return submission, new

    @contextlib.contextmanager
    def uploading(self, team: Team) -> Iterator[None]:
        """Counts the uploads of a team that are under way in this process. Raises QuotaError for one too many."""
        with self._lock:
            if self._uploads[team.id] >= UPLOADS_AT_ONCE:
                raise QuotaError(
                    f"{UPLOADS_AT_ONCE} uploads of team '{team.name}' are under way; wait until one has ended"
                )
            self._uploads[team.id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._uploads[team.id] -= 1
                if not self._uploads[team.id]:
                    del self._uploads[team.id]

    def close(self) -> None:
        """Let go of the database and the queue."""
        self.jobs.close()
        self.database.close()


def enter_file(
    database: Database,
    contest: Contest,
    team: Team,
    incoming: Incoming,
    *,
    name: str = "",
    note: str = "",
    at: datetime | None = None,
) -> tuple[Submission, bool]:
    """Enter a file that has arrived: gives the submission and whether it is new.

    The file is brought to its address only when its row is sure to be taken, and before the row is committed: no row
    is without its file, and what is refused leaves nothing.
    """
    stored = incoming.seal()
    with database.write() as session:
        submission, new = submissions.enter(session, contest, team, stored, name=name, note=note, at=at)
        incoming.keep()
    return submission, new


def open_board(settings: BoardSettings, scorer: Scorer | None = None) -> Board:
    """Migrate, check and open a deployment. `scorer` is for tests; the default is the isolated scoring of files."""
    private = {"the board's folder": settings.directory}
    if settings.data is not None:
        private["the folder of the data sets"] = settings.data
    check_private(private)
    database = open_database(settings)
    files = FileStore(Path(settings.files))
    removed = files.sweep(time.time() - _LEFTOVER_S)
    if removed:
        log.info("removed %d interrupted uploads", removed)
    work = ScoringWork(settings, database, files, scorer)
    return Board(settings, database, files, load_signer(settings.directory), work, Jobs(settings, database, work))


def run_worker(settings: BoardSettings, threads: int = 1, metrics_port: int = 0, scorer: Scorer | None = None) -> None:
    """Score until SIGTERM or SIGINT; what is not finished 20 seconds later goes back to the queue."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    board = open_board(settings, scorer)
    if metrics_port:
        from prometheus_client import start_http_server

        start_http_server(metrics_port, registry=board.jobs.registry)
    worker = board.jobs.worker(threads)
    worker.start()
    log.info("worker started", extra={"threads": threads})
    while not stopping.wait(_HEALTH_S):
        worker.check_worker_health()
    log.info("worker is stopping")
    worker.stop(graceful=True)
    board.work.release()
    board.close()
