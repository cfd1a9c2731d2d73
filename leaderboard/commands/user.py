"""`contest submit`, `serve` and `leaderboard-worker`: a file handed in, and the service that takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contest.errors import RefusedError, UsageError
from leaderboard.commands.options import contest_option, data_option, local, remote, settings_of

if TYPE_CHECKING:
    from leaderboard.settings import BoardSettings

EXIT_BELOW = 1


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--team", default="", help="Your team's name (here; elsewhere the token says it).")
@click.option("--note", default="", help="A remark that the ranking shows.")
@click.option("--rule", help="The contest of this rule, which begins if there is none [default: the newest, or lab].")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the result (with --url).")
@click.option("--json", "as_json", is_flag=True, help="Print the submission as JSON.")
@contest_option
@data_option
@local
@remote
def submit(
    file: Path,
    team: str,
    note: str,
    rule: str | None,
    wait: bool,
    as_json: bool,
    name: str,
    data: Path | None,
    directory: Path | None,
    database: str | None,
    url: str | None,
    token: str | None,
) -> int:
    """Score FILE anew and enter it in the leaderboard: your own on this machine, or one at --url.

    Exit code 0: ranked; 1: below the threshold; 2: refused; 4: it failed through no fault of the file.
    """
    from leaderboard.storage.tables import State

    if url:
        entry = _submit_there(file, note, name, url, token, wait)
    else:
        from rich.console import Console

        from leaderboard.client import submit_here

        if not team:
            raise UsageError("--team NAME is needed: who is entering this file?")
        settings = settings_of(directory, database, data=data)
        with Console(stderr=True).status(f"scoring {file.name} in its own process"):
            entry = submit_here(file, team, settings, note=note, rule=rule or "", contest=name)
    if as_json:
        click.echo(json.dumps(entry, indent=2, default=str))
    else:
        from leaderboard.commands.output import print_submission

        print_submission(entry)
    codes: dict[str, int] = {State.BELOW_THRESHOLD: EXIT_BELOW, State.REFUSED: RefusedError.exit_code, State.FAILED: 4}
    return codes.get(entry["state"], 0)


def _submit_there(file: Path, note: str, name: str, url: str, token: str | None, wait: bool) -> dict[str, Any]:
    from rich.console import Console

    from leaderboard.client import Client

    if not token:
        raise UsageError("submitting to --url needs your team's token: --token, or better CONTEST_TOKEN")
    with Client(url, token) as client:
        contest = client.contest(name)
        with Console(stderr=True).status(f"uploading {file.name}") as status:
            entry, _ = client.submit(contest["name"], file, note)
            if wait:
                number = entry["id"]
                entry = client.wait(number, on_state=lambda state: status.update(f"submission {number}: {state}"))
    return entry


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 for everybody: see docs/organiser.md.")
@click.option("--port", default=8000, show_default=True, help="Where to listen.")
@click.option("--workers", default=1, show_default=True, help="Scoring threads in this process; 0: only elsewhere.")
@click.option("--rule", default="lab", show_default=True, help="Begins a contest of this rule if the board has none.")
@click.option("--tls", is_flag=True, help="The service is behind TLS: cookies and HSTS say so.")
@click.option("--proxies", default="127.0.0.1", show_default=True, help="Addresses whose X-Forwarded-For is believed.")
@click.option(
    "--hosts", default="", help="Names of this service, with commas: others are refused. Else any name is good."
)
@click.option(
    "--language", default="", type=click.Choice(["", "en", "fr"]), help="Of the pages [default: as browsers ask]."
)
@click.option("--prefix", default="", help="The path below which a proxy shows the service, such as /contest.")
@click.option("--metrics/--no-metrics", default=True, show_default=True, help="Whether there is /metrics.")
@click.option(
    "--metrics-token", default="", envvar="CONTEST_METRICS_TOKEN", help="Asked for by /metrics as a bearer token."
)
@click.option("--max-upload-mib", default=64, show_default=True, help="Largest file, whatever a contest allows.")
@data_option
@local
def serve(
    host: str,
    port: int,
    workers: int,
    rule: str,
    tls: bool,
    proxies: str,
    hosts: str,
    language: str,
    prefix: str,
    metrics: bool,
    metrics_token: str,
    max_upload_mib: int,
    data: Path | None,
    directory: Path | None,
    database: str | None,
) -> None:
    """Serve the leaderboard: pages, API, and a queue that scores strangers' files in their own process."""
    from leaderboard.app import create_app, run, settle
    from leaderboard.service.middleware import configure_logging
    from leaderboard.settings import MEBIBYTE

    settings = settings_of(
        directory,
        database,
        data=data,
        workers=workers,
        secure_cookies=tls,
        trusted_proxies=proxies,
        max_upload_bytes=max_upload_mib * MEBIBYTE,
        language=language,
        prefix=prefix.rstrip("/"),
        metrics=metrics,
        metrics_token=metrics_token,
        hosts=tuple(name.strip() for name in hosts.split(",") if name.strip()),
    )
    _first_start(settings, rule)
    configure_logging()
    app = create_app(settings)
    settle()
    run(app, host, port, proxies)


def _first_start(settings: BoardSettings, rule: str) -> None:
    """A board without a contest gets one, and its organiser a token."""
    from leaderboard.domain import contests, tokens
    from leaderboard.storage.database import open_database
    from scoring.rules import load_rule

    database = open_database(settings)
    with database.write() as session:
        if not contests.listing(session):
            chosen = load_rule(rule)
            contests.create(session, chosen.name, chosen)
            click.echo(f"made contest '{chosen.name}'; the organiser's token, shown this once:", err=True)
            click.echo(tokens.create(session, None, label="first start"), err=True)
            click.echo("next: `contest admin teams ROSTER.csv` makes teams and writes their tokens", err=True)
        for contest in contests.listing(session):
            click.echo(f"contest '{contest.slug}': {contests.told_rule(contest)}", err=True)
    database.close()


@click.command("leaderboard-worker")
@click.option("--threads", default=1, show_default=True, help="Submissions scored at once.")
@click.option("--metrics-port", default=0, help="Serve Prometheus metrics of this worker there; 0: do not.")
@data_option
@local
def leaderboard_worker(
    threads: int, metrics_port: int, data: Path | None, directory: Path | None, database: str | None
) -> None:
    """Score queued submissions, beside `contest serve` and other workers on the same database and folder."""
    from leaderboard.board import run_worker
    from leaderboard.service.middleware import configure_logging

    configure_logging()
    run_worker(settings_of(directory, database, data=data), threads, metrics_port)
