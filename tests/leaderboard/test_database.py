"""Migrations: applied at start, from every earlier version, and equal to the models."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, text

from contest.errors import UsageError
from leaderboard.settings import BoardSettings
from leaderboard.storage.database import Base, Database, DatabaseError, _config, make_safe, open_database

OURS = set(Base.metadata.tables)


def revisions() -> list[str]:
    return [script.revision for script in ScriptDirectory.from_config(_config(None)).walk_revisions()]


def differences(database: Database) -> list[object]:
    def ours(name: str | None, kind: str, parents: object) -> bool:
        return kind != "table" or name in OURS  # huey has tables of its own

    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_name": ours, "target_metadata": Base.metadata}
        )
        return list(compare_metadata(context, Base.metadata))


def test_the_migrated_schema_is_that_of_the_models(any_settings: BoardSettings) -> None:
    database = open_database(any_settings)
    assert differences(database) == []
    database.ready()
    database.close()


@pytest.mark.parametrize("revision", revisions())
def test_every_earlier_version_is_brought_up_to_date(any_settings: BoardSettings, revision: str) -> None:
    any_settings.directory.mkdir()
    database = Database(any_settings)
    with database._writing.begin() as connection:
        command.upgrade(_config(connection), revision)
        metadata = MetaData()
        metadata.reflect(connection, only=["contests"])
        table = metadata.tables["contests"]
        examples = {str: "x", int: 1, float: 0.9, bool: False, datetime: datetime(2026, 1, 1)}
        values = {
            c.name: examples.get(c.type.python_type, {}) for c in table.columns if not c.nullable and c.name != "id"
        }
        connection.execute(table.insert().values({**values, "slug": "old", "title": "Old"}))
    database.migrate()
    database.ready()
    assert differences(database) == []
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT title FROM contests")) == "Old"
    database.close()


def test_a_newer_database_is_refused_in_words(settings: BoardSettings) -> None:
    database = open_database(settings)
    with database._writing.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"'9999'.*newer version"):
        database.migrate()
    with pytest.raises(DatabaseError, match="'9999'"):
        database.ready()
    database.close()


def test_several_services_may_start_at_once(any_settings: BoardSettings) -> None:
    faults: list[Exception] = []

    def start() -> None:
        try:
            open_database(any_settings).close()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_databases_that_cannot_be_used_are_named_without_password(tmp_path: Path) -> None:
    assert "secret" not in make_safe("postgresql://me:secret@host/db")
    with pytest.raises(UsageError, match="neither sqlite"):
        Database(BoardSettings(directory=tmp_path, database="mysql://me:secret@host/db"))
    with pytest.raises(DatabaseError, match="out of reach") as caught:
        open_database(BoardSettings(directory=tmp_path, database="postgresql://me:secret@127.0.0.1:9/db"))
    assert "secret" not in str(caught.value)
