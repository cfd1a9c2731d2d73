"""`contest admin` on time, texts and single submissions: own limits, cancelling, running again, the final phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from contest.errors import UsageError
from leaderboard.commands.options import changing, contest_option, local, moment


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


@click.command()
@click.argument("submission", type=int)
@click.option("--reason", required=True, help="Its team can read it.")
@contest_option
@local
def cancel(submission: int, reason: str, name: str, directory: Path | None, database: str | None) -> None:
    """Take a waiting or running SUBMISSION out of the queue; it costs no quota."""
    from leaderboard.domain import contests, submissions

    with changing(directory, database, name) as (session, contest):
        submissions.cancel(session, contests.find_submission(session, contest, submission), reason)
    click.echo("cancelled")


@click.command()
@click.argument("submission", type=int)
@contest_option
@local
def rerun(submission: int, name: str, directory: Path | None, database: str | None) -> None:
    """Score SUBMISSION again; it costs no quota, and earlier results stay stored."""
    from leaderboard.domain import contests, submissions

    with changing(directory, database, name) as (session, contest):
        submissions.rerun(session, contests.find_submission(session, contest, submission))
    click.echo(f"submission {submission} is queued again; a worker takes it within some seconds")


@click.command()
@contest_option
@local
def final(name: str, directory: Path | None, database: str | None) -> None:
    """The final ranking, also before it is public: for organisers' eyes."""
    from leaderboard.domain import final as finals

    with changing(directory, database, name) as (session, contest):
        rows = finals.ranking(session, contest)
        if contest.final_at is None:
            raise UsageError(f"contest '{contest.slug}' has no final phase: `contest admin set --final-at MOMENT`")
        click.echo(f"public {'since' if finals.public(contest) else 'from'} {contest.final_at:%Y-%m-%d %H:%M} UTC")
        for row in rows:
            figures = "" if row.accuracy is None else f"  {row.accuracy:.2%}  {row.score:.6f}"
            click.echo(f"{row.rank or '-':>3}  {row.team.name}  submission {row.submission_id}  {row.state}{figures}")


@click.command("about")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@contest_option
@local
def about(file: Path, name: str, directory: Path | None, database: str | None) -> None:
    """Show FILE (Markdown) on the page of the contest: who may take part, prizes, how marks are given."""
    from leaderboard.domain import contests

    with changing(directory, database, name) as (session, contest):
        contests.change(session, contest, {"about": file.read_text(encoding="utf-8")})
    click.echo(f"contest '{contest.slug}': the text is at /contests/{contest.slug}/news")


@click.command("announce")
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


COMMANDS = (about, announce, team_limits, cancel, rerun, final)
