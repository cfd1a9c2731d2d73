"""Where a study is kept: SQLite for one machine, PostgreSQL for many, and what Optuna leaves to us there.

`PatientStorage` is Optuna's relational storage that waits for a database that is away. `ClaimTable` is one
more table in the same database; its unique keys make "who runs this candidate" an atomic decision.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialModel, TrialParamModel
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from contest.errors import ContestError, UsageError, command
from contest.files import why_unwritable

log = logging.getLogger("search")

PATIENCE_S = 300.0
"""How long a database may be away before a worker gives up."""

T = TypeVar("T")


class StorageGoneError(ContestError):
    """The study's database has been away for longer than we wait."""


class UnwritableError(ContestError):
    """Nothing can be written in the study's directory: it is gone, read-only, or its disk is full."""

    exit_code = 1


class StudyFullError(ContestError):
    """Every trial that the study was asked for has been started."""


def patient(function: Callable[..., T], patience_s: float = PATIENCE_S) -> Callable[..., T]:
    """Call again while the database cannot be reached (restart, fail-over, network), for `patience_s`.

    A statement whose commit was lost on the way back is run twice. For Optuna's storage that is harmless:
    attributes and parameters are set, not added; a trial that was created twice stays empty and is reaped.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> T:
        pause, deadline = 0.2, time.monotonic() + patience_s
        while True:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not _away(error):
                    raise
                problem = _broken_file(error)
                if problem is not None:
                    raise UnwritableError(f"the study's database cannot be used: {problem}") from error
                if time.monotonic() > deadline:
                    raise StorageGoneError(
                        f"the study's database has not answered for {patience_s:.0f} s ({_root(error)}); "
                        "start it and run the same command with --resume"
                    ) from error
                log.warning("the study's database is away (%s); trying again in %.1f s", _root(error), pause)
                time.sleep(pause)
                pause = min(2 * pause, 5.0)

    return call


def _away(error: BaseException | None) -> bool:
    """Whether `error` says that the database could not be reached, directly or as a cause."""
    while error is not None:
        if isinstance(error, OperationalError) or (isinstance(error, DBAPIError) and error.connection_invalidated):
            return True
        error = error.__cause__ or error.__context__
    return False


def _broken_file(error: BaseException | None) -> str | None:
    """What is wrong with an SQLite file for which waiting is no use (a full disk, a folder that is gone)."""
    while error is not None:
        text = str(error).strip()
        if isinstance(error, sqlite3.OperationalError) and "locked" not in text and "busy" not in text:
            return text
        error = error.__cause__ or error.__context__
    return None


def check_writable(directory: Path, cause: BaseException | None = None) -> None:
    """Raise UnwritableError, with what to do, if nothing can be written in the study's directory."""
    problem = why_unwritable(directory)
    if problem is not None:
        raise UnwritableError(
            f"nothing can be written in {directory} ({problem}): mend that, then go on with "
            f"{command('search', '--resume', '--study', directory)}"
        ) from cause


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


