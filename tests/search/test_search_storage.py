"""The claims table decides races; storages wait for a database that is away."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy.exc

from contest.errors import UsageError
from search.study.storage import (
    ClaimTable,
    PatientStorage,
    StorageGoneError,
    StudyFullError,
    open_storage,
    patient,
    storage_url,
)


def _claims(directory: Path) -> ClaimTable:
    return ClaimTable(open_storage(storage_url(None, directory)), "study")


def test_a_key_has_one_owner_and_takes_one_slot(tmp_path: Path) -> None:
    claims = _claims(tmp_path)
    assert claims.claim("a:0", 1, slots=2) == 1
    assert claims.claim("a:0", 2, slots=2) == 1
    assert claims.claim("b:0", 3, slots=2) == 3
    assert claims.claim("a:1", 4) == 4  # a promotion takes no slot
    assert claims.taken() == 2
    with pytest.raises(StudyFullError):
        claims.claim("c:0", 5, slots=2)


def test_a_dead_owner_is_succeeded_once(tmp_path: Path) -> None:
    claims = _claims(tmp_path)
    claims.claim("a:0", 1, slots=2)
    assert claims.take_over("a:0", 1, 7)
    assert not claims.take_over("a:0", 1, 8)
    assert claims.owner("a:0") == 7


def test_studies_share_a_database(tmp_path: Path) -> None:
    storage = open_storage(storage_url(None, tmp_path))
    assert ClaimTable(storage, "one").claim("a:0", 1, slots=1) == 1
    assert ClaimTable(storage, "two").claim("a:0", 1, slots=1) == 1


def _race(directory: str, worker: int, queue: multiprocessing.Queue[tuple[int, int]]) -> None:
    claims = _claims(Path(directory))
    won = 0
    for number in range(20):
        try:
            won += claims.claim(f"{number}:0", worker, slots=15) == worker
        except StudyFullError:
            break
    queue.put((worker, won))


def test_processes_that_race_share_the_slots_without_a_double(tmp_path: Path) -> None:
    _claims(tmp_path)
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[tuple[int, int]] = context.Queue()
    workers = [context.Process(target=_race, args=(str(tmp_path), w, queue)) for w in (1, 2, 3)]
    for worker in workers:
        worker.start()
    won = dict(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert sum(won.values()) == 15


def test_a_call_is_repeated_while_the_database_is_away() -> None:
    calls = []

    def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise sqlalchemy.exc.OperationalError("select", {}, sqlite3.OperationalError("gone"))
        return "here"

    assert patient(flaky)() == "here"
    assert len(calls) == 3


def test_a_database_that_stays_away_is_named_in_the_error() -> None:
    def gone() -> None:
        raise sqlalchemy.exc.OperationalError("select", {}, sqlite3.OperationalError("connection refused"))

    with pytest.raises(StorageGoneError, match=r"connection refused.*--resume"):
        patient(gone, patience_s=0.0)()


def test_other_errors_are_not_waited_for() -> None:
    def wrong() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        patient(wrong)()


def test_urls(tmp_path: Path) -> None:
    assert storage_url(None, tmp_path) == f"sqlite:///{tmp_path.resolve()}/study.db"
    assert storage_url("postgresql://u:p@h/d", tmp_path) == "postgresql+psycopg://u:p@h/d"
    with pytest.raises(UsageError, match="not a database URL"):
        storage_url("somewhere", tmp_path)


def test_every_access_of_optunas_cache_waits_for_the_database() -> None:
    """Optuna's cache calls the storage's private methods too: one that does not wait ends a worker."""
    import inspect
    import re

    from optuna.storages import _cached_storage

    called = set(re.findall(r"_backend\.([a-z_]+)\(", inspect.getsource(_cached_storage)))
    settings_only = {"get_heartbeat_interval", "get_heartbeat_stale_trial_callback"}
    assert len(called) > 10
    for name in called - settings_only:
        assert hasattr(getattr(PatientStorage, name), "__wrapped__"), name
