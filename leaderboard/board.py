"""A leaderboard, opened: database, files, queue and secret of one deployment, for the service and the command line."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from leaderboard.domain import submissions
from leaderboard.scoring_queue.queue import Jobs
from leaderboard.scoring_queue.score_submission import Work
from leaderboard.scoring_queue.scorer import Scorer
from leaderboard.settings import Settings
from leaderboard.storage.database import Database, open_database
from leaderboard.storage.file_store import FileStore, StoredFile
from leaderboard.storage.signer import Signer, load_signer
from leaderboard.storage.tables import Contest, State, Submission, Team

log = logging.getLogger("leaderboard.board")
_LEFTOVER_S = 24 * 3600


@dataclass(frozen=True)
class Board:
    """Everything that one process of a deployment holds."""

    settings: Settings
    database: Database
    files: FileStore
    signer: Signer
    work: Work
    jobs: Jobs

    def submit(
        self, contest: Contest, team: Team, stored: StoredFile, *, name: str = "", note: str = ""
    ) -> tuple[Submission, bool]:
        """Enter a stored file and wake a worker: gives the submission and whether it is new."""
        with self.database.write() as session:
            submission, new = submissions.enter(session, contest, team, stored, name=name, note=note)
        if submission.state == State.QUEUED:
            self.jobs.announce(submission.id)
        return submission, new

    def close(self) -> None:
        """Let go of the database and the queue."""
        self.jobs.close()
        self.database.close()


def open_board(settings: Settings, scorer: Scorer | None = None) -> Board:
    """Migrate, check and open a deployment. `scorer` is for tests; the default is the isolated scoring of files."""
    database = open_database(settings)
    files = FileStore(Path(settings.files))
    removed = files.sweep(time.time() - _LEFTOVER_S)
    if removed:
        log.info("removed %d interrupted uploads", removed)
    work = Work(settings, database, files, scorer)
    return Board(settings, database, files, load_signer(settings.directory), work, Jobs(settings, database, work))
