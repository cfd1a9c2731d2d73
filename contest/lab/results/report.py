"""What an experiment leaves behind: tables, figures and one self-contained HTML page."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from contest.lab.results import figures
from contest.lab.results.resumable import write_text
from contest.lab.results.tables import markdown, shown, write_table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 62rem;
       padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
th { border-bottom: 2px solid #888; font-weight: 600; }
th:first-child, td:first-child, .text { text-align: left; }
figure { margin: 1.5rem 0; overflow-x: auto; } div.wide { overflow-x: auto; }
figure svg { max-width: 100%; height: auto; }
figcaption { color: #444; max-width: 46rem; position: sticky; left: 0; }
@media (max-width: 40rem) { figure svg { max-width: none; width: 40rem; } } /* moved with a finger, but legible */
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .82rem; }
"""


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
    _captions: dict[str, str] = field(default_factory=dict)
    _digits: dict[str, int] = field(default_factory=dict)
    _figures: dict[str, str] = field(default_factory=dict)

    def add_table(self, name: str, caption: str, table: pd.DataFrame, digits: int = 2) -> None:
        """CSV, Markdown and LaTeX under `tables/`, and a place in the page."""
        self.tables[name], self._captions[name], self._digits[name] = table, caption, digits
        write_table(self.folder, name, table, digits)

    def add_figure(self, name: str, caption: str, chart: Any) -> None:
        """SVG and PNG under `figures/`, and a place in the page."""
        figures.save(chart, self.folder, name)
        self._figures[name] = caption

    def finish(self) -> Path:
        """Write `report.html` and `report.md`; returns the page's path."""
        page = self.folder / "report.html"
        write_text(page, self._html())
        write_text(self.folder / "report.md", self._markdown())
        return page

    def _html(self) -> str:
        parts = [f"<h1>{html.escape(self.title)}</h1>", f"<p>{html.escape(self.summary)}</p>"]
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        for name, table in self.tables.items():
            parts += [
                f"<h2>{html.escape(self._captions[name])}</h2>",
                f'<div class="wide">{self._table(name, table)}</div>',
            ]
        for number, (name, caption) in enumerate(self._figures.items(), 1):
            drawing = (self.folder / "figures" / f"{name}.svg").read_text(encoding="utf-8")
            # Marks of different drawings share names such as clip0; in one page they must differ.
            drawing = drawing.replace('id="', f'id="{name}-').replace("url(#", f"url(#{name}-")
            parts.append(f"<figure>{drawing}<figcaption>Figure {number}. {html.escape(caption)}</figcaption></figure>")
        machine = "".join(
            f'<tr><td>{html.escape(k)}</td><td class="text">{html.escape(v)}</td></tr>' for k, v in self.machine.items()
        )
        parts += [f"<h2>Machine</h2><table>{machine}</table>", "<h2>Configuration</h2>"]
        parts.append(f"<pre>{html.escape(json.dumps(self.configuration, indent=2))}</pre>")
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>\n"
            + "\n".join(parts)
            + "\n</body></html>"
        )

    def _table(self, name: str, table: pd.DataFrame) -> str:
        kinds = ["" if pd.api.types.is_numeric_dtype(table[column]) else ' class="text"' for column in table.columns]
        head = "".join(
            f"<th{kind}>{html.escape(str(column))}</th>" for column, kind in zip(table.columns, kinds, strict=True)
        )
        rows = (
            "<tr>"
            + "".join(
                f"<td{kind}>{html.escape(shown(v, self._digits[name]))}</td>"
                for v, kind in zip(row, kinds, strict=True)
            )
            + "</tr>"
            for row in table.itertuples(index=False)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def _markdown(self) -> str:
        parts = [f"# {self.title}", self.summary, *self.notes]
        for name, table in self.tables.items():
            parts += [f"## {self._captions[name]}", markdown(table, self._digits[name])]
        for name, caption in self._figures.items():
            parts.append(f"![{caption}](figures/{name}.png)\n\n{caption}")
        parts += ["## Machine", "\n".join(f"- {key}: {value}" for key, value in self.machine.items())]
        return "\n\n".join(parts)
