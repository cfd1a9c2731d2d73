"""`contest admin`: what an organiser does. Every command works on the board itself, beside a running service."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from contest.errors import UsageError
from leaderboard.commands import submissions, teams
from leaderboard.commands.options import (
    changing,
    contest_option,
    local,
    moment,
    no_contest,
    opened_database,
    settings_of,
)

_feedback = click.Choice(["full", "coarse"])
_counts = click.Choice(["best", "last", "chosen"])


@click.group()
def admin() -> None:
    """Contests, teams, tokens, export and import."""


for _command in (*teams.COMMANDS, *submissions.COMMANDS):
    admin.add_command(_command)


@admin.command()
@click.argument("name")
@click.option("--rule", default="lab", show_default=True, help="A rule's name or a .toml file.")
@click.option("--title", default="", help="For people.")
@click.option("--daily", default=10, show_default=True, help="Submissions of a team a day (UTC).")
@click.option("--total", default=500, show_default=True, help="Submissions of a team in all.")
@click.option("--max-mib", default=64, show_default=True, help="Largest file.")
@click.option("--team-mib", default=2048, show_default=True, help="What all files of a team may take.")
@click.option("--private-until", help="2026-12-24T18:00 (UTC): until then only organisers see the ranking.")
@click.option(
    "--feedback",
    type=_feedback,
    default="full",
    show_default=True,
    help="coarse: accuracies in steps of half a point while the contest is open.",
)
@click.option("--isolation", default="", help="Weakest isolation of the scoring process that is ranked.")
@click.option("--pseudonyms", is_flag=True, help="Everybody but organisers sees pseudonyms.")
@click.option("--top", type=click.IntRange(1), help="Everybody but organisers sees so many places.")
@local
def create(
    name: str,
    rule: str,
    title: str,
    daily: int,
    total: int,
    max_mib: int,
    team_mib: int,
    private_until: str | None,
    feedback: Any,
    isolation: str,
    pseudonyms: bool,
    top: int | None,
    directory: Path | None,
    database: str | None,
) -> None:
    """Make a contest from a rule; it is open at once."""
    from leaderboard.domain import contests
    from leaderboard.settings import MEBIBYTE
    from scoring.rules import load_rule

    with opened_database(directory, database) as opened, opened.write() as session:
        contest = contests.create(
            session,
            name,
            load_rule(rule),
            title=title,
            daily_limit=daily,
            total_limit=total,
            max_bytes=max_mib * MEBIBYTE,
            team_bytes=team_mib * MEBIBYTE,
            private_until=moment(private_until),
            feedback=feedback,
            isolation=isolation,
            shown_names="pseudonyms" if pseudonyms else "names",
            shown_places=top,
        )
    click.echo(f"contest '{contest.slug}' is open, threshold {contest.threshold:g}")
    click.echo(contests.told_rule(contest))


@admin.command("set")
@click.option("--daily", type=int, help="Submissions of a team a day (UTC).")
@click.option("--total", type=int, help="Submissions of a team in all.")
@click.option("--team-mib", type=int, help="What all files of a team may take.")
@click.option("--private-until", help="A moment in UTC, or 'now' to publish the ranking.")
@click.option("--feedback", type=_feedback, help="What teams see of a score before the contest ends.")
@click.option("--opens", help="A moment in UTC before which nothing is taken, or 'now'.")
@click.option("--deadline", help="A moment in UTC: uploads accepted until then count; or 'none'.")
@click.option("--grace-min", type=float, help="For so many minutes after the deadline uploads count, marked as late.")
@click.option("--interval-min", type=float, help="Minutes between two uploads of a team.")
@click.option("--practice/--no-practice", default=None, help="Whether teams may go on after the end, unranked.")
@click.option("--counts", type=_counts, help="Which submission of a team is ranked.")
@click.option("--final-at", help="A moment in UTC at which the final ranking appears; or 'none'.")
@click.option("--final-counts", type=_counts, help="Which submission of a team is scored in the final phase.")
@click.option("--final-data", help="Private data set of the final phase: its name in the workers' folder; '': none.")
@click.option("--names/--pseudonyms", default=None, help="What everybody but organisers sees of other teams.")
@click.option("--top", type=click.IntRange(0), help="Everybody but organisers sees so many places; 0: all.")
@contest_option
@local
def set_(
    daily: int | None,
    total: int | None,
    team_mib: int | None,
    private_until: str | None,
    feedback: str | None,
    opens: str | None,
    deadline: str | None,
    grace_min: float | None,
    interval_min: float | None,
    practice: bool | None,
    counts: str | None,
    final_at: str | None,
    final_counts: str | None,
    final_data: str | None,
    names: bool | None,
    top: int | None,
    name: str,
    directory: Path | None,
    database: str | None,
) -> None:
    """Change a contest's dates, limits, privacy or feedback."""
    from leaderboard.domain import contests

    changes: dict[str, Any] = {"daily_limit": daily, "total_limit": total, "feedback": feedback}
    changes["team_bytes"] = None if team_mib is None else team_mib * 2**20
    changes |= {"practice": practice, "counts": counts, "final_counts": final_counts, "final_data": final_data}
    changes |= {
        key: None if minutes is None else round(60 * minutes)
        for key, minutes in (("grace_s", grace_min), ("interval_s", interval_min))
    }
    changes["shown_names"] = None if names is None else "names" if names else "pseudonyms"
    changes = {key: value for key, value in changes.items() if value is not None}
    if top is not None:
        changes["shown_places"] = top or None
    for key, text in (("opens_at", opens), ("deadline", deadline), ("final_at", final_at)):
        if text is not None:
            changes[key] = None if text in ("none", "now") else moment(text)
    if private_until is not None:
        changes["private_until"] = None if private_until == "now" else moment(private_until)
    with changing(directory, database, name) as (session, contest):
        contests.change(session, contest, changes)
    click.echo(f"contest '{contest.slug}': {', '.join(changes) or 'nothing'} changed")


