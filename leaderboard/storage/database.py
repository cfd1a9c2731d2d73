"""The database: SQLite by default, PostgreSQL for many users; the schema is migrated and checked at start.

What is the same for everybody until a ranking changes is made once for each revision, and kept in a `Cache`.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    Dialect,
    Engine,
    MetaData,
    TypeDecorator,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Session

from contest.errors import ContestError, UsageError
from leaderboard.settings import BoardSettings

T = TypeVar("T")


class Cache(Generic[T]):
    """The `size` values used last, one version of each. One thread makes a value while others that want it wait."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[Hashable, tuple[Hashable, T]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, version: Hashable, make: Callable[[], T]) -> T:
        """The value of a key at a version. What `make` raises is raised, and nothing is kept."""
        with self._lock:
            if (found := self._find(key, version)) is not None:
                return found[1]
            making = self._making.setdefault((key, version), threading.Lock())
        with making:
            with self._lock:
                if (found := self._find(key, version)) is not None:
                    return found[1]
            try:
                value = make()
            finally:
                with self._lock:
                    self._making.pop((key, version), None)
            with self._lock:
                self._values[key] = (version, value)
                self._values.move_to_end(key)
                while len(self._values) > self.size:
                    self._values.popitem(last=False)
            return value

    def _find(self, key: Hashable, version: Hashable) -> tuple[Hashable, T] | None:
        found = self._values.get(key)
        if found is None or found[0] != version:
            return None
        self._values.move_to_end(key)
        return found


_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x636F6E74  # any number that no other program locks: several services may start at once
_CACHED = 32


class DatabaseError(ContestError):
    """The database cannot be reached or is not one that this version understands."""


class Database:
    """Connections to one leaderboard.

    `read()` and `write()` give a session in a transaction; `write()` commits at the end of the block. A writer on
    SQLite takes the write lock at once: upgrading a read lock later could fail half way.

    Sessions for reading carry a cache for what is the same until a contest's revision changes. Those for writing do
    not: what they see may never be committed, and then its revision number would name something else.
    """

    def __init__(self, settings: BoardSettings) -> None:
        url = settings.database_url
        try:
            self.engine = _engine(url)
        except (ArgumentError, ModuleNotFoundError) as error:
            raise UsageError(f"database '{make_safe(url)}' cannot be used: {error}") from error
        self._writing = self.engine.execution_options(immediate=True)
        self._cache = Cache[Any](_CACHED)

    @property
    def sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one consistent state; nothing is committed."""
        with Session(self.engine, expire_on_commit=False, info={"cache": self._cache}) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed at the end of the block, or rolled back when the block raises."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Bring the schema to this version. Raises DatabaseError when the database is newer or out of reach."""
        try:
            with self._writing.begin() as connection:
                if not self.sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                config = _config(connection)
                current = MigrationContext.configure(connection).get_current_revision()
                scripts = ScriptDirectory.from_config(config)
                if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
                    raise DatabaseError(
                        f"the database is at revision '{current}', which this version does not know "
                        f"(newest: '{scripts.get_current_head()}'): install the newer version that made it"
                    )
                if current != scripts.get_current_head():
                    command.upgrade(config, "head")
        except OperationalError as error:
            raise DatabaseError(
                f"database '{make_safe(str(self.engine.url))}' is out of reach: {error.orig}"
            ) from error
        except CommandError as error:
            raise DatabaseError(f"the migration failed: {error}") from error

    def revision(self) -> str | None:
        """The schema's revision, None in an empty database."""
        with self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def ready(self) -> None:
        """Raise DatabaseError unless the database answers and has this version's schema."""
        head = ScriptDirectory.from_config(_config(None)).get_current_head()
        try:
            revision = self.revision()
        except OperationalError as error:
            raise DatabaseError("the database does not answer") from error
        if revision != head:
            raise DatabaseError(f"the database is at revision '{revision}', this version needs '{head}'")

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def open_database(settings: BoardSettings) -> Database:
    """Make the directory when it is missing, connect, migrate."""
    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(settings)
    database.migrate()
    return database


def make_safe(url: str) -> str:
    """A database URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url.partition("://")[0] + "://..."


def _engine(url: str) -> Engine:
    backend = make_url(url).get_backend_name()
    if backend == "sqlite":
        engine = create_engine(url, pool_size=8, max_overflow=8, connect_args={"timeout": 30})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if backend == "postgresql":
        # A connection that a restarted server has dropped is noticed at checkout, not by a participant.
        return create_engine(url, pool_size=8, max_overflow=40, pool_pre_ping=True, connect_args={"connect_timeout": 5})
    raise UsageError(f"database '{make_safe(url)}' is neither sqlite:///... nor postgresql://...")


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin below, not where the driver thinks
    cursor = connection.cursor()
    # WAL: readers and the writer do not wait for each other. FULL: a committed submission survives a power cut.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "cache_size = -8000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    # Not every build of SQLite has it.
    connection.create_function("floor", 1, lambda x: None if x is None else math.floor(x), deterministic=True)


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


class Utc(TypeDecorator[datetime]):
    """Aware UTC in Python, plain UTC in the database (SQLite keeps no time zones)."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Fixed constraint names, so that migrations can address them on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Utc, dict[str, Any]: JSON}  # noqa: RUF012
