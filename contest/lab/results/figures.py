"""Figures for slides: large type, and lines told apart by dash and marker as well as by colour (grey-safe)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Okabe and Ito's colours that survive colour blindness, ordered so that neighbours differ in grey as well.
COLOURS = ["#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F"]
DASHES: list[list[int]] = [[1, 0], [8, 3], [2, 3], [10, 3, 2, 3], [5, 5], [14, 4], [2, 8], [6, 2, 2, 2, 2, 2]]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke", "triangle-right"]
WIDTH, HEIGHT = 640, 400
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
        .configure_axis(labelFontSize=15, titleFontSize=17, titleFontWeight="normal", gridColor="#e4e4e4",
                        labelFlush=False,
                        labelColor="#222", titleColor="#222", domainColor="#888", tickColor="#888")
        .configure_legend(labelFontSize=15, titleFontSize=15, labelLimit=320, symbolSize=120, symbolStrokeWidth=2,
                          titleFontWeight="normal", orient="right", labelColor="#222")
        .configure_title(fontSize=19, fontWeight="normal", anchor="start", color="#222",
                         subtitleFontSize=14, subtitleColor="#555")
        .configure_header(labelFontSize=14, titleFontSize=15, labelColor="#222")
    )  # fmt: skip


def lines(
    table: pd.DataFrame,
    x: str,
    y: str,
    line: str,
    *,
    title: str,
    subtitle: str = "",
    order: str | None = None,
    x_log: bool = False,
    y_log: bool = False,
    x_zero: bool = False,
    y_zero: bool = False,
    x_ticks: Sequence[float] | None = None,
    level: float | None = None,
    spread: tuple[str, str] | None = None,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> Any:
    """A line for each value of column `line` over columns `x` and `y`, points in the order of column `order`.

    `level` draws a horizontal rule (the dense network's accuracy, say), `spread` a bar between two columns at
    each point.
    """
    names = list(dict.fromkeys(table[line]))
    # Beyond eight lines a colour comes again, but never with the same dash and marker.
    turns = [(i, i // len(COLOURS)) for i in range(len(names))]
    colours = [COLOURS[i % len(COLOURS)] for i, _ in turns]
    dashes = [DASHES[(i + 3 * turn) % len(DASHES)] for i, turn in turns]
    shapes = [SHAPES[(i + turn) % len(SHAPES)] for i, turn in turns]
    legend = alt.Legend(title=line, symbolSize=160, symbolDash=[1, 0])
    scale = _scale(y_log, y_zero)
    if spread is not None:  # the bars too must lie inside
        scale.domain = [0 if y_zero else float(table[spread[0]].min()) / 1.05, float(table[spread[1]].max()) * 1.05]
    base = alt.Chart(table).encode(
        x=alt.X(_field(x), type="quantitative", title=x, scale=_scale(x_log, x_zero), axis=_axis(x_log, x_ticks)),
        y=alt.Y(_field(y), type="quantitative", title=y, scale=scale, axis=_axis(y_log)),
        color=alt.Color(_field(line), type="nominal", scale=alt.Scale(domain=names, range=colours), legend=legend),
        order=alt.Order(_field(order or x), type="quantitative"),
    )
    dash = alt.StrokeDash(_field(line), type="nominal", scale=alt.Scale(domain=names, range=dashes), legend=None)
    shape = alt.Shape(_field(line), type="nominal", scale=alt.Scale(domain=names, range=shapes), legend=legend)
    layers = [
        base.mark_line(strokeWidth=2.5).encode(strokeDash=dash),
        base.mark_point(size=90, strokeWidth=2, fill="white", opacity=1).encode(shape=shape),
    ]
    if spread is not None:
        low, high = (alt.Y(_field(spread[0]), type="quantitative"), alt.Y2(_field(spread[1])))
        layers.insert(0, base.mark_rule(strokeWidth=1.5).encode(y=low, y2=high))
    if level is not None:
        layers.insert(
            0,
            alt.Chart(pd.DataFrame({"level": [level]})).mark_rule(color="#999", strokeDash=[3, 3]).encode(y="level:Q"),
        )
    head = alt.TitleParams(title, subtitle=subtitle) if subtitle else title
    return styled(alt.layer(*layers).properties(width=width, height=height, title=head))


def bars(table: pd.DataFrame, category: str, value: str, series: str | None = None, *, title: str, subtitle: str = "",
         log: bool = False) -> Any:  # fmt: skip
    """Horizontal bars in the order of the table; with `series`, one row of bars for each of its values."""
    categories = list(dict.fromkeys(table[category]))
    encoding: dict[str, Any] = {
        "x": alt.X(_field(value), type="quantitative", title=value, scale=_scale(log, not log)),
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


def profile(table: pd.DataFrame, category: str, value: str, line: str, *, title: str, subtitle: str = "") -> Any:
    """A line for each value of column `line` over categories (layers) in the order of the table."""
    order = list(dict.fromkeys(table[category]))
    numbered = table.assign(position=[order.index(name) for name in table[category]])
    chart = lines(numbered, "position", value, line, title=title, subtitle=subtitle, width=max(360, 48 * len(order)))
    names = "[" + ", ".join(f"'{name}'" for name in order) + "][datum.value]"
    for layer in chart.layer:
        layer.encoding.x.axis = alt.Axis(
            labelExpr=names, values=list(range(len(order))), labelAngle=-40, labelOverlap=False, grid=False
        )
        layer.encoding.x.title = category
    return chart


def histograms(weights: dict[str, NDArray[np.float32]], *, title: str, subtitle: str = "", bins: int = 41,
               columns: int = 3) -> Any:  # fmt: skip
    """The nonzero weights of each layer; how many are zero stands in the panel's title."""
    panels = []
    for name, values in weights.items():
        nonzero = values[values != 0]
        limit = float(np.abs(nonzero).max()) if len(nonzero) else 1.0
        count, edges = np.histogram(nonzero, bins=bins, range=(-limit, limit))
        data = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "count": count, "none": 0})
        zeros = 100 * (1 - len(nonzero) / max(values.size, 1))
        head = alt.TitleParams(
            name,
            subtitle=f"{values.size:,} weights, {zeros:.1f} % zero",
            fontSize=15,
            subtitleFontSize=13,
            frame="group",
        )
        panels.append(
            alt.Chart(data)
            .mark_rect(color="#0072B2", stroke="white", strokeWidth=0.5)
            .encode(
                x=alt.X("from:Q", title="weight", axis=alt.Axis(tickCount=4)), x2="to:Q",
                y=alt.Y("count:Q", title="weights", axis=alt.Axis(tickCount=4, format="~s")), y2="none:Q",
            )
            .properties(width=260, height=150, title=head)
        )  # fmt: skip
    grid = alt.concat(*panels, columns=columns, spacing={"row": 104, "column": 74}, bounds="flush")
    return styled(grid.properties(title=alt.TitleParams(title, subtitle=subtitle, offset=18)))


