"""A report as rich tables, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from contest.untrusted.description import shown
from scoring.report import Report
from scoring.rules import built_in, load_rule

_STATUS = {"rankable": "bold green", "below": "bold yellow", "flagged": "bold red", "costs-only": "bold cyan"}


class Tail:
    """A layer's name; where there is no room for all of it, its end, which tells layers apart."""

    def __init__(self, name: str) -> None:
        self.name = shown(name, 200)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(12, len(self.name)), len(self.name))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        long = len(self.name) > options.max_width
        yield Text("…" + self.name[len(self.name) - options.max_width + 1 :] if long else self.name, no_wrap=True)


def show(report: Report) -> Group:
    """Everything that the report says, the verdict last."""
    parts: list[RenderableType] = [_scores(report)]
    if report.accuracy is not None:
        parts.append(_accuracy(report))
    parts += [_measured(report), _layers(report)]
    if report.provenance:
        parts.append(_provenance(report))
    if report.details is not None:
        parts += [_per_class(report.details), _confusion(report.details)]
    parts += [Text(f"note: {shown(note, 2_000)}", style="dim") for note in report.notes]
    parts += [Text(f"flag: {shown(flag, 2_000)}", style="yellow") for flag in report.flags]
    parts += [Text(f"problem: {shown(problem, 2_000)}", style="red") for problem in report.problems]
    parts.append(_verdict(report))
    return Group(*parts)


def _scores(report: Report) -> Table:
    title = f"Score of {report.file['name']}" if report.file.get("name") else "Score"
    table = Table(title=title, caption=_footnote(report), title_justify="left", caption_justify="left")
    table.add_column("rule")
    terms = list(dict.fromkeys(term for score in report.scores.values() for term in score.terms))
    for column in (*terms, "total", "with bitmask"):
        table.add_column(column, justify="right")
    for name, score in report.scores.items():
        style = "bold" if name == report.rule else ""
        row = [_term(score.terms[term]) if term in score.terms else "-" for term in terms]
        row += [_term(score.total), _term(score.total_with_bitmask)]
        table.add_row(name + (" *" if name == "lab" else ""), *row, style=style)
    return table


def _footnote(report: Report) -> str:
    notes = [load_rule(name).footnote for name in report.scores if name in built_in()]
    return "\n".join(f"* {note}" for note in notes if note)


def _accuracy(report: Report) -> Table:
    table = Table(title="Accuracy", title_justify="left")
    for column in ("set", "accuracy", "correct", "95 % interval", "loss"):
        table.add_column(column, justify="left" if column == "set" else "right")
    assert report.accuracy is not None
    table.add_row("test", *_accuracy_cells(vars(report.accuracy)))
    if report.holdout is not None:
        table.add_row("hold-out", *_accuracy_cells(report.holdout))
        if report.holdout["gap"] is not None:
            table.caption = f"gap {100 * report.holdout['gap']:+.2f} points, p = {report.holdout['p_value']:.2g}"
    return table


def _accuracy_cells(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{100 * found['value']:.2f} %"
    yield f"{found['correct']:,} / {found['total']:,}"
    yield f"{100 * found['low']:.2f} to {100 * found['high']:.2f} %"
    yield "-" if found["loss"] is None else f"{found['loss']:.4f}"


def _measured(report: Report) -> Table:
    table = Table(title="Measured and claimed", title_justify="left")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_column("claimed", justify="right")
    pairs = {**dict.fromkeys(report.measured), **dict.fromkeys(report.claimed)}
    for key in pairs:
        measured, claimed = _known(report, key), report.claimed.get(key)
        differs = (
            claimed is not None and measured is not None and abs(claimed - measured) > 5e-3 * max(1, abs(measured))
        )
        table.add_row(key, _quantity(measured), _quantity(claimed), style="yellow" if differs else "")
    return table


def _provenance(report: Report) -> Table:
    table = Table(title="What the file says of its making (not checked)", title_justify="left", box=SIMPLE)
    table.add_column("", no_wrap=True, min_width=min(24, max(map(len, report.provenance))))
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for key, text in report.provenance.items():
        table.add_row(Text(shown(key, 24)), Text(shown(" ".join(text.split()), 200)))
    table.show_header = False
    return table


def _known(report: Report, key: str) -> float | int | None:
    if key == "accuracy":
        return report.accuracy.value if report.accuracy else None
    if key == "score":
        return report.score.total
    if key == "p_s":
        return report.measured.get("p_s_weights")
    return report.measured.get(key)


def _layers(report: Report) -> Table:
    table = Table(
        title=f"Layers, and their terms under {report.rule}", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    table.add_column("layer")  # gives way where the window is narrow
    for column in ("MACs", "weights", "zeros", "bits", "params", "ops", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    total = report.score.total or 1.0
    for row in report.layers:
        zeros = 1 - row["nonzeros"] / row["weights"] if row["weights"] else 0.0
        bits = f"{row['weight_bits'] or '-'}/{row['activation_bits']}"
        share = 100 * (row["params"] + row["ops"]) / total
        table.add_row(
            Tail(row["name"]),
            _short(row["macs"] + row["products"] + row.get("steps", 0)),
            _short(row["weights"]),
            f"{100 * zeros:.0f} %" if row["weights"] else "",
            bits,
            _term(row["params"]),
            _term(row["ops"]),
            f"{share:.1f} %",
        )
    return table


def _short(count: int) -> str:
    """Three digits and k, M or G; the JSON has them all."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            value = count / size
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}{unit}"
    return str(count)


def _per_class(details: Mapping[str, Any]) -> Table:
    table = Table(title="Classes", title_justify="left")
    for column in ("class", "accuracy", "correct"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in details["per_class"]:
        value = "-" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %"
        table.add_row(Text(str(row["name"])), value, f"{row['correct']:,} / {row['total']:,}")
    return table


def _confusion(details: Mapping[str, Any]) -> Table:
    names = [str(row["name"]) for row in details["per_class"]]
    table = Table(title="Confusion: rows are true classes, columns predictions", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(Text(name[:6]), justify="right")
    for name, row in zip(names, details["confusion"], strict=True):
        table.add_row(Text(name), *(str(count) if count else "" for count in row))
    return table


def _verdict(report: Report) -> Text:
    texts = {
        "rankable": f"rankable under {report.rule} with {report.score.total:.6g}",
        "below": f"not rankable: below the threshold of {report.threshold:g}",
        "flagged": "not rankable: see the problems above",
        "costs-only": "costs only: without test data there is no accuracy to rank",
    }
    if report.status == "costs-only" and "sha256" not in report.file and not report.file.get("isolation"):
        texts["costs-only"] = "costs only: an architecture by name has no weights, and so no accuracy"
    return Text(texts[report.status], style=_STATUS[report.status])


def _term(value: float) -> str:
    return f"{value:.5f}" if abs(value) >= 1e-3 or not value else f"{value:.2e}"


def _quantity(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
