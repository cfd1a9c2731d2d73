"""One team's tries, or some files: accuracy against score by technique, with arrows from parent to child.

What a network is made with is told by what was measured of it. Its parent is what it names (`parent 12` in the note of
a submission, `parent` in a file's provenance), else the try before it that has the same layers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from leaderboard.charts import marks
from leaderboard.charts.label_placement import Box, place
from leaderboard.charts.marks import Frame, Look, frame
from scoring.report import Report
from scoring.rules import Rule

Axis = Literal["score", "params", "macs"]
TITLES = {
    "score": "score under rule %(rule)s (log scale, smaller is better)",
    "params": "parameter term of the score under rule %(rule)s (log scale, smaller is better)",
    "macs": "multiply-accumulates for an image (log scale, smaller is better)",
}
# Okabe and Ito's colours, which also people with any one kind of colour blindness tell apart; shapes for grey paper.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a8f99", "#f0e442")
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
_HEAD = 70
_OTHER = "other"


@dataclass(frozen=True)
class Try:
    """One network. `signature` is equal for networks of the same layers; `parent` is the name of another try."""

    name: str
    accuracy: float
    score: float
    params: float
    macs: float
    technique: str = ""
    parent: str = ""
    signature: str = ""
    url: str = ""


def try_of(name: str, report: Report, rule: str, *, parent: str = "", url: str = "") -> Try | None:
    """A report as a try; None where it has no score or no accuracy."""
    if rule not in report.scores or report.accuracy is None:
        return None
    terms = report.scores[rule]
    named = re.search(r"\d+", report.provenance.get("parent", ""))
    layers = json.dumps([(row["name"], row["weights"], row["macs"]) for row in report.layers])
    macs = float(report.measured.get("macs") or 0.0)
    technique = technique_of(report.measured)
    return Try(
        name,
        report.accuracy.value,
        terms.total,
        terms.params,
        macs,
        technique,
        parent or (named[0] if named else ""),
        layers,
        url,
    )


def technique_of(measured: Mapping[str, Any]) -> str:
    """`4 bits, pruned`: what was measured of a network, in words."""
    bits, weights = measured.get("q_w") or 32, measured.get("weights") or 0
    parts = [
        "float" if bits > 16 else "half" if bits > 8.5 else f"{round(bits)} {'bit' if round(bits) == 1 else 'bits'}"
    ]
    if measured.get("p_s_weights"):
        parts.append("channels removed")
    if weights and measured.get("nonzeros", weights) < 0.99 * weights:
        parts.append("pruned")
    return ", ".join(parts)


def linked(tries: Sequence[Try]) -> list[Try]:
    """The same with parents: those that are named and there, else the try before it of the same layers."""
    names, before, found = {one.name for one in tries}, dict[str, str](), []
    for one in tries:
        parent = one.parent if one.parent in names - {one.name} else before.get(one.signature, "")
        found.append(replace(one, parent=parent))
        if one.signature:
            before[one.signature] = one.name
    return found


def specification(
    tries: Sequence[Try],
    rule: Rule,
    threshold: float,
    look: Look,
    *,
    x: Axis = "score",
    group: bool = True,
    link: bool = True,
    title: str = "",
) -> dict[str, Any]:
    """The chart as a Vega-Lite document. `group`: colours and shapes by technique; `link`: arrows."""
    import altair as alt

    value = {id(one): float(getattr(one, x)) for one in tries}
    drawn = [one for one in tries if math.isfinite(value[id(one)]) and value[id(one)] > 0]
    area = frame([(value[id(one)], one.accuracy) for one in drawn], threshold, look)
    at = {one.name: area.pixel(value[id(one)], one.accuracy) for one in drawn}
    techniques = list(dict.fromkeys(one.technique or _OTHER for one in drawn)) if group else ["network"]
    if len(techniques) > len(_COLOURS):
        techniques = [*techniques[: len(_COLOURS) - 1], _OTHER]
    kinds = {id(one): _told(one.technique if one.technique in techniques else _OTHER, look) for one in drawn}
    techniques = [_told(technique, look) for technique in techniques]
    rows = [
        {
            "name": one.name,
            "accuracy": one.accuracy,
            "value": value[id(one)],
            "technique": kinds[id(one)] if group else techniques[0],
            "url": one.url,
            "tip": {
                look.say("try"): one.name,
                look.say("accuracy"): f"{100 * one.accuracy:.2f} %",
                look.say("score"): f"{one.score:.5g}",
                look.say("parameter term"): f"{one.params:.4g}",
                "MACs": f"{one.macs:,.0f}",
                look.say("technique"): _told(one.technique, look),
            },
        }
        for one in drawn
    ]
    across = alt.X(
        "value:Q",
        title=look.say(TITLES[x], rule=rule.name),
        scale=alt.Scale(type="log", domain=list(area.scores), nice=False),
        axis=alt.Axis(values=area.ticks, format="~s" if x == "macs" else "~g"),
    )
    up = alt.Y(
        "accuracy:Q",
        title=look.say("accuracy"),
        scale=alt.Scale(domain=list(area.accuracies), nice=False, zero=False),
        axis=alt.Axis(format=".0%" if area.accuracies[1] - area.accuracies[0] > 0.05 else ".1%", tickCount=7),
    )
    legend = alt.Legend(title=None, orient="top", columns=0 if look.width > 700 else 2) if group else None
    colours = alt.Scale(domain=techniques, range=list(_COLOURS[: len(techniques)]))
    shapes = alt.Scale(domain=techniques, range=list(_SHAPES[: len(techniques)]))
    points = alt.Chart(alt.Data(values=rows)).mark_point(
        size=look.dot,
        filled=True,
        opacity=1,
        clip=True,
        tooltip=alt.expr("datum.tip"),
        cursor=alt.expr("datum.url ? 'pointer' : 'default'"),
    )
    layers = [
        *marks.threshold_line(threshold, area),
        *(_arrows(drawn, at, value, look, across, up) if link else ()),
        points.encode(
            x=across,
            y=up,
            color=alt.Color("technique:N", scale=colours, legend=legend),
            shape=alt.Shape("technique:N", scale=shapes, legend=legend),
        ),
        *marks.label_layers(_names(drawn, at, value, area, link), alt.X("score:Q"), up, look),
        marks.notes([], look),
    ]
    chart = alt.layer(*layers).properties(width=look.width, height=look.height, background=look.paper)
    if title:
        chart = chart.properties(title=alt.TitleParams(title, anchor="start", offset=14))
    return dict(marks.configured(chart, look).to_dict())


def _told(technique: str, look: Look) -> str:
    return ", ".join(look.words(part) for part in technique.split(", "))


def _arrows(
    tries: Sequence[Try],
    at: Mapping[str, tuple[float, float]],
    value: Mapping[int, float],
    look: Look,
    across: Any,
    up: Any,
) -> list[Any]:
    """From parent to child: a line, and a head in front of the child's point."""
    import altair as alt

    by_name, rows = {one.name: one for one in tries}, []
    for one in tries:
        parent = by_name.get(one.parent)
        if parent is None:
            continue
        (x0, y0), (x1, y1) = at[parent.name], at[one.name]
        length = math.hypot(x1 - x0, y1 - y0)
        back = math.sqrt(look.dot / math.pi) + 5
        if length < 2 * back:
            continue
        rows.append(
            {
                "value": value[id(parent)],
                "accuracy": parent.accuracy,
                "to": value[id(one)],
                "high": one.accuracy,
                "dx": round(-(x1 - x0) / length * back, 2),
                "dy": round(-(y1 - y0) / length * back, 2),
                "angle": round(math.degrees(math.atan2(y1 - y0, x1 - x0)) + 90, 1),
            }
        )
    if not rows:
        return []
    data = alt.Chart(alt.Data(values=rows))
    line = data.mark_rule(color=look.quiet, strokeWidth=1.4, opacity=0.8, clip=True)
    head = data.mark_point(
        shape="triangle-up",
        size=_HEAD,
        filled=True,
        color=look.quiet,
        opacity=1,
        angle=alt.expr("datum.angle"),
        xOffset=alt.expr("datum.dx"),
        yOffset=alt.expr("datum.dy"),
        clip=True,
    )
    return [
        line.encode(x=across, y=up, x2="to", y2="high"),
        head.encode(x=alt.X("to:Q"), y=alt.Y("high:Q")),
    ]


def _names(
    tries: Sequence[Try], at: Mapping[str, tuple[float, float]], value: Mapping[int, float], area: Frame, link: bool
) -> list[dict[str, Any]]:
    look = area.look
    ordered = sorted(tries, key=lambda one: (-one.accuracy, one.score))[: look.labels]
    labels = place(
        [one.name[:32] for one in ordered],
        [at[one.name] for one in ordered],
        Box(4, 4, look.width - 4, look.height - 4),
        size=look.small,
        obstacles=list(at.values()),
        radius=math.sqrt(look.dot / math.pi) + 2,
        lines=[(at[one.parent], at[one.name]) for one in tries if link and one.parent in at],
        exempt=len(ordered),
    )
    rows = []
    for label in labels:
        one = ordered[label.index]
        px, py = at[one.name]
        rows.append(
            {
                "name": one.name[:32],
                "score": value[id(one)],
                "accuracy": one.accuracy,
                "reference": False,
                "size": look.small,
                "align": label.align,
                "dx": round(label.anchor[0] - px, 1),
                "dy": round(label.anchor[1] - py, 1),
            }
        )
    return rows
