"""The ranking as text: a table for the terminal, and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from leaderboard.charts.accuracy_score import ChartPoint
from leaderboard.domain import claims
from leaderboard.terms import names_of, terms_of

_SECTIONS = {"ranked": "At or above", "below_threshold": "Below"}


def print_ranking(contest: Mapping[str, Any], rows: Mapping[str, Sequence[Mapping[str, Any]]], limit: int) -> None:
    """Both sections, at most `limit` rows of each."""
    console = Console()
    rule = f"rule {contest['rule_name']} (version {contest['rule_version']})"
    console.print(Text.assemble((contest["title"], "bold"), f", {rule}, {contest['dataset']}"))
    for section, found in rows.items():
        heading = f"{_SECTIONS[section]} {contest['threshold']:.0%}"
        if not found:
            console.print(f"{heading}: nobody yet")
            continue
        console.print(_ranking(heading, found[:limit]))
        if len(found) > limit:
            console.print(f"and {len(found) - limit} more (--limit)")
    if footnote := contest["rule"].get("footnote"):
        console.print(Text(footnote, style="dim"))


def print_submission(entry: Mapping[str, Any]) -> None:
    """One submission: its state, why, and its figures."""
    console = Console()
    console.print(
        Text.assemble(
            ("submission ", ""),
            (str(entry["id"]), "bold"),
            f" of {entry['team']}: ",
            (entry["state"].replace("_", " "), "bold"),
        )
    )
    if entry.get("reason"):
        console.print(Text(entry["reason"]))
    if entry.get("score") is not None:
        terms = " + ".join(f"{value:.6f} {name}" for name, value in terms_of(entry).items())
        console.print(
            f"score {entry['score']:.6f} = {terms} "
            f"(with bitmask {entry['score_with_bitmask']:.6f}), rule {entry['rule_name']} v{entry['rule_version']}"
        )
    helps = claims.flattering(entry.get("measured"), entry.get("claimed"))
    for key in entry.get("differences") or ():
        names = claims.MEASURED_AS.get(key, (key,))
        measured = ", ".join(f"{name} = {_number(entry['measured'].get(name))}" for name in names)
        what = f"claimed {key} = {_number(entry['claimed'][key])}, measured {measured}"
        console.print(Text(what if key in helps else f"{what} (no better)", style="yellow" if key in helps else "dim"))


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _ranking(heading: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=heading, title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("team", overflow="fold")
    names = names_of(map(terms_of, rows))
    for name in ("accuracy", "score", *names):
        table.add_column(name, justify="right")
    dated = any("submitted_at" in row for row in rows)  # networks that come with the package are not
    if dated:
        table.add_column("submitted")
    for row in rows:
        terms = terms_of(row)
        table.add_row(
            str(row["rank"] or "-"),
            Text(row["team"] + (" (baseline)" if row.get("baseline") else "")),
            f"{row['accuracy']:.2%}",
            f"{row['score']:.6f}",
            *(f"{terms[name]:.6f}" if name in terms else "-" for name in names),
            *([str(row.get("submitted_at", ""))[:16].replace("T", " ")] if dated else []),
        )
    return table


_HEAD = (
    "| network | accuracy | score | {terms} | MACs | weights that are not zero | bits |",
    "| --- | ---: | ---: | --- | ---: | ---: | ---: |",
)


def ranking_table(rows: Sequence[Mapping[str, Any]], references: Sequence[ChartPoint] = ()) -> str:
    """Rows of a ranking and references, the lowest score first.

    Bits are the means that the scorer measured, weights (over nonzeros) / activations (over operations).
    """
    lines = [(row["score"], _entry(row)) for row in rows]
    lines += [(r.score, f"| *{_text(r.name)}* | *{r.accuracy:.2%}* | *{r.score:.4f}* | | | | |") for r in references]
    names = names_of(map(terms_of, rows)) or ["parameters", "operations"]
    head = [line.format(terms=" + ".join(names)) for line in _HEAD]
    return "\n".join([*head, *(line for _, line in sorted(lines, key=lambda pair: pair[0]))]) + "\n"


def _entry(row: Mapping[str, Any]) -> str:
    measured = row["measured"]
    cells = (
        f"**{_text(row['team'])}**",
        f"{row['accuracy']:.2%}",
        f"{row['score']:.5f}",
        " + ".join(f"{value:.5f}" for value in terms_of(row).values()),
        f"{measured['macs'] / 1e6:.1f}M",
        f"{measured['nonzeros']:,} of {measured['weights']:,}",
        f"{measured['q_w']:.1f} / {measured['q_a']:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _text(name: str) -> str:
    """A stranger's name: no cell, line or markup may come of it."""
    flat = " ".join(name.split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|~&" else sign for sign in flat)