@admin.command("list")
@local
def list_(directory: Path | None, database: str | None) -> None:
    """All contests, with how many submissions are in which state."""
    from leaderboard.domain import contests

    with opened_database(directory, database) as opened, opened.read() as session:
        found = contests.listing(session)
        if not found:
            raise UsageError(no_contest("", [], opened.engine.url))
        for contest in found:
            counts = contests.count_submissions(session, contest)
            states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no submissions"
            closed = "closed" if contest.closed_at else "open"
            click.echo(f"{contest.slug}: {closed}; {states}")
            click.echo(f"  {contests.told_rule(contest)}")


@admin.command()
@contest_option
@local
def close(name: str, directory: Path | None, database: str | None) -> None:
    """Take no more submissions."""
    from leaderboard.domain import contests

    with changing(directory, database, name) as (session, contest):
        contests.close(session, contest)
    click.echo(f"contest '{contest.slug}' is closed")


@admin.command()
@contest_option
@local
def reopen(name: str, directory: Path | None, database: str | None) -> None:
    """Take submissions again."""
    from leaderboard.domain import contests

    with changing(directory, database, name) as (session, contest):
        contests.reopen(session, contest)
    click.echo(f"contest '{contest.slug}' is open")


@admin.command()
@contest_option
@local
def events(name: str, directory: Path | None, database: str | None) -> None:
    """What organisers did, the newest first."""
    from leaderboard.domain import contests

    with changing(directory, database, name) as (session, contest):
        for event in contests.events(session, contest):
            details = json.dumps(event.details, ensure_ascii=False)
            click.echo(f"{event.created_at:%Y-%m-%d %H:%M:%S} {event.actor}: {event.action} {details}")


@admin.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@local
def export(file: Path, directory: Path | None, database: str | None) -> None:
    """Write everything (JSON and submitted files) into one tar FILE; the service may run on."""
    from leaderboard import backup
    from leaderboard.storage.file_store import FileStore

    settings = settings_of(directory, database)
    with opened_database(directory, database) as opened:
        counts = backup.export(opened, FileStore(settings.files), file)
    click.echo(_told(counts))


@admin.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@local
def import_(file: Path, directory: Path | None, database: str | None) -> None:
    """Read an export into an empty board, of SQLite or PostgreSQL."""
    from leaderboard import backup
    from leaderboard.storage.file_store import FileStore

    settings = settings_of(directory, database)
    with opened_database(directory, database) as opened:
        counts = backup.restore(opened, FileStore(settings.files), file)
    click.echo(_told(counts))


@admin.command()
@click.option("--remove", is_flag=True, help="Delete files that belong to no submission, and interrupted uploads.")
@click.option("--disk", is_flag=True, help="Show what the files of each team take.")
@local
def check(remove: bool, disk: bool, directory: Path | None, database: str | None) -> int:
    """Check that every stored file has its hash and an owner, and that rankings are what the submissions say."""
    from leaderboard import backup
    from leaderboard.storage.file_store import FileStore

    settings = settings_of(directory, database)
    with opened_database(directory, database) as opened:
        files = FileStore(settings.files)
        if remove:
            count, size_bytes = backup.orphans(opened, files, remove=True)
            count += files.sweep(time.time() - 3600)
            click.echo(f"removed {count} files that nobody refers to ({size_bytes / 2**20:.1f} MiB)")
        if disk:
            for name, team, size_bytes in backup.disk_by_team(opened):
                click.echo(f"{name}  {team}  {size_bytes / 2**20:.1f} MiB")
        faults = backup.check(opened, files)
    for fault in faults:
        click.echo(fault)
    click.echo("all is well" if not faults else f"{len(faults)} faults")
    return 4 if faults else 0


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items() if count) or "nothing"


@admin.command("about")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@contest_option
@local
def about(file: Path, name: str, directory: Path | None, database: str | None) -> None:
    """Show FILE (Markdown) on the page of the contest: who may take part, prizes, how marks are given."""
    from leaderboard.domain import contests

    with changing(directory, database, name) as (session, contest):
        contests.change(session, contest, {"about": file.read_text(encoding="utf-8")})
    click.echo(f"contest '{contest.slug}': the text is at /contests/{contest.slug}/news")


@admin.command("announce")
@click.argument("title")
@click.option("--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="More, in Markdown.")
@click.option("--answer", is_flag=True, help="It answers a question on the rules.")
@contest_option
@local
def announce(
    title: str, file: Path | None, answer: bool, name: str, directory: Path | None, database: str | None
) -> None:
    """Announce TITLE to everybody, or answer a question for everybody; it is dated."""
    from leaderboard.domain import contests

    with changing(directory, database, name) as (session, contest):
        body = file.read_text(encoding="utf-8") if file else ""
        contests.announce(session, contest, title, body, answer=answer)
    click.echo("announced")
