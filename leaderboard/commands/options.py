"""What commands of the board share: which board and which contest of this machine is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from contest.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from leaderboard.settings import BoardSettings
    from leaderboard.storage.database import Database
    from leaderboard.storage.tables import Contest

F = TypeVar("F", bound=Callable[..., Any])


def local(command: F) -> F:
    """Options that say which board of this machine is meant."""
    directory = click.option(
        "--directory",
        type=click.Path(path_type=Path),
        help="Folder of the board (else CONTEST_LEADERBOARD, else yours).",
    )
    database = click.option(
        "--database", envvar="CONTEST_DATABASE", help="postgresql://user@host/name instead of SQLite in the folder."
    )
    return directory(database(command))


def remote(command: F) -> F:
    """Options that name a leaderboard elsewhere."""
    url = click.option("--url", envvar="CONTEST_URL", help="A leaderboard's address: work there instead of here.")
    token = click.option("--token", envvar="CONTEST_TOKEN", help="Your team's token there (or set CONTEST_TOKEN).")
    return url(token(command))


data_option = click.option(
    "--data", type=click.Path(path_type=Path), envvar="CONTEST_DATA", help="Folder of the data sets."
)


def settings_of(directory: Path | None, database: str | None, **more: Any) -> BoardSettings:
    """Settings from the command line."""
    from leaderboard.settings import BoardSettings, default_directory

    return BoardSettings(directory=directory or default_directory(), database=database or "", **more)


contest_option = click.option("--contest", "name", default="", help="The contest's name; by default the newest.")


@contextmanager
def opened_database(directory: Path | None, database: str | None) -> Iterator[Database]:
    from leaderboard.storage.database import open_database

    opened = open_database(settings_of(directory, database))
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def changing(directory: Path | None, database: str | None, name: str) -> Iterator[tuple[Session, Contest]]:
    """A transaction on one contest."""
    from leaderboard.domain import contests

    with opened_database(directory, database) as opened, opened.write() as session:
        contest = contests.the_only(session, name)
        if contest is None:
            raise UsageError(no_contest(name, [one.slug for one in contests.listing(session)], opened.engine.url))
        yield session, contest


def no_contest(name: str, known: list[str], place: object) -> str:
    """What is said where no contest, or none of this name, is on a board."""
    if known:
        return f"this board has no contest '{name}'; it has {', '.join(known)} (--contest NAME)"
    made = "`contest admin create NAME --rule RULE` makes one, and so does the first `contest serve`"
    return f"the board {place} has no contest yet: {made} (another board: --directory or CONTEST_LEADERBOARD)"


def moment(text: str | None) -> datetime | None:
    """A moment from the command line, in UTC where it says no zone."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"'{text}' is no moment; write 2026-12-24T18:00 (UTC) or 2026-12-24T18:00+01:00") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
