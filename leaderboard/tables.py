"""Rankings and submissions in a terminal. Names from strangers are printed as text, never as rich's markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

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
        console.print(
            f"score {entry['score']:.6f} = {entry['params']:.6f} parameters + {entry['ops']:.6f} operations "
            f"(with bitmask {entry['score_with_bitmask']:.6f}), rule {entry['rule_name']} v{entry['rule_version']}"
        )
    for key in entry.get("differences") or ():
        claimed, measured = entry["claimed"].get(key), entry["measured"].get(key)
        console.print(Text(f"claimed {key} = {claimed}, measured {measured}", style="yellow"))


def _ranking(heading: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=heading, title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("team", overflow="fold")
    for name in ("accuracy", "score", "parameters", "operations"):
        table.add_column(name, justify="right")
    dated = any("submitted_at" in row for row in rows)  # networks that come with the package are not
    if dated:
        table.add_column("submitted")
    for row in rows:
        table.add_row(
            str(row["rank"] or "-"),
            Text(row["team"] + (" (baseline)" if row.get("baseline") else "")),
            f"{row['accuracy']:.2%}",
            f"{row['score']:.6f}",
            f"{row['params']:.6f}",
            f"{row['ops']:.6f}",
            *([str(row.get("submitted_at", ""))[:16].replace("T", " ")] if dated else []),
        )
    return table
