"""`contest admin` on submissions: taken out, scored again, validated, baselines, copies, and the marks they earn."""

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


@click.command()
@click.option("--team", help="A whole team.")
@click.option("--submission", type=int, help="One submission.")
@click.option("--reason", required=True, help="Why: everybody can read it.")
@contest_option
@local
def disqualify(
    team: str | None, submission: int | None, reason: str, name: str, directory: Path | None, database: str | None
) -> None:
    """Take a team or a submission out of the ranking."""
    from leaderboard.domain import contests

    with changing(directory, database, name) as (session, contest):
        if team:
            contests.disqualify_team(session, contests.find_team(session, contest, team), reason)
        else:
            contests.disqualify_submission(session, contests.find_submission(session, contest, submission), reason)
    click.echo("disqualified")


@click.command()
@click.option("--team", help="A whole team.")
@click.option("--submission", type=int, help="One submission.")
@contest_option
@local
def readmit(team: str | None, submission: int | None, name: str, directory: Path | None, database: str | None) -> None:
    """Undo a disqualification."""
    from leaderboard.domain import contests

    with changing(directory, database, name) as (session, contest):
        if team:
            contests.readmit_team(session, contests.find_team(session, contest, team))
        else:
            contests.readmit_submission(session, contests.find_submission(session, contest, submission))
    click.echo("readmitted")


@click.command()
@click.option("--rule", required=True, help="The rule from now on: a name or a .toml file.")
@click.option("--here", is_flag=True, help="Score in this process instead of leaving it to workers.")
@click.option("--data", type=click.Path(path_type=Path), envvar="CONTEST_DATA", help="With --here: the data sets.")
@contest_option
@local
def rescore(rule: str, here: bool, data: Path | None, name: str, directory: Path | None, database: str | None) -> None:
    """Score all submissions of a contest anew under a rule; earlier results stay stored."""
    from leaderboard.domain import queue
    from leaderboard.scoring_queue import ScoringWork
    from leaderboard.storage.file_store import FileStore
    from scoring.rules import load_rule

    with changing(directory, database, name) as (session, contest):
        count = queue.rescore(session, contest, load_rule(rule))
    click.echo(f"{count} submissions of '{contest.slug}' are queued under rule {contest.rule_name}")
    if here:
        settings = settings_of(directory, database, data=data)
        with opened_database(directory, database) as opened:
            work = ScoringWork(settings, opened, FileStore(settings.files))
            with opened.read() as session:
                queued = queue.queued(session, contest)
            with click.progressbar(queued, label="scoring") as bar:
                for number in bar:
                    work.score(number)


@click.command()
@click.argument("submission", type=int)
@click.option("--reason", required=True, help="Its team can read it.")
@contest_option
@local
def cancel(submission: int, reason: str, name: str, directory: Path | None, database: str | None) -> None:
    """Take a waiting or running SUBMISSION out of the queue; it costs no quota."""
    from leaderboard.domain import contests, queue

    with changing(directory, database, name) as (session, contest):
        queue.cancel(session, contests.find_submission(session, contest, submission), reason)
    click.echo("cancelled")


@click.command()
@click.argument("submission", type=int)
@contest_option
@local
def rerun(submission: int, name: str, directory: Path | None, database: str | None) -> None:
    """Score SUBMISSION again; it costs no quota, and earlier results stay stored."""
    from leaderboard.domain import contests, queue

    with changing(directory, database, name) as (session, contest):
        queue.rerun(session, contests.find_submission(session, contest, submission))
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


COMMANDS = (grades, files, addresses, baseline, copies, validate, disqualify, readmit, rescore, cancel, rerun, final)
