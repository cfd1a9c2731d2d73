"""`contest leaderboard` and `contest plot`: a ranking of a board or of the bundled networks, as text or as a chart."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contest.errors import DataError, UsageError
from contest.zoo import DIRECTORY
from leaderboard.commands.options import contest_option, data_option, local, remote, settings_of

if TYPE_CHECKING:
    from leaderboard.charts.networks import Try
    from leaderboard.settings import BoardSettings
    from scoring.report import Report
    from scoring.rules import Rule

Rows = dict[str, list[dict[str, Any]]]
STUDY = "contest.study"
"""What the roof puts into a context's `meta`: a function from a study's folder to its networks, as mappings."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the ranking as JSON.")
@click.option("--markdown", is_flag=True, help="Print the ranked and the published networks as a Markdown table.")
@click.option("--bundled", is_flag=True, help="The networks that come with this package.")
@click.option("--rule", default="lab", show_default=True, help="With --bundled: the rule that ranks.")
@click.option("--limit", default=50, show_default=True, help="Rows of each table.")
@contest_option
@local
@remote
def leaderboard(
    as_json: bool,
    markdown: bool,
    bundled: bool,
    rule: str,
    limit: int,
    name: str,
    directory: Path | None,
    database: str | None,
    url: str | None,
    token: str | None,
) -> None:
    """Show the ranking of those at or above the threshold, and apart those below."""
    from leaderboard.commands.output import print_ranking

    contest, rows = rows_of(bundled, rule, name, directory, database, url, token)
    if as_json:
        click.echo(json.dumps({"contest": contest, **rows}, indent=2, default=str))
    elif markdown:
        from leaderboard.charts.accuracy_score import references
        from leaderboard.commands.output import ranking_table

        click.echo(ranking_table(rows["ranked"][:limit], references(contest["rule"]["name"])), nl=False)
    else:
        print_ranking(contest, rows, limit)


def rows_of(
    bundled: bool,
    rule: str,
    name: str,
    directory: Path | None,
    database: str | None,
    url: str | None,
    token: str | None,
) -> tuple[dict[str, Any], Rows]:
    """The contest and both sections of its ranking, from wherever was asked for."""
    from leaderboard.domain.ranking import SECTIONS
    from scoring.rules import load_rule

    if bundled:
        return _bundled_rows(load_rule(rule))
    if url:
        from leaderboard.client import Client

        with Client(url, token or "") as client:
            contest = client.contest(name)
            return contest, {section: client.ranking(contest["name"], section) for section in SECTIONS}
    return _local_rows(name, settings_of(directory, database))


def _bundled_rows(rule: Rule) -> tuple[dict[str, Any], Rows]:
    from leaderboard.terms import with_terms

    contest = {
        "name": "bundled",
        "title": "Networks that come with this package",
        "rule": rule.to_json(),
        "rule_name": rule.name,
        "rule_version": rule.version,
        "threshold": rule.threshold,
        "dataset": rule.dataset,
    }
    rows: Rows = {"ranked": [], "below_threshold": []}
    for entry in bundled_entries(rule):
        if entry.state in rows:
            row = {
                "rank": len(rows[entry.state]) + 1,
                "team": entry.name,
                "score": entry.score,
                "params": entry.params,
                "ops": entry.ops,
                "accuracy": entry.accuracy,
                "rule_name": rule.name,
                "rule_version": rule.version,
                "measured": with_terms(entry.report.measured, entry.report.scores[rule.name]),
            }
            rows[entry.state].append(row)
    return contest, rows


@dataclass(frozen=True)
class BundledEntry:
    """One bundled network under one rule."""

    name: str
    state: str
    score: float
    params: float
    ops: float
    accuracy: float
    report: Report


def bundled_entries(rule: Rule, directory: Path = DIRECTORY) -> list[BundledEntry]:
    """Bundled networks of the rule's data set that have a score under it, the best first.

    Raises DataError when a file has no report beside it: `contest score NAME.pt --json > NAME.json` writes one.
    """
    from leaderboard.domain.standings import judge
    from scoring.report import Report

    found = []
    for path in sorted(directory.glob("*.pt")):
        source = path.with_suffix(".json")
        if not source.is_file():
            raise DataError(f"bundled network '{path.name}' has no report '{source.name}' beside it")
        report = Report.from_json(json.loads(source.read_text(encoding="utf-8")))
        if rule.name not in report.scores or report.dataset != rule.dataset:
            continue
        verdict, score = judge(report, rule), report.scores[rule.name]
        if verdict.score(rule) is not None and verdict.accuracy is not None:
            found.append(
                BundledEntry(path.stem, verdict.state, score.total, score.params, score.ops, verdict.accuracy, report)
            )
    return sorted(found, key=lambda entry: (entry.score, -entry.accuracy, entry.name))


