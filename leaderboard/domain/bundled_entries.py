"""Networks that come with the package: their files, and their reports as `contest score --json` wrote them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from contest.errors import DataError
from contest.zoo import DIRECTORY
from leaderboard.domain.standings import judge
from scoring.report import Report
from scoring.rules import Rule


@dataclass(frozen=True)
class Entry:
    """One bundled network under one rule."""

    name: str
    state: str
    score: float
    params: float
    ops: float
    accuracy: float
    report: Report


def entries(rule: Rule, directory: Path = DIRECTORY) -> list[Entry]:
    """Bundled networks of the rule's data set that have a score under it, the best first.

    Raises DataError when a file has no report beside it: `contest score NAME.pt --json > NAME.json` writes one.
    """
    found = []
    for path in sorted(directory.glob("*.pt")):
        source = path.with_suffix(".json")
        if not source.is_file():
            raise DataError(f"bundled network '{path.name}' has no report '{source.name}' beside it")
        report = Report.from_json(json.loads(source.read_text(encoding="utf-8")))
        if rule.name not in report.scores or report.dataset != rule.dataset:
            continue
        outcome, score = judge(report, rule), report.scores[rule.name]
        if outcome.score is not None and outcome.accuracy is not None:
            found.append(
                Entry(path.stem, outcome.state, outcome.score, score.params, score.ops, outcome.accuracy, report)
            )
    return sorted(found, key=lambda entry: (entry.score, -entry.accuracy, entry.name))
