"""How a chart looks, and the layers of the accuracy-against-score chart, in Altair."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Look:
    """Size and colours of a chart. The defaults are for a slide of 16:9."""

    width: int = 1100
    height: int = 500
    font: int = 21
    small: int = 17
    note: int = 15
    dot: int = 170
    dark: bool = False
    interactive: bool = False
    title: bool = True
    labels: int = 60
    """At most so many names."""
    language: str = "en"
    words: Callable[[str], str] = field(default=str, compare=False, repr=False)
    """A sentence of ours in that language."""

    def say(self, text: str, **values: object) -> str:
        """A sentence in the chart's language, with values at its places %(name)s."""
        told = self.words(text)
        return told % values if values else told

    @property
    def keyed(self) -> int:
        """So many entries without a name get a sign and a place in the key: in pictures, where nobody can hover."""
        return 0 if self.interactive else 200

    @property
    def ink(self) -> str:
        """Text and lines."""
        return "#f2f2f0" if self.dark else "#16181d"

    @property
    def quiet(self) -> str:
        """Axes and notes: at least 4.5:1 against the background."""
        return "#b5b8c0" if self.dark else "#50545e"

    @property
    def grid(self) -> str:
        """Grid lines."""
        return "#30343d" if self.dark else "#e3e5ea"

    @property
    def paper(self) -> str:
        """The background."""
        return "#15171c" if self.dark else "#ffffff"

    @property
    def kinds(self) -> dict[str, tuple[str, str, str]]:
        """kind -> (fill, stroke, shape): shape and lightness differ too, so that grey paper keeps them apart."""
        if self.dark:
            return {
                "front": ("#ffb454", "#ffb454", "circle"),
                "entry": ("#6f9bff", "#6f9bff", "circle"),
                "below": ("#15171c", "#9aa0ab", "circle"),
                "reference": ("#15171c", "#d7dae0", "diamond"),
            }
        return {
            "front": ("#0b3d91", "#0b3d91", "circle"),
            "entry": ("#7fb0ee", "#3f74b8", "circle"),
            "below": ("#ffffff", "#6b7280", "circle"),
            "reference": ("#ffffff", "#16181d", "diamond"),
        }


@dataclass(frozen=True)
class Frame:
    """The data ranges of the axes and the way from data to pixels."""

    look: Look
    scores: tuple[float, float]
    accuracies: tuple[float, float]
    ticks: list[float] = field(default_factory=list)

    def pixel(self, score: float, accuracy: float) -> tuple[float, float]:
        low, high = (math.log(value) for value in self.scores)
        bottom, top = self.accuracies
        return (
            (math.log(score) - low) / (high - low) * self.look.width,
            (top - accuracy) / (top - bottom) * self.look.height,
        )


def frame(points: Sequence[tuple[float, float]], threshold: float, look: Look) -> Frame:
    """Axis ranges with room around the points; x reaches round numbers of the 1-2-5 series."""
    scores = [score for score, _ in points] or [0.001, 1.0]
    low, high = min(scores), max(scores)
    spread = max(math.log10(high / low), 0.6)
    low, high = low / 10 ** (0.07 * spread), high * 10 ** (0.12 * spread)
    accuracies = [*(accuracy for _, accuracy in points), threshold]
    bottom, top = min(accuracies), max(accuracies)
    margin = max((top - bottom) * 0.12, 0.005)
    ticks = [
        float(f"{digit}e{power}")
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digit in ((1, 2, 5) if look.width / math.log10(high / low) > 10 * look.font else (1,))
    ]
    return Frame(
        look,
        (low, high),
        (max(bottom - margin, 0.0), min(top + margin, 1.0 + margin / 2)),
        [tick for tick in ticks if low <= tick <= high],
    )


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
            text=look.say("%(share)s line", share=percent(threshold)),
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
        "front": look.say("entry on the Pareto front"),
        "entry": look.say("entry"),
        "below": look.say("below %(share)s", share=percent(threshold)),
        "reference": look.say("reference, not ranked"),
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


def leaders(rows: list[dict[str, Any]], x: Any, y: Any, look: Look) -> list[Any]:
    """Lines from points to their names. Offsets are pixels, so that zooming moves a name with its point."""
    import altair as alt

    some = [row for row in rows if row["leader"]]
    ends = {"x2Offset": alt.expr("datum.lx"), "y2Offset": alt.expr("datum.ly")}
    line = alt.Chart(alt.Data(values=some)).mark_rule(color=look.quiet, strokeWidth=1, clip=True, **ends)
    return [line.encode(x=x, y=y, x2="score", y2="accuracy")] if some else []


def label_layers(rows: list[dict[str, Any]], x: Any, y: Any, look: Look) -> list[Any]:
    """Names, likewise."""
    import altair as alt

    def offset(name: str) -> Any:
        return alt.expr(f"datum.{name}")

    layers = []
    for reference, colour, style in ((False, look.ink, "normal"), (True, look.quiet, "italic")):
        some = [row for row in rows if row["reference"] is reference]
        # Twice: the paper's colour around the letters keeps lines that run behind them off.
        for halo in ({"stroke": look.paper, "strokeWidth": 4, "strokeJoin": "round"}, {}) if some else ():
            text = alt.Chart(alt.Data(values=some)).mark_text(
                align=offset("align"),
                baseline="middle",
                fontSize=offset("size"),
                color=colour,
                fontStyle=style,
                dx=offset("dx"),
                dy=offset("dy"),
                clip=True,
                **halo,
            )
            layers += [text.encode(x=x, y=y, text="name:N")]
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
