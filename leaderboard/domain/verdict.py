"""From a report to a state: what a scoring means for the ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leaderboard.storage.tables import State
from scoring.rules import Rule


@dataclass(frozen=True)
class Outcome:
    """How one scoring ended. A report is there whenever costs could be measured.

    `again`: it failed for a reason that may be gone in a moment, so the queue tries again before it gives up.
    """

    state: State
    reason: str
    report: dict[str, Any] | None = None
    our_fault: bool = False
    score: float | None = None
    accuracy: float | None = None
    log: tuple[str, ...] = field(default=())
    again: bool = False

    def columns(self, rule: Rule) -> dict[str, Any]:
        """The columns of a submission that come from the report."""
        report = self.report or {}
        score = (report.get("scores") or {}).get(rule.name) or {}
        accuracy = report.get("accuracy") or {}
        return {
            "rule_name": rule.name,
            "rule_version": rule.version,
            "score": self.score,
            "params": finite(score.get("params")),
            "ops": finite(score.get("ops")),
            "score_with_bitmask": finite(score.get("total_with_bitmask")),
            "accuracy": self.accuracy,
            "accuracy_low": finite(accuracy.get("low")),
            "accuracy_high": finite(accuracy.get("high")),
            "isolation": isolation_of(report)[:20],
            "measured": report.get("measured"),
            "claimed": report.get("claimed") or None,
        }


def judge(report: dict[str, Any], rule: Rule) -> Outcome:
    """The state that a report earns under a rule."""
    score = finite(((report.get("scores") or {}).get(rule.name) or {}).get("total"))
    accuracy = finite((report.get("accuracy") or {}).get("value"))
    log = tuple(_log(report, rule))

    def ended(state: State, reason: str, *, our_fault: bool = False) -> Outcome:
        return Outcome(state, reason, report, our_fault, score, accuracy, log)

    status = report.get("status")
    if status == "flagged":
        return ended(State.REFUSED, "; ".join(str(problem) for problem in report.get("problems") or ()))
    if score is None:
        return ended(State.FAILED, f"the report has no score under rule '{rule.name}'", our_fault=True)
    if accuracy is None:
        return ended(State.FAILED, f"no test data of '{rule.dataset}' where the score was made", our_fault=True)
    if accuracy < rule.threshold:
        return ended(State.BELOW_THRESHOLD, f"accuracy {accuracy:.4f} is below the threshold {rule.threshold:g}")
    if status != "rankable" or not report.get("rankable"):
        return ended(State.FAILED, f"the report's status '{status}' does not fit its figures", our_fault=True)
    return ended(State.RANKED, f"accuracy {accuracy:.4f}, score {score:.6g} under rule '{rule.name}'")


def finite(value: object) -> float | None:
    """A number that can be ranked, or None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def isolation_of(report: Mapping[str, Any]) -> str:
    """At which level of isolation the file was opened; empty when the report does not say."""
    return str((report.get("file") or {}).get("isolation") or "")


def _log(report: Mapping[str, Any], rule: Rule) -> list[str]:
    lines = []
    for name, score in (report.get("scores") or {}).items():
        mark = " (this contest)" if name == rule.name else ""
        terms = f"{score.get('params')} + {score.get('ops')} = {score.get('total')}"
        lines.append(f"rule {name}: {terms}{mark}")
    lines.append(f"isolation of the scoring process: {isolation_of(report) or 'unknown'}")
    return lines