def _local_rows(name: str, settings: BoardSettings) -> tuple[dict[str, Any], Rows]:
    from pydantic import TypeAdapter

    from leaderboard.domain import contests, ranking
    from leaderboard.service.schemas import contest_view
    from leaderboard.storage.database import open_database

    database = open_database(settings)
    with database.read() as session:
        contest = contests.the_only(session, name)
        if contest is None:
            raise UsageError("there is no submission yet: `contest submit model.pt --team NAME` makes the first")
        rows: Rows = {}
        for section in ranking.SECTIONS:
            found = ranking.page(session, contest, section, size=10_000).rows
            rows[section] = TypeAdapter(list[ranking.Row]).dump_python(list(found), mode="json")
        view = contest_view(contest).model_dump(mode="json")
    database.close()
    return view, rows


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("plot"),
    show_default=True,
    help="A name with .png, .svg, .pdf or .html, or without for all four.",
)
@click.option("--title", help="Above the chart.")
@click.option("--bundled", is_flag=True, help="The networks that come with this package.")
@click.option("--rule", help="With FILES, a study or --bundled: the rule that scores [default: lab].")
@click.option("--group", type=click.Choice(["technique"]), help="With FILES or a study: a colour and a shape for each.")
@click.option("--link", type=click.Choice(["parent"]), help="With FILES or a study: arrows from parent to child.")
@click.option(
    "--x",
    "across",
    type=click.Choice(["score", "params", "macs"]),
    default="score",
    show_default=True,
    help="With FILES or a study: what goes to the right; params is the parameter term.",
)
@contest_option
@data_option
@local
@remote
def plot(
    files: tuple[Path, ...],
    out: Path,
    title: str | None,
    bundled: bool,
    rule: str | None,
    group: str | None,
    link: str | None,
    across: Any,
    name: str,
    data: Path | None,
    directory: Path | None,
    database: str | None,
    url: str | None,
    token: str | None,
) -> None:
    """Draw accuracy against score: the threshold, the Pareto front, the references.

    FILES: networks (scored here, each in its own process), reports of `contest score --json`, or the folder of a study;
    without them the ranking of a contest.
    """
    from leaderboard.charts import accuracy_score
    from leaderboard.terms import further
    from scoring.rules import Rule, load_rule

    if files:
        from leaderboard.charts import networks

        chosen = load_rule(rule or "lab")
        found = networks.linked(_tries(files, chosen, data))
        if not found:
            raise UsageError("none of these has both a score and an accuracy: there is nothing to draw")

        def document(look: Any) -> dict[str, Any]:
            return networks.specification(
                found, chosen, chosen.threshold, look, x=across, group=bool(group), link=bool(link), title=title or ""
            )

        written = accuracy_score.write(document, out, title or accuracy_score.default_title(chosen))
    else:
        contest, sections = rows_of(bundled, rule or "lab", name, directory, database, url, token)
        entries = [
            accuracy_score.ChartPoint(
                row["team"],
                row["accuracy"],
                row["score"],
                team=row["team"],
                params=row["params"],
                ops=row["ops"],
                further=further(row["measured"]),
                baseline=row.get("baseline", False),
            )
            for rows in sections.values()
            for row in rows
        ]
        ranked_by = Rule.from_json(contest["rule"])
        written = accuracy_score.plot(entries, ranked_by, contest["threshold"], out, title=title)
    for path in written:
        click.echo(path)


def _tries(paths: Sequence[Path], rule: Rule, data: Path | None) -> list[Try]:
    """The networks of files, reports and studies, in the order in which they are given."""
    from leaderboard.charts.networks import Try, technique_of, try_of

    found: list[Try] = []
    for path in paths:
        if path.is_dir():
            study: Callable[[Path], list[Mapping[str, Any]]] | None = click.get_current_context().meta.get(STUDY)
            if study is None or not (path / "study.json").is_file():
                raise UsageError(f"{path} is a folder, and no study: give a study's folder, or files")
            found += [Try(**row, technique=technique_of(told)) for row, told in map(_parted, study(path))]
            continue
        one = try_of(path.stem, _report(path, rule, data), rule.name)
        if one is None:
            click.echo(
                f"{path}: left out, it has no accuracy on '{rule.dataset}' or no score under '{rule.name}'", err=True
            )
        else:
            found.append(one)
    return found


def _parted(row: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    return {key: value for key, value in row.items() if key != "measured"}, row["measured"]


def _report(path: Path, rule: Rule, data: Path | None) -> Any:
    """A report of `contest score --json` as it is; anything else is scored."""
    import json

    from contest.datasets import load
    from scoring.report import Report
    from scoring.score import score_file

    if path.suffix == ".json":
        try:
            return Report.from_json(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise UsageError(f"{path} is no report of `contest score --json`: {error}") from error
    return score_file(path, images=load(rule.dataset, data).test, rule=rule)
