"""Everything of a board in one tar file, and back: for backups, for moving from SQLite to PostgreSQL, for archives.

`manifest.json`, `tables/NAME.jsonl` (one row a line) and `files/SHA256`. Tokens travel as hashes and keep working;
the deployment's secret does not travel, so browser sessions end.
"""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import LargeBinary, Table, func, insert, select, text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from contest.errors import RefusedError, UsageError
from leaderboard.domain import standings
from leaderboard.storage.database import Base, Database, Utc
from leaderboard.storage.file_store import CHUNK, FileStore
from leaderboard.storage.tables import Contest, RecordEntry, Standing, State, Submission, Team, now

FORMAT = "contest-leaderboard"
VERSION = 1
_FILE = re.compile(r"files/([0-9a-f]{64})")
_BATCH = 500
_MAX_FILE = 1024**3
_YOUNG_S = 3600.0


def export(database: Database, files: FileStore, target: Path) -> dict[str, int]:
    """Write all tables and files as they are at this moment; gives what was written. The service may run on."""
    partial = target.with_name(target.name + ".partial")
    with database.read() as session, tarfile.open(partial, "w") as tar:
        if not database.sqlite:  # SQLite's readers see one state anyway
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        counts = {table.name: _write_table(session, tar, table) for table in Base.metadata.sorted_tables}
        hashes = session.scalars(select(Submission.sha256).distinct()).all()
        for sha256 in hashes:
            if not files.verify(sha256):
                raise RefusedError(f"file {sha256} is missing or damaged: `contest admin check` names all such files")
            tar.add(files.path(sha256), f"files/{sha256}")
        counts["files"] = len(hashes)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "revision": database.revision(),
            "made": now().isoformat(),
            "counts": counts,
        }
        _add(tar, "manifest.json", json.dumps(manifest, indent=2).encode())
    partial.replace(target)
    return counts


def restore(database: Database, files: FileStore, source: Path) -> dict[str, int]:
    """Read an export into an empty board; gives what was read. All or nothing.

    Raises UsageError when the board is not empty, RefusedError when the file is no export or is damaged.
    """
    try:
        with tarfile.open(source, "r:") as tar, database.write() as session:
            if session.scalar(select(func.count()).select_from(Contest)):
                raise UsageError("the board is not empty; import into a new --directory or an empty database")
            manifest = _manifest(tar, database)
            counts = _read(tar, session, files)
            if counts != manifest["counts"]:
                raise RefusedError(f"the export holds {counts}, but its manifest says {manifest['counts']}")
            _settle(session, database)
    except (IntegrityError, StatementError) as error:
        raise RefusedError(f"'{source.name}' does not fit together: {error.orig}") from error
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise RefusedError(f"'{source.name}' is no export of a leaderboard, or is damaged: {error}") from error
    return counts


def orphans(database: Database, files: FileStore, *, remove: bool = False) -> tuple[int, int]:
    """How many stored files no submission refers to, and their bytes; `remove`: those are deleted.

    What arrived within the last hour is left alone: its row may not be committed yet.
    """
    count = size_bytes = 0
    for names in files.folders():
        with database.write() as session:
            if remove and not database.sqlite:  # nobody enters a file meanwhile; SQLite's writer is alone anyway
                session.execute(text("LOCK TABLE submissions IN SHARE ROW EXCLUSIVE MODE"))
            for start in range(0, len(names), _BATCH):
                some = names[start : start + _BATCH]
                known = set(session.scalars(select(Submission.sha256).where(Submission.sha256.in_(some))))
                for sha256 in some:
                    if sha256 in known or files.age_s(sha256) < _YOUNG_S:
                        continue
                    count += 1
                    size_bytes += files.remove(sha256) if remove else files.path(sha256).stat().st_size
    return count, size_bytes


def disk_by_team(database: Database) -> list[tuple[str, str, int]]:
    """(contest, team, bytes of its files), the largest first."""
    used = func.sum(Submission.size_bytes)
    query = select(Contest.slug, Team.name, used).join(Submission.team).join(Submission.contest)
    with database.read() as session:
        rows = session.execute(query.group_by(Contest.slug, Team.id, Team.name).order_by(used.desc())).all()
    return [(contest, team, int(size_bytes)) for contest, team, size_bytes in rows]


