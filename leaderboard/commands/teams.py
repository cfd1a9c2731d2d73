"""`contest admin` on teams: their members, tokens and class codes, and limits of their own."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contest.errors import UsageError
from leaderboard.commands.options import changing, contest_option, local, moment, opened_database

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


@click.command("add-team")
@click.argument("team")
@contest_option
@local
def add_team(team: str, name: str, directory: Path | None, database: str | None) -> None:
    """Make a team and print its token: only now, only here."""
    from leaderboard.domain import contests, tokens

    with changing(directory, database, name) as (session, contest):
        made = contests.add_team(session, contest, team)
        token = tokens.create(session, made, label="first")
    click.echo(f"team '{made.name}' of contest '{contest.slug}'; its token, shown this once:", err=True)
    click.echo(token)


@click.command()
@click.argument("team", required=False)
@click.option("--organiser", is_flag=True, help="For an organiser instead of a team.")
@click.option("--label", default="", help="To tell tokens apart.")
@click.option("--days", type=int, help="Good for so many days.")
@contest_option
@local
def token(
    team: str | None,
    organiser: bool,
    label: str,
    days: int | None,
    name: str,
    directory: Path | None,
    database: str | None,
) -> None:
    """Print a new token of TEAM (or of an organiser): only now, only here."""
    from leaderboard.domain import contests, tokens

    if organiser == bool(team):
        raise UsageError("name a TEAM, or give --organiser, not both")
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    with changing(directory, database, name) as (session, contest):
        owner = contests.find_team(session, contest, team) if team else None
        text = tokens.create(session, owner, label=label, expires_at=expires)
        contests.record(session, "command line", "create token", contest, team=team or "organiser", label=label)
    click.echo(text)


@click.command()
@local
def tokens(directory: Path | None, database: str | None) -> None:
    """All tokens by their public half; the secret half is nowhere."""
    from sqlalchemy import select

    from leaderboard.storage.tables import Token

    with opened_database(directory, database) as opened, opened.read() as session:
        for row in session.scalars(select(Token).order_by(Token.id)):
            state = "revoked" if row.revoked_at else f"until {row.expires_at:%Y-%m-%d}" if row.expires_at else "good"
            click.echo(f"{row.key}  {row.team.name if row.team else 'organiser'}  {state}  {row.label}")


@click.command()
@click.argument("key")
@local
def revoke(key: str, directory: Path | None, database: str | None) -> None:
    """Make the token with this public half useless."""
    from leaderboard.domain import contests, tokens

    with opened_database(directory, database) as opened, opened.write() as session:
        tokens.revoke(session, key)
        contests.record(session, "command line", "revoke token", None, key=key[:24])
    click.echo("revoked")


@click.command("team")
@click.argument("team")
@click.option("--deadline", help="A moment in UTC, or 'none': the contest's.")
@click.option("--daily", type=int, help="Submissions a day; 0: the contest's.")
@click.option("--total", type=int, help="Submissions in all; 0: the contest's.")
@click.option("--interval-min", type=float, help="Minutes between uploads; -1: the contest's.")
@contest_option
@local
def team_limits(
    team: str,
    deadline: str | None,
    daily: int | None,
    total: int | None,
    interval_min: float | None,
    name: str,
    directory: Path | None,
    database: str | None,
) -> None:
    """Give TEAM its own deadline (an extension), quota or interval."""
    from leaderboard.domain import contests

    changes: dict[str, Any] = {}
    if deadline is not None:
        changes["deadline"] = None if deadline == "none" else moment(deadline)
    if daily is not None:
        changes["daily_limit"] = daily or None
    if total is not None:
        changes["total_limit"] = total or None
    if interval_min is not None:
        changes["interval_s"] = None if interval_min < 0 else round(60 * interval_min)
    if not changes:
        raise UsageError("say what changes: --deadline, --daily, --total, --interval-min")
    with changing(directory, database, name) as (session, contest):
        contests.change_team(session, contests.find_team(session, contest, team), changes)
    click.echo(f"team '{team}': {', '.join(changes)} changed")


COMMANDS = (
    teams,
    team_limits,
    add_team,
    add_member,
    rename_team,
    merge_teams,
    rotate_tokens,
    class_code,
    members,
    token,
    tokens,
    revoke,
)
