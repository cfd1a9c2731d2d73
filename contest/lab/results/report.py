"""What an experiment leaves behind: tables, figures and one self-contained HTML page; and many of them as a class's."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from contest.errors import UsageError
from contest.files import write_lines
from contest.lab.results import figures
from contest.lab.results.tables import as_html, markdown, over_everybody, read_table, write_table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 62rem;
       padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #888; font-weight: 600; white-space: normal; }
.text { text-align: left; } td.text { white-space: normal; min-width: 7rem; }
.settings td { white-space: normal; text-align: left; }
pre { background: #f5f5f5; padding: .5rem .7rem; overflow-x: auto; font-size: .88rem; }
caption { text-align: left; color: #444; padding-bottom: .3rem; }
figure { margin: 1.5rem 0; overflow-x: auto; } div.wide { overflow-x: auto; }
figure svg { max-width: 100%; height: auto; }
figcaption { color: #444; max-width: 46rem; position: sticky; left: 0; }
.answer { border: 1px solid #aaa; border-radius: 4px; min-height: 6rem; padding: .5rem; margin: .5rem 0 1.5rem; }
@media (max-width: 40rem) { figure svg { max-width: none; width: 40rem; } } /* moved with a finger, but legible */
@media print { .answer { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Picture:
    """A figure that a notebook shows."""

    path: Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


@dataclass
class Results:
    """The results of one experiment, written to `folder` as they are added; `finish` writes the page."""

    folder: Path
    title: str
    summary: str
    configuration: Mapping[str, Any]
    machine: Mapping[str, str]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Sentences that a reader must know: what was cut short, what the figures do not show."""
    questions: Sequence[str] = ()
    """What the reader is asked; the page has room for each answer."""
    lines: dict[str, figures.Lines] = field(default_factory=dict)
    """The figures of lines as data, by name."""
    captions: dict[str, str] = field(default_factory=dict)
    digits: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, str] = field(default_factory=dict)
    """Captions of the figures."""

    def add_table(self, name: str, caption: str, table: pd.DataFrame, digits: int = 2) -> None:
        """CSV, Markdown and LaTeX under `tables/`, and a place in the page."""
        self.tables[name], self.captions[name], self.digits[name] = table, caption, digits
        write_table(self.folder, name, caption, table, digits)

    def add_figure(self, name: str, caption: str, chart: Any) -> None:
        """SVG and PNG under `figures/`, and a place in the page."""
        if isinstance(chart, figures.Lines):
            self.lines[name] = chart
            chart = chart.chart()
        figures.save(chart, self.folder, name)
        self.drawn[name] = caption

    def copy_figure(self, other: Results, name: str, caption: str) -> None:
        """A figure of other results, as it is."""
        for suffix in ("svg", "png"):
            source, target = (results.folder / "figures" / f"{name}.{suffix}" for results in (other, self))
            target.parent.mkdir(parents=True, exist_ok=True)
            if source != target:
                shutil.copyfile(source, target)
        self.drawn[name] = caption

    def figure(self, name: str, **changes: Any) -> Picture:
        """A figure, to be shown in a notebook; one of lines is drawn anew with `changes`, fields of `figures.Lines`.

        Raises:
            UsageError: there is none of that name, or it cannot be changed so.
        """
        if name not in self.drawn:
            raise UsageError(f"there is no figure '{name}'; there are {', '.join(self.drawn)}")
        if changes:
            known = {one.name for one in fields(figures.Lines)}
            if name not in self.lines or not changes.keys() <= known:
                raise UsageError(
                    f"figure '{name}' cannot be drawn anew with {', '.join(changes)}: figures of lines "
                    f"({', '.join(self.lines) or 'none here'}) take {', '.join(sorted(known))}"
                )
            self.add_figure(name, self.drawn[name], replace(self.lines[name], **changes))
        return Picture(self.folder / "figures" / f"{name}.png")

    def finish(self) -> Path:
        """Write `report.html`, `report.md` and `results.json` (captions and sentences); returns the page's path."""
        self.notes = [note for note in self.notes if note]
        page = self.folder / "report.html"
        write_lines(page, self._html())
        write_lines(self.folder / "report.md", self._markdown())
        kept = ("title", "summary", "notes", "captions", "digits", "drawn")
        values = {key: getattr(self, key) for key in kept} | {"questions": list(self.questions)}
        values |= {"configuration": self.configuration, "machine": self.machine}
        write_lines(self.folder / "results.json", json.dumps(values, indent=1))
        return page

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Finished results from their folder; figures are there as files only.

        Raises:
            UsageError: the folder has no finished results.
        """
        path = folder / "results.json"
        if not path.is_file():
            raise UsageError(f"{folder} holds no finished results of `contest lab`: it has no results.json")
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            folder,
            tables={name: read_table(folder / "tables" / f"{name}.csv") for name in values["captions"]},
            **values,
        )

    def body(self, prefix: str = "") -> str:
        """The page's inner part: sentences, tables and figures. `prefix` keeps names of several such parts apart."""
        parts = [f"<p>{html.escape(self.summary)}</p>"]
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        for number, (name, table) in enumerate(self.tables.items(), 1):
            caption = f"Table {number}. {html.escape(self.captions[name])}"
            parts.append(f'<div class="wide">{as_html(table, self.digits[name], caption)}</div>')
        for number, (name, caption) in enumerate(self.drawn.items(), 1):
            drawing = (self.folder / "figures" / f"{name}.svg").read_text(encoding="utf-8")
            # Marks of different drawings share names such as clip0; in one page they must differ.
            drawing = drawing.replace('id="', f'id="{prefix}{name}-').replace("url(#", f"url(#{prefix}{name}-")
            parts.append(f"<figure>{drawing}<figcaption>Figure {number}. {html.escape(caption)}</figcaption></figure>")
        parts += ["<h2>Hyperparameters</h2>", _html_pairs(settings(self.configuration))]
        parts += ["<h2>Machine</h2>", _html_pairs(self.machine)]
        return "\n".join(parts)

    def _html(self) -> str:
        parts = [f"<h1>{html.escape(self.title)}</h1>", self.body()]
        parts += [
            f'<h2>{html.escape(question)}</h2><div class="answer" contenteditable="true"></div>'
            for question in self.questions
        ]
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>\n"
            + "\n".join(parts)
            + "\n</body></html>"
        )

    def _markdown(self) -> str:
        parts = [f"# {self.title}", self.markdown_body("figures")]
        for question in self.questions:
            parts += [f"## {question}", "*(your answer)*"]
        return "\n\n".join(parts)

    def markdown_body(self, figures_folder: str) -> str:
        """The same as `body`, as Markdown."""
        parts = [self.summary, *self.notes]
        for number, (name, table) in enumerate(self.tables.items(), 1):
            parts += [f"**Table {number}. {self.captions[name]}**", markdown(table, self.digits[name])]
        for number, (name, caption) in enumerate(self.drawn.items(), 1):
            parts.append(f"![{caption}]({figures_folder}/{name}.png)\n\nFigure {number}. {caption}")
        for title, pairs in (("Hyperparameters", settings(self.configuration)), ("Machine", self.machine)):
            rows = "\n".join(f"| {key} | {value} |" for key, value in pairs.items())
            parts += [f"## {title}", f"| | |\n| --- | --- |\n{rows}"]
        return "\n\n".join(parts)


