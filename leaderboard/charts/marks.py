"""The layers of the accuracy-against-score chart, in Altair."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from leaderboard.charts.theme import Frame, Look


def percent(share: float) -> str:
    """0.9 as "90 %"."""
    return f"{100 * share:g} %"


def threshold_line(threshold: float, area: Frame) -> list[Any]:
    """The accuracy that ranking needs, and its name at the right end."""
    import altair as alt

    look = area.look
    data = alt.Data(values=[{"threshold": threshold}])
    base = alt.Chart(data).encode(y=alt.Y("threshold:Q"))
    return [
        base.mark_rule(color=look.quiet, strokeWidth=2, strokeDash=[8, 5], clip=True),
        base.mark_text(
            text=f"{percent(threshold)} line",
            align="right",
            baseline="bottom",
            dx=-4,
            dy=-4,
            color=look.quiet,
            fontSize=look.small,
            fontWeight="bold",
            clip=True,
        ).encode(x=alt.value(look.width)),
    ]


def front_line(front: Sequence[tuple[float, float]], x: Any, y: Any, area: Frame) -> Any:
    """The Pareto front, given as (score, accuracy): steps, since a front says what no entry beats, and no more."""
    import altair as alt

    rows = [{"score": score, "accuracy": accuracy} for score, accuracy in front]
    if rows:
        rows.append({"score": area.scores[1] * 100, "accuracy": front[-1][1]})
    mark = {"interpolate": "step-after", "strokeWidth": 2.5, "color": area.look.kinds["front"][1], "clip": True}
    return alt.Chart(alt.Data(values=rows)).mark_line(**mark, opacity=0.6).encode(x=x, y=y)


def points(rows: list[dict[str, Any]], x: Any, y: Any, threshold: float, look: Look) -> Any:
    """All networks, with legend and tooltips; in an interactive chart also panning and zooming."""
    import altair as alt

    titles = {
        "front": "entry on the Pareto front",
        "entry": "entry",
        "below": f"below {percent(threshold)}",
        "reference": "reference, not ranked",
    }
    present = [kind for kind in titles if any(row["kind"] == kind for row in rows)]
    domain = [titles[kind] for kind in present]
    for row in rows:
        row["kind"] = titles[row["kind"]]
    styles = [look.kinds[kind] for kind in present]
    legend = alt.Legend(
        title=None,
        orient="top",
        direction="horizontal",
        symbolSize=look.dot,
        columns=0 if look.width > 700 else 2,
        symbolOpacity=1.0,
    )
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(
            size=look.dot,
            filled=True,
            opacity=1,
            strokeWidth=2,
            clip=True,
            tooltip=alt.expr("datum.tip"),
            cursor=alt.expr("datum.url ? 'pointer' : 'default'"),
        )
        .encode(
            x=x,
            y=y,
            fill=alt.Fill("kind:N", scale=alt.Scale(domain=domain, range=[s[0] for s in styles]), legend=legend),
            stroke=alt.Stroke("kind:N", scale=alt.Scale(domain=domain, range=[s[1] for s in styles]), legend=legend),
            shape=alt.Shape("kind:N", scale=alt.Scale(domain=domain, range=[s[2] for s in styles]), legend=legend),
        )
    )
    if look.interactive:
        # The wheel alone belongs to the page: a chart that swallows it traps the reader.
        zoom = alt.selection_interval(bind="scales", name="view", zoom="wheel![event.ctrlKey || event.metaKey]")
        chart = chart.add_params(zoom)
    return chart


def label_layers(rows: list[dict[str, Any]], x: Any, y: Any, look: Look) -> list[Any]:
    """Names and their leader lines. Offsets are pixels, so that zooming moves a name with its point."""
    import altair as alt

    def offset(name: str) -> Any:
        return alt.expr(f"datum.{name}")

    leaders = [row for row in rows if row["leader"]]
    layers = []
    if leaders:
        layers.append(
            alt.Chart(alt.Data(values=leaders))
            .mark_rule(color=look.quiet, strokeWidth=1, clip=True, x2Offset=offset("lx"), y2Offset=offset("ly"))
            .encode(x=x, y=y, x2="score", y2="accuracy")
        )
    for reference, colour, style in ((False, look.ink, "normal"), (True, look.quiet, "italic")):
        some = [row for row in rows if row["reference"] is reference]
        if some:
            layers.append(
                alt.Chart(alt.Data(values=some))
                .mark_text(
                    align=offset("align"),
                    baseline="middle",
                    fontSize=look.small,
                    color=colour,
                    fontStyle=style,
                    dx=offset("dx"),
                    dy=offset("dy"),
                    clip=True,
                )
                .encode(x=x, y=y, text="name:N")
            )
    return layers


def notes(lines: Sequence[str], look: Look) -> Any:
    """Lines under the chart."""
    import altair as alt

    lines = [part for line in lines for part in textwrap.wrap(line, int(look.width / (0.5 * look.note)))]
    return (
        alt.Chart(alt.Data(values=[{}]))
        .mark_text(
            text=lines or [""],
            align="left",
            baseline="top",
            fontSize=look.note,
            color=look.quiet,
            lineHeight=1.35 * look.note,
            clip=False,
            tooltip=None,
        )
        .encode(x=alt.value(0), y=alt.value(look.height + 2.6 * look.font + 26))
    )


def configured(chart: Any, look: Look) -> Any:
    """Fonts and colours of all parts."""
    return (
        chart.configure(font="Helvetica, Arial, Liberation Sans, sans-serif", padding=0.9 * look.font)
        .configure_view(stroke=None)
        .configure_title(fontSize=1.35 * look.font, color=look.ink, fontWeight=600)
        .configure_axis(
            labelFontSize=0.9 * look.font,
            titleFontSize=look.font,
            titleFontWeight="normal",
            titlePadding=12,
            labelColor=look.quiet,
            titleColor=look.ink,
            gridColor=look.grid,
            domainColor=look.quiet,
            tickColor=look.quiet,
        )
        .configure_legend(
            labelFontSize=0.9 * look.font,
            labelColor=look.ink,
            labelLimit=400,
            symbolStrokeWidth=2,
            columnPadding=24,
            rowPadding=4,
            offset=12,
        )
    )
