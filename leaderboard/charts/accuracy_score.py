"""Accuracy against score: one Altair specification for slides (PNG, SVG, PDF), files (HTML) and the web page.

>>> plot([ChartPoint("ours", 0.911, 0.0041)], load_rule("lab"), 0.90, Path("plot"))  # plot.png, .svg, .pdf, .html
"""

from __future__ import annotations

import html
import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from contest.datasets.registry import facts
from contest.errors import UsageError
from leaderboard.charts import marks
from leaderboard.charts.label_placement import Box, Label, Segment, place
from leaderboard.charts.marks import Frame, Look, frame
from scoring.rules import Rule

FORMATS = ("png", "svg", "pdf", "html")
_REFERENCES = Path(__file__).parent / "references.toml"
_DEPTH = 0.12
"""How far below the threshold an entry may be and still be drawn; the rest is counted in a note."""
_ALWAYS = 24
"""Of up to so many entries all names are shown, whatever room they take."""
_BESIDE, _CLUTTER = 39, 95
"""What a name's place may cost: beside its point where a sign does instead, else with a line to it."""

# Where a reader zooms, ticks cannot be fixed. Of the log axis's own the decades always have their number; 2 and 5
# where a decade is wide enough, and all in close-ups.
_DECADE = "width / (log(domain('x')[1] / domain('x')[0]) / LN10)"
_DIGIT = "slice(format(datum.value, '.0e'), 0, 1)"
_TICK = (
    f"{_DIGIT} == '1' || {_DECADE} > {{close}} || ({_DECADE} > {{some}} && indexof(['2', '5'], {_DIGIT}) >= 0)"
    " ? format(datum.value, '~g') : ''"
)
# `ast`: Vega interprets its expressions instead of compiling them, so that no policy need allow eval.
_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<script>{libraries}</script>
</head>
<body>
<div id="chart" role="img" aria-label="{title}"></div>
<script>
vegaEmbed("#chart", {spec}, {{ast: true, actions: {{export: true, source: false, compiled: false, editor: false}}}})
</script>
</body>
</html>
"""


@dataclass(frozen=True)
class ChartPoint:
    """One network in the chart. `accuracy` is a fraction, `score` above 0; `url` is where a click leads.

    `network` is told of it in the tooltip, key by key.
    """

    name: str
    accuracy: float
    score: float
    team: str = ""
    params: float | None = None
    ops: float | None = None
    further: Mapping[str, float] = field(default_factory=dict)
    """Terms besides these two, where the rule has any."""
    url: str = ""
    about: str = ""
    baseline: bool = False
    """The organiser's own: drawn as a reference."""
    network: Mapping[str, str] = field(default_factory=dict)


def plot(
    entries: Sequence[ChartPoint], rule: Rule, threshold: float, out: Path, *, title: str | None = None
) -> list[Path]:
    """Draw entries and references to a file.

    Args:
        entries: the networks; those with no accuracy or no positive score are not drawn.
        rule: of which the entries' scores are.
        threshold: accuracy that ranking needs, 0 to 1.
        out: its suffix says the format; without a suffix all formats are written.
        title: instead of the default, which names data set and rule.

    Returns:
        The files written. Raises UsageError for a suffix that is none of .png, .svg, .pdf, .html.
    """
    return write(
        lambda look: specification(entries, rule, threshold, look, title=title), out, title or default_title(rule)
    )


def write(document: Callable[[Look], dict[str, Any]], out: Path, caption: str) -> list[Path]:
    """Draw a chart to a file, or to one of each format; `document` gives its specification for a look."""
    suffix = out.suffix.lower().removeprefix(".")
    formats = (suffix,) if suffix in FORMATS else FORMATS
    if suffix and suffix not in FORMATS:
        raise UsageError(f"'{out.name}' ends in '.{suffix}'; a plot is one of {', '.join(FORMATS)}, or none for all")
    out.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for name in formats:
        path = out if suffix else out.with_name(f"{out.name}.{name}")
        path.write_bytes(_rendered(document(Look(interactive=name == "html")), name, caption))
        written.append(path)
    return written


