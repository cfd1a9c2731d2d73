"""Take part in a study from its directory: open it to read, or work on it until it ends."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from search.space.space import Space, make_space
from search.study.settings import Settings
from search.study.storage import open_storage, storage_url
from search.study.study import FINISHED, Study
from search.trainers.isolated import IsolatedTrainer
from search.workers.worker import work_until_done


def open_study(directory: Path, storage: str | None = None) -> Study:
    """The study in a directory, for reading or working. Raises UsageError if there is none."""
    settings = Settings.load(directory)
    url = storage_url(storage or settings.storage, directory)
    opened = open_storage(url, heartbeat_s=settings.heartbeat_s, grace_s=settings.grace_s)
    return Study(directory, settings, Space({}), opened)


def run_worker(directory: Path, storage: str | None, device: str, *, stay: bool) -> int:
    """`contest worker`: work on the study until it is finished (or, without `stay`, until nothing is left)."""
    study = open_study(directory, storage)
    trainer = IsolatedTrainer(study.settings, directory, device=device)
    study.space = make_space(trainer.image_shape, study.settings.narrowed, taught=study.settings.taught)
    os.environ.setdefault("CONTEST_WORKER", f"{socket.gethostname()}:{os.getpid()}")  # or it would propose like others
    try:
        return work_until_done(study, trainer, stay=lambda: stay and not study.optuna.user_attrs.get(FINISHED, False))
    finally:
        trainer.close()