class PatientStorage(RDBStorage):
    """Optuna's `RDBStorage`, every database access of which waits for a database that is away.

    A trial of ours has some 25 parameters, and Optuna writes each in a transaction of its own after asking twice
    whether it may: `together` gathers them into one.
    """

    _gathered: list[tuple[int, str, float, BaseDistribution]] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Parameters that are set inside are written at the end, in one transaction. Not for several threads."""
        self._gathered = []
        try:
            yield
            if self._gathered:
                patient(self._write)(self._gathered)
        finally:
            self._gathered = None

    def holds(self, name: str) -> bool:
        """Whether there is a study with that name."""
        try:
            self.get_study_id_from_name(name)
        except KeyError:
            return False
        return True

    def count(self, study_id: int, state: TrialState) -> int:
        """How many trials of the study are in `state`, without reading them."""
        mine = (TrialModel.study_id == study_id) & (TrialModel.state == state)
        statement = sa.select(sa.func.count()).select_from(TrialModel).where(mine)

        def ask() -> int:
            with self.engine.connect() as connection:
                return int(connection.execute(statement).scalar() or 0)

        return patient(ask)()

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        if self._gathered is None or previous_distribution is None:  # Optuna compares it with what is stored
            super()._set_trial_param(trial_id, param_name, param_value_internal, distribution, previous_distribution)
            return
        check_distribution_compatibility(previous_distribution, distribution)
        self._gathered.append((trial_id, param_name, param_value_internal, distribution))

    def _write(self, gathered: list[tuple[int, str, float, BaseDistribution]]) -> None:
        rows = [
            {"trial_id": t, "param_name": n, "param_value": v, "distribution_json": distribution_to_json(d)}
            for t, n, v, d in gathered
        ]
        table = sa.inspect(TrialParamModel).local_table
        # A commit whose answer was lost is repeated: then the rows are there already.
        again = table.c.trial_id.in_({r["trial_id"] for r in rows}) & table.c.param_name.in_(
            [r["param_name"] for r in rows]
        )
        with self.engine.begin() as connection:
            connection.execute(sa.delete(table).where(again))
            connection.execute(sa.insert(table), rows)


for _name in (
    "create_new_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "get_all_studies",
    "create_new_trial",
    "_create_new_trial",
    "set_trial_param",
    "_set_trial_param",
    "set_trial_intermediate_value",
    "delete_study",
    "get_trial_id_from_study_id_trial_number",
    "_get_best_trial_id",
    "set_trial_state_values",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial",
    "get_all_trials",
    "_get_trials",
    "record_heartbeat",
    "_get_stale_trial_ids",
):
    setattr(PatientStorage, _name, patient(getattr(PatientStorage, _name)))


def storage_url(url: str | None, directory: Path) -> str:
    """`url`, or SQLite in the study directory; `postgresql://` is given the driver that is installed.

    Raises UsageError for a database that needs a driver we do not bring.
    """
    if url is None:
        return f"sqlite:///{(directory / 'study.db').resolve()}"
    scheme, separator, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise UsageError(f"--storage {url}: install the driver: pip install 'contest[postgres]'") from error
        return f"postgresql+psycopg://{rest}"
    if not separator:
        raise UsageError(f"--storage {url}: not a database URL such as postgresql://user:password@host/name")
    return url


def is_missing_file(url: str) -> bool:
    """Whether `url` names an SQLite file that does not exist: opening it would make it."""
    found = sa.make_url(url)
    own = found.get_backend_name() == "sqlite" and found.database not in (None, "", ":memory:")
    return own and not Path(str(found.database)).exists()


def open_storage(url: str, *, heartbeat_s: int = 30, grace_s: int = 180) -> PatientStorage:
    """A storage with heartbeats: a trial silent for `grace_s` seconds is dead and may be run by another.

    Raises StorageGoneError if the database cannot be reached.
    """
    sqlite = url.startswith("sqlite")
    engine_kwargs: dict[str, Any] = (
        {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True, "pool_size": 4}
    )
    with _quiet():
        storage = patient(PatientStorage)(
            url, engine_kwargs=engine_kwargs, heartbeat_interval=heartbeat_s, grace_period=grace_s
        )
    if sqlite:
        _tune_sqlite(storage)
    return storage


def _tune_sqlite(storage: RDBStorage) -> None:
    """Transactions that exclude each other, and commits that cost a fraction of a millisecond.

    A committed trial survives kill -9 in WAL mode (only power loss can take the last one). Transactions
    take the write lock when they begin: with SQLite's default two workers may both see a trial waiting.
    """

    @sa.event.listens_for(storage.engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @sa.event.listens_for(storage.engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna calls heartbeats experimental each time; once known, that is noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


_METADATA = sa.MetaData()
_CLAIMS = sa.Table(
    "contest_claims",
    _METADATA,
    sa.Column("study", sa.String(255), primary_key=True),
    sa.Column("key", sa.String(128), primary_key=True),
    sa.Column("slot", sa.Integer, nullable=True),
    sa.Column("trial", sa.Integer, nullable=False),
    sa.UniqueConstraint("study", "slot"),
)


class ClaimTable:
    """Which Optuna trial runs which work (a candidate up to a rung). Unique keys decide races.

    A *slot* is one of the trials that the study was asked for; each new candidate takes the next.
    """

    def __init__(self, storage: RDBStorage, study: str) -> None:
        self._engine = storage.engine
        self._study = study
        patient(_METADATA.create_all)(self._engine, checkfirst=True)

    def claim(self, key: str, trial: int, *, slots: int | None = None, dead: Collection[int] = ()) -> int:
        """The number of the trial that owns `key`: `trial` itself if it was free or is taken over from one of `dead`.

        With `slots`, a free key also takes one of that many slots. Raises StudyFullError when none is left.
        """
        while True:
            owner = self.owner(key)
            if owner is not None and owner not in dead:
                return owner
            if owner is not None:
                if self.take_over(key, owner, trial):
                    return trial
                continue  # another worker was faster: look again
            slot = None
            if slots is not None:
                slot = self.taken()
                if slot >= slots:
                    raise StudyFullError(f"all {slots} trials have been started")
            try:
                self._execute(_CLAIMS.insert().values(study=self._study, key=key, slot=slot, trial=trial))
            except IntegrityError:
                continue  # another worker was faster with this key or this slot: look again
            return trial

    def take_over(self, key: str, dead: int, trial: int) -> bool:
        """Give `key` from the trial `dead` to `trial`; False if another worker has done so already."""
        mine = (_CLAIMS.c.study == self._study) & (_CLAIMS.c.key == key) & (_CLAIMS.c.trial == dead)
        return self._execute(_CLAIMS.update().where(mine).values(trial=trial)) == 1

    def owner(self, key: str) -> int | None:
        where = (_CLAIMS.c.study == self._study) & (_CLAIMS.c.key == key)
        return self._scalar(sa.select(_CLAIMS.c.trial).where(where))

    def taken(self) -> int:
        """How many slots are taken."""
        where = (_CLAIMS.c.study == self._study) & (_CLAIMS.c.slot.is_not(None))
        return self._scalar(sa.select(sa.func.count()).select_from(_CLAIMS).where(where)) or 0

    @functools.cached_property
    def _execute(self) -> Callable[[Any], int]:
        def run(statement: Any) -> int:
            with self._engine.begin() as connection:
                return int(connection.execute(statement).rowcount)

        return patient(run)

    @functools.cached_property
    def _scalar(self) -> Callable[[Any], int | None]:
        def run(statement: Any) -> int | None:
            with self._engine.connect() as connection:
                value = connection.execute(statement).scalar()
            return None if value is None else int(value)

        return patient(run)