def kernels(weight: NDArray[np.float32], *, title: str, subtitle: str = "", columns: int = 8, limit: int = 32,
            numbers: bool = True) -> Any:  # fmt: skip
    """A heat map of each kernel [out, in, h, w]: the darker, the larger the magnitude; the number is the value.

    The first `limit` kernels (output by output, input by input) are drawn and the subtitle says of how many.
    A zero is white and has no number.
    """
    outputs, inputs, height, width = weight.shape
    chosen = [(o, i) for o in range(outputs) for i in range(inputs)][:limit]
    rows = [
        {"panel": f"{o}←{i}" if inputs > 1 else str(o), "at": index, "row": r, "column": c,
         "value": float(weight[o, i, r, c])}
        for index, (o, i) in enumerate(chosen) for r in range(height) for c in range(width)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table["magnitude"] = table["value"].abs()
    # Without its leading zero a number fits its square: -.12.
    table["text"] = [f"{v:.2f}".replace("0.", ".", 1).replace("-.00", ".00") if v else "" for v in table["value"]]
    largest = float(table["magnitude"].max()) or 1.0
    cell = 38
    square = alt.Chart().encode(
        x=alt.X("column:O", axis=None), y=alt.Y("row:O", axis=None, sort="ascending")
    )  # fmt: skip
    shades = alt.Scale(range=["#ffffff", "#101010"], domain=[0, largest])
    colour = alt.Color("magnitude:Q", scale=shades, title="|weight|", legend=alt.Legend(gradientLength=160))
    layers = [square.mark_rect(stroke="#bbb", strokeWidth=0.5).encode(color=colour)]
    if numbers:
        layers.append(
            square.mark_text(fontSize=13).encode(
                text="text:N",
                color=alt.condition(alt.datum.magnitude > 0.45 * largest, alt.value("white"), alt.value("black")),
            )
        )
    order = list(dict.fromkeys(table["panel"]))
    every = outputs * inputs
    shown = f"{len(chosen)} of {every} kernels" if len(chosen) < every else f"all {every} kernels"
    chart = (
        alt.layer(*layers, data=table)
        .properties(width=cell * width, height=cell * height)
        .facet(
            facet=alt.Facet("panel:N", sort=order, title=None, header=alt.Header(labelFontSize=12, labelPadding=2)),
            columns=columns,
            spacing=12,
        )
    )
    return styled(
        chart.properties(title=alt.TitleParams(title, subtitle=f"{subtitle}, {shown}" if subtitle else shown))
    )


def strip(images: NDArray[np.uint8], captions: Sequence[str], wrong: Sequence[bool], *, title: str, subtitle: str = "",
          side: int = 96) -> Any:  # fmt: skip
    """Images [N, H, W, 1 or 3] in a row with a caption under each; wrong ones are framed and marked."""
    rows = [
        {"at": index, "picture": _picture(image, side), "caption": caption, "frame": "wrong" if bad else "right"}
        for index, (image, caption, bad) in enumerate(zip(images, captions, wrong, strict=True))
    ]
    table = pd.DataFrame(rows)
    step = side + 26
    x = alt.X("at:O", axis=None, scale=alt.Scale(paddingInner=0.1))
    base = alt.Chart(table).encode(x=x)
    frame = base.transform_filter("datum.frame == 'wrong'").mark_square(
        size=(side + 10) ** 2, opacity=1, filled=False, stroke="#D55E00", strokeWidth=3, strokeDash=[6, 3]
    ).encode(y=alt.value(side / 2 + 8))  # fmt: skip
    picture = base.mark_image(width=side, height=side).encode(url="picture:N", y=alt.value(side / 2 + 8))
    text = base.mark_text(fontSize=14, baseline="top", lineBreak="\n").encode(text="caption:N", y=alt.value(side + 22))
    chart = alt.layer(frame, picture, text).properties(
        width=step * len(table),
        height=side + 62,
        title=alt.TitleParams(title, subtitle=subtitle) if subtitle else title,
    )
    return styled(chart)


def _picture(image: NDArray[np.uint8], side: int) -> str:
    """The image as a PNG data address, enlarged without smoothing."""
    import base64
    import io

    from PIL import Image

    pixels = image[:, :, 0] if image.shape[2] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side * 2, side * 2), Image.Resampling.NEAREST).save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _scale(log: bool, zero: bool) -> Any:
    return alt.Scale(type="log", nice=False) if log else alt.Scale(zero=zero, nice=True)


def _axis(log: bool, ticks: Sequence[float] | None = None) -> Any:
    """A logarithmic axis has few ticks in short numbers (20k); `ticks` names them one by one."""
    if ticks is not None:
        return alt.Axis(values=list(ticks))
    short = "datum.value < 1 ? format(datum.value, '~g') : format(datum.value, '~s')"  # 0.2, not 200m
    return alt.Axis(tickCount=4, labelExpr=short) if log else alt.Axis()


def _field(name: str) -> str:
    """A column's name as Vega-Lite wants it: dots and brackets would mean nesting, a colon a type."""
    return re.sub(r"([.:\[\]])", r"\\\1", name)
