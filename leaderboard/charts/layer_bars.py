"""A report's layers, as a table and as a chart of their parts of the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from leaderboard.charts.marks import Look
from scoring.report import Report

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
