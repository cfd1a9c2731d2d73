"""`contest plot`: a ranking, or files and studies by technique."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contest.errors import UsageError
from leaderboard.commands.options import contest_option, local
from leaderboard.commands.user import data_option, remote, rows_of

if TYPE_CHECKING:
    from leaderboard.charts.networks import Try
    from scoring.rules import Rule

STUDY = "contest.study"
"""What the roof puts into a context's `meta`: a function from a study's folder to its networks, as mappings."""


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