def settings(configuration: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A configuration as pairs of words: `training: epochs` -> 2."""
    found: dict[str, str] = {}
    for key, value in configuration.items():
        name = prefix + str(key).replace("_", " ")
        if isinstance(value, Mapping):
            found |= settings(value, f"{name}: ")
        elif isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
            for number, part in enumerate(value, 1):
                found |= settings(part, f"{name} {number}: ")
        else:
            found[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return {key: value for key, value in found.items() if value not in ("", "None")}


def _html_pairs(pairs: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in pairs.items())
    return f'<table class="settings">{rows}</table>'


def collect(folders: Sequence[Path]) -> dict[str, dict[str, Results]]:
    """The finished results in and under each folder: by place (`.` or the step's folder), then by whose they are.

    Raises:
        UsageError: there are none.
    """
    found: dict[str, dict[str, Results]] = {}
    named = _names(folders)
    for folder in folders:
        for path in sorted(folder.rglob("results.json")):
            if path.parent.name.startswith("seed-"):
                continue  # the folder above has their mean
            place = str(path.parent.relative_to(folder))
            found.setdefault(place, {})[named[folder]] = Results.load(path.parent)
    if not found:
        raise UsageError(f"no finished results lie in {', '.join(map(str, folders))}")
    return found


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """What each folder is called: its name, and those above it where two share one (ada/results, grace/results)."""
    places = {folder: folder.resolve().parts for folder in folders}
    if len(set(places.values())) < len(folders):
        raise UsageError("a folder is given twice; everybody counts once")
    parts = 1
    while len({own[-parts:] for own in places.values()}) < len(places):
        parts += 1
    return {folder: "/".join(own[-parts:]) for folder, own in places.items()}


def long_table(results: dict[str, dict[str, Results]]) -> pd.DataFrame:
    """A row for each value: who, step, experiment, task, seed, table, row, column, value."""
    rows = []
    for place, own in results.items():
        for who, one in own.items():
            config = one.configuration
            about = {
                "who": who,
                "step": place,
                "experiment": config["experiment"],
                "task": "; ".join(str(t["task"]) for t in config.get("tasks") or [config]),
                "seed": config.get("seed", config.get("seeds")),
            }
            for name, table in one.tables.items():
                for number, row in enumerate(table.to_dict("records")):
                    rows += [
                        {**about, "table": name, "row": number, "column": column, "value": value}
                        for column, value in row.items()
                    ]
    return pd.DataFrame(rows)


def class_means(results: dict[str, dict[str, Results]], table: str) -> dict[str, pd.DataFrame]:
    """One table's mean and standard deviation over everybody, for each step that has it."""
    return {
        place: over_everybody([one.tables[table] for one in own.values() if table in one.tables])
        for place, own in results.items()
        if any(table in one.tables for one in own.values())
    }
