"""What is drawn of reports: tries of a team, or files, by technique; and the layers of one network."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
    rows = [_row(one, value[id(one)], kinds[id(one)] if group else techniques[0], look) for one in drawn]
    across, up = _axes(x, rule, area, look)
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


def _row(one: Try, value: float, technique: str, look: Look) -> dict[str, Any]:
    """A try as the chart's data; `tip` is what a reader who points at it is told."""
    return {
        "name": one.name,
        "accuracy": one.accuracy,
        "value": value,
        "technique": technique,
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


def _axes(x: Axis, rule: Rule, area: Frame, look: Look) -> tuple[Any, Any]:
    import altair as alt

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
    return across, up


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


_ROW = 22
_MOST = 60
"""More bars than this are no chart; the dearest layers are drawn."""


@dataclass(frozen=True)
class Layer:
    """One row of a report. Shares are of the score's terms, 0 to 1."""

    name: str
    kind: str
    macs: float
    weights: float
    nonzeros: float
    weight_bits: float
    activation_bits: float
    params: float
    ops: float
    params_share: float
    ops_share: float


def layers_of(report: Report | None) -> list[Layer]:
    """The layers of a report, if there is one."""
    names = [field.name for field in fields(Layer)]
    return [Layer(**{name: row[name] for name in names}) for row in report.layers] if report else []


def layer_specification(layers: Sequence[Layer], look: Look) -> dict[str, Any]:
    """Bars: what each layer adds to the score, its parameters and its operations, in the order of the network."""
    import altair as alt

    dearest = sorted(layers, key=lambda layer: -(layer.params + layer.ops))[:_MOST]
    shown = [layer for layer in layers if layer in dearest and layer.params + layer.ops > 0]
    operations, parameters = look.say("operations"), look.say("parameters")
    kinds = {operations: look.kinds["front"][0], parameters: look.kinds["entry"][0]}
    rows = [
        {
            "position": position,
            "layer": layer.name,
            "term": term,
            "score": part,
            "place": place,
            "bits": f"{layer.weight_bits:g} / {layer.activation_bits:g}",
        }
        for position, layer in enumerate(shown)
        for place, (term, part) in enumerate(((operations, layer.ops), (parameters, layer.params)))
    ]
    score_axis = alt.Axis(format="~g", tickCount=5 if look.width > 500 else 3)
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            y=alt.Y("layer:N", sort=alt.SortField("position"), title=None, axis=alt.Axis(labelLimit=170)),
            x=alt.X("score:Q", title=look.say("part of the score"), axis=score_axis),
            color=alt.Color(
                "term:N",
                scale=alt.Scale(domain=list(kinds), range=list(kinds.values())),
                legend=alt.Legend(orient="top", title=None),
            ),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("layer:N", title=look.say("layer")),
                alt.Tooltip("term:N", title=look.say("term")),
                alt.Tooltip("score:Q", format=".4~g", title=look.say("part of the score")),
                alt.Tooltip("bits:N", title=look.say("bits of weights / activations")),
            ],
        )
        .properties(width=look.width - 60, height=max(_ROW * len(shown), 40), background=look.paper)
        .configure(font="Helvetica, Arial, Liberation Sans, sans-serif", padding=4)
        .configure_view(stroke=None)
        .configure_axis(
            labelFontSize=look.font - 2,
            titleFontSize=look.font - 1,
            titleFontWeight="normal",
            labelColor=look.quiet,
            titleColor=look.ink,
            gridColor=look.grid,
            domainColor=look.quiet,
            tickColor=look.quiet,
        )
        .configure_legend(labelFontSize=look.font - 1, labelColor=look.ink)
    )
    return dict(chart.to_dict())