def render(
    entries: Sequence[ChartPoint],
    rule: Rule,
    threshold: float,
    kind: str,
    *,
    look: Look | None = None,
    title: str | None = None,
) -> bytes:
    """The chart as the bytes of a PNG, SVG, PDF or HTML file (offline: the HTML holds its JavaScript)."""
    look = look or Look(interactive=kind == "html")
    return _rendered(specification(entries, rule, threshold, look, title=title), kind, title or default_title(rule))


def _rendered(spec: dict[str, Any], kind: str, caption: str) -> bytes:
    import vl_convert

    if kind == "png":
        return bytes(vl_convert.vegalite_to_png(spec, scale=2))
    if kind == "pdf":
        return bytes(vl_convert.vegalite_to_pdf(spec))
    if kind == "svg":
        return str(vl_convert.vegalite_to_svg(spec)).encode()
    # Not vl_convert.vegalite_to_html: it writes names into the script as they are, "</script>" included.
    document = json.dumps(spec).replace("<", "\\u003c")
    return _HTML.format(title=html.escape(caption), libraries=javascript(), spec=document).encode()


@cache
def javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets `window.vegaEmbed` (from the vl-convert package)."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def default_title(rule: Rule) -> str:
    """What a chart is called when nobody says."""
    return f"{facts(rule.dataset).title} compression contest: accuracy against score"


@cache
def references(rule_name: str) -> tuple[ChartPoint, ...]:
    """Networks that were never entered here, with the score that they have under a rule."""
    table = tomllib.loads(_REFERENCES.read_text(encoding="utf-8"))["reference"]
    return tuple(
        ChartPoint(row["name"], row["accuracy"], row["scores"][rule_name], about=row["source"])
        for row in table
        if rule_name in row["scores"]
    )


def pareto_front(entries: Sequence[ChartPoint]) -> list[ChartPoint]:
    """The entries that no other one beats in both score and accuracy, by rising score."""
    front: list[ChartPoint] = []
    for entry in sorted(entries, key=lambda e: (e.score, -e.accuracy)):
        if not front or entry.accuracy > front[-1].accuracy:
            front.append(entry)
    return front


def specification(
    entries: Sequence[ChartPoint], rule: Rule, threshold: float, look: Look, *, title: str | None = None
) -> dict[str, Any]:
    """The chart as a Vega-Lite document (a plain dictionary)."""
    import altair as alt

    entries = [e for e in entries if math.isfinite(e.score) and e.score > 0 and math.isfinite(e.accuracy)]
    drawn = [e for e in entries if e.accuracy >= threshold - _DEPTH] or entries
    hidden = len(entries) - len(drawn)
    others = (*references(rule.name), *(e for e in drawn if e.baseline))
    drawn = [e for e in drawn if not e.baseline]
    if len(drawn) > _ALWAYS:  # room for names: smaller points, and a slide's whole width, for the key takes its height
        wide = look.width if look.interactive else round(1.18 * look.width)
        look = replace(look, dot=round(0.65 * look.dot), width=wide)
    # Where any reach the threshold, the front is theirs: what does not cannot win.
    front = pareto_front([e for e in drawn if e.accuracy >= threshold] or drawn)
    area = frame([(p.score, p.accuracy) for p in (*drawn, *others)], threshold, look)
    rows = _rows(drawn, front, others, threshold, look)
    labels, key = _labels(drawn, front, others, threshold, area)

    x = alt.X(
        "score:Q",
        title=look.say("score under rule %(rule)s (log scale, smaller is better)", rule=rule.name),
        scale=alt.Scale(type="log", domain=list(area.scores), nice=False),
        axis=alt.Axis(labelExpr=_TICK.format(close=45 * look.font, some=10 * look.font), labelOverlap=False)
        if look.interactive
        else alt.Axis(values=area.ticks, format="~g"),
    )
    y = alt.Y(
        "accuracy:Q",
        title=look.say("accuracy on the %(dataset)s test set", dataset=facts(rule.dataset).title),
        scale=alt.Scale(domain=list(area.accuracies), nice=False, zero=False),
        axis=alt.Axis(format=".0%" if area.accuracies[1] - area.accuracies[0] > 0.05 else ".1%", tickCount=7),
    )
    notes = [look.words(rule.footnote)] if rule.footnote else []
    if hidden:
        limit = marks.percent(round(threshold - _DEPTH, 4))
        notes.append(look.say("Below %(limit)s, not drawn: %(count)s.", limit=limit, count=hidden))
    notes += key
    layers = [
        *marks.threshold_line(threshold, area),
        marks.front_line([(p.score, p.accuracy) for p in front], x, y, area),
        *marks.leaders(labels, x, y, look),  # below the points
        marks.points(rows, x, y, threshold, look),
        *marks.label_layers(labels, x, y, look),
        marks.notes(notes, look),
    ]
    chart = alt.layer(*layers).properties(width=look.width, height=look.height, background=look.paper)
    if look.title:
        chart = chart.properties(title=alt.TitleParams(title or default_title(rule), anchor="start", offset=14))
    return dict(marks.configured(chart, look).to_dict())