def check(database: Database, files: FileStore) -> list[str]:
    """Faults in words: files that are missing, changed or nobody's; rankings and records that are not right."""
    with database.read() as session:
        hashes = session.scalars(select(Submission.sha256).distinct()).all()
    faults = [f"file {sha256} is missing or damaged" for sha256 in hashes if not files.verify(sha256)]
    count, size_bytes = orphans(database, files)
    if count:
        faults.append(
            f"{count} files ({size_bytes / 2**20:.1f} MiB) belong to no submission: `contest admin check --remove` "
            "deletes them"
        )
    with database.write() as session:
        for contest in session.scalars(select(Contest)).all():
            before = _derived(session, contest)
            standings.rebuild(session, contest)
            if _derived(session, contest) != before:
                faults.append(f"the ranking of '{contest.slug}' did not fit its submissions; it was made anew")
            else:
                contest.revision -= 1  # nothing changed: pages that people have stay valid
    return faults


def _derived(session: Session, contest: Contest) -> tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]]:
    standings = select(Standing.team_id, Standing.section, Standing.submission_id, Standing.score, Standing.accuracy)
    records = select(RecordEntry.submission_id, RecordEntry.score)
    return (
        {tuple(row) for row in session.execute(standings.where(Standing.contest_id == contest.id))},
        {tuple(row) for row in session.execute(records.where(RecordEntry.contest_id == contest.id))},
    )


def _write_table(session: Session, tar: tarfile.TarFile, table: Table) -> int:
    count = 0
    with tempfile.TemporaryFile() as buffer:
        for row in session.execute(select(table).order_by(*table.primary_key).execution_options(yield_per=_BATCH)):
            line = json.dumps(dict(row._mapping), default=_encode, ensure_ascii=False)
            buffer.write(line.encode() + b"\n")
            count += 1
        info = tarfile.TarInfo(f"tables/{table.name}.jsonl")
        info.size = buffer.tell()
        buffer.seek(0)
        tar.addfile(info, buffer)
    return count


def _manifest(tar: tarfile.TarFile, database: Database) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(_open(tar, tar.getmember("manifest.json")).read())
    if manifest["format"] != FORMAT or manifest["version"] != VERSION:
        raise RefusedError(f"the export has format {manifest['format']} {manifest['version']}, not {FORMAT} {VERSION}")
    if manifest["revision"] != database.revision():
        raise RefusedError(
            f"the export was made at database revision {manifest['revision']}, this is {database.revision()}: "
            "import it with the version that made it, then start this one on it"
        )
    return manifest


def _read(tar: tarfile.TarFile, session: Session, files: FileStore) -> dict[str, int]:
    counts = {}
    for table in Base.metadata.sorted_tables:
        source = _open(tar, tar.getmember(f"tables/{table.name}.jsonl"))
        counts[table.name] = _read_table(session, table, source)
    counts["files"] = 0
    for member in tar:
        if match := _FILE.fullmatch(member.name):
            # Written through the store: the name is the hash of what really arrives, not of what the tar claims.
            stored = files.take(_chunks(_open(tar, member)), _MAX_FILE)
            if stored.sha256 != match[1]:
                raise RefusedError(f"file {match[1]} of the export is damaged: its hash is {stored.sha256}")
            counts["files"] += 1
    return counts


def _read_table(session: Session, table: Table, source: IO[bytes]) -> int:
    count, batch = 0, []
    for line in source:
        row = json.loads(line)
        if set(row) != set(table.columns.keys()):
            raise RefusedError(f"table '{table.name}' of the export has other columns: {', '.join(row)}")
        batch.append({key: _decode(table, key, value) for key, value in row.items()})
        count += 1
        if len(batch) == _BATCH:
            session.execute(insert(table), batch)
            batch = []
    if batch:
        session.execute(insert(table), batch)
    return count


def _settle(session: Session, database: Database) -> None:
    """Whatever was being scored is queued again, and PostgreSQL counts on from the highest ids."""
    for submission in session.scalars(select(Submission).where(Submission.state == State.RUNNING)):
        submission.state, submission.claim, submission.lease_until = State.QUEUED, "", None
    if not database.sqlite:
        for table in Base.metadata.sorted_tables:
            if "id" in table.columns:
                statement = (
                    "SELECT setval(pg_get_serial_sequence(:t, 'id'), (SELECT coalesce(max(id), 0) + 1 FROM {}), false)"
                )
                session.execute(text(statement.format(table.name)), {"t": table.name})


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    if not member.isfile():
        raise RefusedError(f"'{member.name}' in the export is no plain file")
    source = tar.extractfile(member)
    assert source is not None
    return source


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: source.read(CHUNK), b"")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"no JSON for {type(value).__name__}")


def _decode(table: Table, key: str, value: Any) -> Any:
    if value is not None and isinstance(table.columns[key].type, Utc):
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if value is not None and isinstance(table.columns[key].type, LargeBinary):
        return base64.b64decode(value)
    return value
