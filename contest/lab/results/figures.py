"""Figures for slides: large type, and lines told apart by dash and marker as well as by colour (grey-safe)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

# Okabe and Ito's colours that survive colour blindness, ordered so that neighbours differ in grey as well.
COLOURS = ["#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F"]
DASHES: list[list[int]] = [[1, 0], [8, 3], [2, 3], [10, 3, 2, 3], [5, 5], [14, 4], [2, 8], [6, 2, 2, 2, 2, 2]]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke", "triangle-right"]
WIDTH, HEIGHT = 640, 400
X_TICKS = 8  # about so many, so that 0.005 and 0.010 stay apart
TICK_DIGITS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 2, 5),
    tuple(range(1, 10)),
    tuple(halves / 2 for halves in range(2, 20)),
    tuple(tenths / 10 for tenths in range(10, 100)),
)
"""What a logarithmic axis may name, from the coarsest on."""
PIXELS = 2.0  # of a PNG for each pixel of the figure


def save(chart: alt.TopLevelMixin, folder: Path, name: str) -> None:
    """`figures/<name>.svg` and `.png`."""
    directory = folder / "figures"
    directory.mkdir(parents=True, exist_ok=True)
    for suffix, options in (("svg", {}), ("png", {"scale_factor": PIXELS})):
        part = directory / f"{name}.part.{suffix}"
        chart.save(str(part), **options)
        part.replace(directory / f"{name}.{suffix}")


def styled(chart: Any) -> Any:
    """The look that all figures share."""
    return (
        chart.configure(background="white", font="DejaVu Sans, Arial, sans-serif", padding=12)
        .configure_view(strokeWidth=0, fill="white")
        .configure_axis(
            labelFontSize=15,
            titleFontSize=17,
            titleFontWeight="normal",
            gridColor="#e4e4e4",
            labelFlush=False,
            labelColor="#222",
            titleColor="#222",
            domainColor="#888",
            tickColor="#888",
        )
        .configure_legend(
            labelFontSize=15,
            titleFontSize=15,
            labelLimit=320,
            symbolSize=120,
            symbolStrokeWidth=2,
            titleFontWeight="normal",
            orient="right",
            labelColor="#222",
        )
        .configure_title(
            fontSize=19, fontWeight="normal", anchor="start", color="#222", subtitleFontSize=14, subtitleColor="#555"
        )
        .configure_header(labelFontSize=14, titleFontSize=15, labelColor="#222")
    )


@dataclass(frozen=True)
class Lines:
    """A line for each value of column `line` over columns `x` and `y`, points in the order of column `order`.

    `level` draws a horizontal rule (the dense network's accuracy, say), `spread` a bar between two columns at
    each point, `band` an area between two columns along each line (over seeds, say), values of y or, with
    `band_in_x`, of x. `categories` are names for whole numbers of x.
    """

    table: pd.DataFrame
    x: str
    y: str
    line: str
    title: str
    subtitle: str = ""
    order: str | None = None
    x_log: bool = False
    y_log: bool = False
    x_zero: bool = False
    y_zero: bool = False
    x_ticks: Sequence[float] | None = None
    level: float | None = None
    spread: tuple[str, str] | None = None
    band: tuple[str, str] | None = None
    band_in_x: bool = False
    categories: tuple[str, ...] = ()
    x_title: str = ""
    width: int = WIDTH
    height: int = HEIGHT

    def chart(self) -> Any:
        names = list(dict.fromkeys(self.table[self.line]))
        # Beyond eight lines a colour comes again, but never with the same dash and marker.
        turns = [(i, i // len(COLOURS)) for i in range(len(names))]
        colours = [COLOURS[i % len(COLOURS)] for i, _ in turns]
        legend = alt.Legend(title=self.line, symbolSize=160, symbolDash=[1, 0])
        plain = alt.Chart(self.table).encode(
            x=alt.X(
                _field(self.x),
                type="quantitative",
                title=self.x_title or self.x,
                scale=_scale(self.x_log, self.x_zero),
                axis=self._x_axis(),
            ),
            y=alt.Y(_field(self.y), type="quantitative", title=self.y, scale=self._y_scale(), axis=self._y_axis()),
        )
        scale = alt.Scale(domain=names, range=colours)
        base = plain.encode(
            color=alt.Color(_field(self.line), type="nominal", scale=scale, legend=legend),
            order=alt.Order(_field(self.order or self.x), type="quantitative"),
        )
        dashes = alt.Scale(domain=names, range=[DASHES[(i + 3 * turn) % len(DASHES)] for i, turn in turns])
        shapes = alt.Scale(domain=names, range=[SHAPES[(i + turn) % len(SHAPES)] for i, turn in turns])
        dash = alt.StrokeDash(_field(self.line), type="nominal", scale=dashes, legend=None)
        shape = alt.Shape(_field(self.line), type="nominal", scale=shapes, legend=legend)
        layers = [
            base.mark_line(strokeWidth=2.5).encode(strokeDash=dash),
            base.mark_point(size=90, strokeWidth=2, fill="white", opacity=1).encode(shape=shape),
        ]
        if self.spread is not None:
            low, high = map(_field, self.spread)
            bar = base.mark_rule(strokeWidth=1.5)
            layers.insert(0, bar.encode(y=alt.Y(low, type="quantitative"), y2=alt.Y2(high)))
        if self.band is not None:
            layers = [*map(partial(self._area, plain), names, colours), *layers]
        if self.level is not None:
            rule = alt.Chart(pd.DataFrame({"level": [self.level]})).mark_rule(color="#999", strokeDash=[3, 3])
            layers.insert(0, rule.encode(y="level:Q"))
        head = alt.TitleParams(self.title, subtitle=self.subtitle) if self.subtitle else self.title
        return styled(alt.layer(*layers).properties(width=self.width, height=self.height, title=head))

    def _area(self, plain: Any, name: str, colour: str) -> Any:
        """The band of one line: without the order of the points, which would cut it into an area for each of them,
        and without a scale of colours, by which the legend would become as pale as it is."""
        low, high = map(_field, self.band or ())
        own = plain.transform_filter(alt.FieldEqualPredicate(field=_field(self.line), equal=name))
        if self.band_in_x:
            area = own.mark_area(opacity=0.2, color=colour, orient="horizontal")
            return area.encode(x=alt.X(low, type="quantitative"), x2=alt.X2(high))
        area = own.mark_area(opacity=0.2, color=colour)
        return area.encode(y=alt.Y(low, type="quantitative"), y2=alt.Y2(high))

    def _y_scale(self) -> Any:
        scale, columns = _scale(self.y_log, self.y_zero), self._beside_y()
        if columns is not None:  # the bars too must lie inside
            low, high = float(self.table[columns[0]].min()), float(self.table[columns[1]].max())
            room = 0.0 if self.y_log else 0.05 * (high - low)
            scale.domain = [
                0 if self.y_zero else low / 1.05 if self.y_log else low - room,
                high * 1.05 if self.y_log else high + room,
            ]
        return scale

    def _x_axis(self) -> Any:
        if not self.categories:
            if self.x_ticks is not None:
                return alt.Axis(values=list(self.x_ticks))
            return _log_axis(self.table[[self.x]]) if self.x_log else alt.Axis(tickCount=X_TICKS)
        names = "[" + ", ".join(f"'{name}'" for name in self.categories) + "][datum.value]"
        places = list(range(len(self.categories)))
        return alt.Axis(labelExpr=names, values=places, labelAngle=-40, labelOverlap=False, grid=False)

    def _y_axis(self) -> Any:
        return _log_axis(self.table[[self.y, *(self._beside_y() or ())]]) if self.y_log else alt.Axis()

    def _beside_y(self) -> tuple[str, str] | None:
        """The columns of values below and above y."""
        return self.spread or (None if self.band_in_x else self.band)

    def over_seeds(self, runs: Sequence[Lines]) -> Lines:
        """The mean line over several runs of the same figure, with a band of one standard deviation to each side.

        Where y is the same in all runs (sparsity against accuracy), the band shows how x scatters.
        """
        keys = [self.line, self.order or self.x]
        every = pd.concat([run.table for run in runs])
        levels = [run.level for run in runs if run.level is not None]
        grouped = every.groupby(keys, sort=False, dropna=False)[[c for c in {self.x, self.y} if c not in keys]]
        mean, spreads = grouped.mean().reset_index(), grouped.std().fillna(0.0)
        in_x = self.x in spreads and not spreads[self.y].any()
        scatters, spread = (self.x, spreads[self.x]) if in_x else (self.y, spreads[self.y])
        mean["low"], mean["high"] = mean[scatters] - spread.to_numpy(), mean[scatters] + spread.to_numpy()
        level = sum(levels) / len(levels) if levels else None
        return replace(self, table=mean, spread=None, band=("low", "high"), band_in_x=in_x, level=level)


def lines(table: pd.DataFrame, x: str, y: str, line: str, *, title: str, **more: Any) -> Lines:
    """See `Lines`."""
    return Lines(table, x, y, line, title, **more)


def bars(
    table: pd.DataFrame,
    category: str,
    value: str,
    series: str | None = None,
    *,
    title: str,
    subtitle: str = "",
    log: bool = False,
) -> Any:
    """Horizontal bars in the order of the table; with `series`, one row of bars for each of its values."""
    categories = list(dict.fromkeys(table[category]))
    encoding: dict[str, Any] = {
        "x": alt.X(
            _field(value),
            type="quantitative",
            title=value,
            scale=_scale(log, not log),
            axis=alt.Axis(tickCount=X_TICKS),
        ),
        "y": alt.Y(_field(category), type="nominal", sort=categories, title=None, axis=alt.Axis(labelLimit=320)),
    }
    rows = len(categories)
    if series:
        names = list(dict.fromkeys(table[series]))
        greys = ["#1b1b1b", "#7a7a7a", "#c4c4c4"] if len(names) <= 3 else COLOURS
        encoding["yOffset"] = alt.YOffset(_field(series), type="nominal", sort=names)
        encoding["color"] = alt.Color(
            _field(series), type="nominal", title=series, scale=alt.Scale(domain=names, range=greys[: len(names)])
        )
        rows *= len(names)
    chart = alt.Chart(table).mark_bar(color="#0072B2").encode(**encoding)
    head = alt.TitleParams(title, subtitle=subtitle) if subtitle else title
    return styled(chart.properties(width=WIDTH, height=max(120, 24 * rows), title=head))


def profile(table: pd.DataFrame, category: str, value: str, line: str, *, title: str, subtitle: str = "") -> Lines:
    """A line for each value of column `line` over categories (layers) in the order of the table."""
    order = tuple(dict.fromkeys(table[category]))
    numbered = table.assign(position=[order.index(name) for name in table[category]])
    return Lines(
        numbered,
        "position",
        value,
        line,
        title,
        subtitle,
        categories=order,
        x_title=category,
        width=max(360, 48 * len(order)),
    )


def _scale(log: bool, zero: bool) -> Any:
    return alt.Scale(type="log", nice=False) if log else alt.Scale(zero=zero, nice=True)


def _log_axis(columns: pd.DataFrame) -> Any:
    """A logarithmic axis with few ticks in short numbers (20k); Vega's own leave out the powers of ten."""
    values = columns.astype(float).to_numpy()
    drawn = values[values > 0]  # neither gaps
    if not len(drawn):
        return alt.Axis()
    short = "datum.value < 1 ? format(datum.value, '~g') : format(datum.value, '~s')"  # 0.2, not 200m
    return alt.Axis(values=log_ticks(drawn.min(), drawn.max()), labelExpr=short, labelOverlap=False)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`: powers of ten, or the least fine of TICK_DIGITS that gives three of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for digits in TICK_DIGITS:
        found = [value for power in powers for digit in digits if low <= (value := float(f"{digit}e{power}")) <= high]
        if len(found) >= 3:
            break
    return found


def _field(name: str) -> str:
    """A column's name as Vega-Lite wants it: dots and brackets would mean nesting, a colon a type."""
    return re.sub(r"([.:\[\]])", r"\\\1", name)