def _rows(
    drawn: Sequence[ChartPoint],
    front: Sequence[ChartPoint],
    others: Sequence[ChartPoint],
    threshold: float,
    look: Look,
) -> list[dict[str, Any]]:
    """The data of the points layer, the least important first, so that the front is drawn on top."""

    def row(point: ChartPoint, kind: str) -> dict[str, Any]:
        tip = {
            look.say("network"): point.name,
            look.say("accuracy"): f"{100 * point.accuracy:.2f} %",
            look.say("score"): f"{point.score:.5g}",
        }
        if point.team not in ("", point.name):
            tip[look.say("team")] = point.team
        if point.params is not None and point.ops is not None:
            tip[look.say("parameter term")] = f"{point.params:.4g}"
            tip[look.say("operation term")] = f"{point.ops:.4g}"
        tip |= {look.words(name): f"{value:.4g}" for name, value in point.further.items()}
        tip |= {look.words(key): text for key, text in point.network.items()}
        if point.about:
            tip[look.say("note")] = point.about
        return {
            "kind": kind,
            "name": point.name,
            "accuracy": point.accuracy,
            "score": point.score,
            "url": point.url,
            "tip": tip,
        }

    kinds = {id(point): "front" for point in front if point.accuracy >= threshold}
    entries = [
        row(p, kinds.get(id(p), "entry" if p.accuracy >= threshold else "below"))
        for p in sorted(drawn, key=lambda p: -p.score)
    ]
    order = ("reference", "below", "entry", "front")
    return sorted([*(row(p, "reference") for p in others), *entries], key=lambda r: order.index(r["kind"]))


