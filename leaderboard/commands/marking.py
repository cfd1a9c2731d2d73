"""`contest admin` when it comes to marks: grades, files, addresses, baselines, copies, validation."""

from __future__ import annotations

import zipfile
from pathlib import Path

import click

from contest.errors import UsageError
from leaderboard.commands.options import changing, contest_option, local, opened_database, settings_of


@click.command()
@click.option("--csv", "out", type=click.Path(path_type=Path), help="Where the table goes; else the screen.")
@click.option("--formula", help="Points: an expression such as '6 - 2 * log10(score / best)'.")
@click.option(
    "--table",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Points by steps: a CSV file that begins with 'rank,points' (or score, baselines).",
)
@contest_option
@local
def grades(
    out: Path | None, formula: str | None, table: Path | None, name: str, directory: Path | None, database: str | None
) -> None:
    """The marks: each member's row with the roster's columns, what the team reached, and points.

    A formula may speak of score, accuracy, rank, teams, threshold, best, baselines, submissions, late and ranked.
    """
    from leaderboard.domain import marks

    if formula and table:
        raise UsageError("give --formula or --table, not both")
    points: marks.Points | None = None
    if formula:
        points = marks.Formula.parse(formula)
    elif table:
        points = marks.PointsTable.parse(table.read_text(encoding="utf-8"))
    with changing(directory, database, name) as (session, contest):
        text = marks.to_csv(marks.rows(session, contest, points))
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8", newline="")
        click.echo(f"{max(0, text.count(chr(10)) - 1)} rows in {out}")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@contest_option
@local
def files(out: Path, name: str, directory: Path | None, database: str | None) -> None:
    """Write each team's counting file into the zip file OUT, as TEAM/NUMBER-name."""
    from leaderboard.domain import marks
    from leaderboard.storage.file_store import FileStore

    store = FileStore(settings_of(directory, database).files)
    with changing(directory, database, name) as (session, contest):
        found = list(marks.best_files(session, contest))
    with zipfile.ZipFile(out, "w") as archive:
        for sha256, path in found:
            archive.write(store.path(sha256), path)
    click.echo(f"{len(found)} files in {out}")


@click.command()
@click.option(
    "--state",
    type=click.Choice(["none", "below", "ranked"]),
    required=True,
    help="Members of teams with nothing scored, below the threshold, or ranked.",
)
@contest_option
@local
def addresses(state: str, name: str, directory: Path | None, database: str | None) -> None:
    """Mail addresses, one a line."""
    from leaderboard.domain import marks

    with changing(directory, database, name) as (session, contest):
        for mail in marks.addresses(session, contest, state):
            click.echo(mail)


@click.command()
@click.argument("team")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@contest_option
@local
def baseline(team: str, file: Path, name: str, directory: Path | None, database: str | None) -> None:
    """Enter FILE as a baseline called TEAM: on the board and in the chart, marked, without a rank."""
    from leaderboard.board import enter_file
    from leaderboard.domain import contests
    from leaderboard.storage.file_store import FileStore

    store = FileStore(settings_of(directory, database).files)
    with changing(directory, database, name) as (session, contest):
        member = contests.add_baseline(session, contest, team)
    with opened_database(directory, database) as opened, store.incoming(contest.max_bytes) as incoming:
        incoming.read(file)
        submission, _ = enter_file(opened, contest, member, incoming, name=file.name, note="baseline")
    click.echo(f"submission {submission.id} of baseline '{member.name}' is queued")


@click.command()
@contest_option
@local
def copies(name: str, directory: Path | None, database: str | None) -> None:
    """Submissions of two teams that are the same file, or answer nearly alike; past contests, too."""
    from leaderboard.domain import copies as alike

    with changing(directory, database, name) as (session, contest):
        found = alike.find(session, contest)
    for copy in found:
        what = "the same file" if copy.same_file else f"{copy.agreement:.2%} of predictions equal"
        click.echo(
            f"{copy.submission_id} ({copy.team}) and {copy.other_id} ({copy.other_team}, {copy.other_contest}): {what}"
        )
    if not found:
        click.echo("none")


@click.command()
@click.argument("submission", type=int)
@click.option("--remark", default="", help="Everybody can read it.")
@click.option("--undo", is_flag=True, help="Take it back.")
@contest_option
@local
def validate(submission: int, remark: str, undo: bool, name: str, directory: Path | None, database: str | None) -> None:
    """Mark SUBMISSION as validated: you had its training shown, say, and found it in order."""
    from leaderboard.domain import contests

    with changing(directory, database, name) as (session, contest):
        contests.validate(session, contests.find_submission(session, contest, submission), remark, undo=undo)
    click.echo("taken back" if undo else "validated")


COMMANDS = (grades, files, addresses, baseline, copies, validate)
