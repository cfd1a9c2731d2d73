"""`contest report`: what happened in a study, as one HTML file that needs no network, and PNGs."""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import vl_convert

from contest.errors import UsageError
from contest.files import write_text
from scoring.rules import Score
from search.output.figures import figures
from search.output.progress import bits_text, counts, duration
from search.policy.ranking import Judge, load_stages
from search.study.study import Study
from search.study.trial import TrialRecord

SCALE = 2.0
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1c1f23 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .7rem; border-bottom: 1px solid #d5d9de }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } h2 { margin-top: 2.5rem }
div { overflow-x: auto } svg { display: block; max-width: 100%; height: auto }
@media (max-width: 40rem) { svg { max-width: none } } /* moved with a finger, but legible */
code { background: #f2f4f6; padding: .1rem .3rem; overflow-wrap: anywhere }
"""


def finalist_rows(study: Study) -> list[dict[str, Any]]:
    """The finalists as they were read on the test set: score, accuracy (%), file."""
    found = []
    for path in sorted((study.directory / "finalists").glob("*/report.json")):
        report = json.loads(path.read_text())
        terms, accuracy = report["scores"][study.settings.rule_name], report.get("accuracy")
        if accuracy is not None:
            row = {"key": path.parent.name, **Score.from_json(terms).terms, "score": terms["total"]}
            row["terms"] = Score.from_json(terms).terms
            found.append({**row, "accuracy": 100 * accuracy["value"], "model": str(path.parent / "model.pt")})
    return sorted(found, key=lambda row: row["score"])


def write_report(study: Study, folder: Path) -> list[Path]:
    """Write `report.html` and a PNG for each chart. Raises UsageError for a study without results."""
    judge = Judge.of(study)
    if not judge.records:
        raise UsageError(f"{study.directory}: no trial of this study has a result yet")
    finalists = finalist_rows(study)
    charts = figures(study, judge, load_stages(study.directory), finalists)
    folder.mkdir(parents=True, exist_ok=True)
    written, parts = [], []
    for name, chart in charts.items():
        specification = chart.to_json()
        path = folder / f"{name}.png"
        path.write_bytes(vl_convert.vegalite_to_png(specification, scale=SCALE))
        written.append(path)
        parts.append(f"<div>{vl_convert.vegalite_to_svg(specification)}</div>")
    page = folder / "report.html"
    page.write_text(_page(study, judge, finalists, parts))
    return [page, *written, *write_trials(study, folder)]


def _page(study: Study, judge: Judge, finalists: Sequence[dict[str, Any]], charts: list[str]) -> str:
    settings = study.settings
    facts = [
        ("data set", settings.dataset),
        ("rule", f"{settings.rule_name}, at least {settings.threshold:.1%}"),
        ("objective", settings.objective),
        ("sampler, seed", f"{settings.sampler}, {settings.seed}"),
        ("trials", counts(study.records())),
    ]
    stages = [
        [s.name, duration(s.seconds), f"{s.images:,}", s.trials, _number(s.best_score), _percent(s.best_accuracy)]
        for s in load_stages(study.directory)
    ]
    read = {f["key"]: f["accuracy"] / 100 for f in finalists}
    won = _won(judge, finalists)
    finals = [
        [
            f["key"],
            _number(f["score"]),
            _number(f["params"]),
            _number(f["ops"]),
            f"{f['accuracy']:.2f} %",
            "the winner" if f["key"] == won else "",
        ]
        for f in finalists
    ]
    best = [
        [
            r.number,
            str(r.candidate.architecture),
            bits_text(r.candidate.bits),
            f"{r.candidate.structured:g}",
            f"{r.candidate.unstructured:g}",
            _number(r.result.price.total if r.result else None),
            _percent(r.result.accuracy if r.result else None),
            why_not(judge, r, read),
        ]
        for r in sorted(judge.leaders()[:12], key=lambda r: r.result.price.total if r.result else 0.0)
    ]
    sections = [
        f"<h1>{html.escape(study.name)}</h1>",
        _table(["", ""], [list(fact) for fact in facts]),
        "<h2>Finalists on the test set</h2>" if finals else "",
        _table(["finalist", "score", "params", "ops", "test", ""], finals) if finals else "",
        *charts,
        "<h2>Stages</h2>" + _table(["stage", "time", "images", "trainings", "best score", "validation"], stages)
        if stages
        else "",
        "<h2>Best candidates, lowest score first</h2>",
        _table(["trial", "architecture", "bits w/a", "p_s", "p_u", "score", "validation", "why not"], best),
        f"<p>The same storage opens in <code>optuna-dashboard {html.escape(_shown_storage(study))}</code>.</p>",
    ]
    body = "\n".join(sections)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{html.escape(study.name)}</title><style>{_STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _won(judge: Judge, finalists: Sequence[dict[str, Any]]) -> str | None:
    """The key of the winner among the finalists, which come lowest score first; None: there is none."""
    settings = judge.settings
    if settings.objective == "target":
        cheap = {f["key"] for f in finalists if f["score"] <= (settings.target_score or 0.0)}
        return next((record.key for record in judge.leaders() if record.key in cheap), None)
    return next((f["key"] for f in finalists if f["accuracy"] >= 100 * settings.threshold), None)


def why_not(judge: Judge, record: TrialRecord, read: Mapping[str, float] = MappingProxyType({})) -> str:
    """Why a network is not the best, in a few words; `read`: accuracies on the test set by key, lowest score first."""
    leader, settings = judge.confirmed(), judge.settings
    if settings.objective != "constrained":
        return ""
    won = next((key for key, accuracy in read.items() if accuracy >= settings.threshold), None)
    if record.key in read and won is not None:
        found = f"{_percent(read[record.key])} on the test set"
        if record.key == won:
            return f"the winner: {found}"
        return f"a higher score; {found}" if read[record.key] >= settings.threshold else found
    if record is leader:
        return "the best"
    if not judge.reached(record):
        asked = "two sigma below" if settings.margin is None else f"less {settings.margin:.2%}"
        return f"{_percent(judge.predicted(record))} ({asked}) does not reach {100 * settings.threshold:.1f} %"
    return "a higher score"


def write_trials(study: Study, folder: Path) -> list[Path]:
    """`trials.csv` and `trials.json` in `folder`."""
    rows = [record.row() for record in study.records()]
    table, plain = folder / "trials.csv", folder / "trials.json"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    write_text(plain, json.dumps(rows, indent=1) + "\n")
    return [table, plain]


def _shown_storage(study: Study) -> str:
    """The storage for a reader, without a password."""
    if study.settings.storage is None:
        return "sqlite:///" + str(study.directory / "study.db")
    scheme, _, rest = study.settings.storage.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _table(head: list[str], body: Sequence[Sequence[object]]) -> str:
    def cell(tag: str, value: object) -> str:
        text = str(value)
        right = text[:1].isdigit() and len(text) < 14
        return f"<{tag}{' class=n' if right else ''}>{html.escape(text)}</{tag}>"

    first = "<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr>" if any(head) else ""
    rest = "".join("<tr>" + "".join(cell("td", value) for value in row) + "</tr>" for row in body)
    return f"<div><table>{first}{rest}</table></div>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"