def _labels(
    drawn: Sequence[ChartPoint],
    front: Sequence[ChartPoint],
    others: Sequence[ChartPoint],
    threshold: float,
    area: Frame,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The names that fit: the front first, then references, then the rest by score. And the key to those that do not.

    In a picture, where nobody can hover, an entry without a name has its rank beside it (a letter, below the
    threshold), and the key under the picture names it.
    """
    look = area.look
    chosen = {id(p) for p in front}
    rest = sorted((p for p in drawn if id(p) not in chosen), key=lambda p: (p.accuracy < threshold, p.score))
    ordered = [*sorted(front, key=lambda p: p.accuracy < threshold), *others, *rest]
    every = {id(p): area.pixel(p.score, p.accuracy) for p in ordered}
    right, line = area.pixel(area.scores[1], threshold)
    tag = Box(right - 5 * look.font, line - 1.6 * look.small, right, line)
    crowded = look.keyed and len(drawn) > _ALWAYS  # then a reference, too, has a name beside it or a sign
    first = len(front) if crowded else len(front) + len(others) if len(drawn) > _ALWAYS else _ALWAYS + len(others)

    Placed = list[tuple[ChartPoint, str, Label]]

    def placed(told: Sequence[tuple[ChartPoint, str]], exempt: int, fixed: Placed, size: int) -> Placed:
        labels = place(
            [text for _, text in told],
            [every[id(p)] for p, _ in told],
            Box(4, 4, look.width - 4, look.height - 4),
            size=size,
            obstacles=list(every.values()),
            radius=math.sqrt(look.dot / math.pi) + 2,
            lines=[*_steps([every[id(p)] for p in front], right), ((0, line), (right, line))],
            taken=[tag],
            limit=_BESIDE if crowded else _CLUTTER,
            exempt=exempt,
            fixed=[(every[id(p)], label) for p, _, label in fixed],
        )
        return [(*told[label.index], label) for label in labels]

    found = placed([(p, _short(p.name)) for p in ordered[: look.labels]], first, [], look.small)
    named, key = {id(p) for p, _, _ in found}, []
    sign = round(0.75 * look.small)
    unnamed = [p for p in ordered if id(p) not in named][: look.keyed]
    if unnamed:
        signs = {**_signs([p for p in drawn if p.accuracy >= threshold], False)}
        signs |= {**_signs([p for p in drawn if p.accuracy < threshold], True), **_signs(others, True, "R")}
        found += placed([(p, signs[id(p)]) for p in unnamed], len(unnamed), found, sign)
        listed = sorted(unnamed, key=lambda p: (signs[id(p)].startswith("R"), p.accuracy < threshold, p.score))
        key = [
            look.say("Numbers are ranks, letters stand below %(share)s:", share=marks.percent(threshold))
            + " "
            + " · ".join(f"{signs[id(p)]} {_short(p.name)}".replace(" ", "\u00a0") for p in listed)
        ]
    own = {id(p) for p in drawn}
    rows = []
    for point, text, label in found:
        size = look.small if text == _short(point.name) else sign
        rows.append(_label_row(point, text, label, every[id(point)], size, id(point) not in own))
    return rows, key


def _label_row(
    point: ChartPoint, text: str, label: Label, at: tuple[float, float], size: int, reference: bool
) -> dict[str, Any]:
    """A name where it found a place, its offsets from its point in pixels; (lx, ly) is where a line to it ends."""
    px, py = at
    return {
        "name": text,
        "score": point.score,
        "accuracy": point.accuracy,
        "reference": reference,
        "leader": label.leader,
        "size": size,
        "align": label.align,
        "dx": round(label.anchor[0] - px, 1),
        "dy": round(label.anchor[1] - py, 1),
        "lx": round(min(max(px, label.box.left), label.box.right) - px, 1),
        "ly": round(min(max(py, label.box.top), label.box.bottom) - py, 1),
    }


def _signs(points: Sequence[ChartPoint], letters: bool, before: str = "") -> dict[int, str]:
    """A sign for each, by rising score: 1, 2, ... or a, b, ..., z, aa."""
    ordered = sorted(points, key=lambda p: (p.score, -p.accuracy))
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return {
        id(p): before
        + ((alphabet[i // 26 - 1] if i >= 26 else "") + alphabet[i % 26] if letters and not before else str(i + 1))
        for i, p in enumerate(ordered)
    }


def _steps(front: Sequence[tuple[float, float]], right: float) -> list[Segment]:
    """The front as drawn: from each point to the right, then up to the next."""
    segments: list[Segment] = []
    for (x, y), (x_next, y_next) in zip(front, [*front[1:], (right, front[-1][1])] if front else [], strict=True):
        segments += [((x, y), (x_next, y)), ((x_next, y), (x_next, y_next))]
    return segments


def _short(name: str, limit: int = 32) -> str:
    return name if len(name) <= limit else name[: limit - 1].rstrip() + "…"
