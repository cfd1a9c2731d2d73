"""A ranking as a Markdown table, the published networks in italics where they would stand: for a README or a slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leaderboard.charts.accuracy_score import Point

_HEAD = (
    "| network | accuracy | score | parameters + operations | MACs | weights that are not zero | bits |",
    "| --- | ---: | ---: | --- | ---: | ---: | ---: |",
)


def ranking_table(rows: Sequence[Mapping[str, Any]], references: Sequence[Point] = ()) -> str:
    """Rows of a ranking and references, the lowest score first.

    Bits are the means that the scorer measured, weights (over nonzeros) / activations (over operations).
    """
    lines = [(row["score"], _entry(row)) for row in rows]
    lines += [(r.score, f"| *{_text(r.name)}* | *{r.accuracy:.2%}* | *{r.score:.4f}* | | | | |") for r in references]
    return "\n".join([*_HEAD, *(line for _, line in sorted(lines, key=lambda pair: pair[0]))]) + "\n"


def _entry(row: Mapping[str, Any]) -> str:
    measured = row["measured"]
    cells = (
        f"**{_text(row['team'])}**",
        f"{row['accuracy']:.2%}",
        f"{row['score']:.5f}",
        f"{row['params']:.5f} + {row['ops']:.5f}",
        f"{measured['macs'] / 1e6:.1f}M",
        f"{measured['nonzeros']:,} of {measured['weights']:,}",
        f"{measured['q_w']:.1f} / {measured['q_a']:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _text(name: str) -> str:
    """A stranger's name: no cell, line or markup may come of it."""
    flat = " ".join(name.split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|~&" else sign for sign in flat)
