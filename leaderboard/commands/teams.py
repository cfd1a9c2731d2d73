"""`contest admin teams` and what else concerns teams, members and class codes."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from contest.errors import UsageError
from leaderboard.commands.options import changing, contest_option, local

if TYPE_CHECKING:
    from leaderboard.domain.roster import Handout


def _write_tokens(path: Path, handouts: Sequence[Handout]) -> None:
    """A table for nobody else's eyes. Never over an older one: its tokens would be lost."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"'{path}' is there already: give another name with --out, or move it away") from None
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("team", "name", "mail", "token"))
        writer.writerows((h.team, h.name, h.mail, h.token) for h in handouts)


@click.command()
@click.argument("roster", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("tokens.csv"),
    show_default=True,
    help="Where the tokens go: once, and readable for you alone.",
)
@contest_option
@local
def teams(roster: Path, out: Path, name: str, directory: Path | None, database: str | None) -> None:
    """Make teams from ROSTER, a table with a row for each member: mail, team, name, and what else you like.

    Read it again with late members: who is there already keeps token and team. Without a team, people join by a class
    code.
    """
    from leaderboard.domain import roster as rosters

    if out.exists():
        raise UsageError(f"'{out}' is there already: give another name with --out, or move it away")
    try:
        people = rosters.parse(roster.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"'{roster}' is no text in UTF-8: save the table as CSV UTF-8") from None
    with changing(directory, database, name) as (session, contest):
        done = rosters.import_roster(session, contest, people)
        if done.handouts:
            _write_tokens(out, done.handouts)  # before the rows are committed: no token is lost
    click.echo(f"contest '{contest.slug}': {done.teams} new teams, {done.added} new members, {done.changed} changed")
    if done.handouts:
        click.echo(f"{len(done.handouts)} tokens in {out}: hand them out and delete the file")


@click.command("add-member")
@click.argument("team")
@click.argument("mail")
@click.option("--name", "person", default="", help="The person's name.")
@contest_option
@local
def add_member(team: str, mail: str, person: str, name: str, directory: Path | None, database: str | None) -> None:
    """Add a late member to TEAM (or move one there), and print a token: only now, only here."""
    from leaderboard.domain import contests, roster

    with changing(directory, database, name) as (session, contest):
        handout = roster.add_member(session, contests.find_team(session, contest, team), mail, person)
    click.echo(f"{handout.mail} is a member of team '{handout.team}'; the token, shown this once:", err=True)
    click.echo(handout.token)


@click.command("rename-team")
@click.argument("team")
@click.option("--to", "board_name", default="", help="The name on the board.")
@click.option("--real", help="The name that organisers alone see.")
@contest_option
@local
def rename_team(
    team: str, board_name: str, real: str | None, name: str, directory: Path | None, database: str | None
) -> None:
    """Give TEAM another name on the board, another one for organisers, or both."""
    from leaderboard.domain import contests, roster

    if not board_name and real is None:
        raise UsageError("say what changes: --to NAME (on the board), --real NAME (for organisers)")
    with changing(directory, database, name) as (session, contest):
        roster.rename(session, contests.find_team(session, contest, team), board_name, real)
    click.echo("renamed")


@click.command("merge-teams")
@click.argument("source")
@click.argument("into")
@contest_option
@local
def merge_teams(source: str, into: str, name: str, directory: Path | None, database: str | None) -> None:
    """Give submissions, members and tokens of SOURCE to INTO, and remove SOURCE."""
    from leaderboard.domain import contests, roster

    with changing(directory, database, name) as (session, contest):
        found = [contests.find_team(session, contest, team) for team in (source, into)]
        roster.merge(session, found[0], found[1])
    click.echo(f"'{source}' is part of '{into}' now")


@click.command("rotate-tokens")
@click.argument("team")
@click.option("--out", type=click.Path(path_type=Path), help="A .csv file instead of the screen.")
@contest_option
@local
def rotate_tokens(team: str, out: Path | None, name: str, directory: Path | None, database: str | None) -> None:
    """Make all tokens of TEAM useless and give new ones, one for each member."""
    from leaderboard.domain import contests, roster

    with changing(directory, database, name) as (session, contest):
        handouts = roster.rotate(session, contests.find_team(session, contest, team))
        if out is not None:
            _write_tokens(out, handouts)
    for handout in handouts if out is None else ():
        click.echo(f"{handout.mail or handout.team}  {handout.token}")


@click.command("class-code")
@click.option("--domain", default="", help="Mails of this domain may join, too; else the roster's alone.")
@click.option("--days", type=click.IntRange(1), help="Good for so many days.")
@click.option("--revoke", help="Make this code useless instead.")
@contest_option
@local
def class_code(
    domain: str, days: int | None, revoke: str | None, name: str, directory: Path | None, database: str | None
) -> None:
    """Print a code with which teams join by themselves at /join (or revoke one)."""
    from leaderboard.domain import roster

    with changing(directory, database, name) as (session, contest):
        if revoke:
            roster.revoke(session, contest, revoke)
            click.echo("revoked")
        else:
            click.echo(roster.new_code(session, contest, domain, days).code)


@click.command("members")
@contest_option
@local
def members(name: str, directory: Path | None, database: str | None) -> None:
    """The roster: mail, name, team."""
    from leaderboard.domain import roster

    with changing(directory, database, name) as (session, contest):
        for member in roster.members(session, contest):
            click.echo(f"{member.mail}  {member.name or '-'}  {member.team.name if member.team else '(no team)'}")


COMMANDS = (teams, add_member, rename_team, merge_teams, rotate_tokens, class_code, members)
