"""From a report to a state: what a scoring means for the ranking."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from leaderboard.storage.tables import State
from scoring.report import Report
from scoring.rules import Rule


@dataclass(frozen=True)
class Verdict:
    """How one scoring ended. A report is there whenever costs could be measured.

    reason: of a refused file, what is wrong with the file; what its accuracy is stands in no such reason.
    again: it failed for a reason that may be gone in a moment, so the queue tries again before it gives up.
    """

    state: State
    reason: str
    report: Report | None = None
    our_fault: bool = False
    score: float | None = None
    accuracy: float | None = None
    log: tuple[str, ...] = field(default=())
    again: bool = False

    def columns(self, rule: Rule) -> dict[str, Any]:
        """The columns of a submission that come from the report."""
        report = self.report
        score = report.scores.get(rule.name) if report else None
        accuracy = report.accuracy if report else None
        return {
            "rule_name": rule.name,
            "rule_version": rule.version,
            "score": self.score,
            "params": finite(score.params) if score else None,
            "ops": finite(score.ops) if score else None,
            "score_with_bitmask": finite(score.total_with_bitmask) if score else None,
            "accuracy": self.accuracy,
            "accuracy_low": finite(accuracy.low) if accuracy else None,
            "accuracy_high": finite(accuracy.high) if accuracy else None,
            "isolation": isolation_of(report)[:20] if report else "",
            "measured": dict(report.measured) if report else None,
            "claimed": (dict(report.claimed) or None) if report else None,
        }


def judge(report: Report, rule: Rule) -> Verdict:
    """The state that a report earns under a rule."""
    terms = report.scores.get(rule.name)
    score = finite(terms.total) if terms else None
    accuracy = finite(report.accuracy.value) if report.accuracy else None
    log = tuple(_log(report, rule))

    def ended(state: State, reason: str, *, our_fault: bool = False) -> Verdict:
        return Verdict(state, reason, report, our_fault, score, accuracy, log)

    if report.status == "flagged":
        return ended(State.REFUSED, "; ".join(report.file_problems))
    if score is None:
        return ended(State.FAILED, f"the report has no score under rule '{rule.name}'", our_fault=True)
    if accuracy is None:
        return ended(State.FAILED, f"no test data of '{rule.dataset}' where the score was made", our_fault=True)
    if accuracy < rule.threshold:
        return ended(State.BELOW_THRESHOLD, f"accuracy {accuracy:.4f} is below the threshold {rule.threshold:g}")
    if report.status != "rankable" or not report.rankable:
        return ended(State.FAILED, f"the report's status '{report.status}' does not fit its figures", our_fault=True)
    return ended(State.RANKED, f"accuracy {accuracy:.4f}, score {score:.6g} under rule '{rule.name}'")


def finite(value: object) -> float | None:
    """A number that can be ranked, or None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def isolation_of(report: Report) -> str:
    """At which level of isolation the file was opened; empty when the report does not say."""
    return str(report.file.get("isolation") or "")


def _log(report: Report, rule: Rule) -> list[str]:
    lines = []
    for name, score in report.scores.items():
        mark = " (this contest)" if name == rule.name else ""
        terms = " + ".join(str(value) for value in score.terms.values())
        lines.append(f"rule {name}: {terms} = {score.total}{mark}")
    lines.append(f"isolation of the scoring process: {isolation_of(report) or 'unknown'}")
    return lines
