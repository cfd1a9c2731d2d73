"""From a report to a state: what a scoring means for the ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leaderboard.models import State
from scoring.rules import Rule

ISOLATION = ("none", "limits", "namespaces", "bubblewrap")
"""From the weakest to the strongest."""


@dataclass(frozen=True)
class Outcome:
    """How one scoring ended. A report is there whenever costs could be measured."""

    state: State
    reason: str
    report: dict[str, Any] | None = None
    our_fault: bool = False
    score: float | None = None
    accuracy: float | None = None
    log: tuple[str, ...] = field(default=())

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
            "isolation": str(report.get("isolation") or "")[:20],
            "measured": report.get("measured"),
            "claimed": report.get("claimed") or None,
        }


def judge(report: dict[str, Any], rule: Rule, isolation: str = "") -> Outcome:
    """The state that a report earns under a rule; `isolation` is the weakest level that the contest ranks."""
    score = finite(((report.get("scores") or {}).get(rule.name) or {}).get("total"))
    accuracy = finite((report.get("accuracy") or {}).get("value"))
    log = tuple(_log(report, rule))

    def ended(state: State, reason: str, *, our_fault: bool = False) -> Outcome:
        return Outcome(state, reason, report, our_fault, score, accuracy, log)

    level = str(report.get("isolation") or "none")
    if isolation and _strength(level) < _strength(isolation):
        reason = f"scored under isolation '{level}', this contest ranks from '{isolation}' on; organisers were told"
        return ended(State.FAILED, reason, our_fault=True)
    obstacles = [str(problem) for problem in report.get("problems") or ()]
    obstacles += [f"operation '{name}' is not known to the rules" for name in report.get("unknown_operations") or ()]
    if obstacles:
        return ended(State.REFUSED, "; ".join(obstacles))
    if score is None:
        return ended(State.FAILED, f"the report has no score under rule '{rule.name}'", our_fault=True)
    if accuracy is None:
        return ended(State.FAILED, f"no test data of '{rule.dataset}' where the score was made", our_fault=True)
    if accuracy < rule.threshold:
        return ended(State.BELOW_THRESHOLD, f"accuracy {accuracy:.4f} is below the threshold {rule.threshold:g}")
    if not report.get("rankable", False):
        return ended(State.REFUSED, "the report says that this is not rankable, and gives no reason")
    return ended(State.RANKED, f"accuracy {accuracy:.4f}, score {score:.6g} under rule '{rule.name}'")


def finite(value: object) -> float | None:
    """A number that can be ranked, or None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _strength(level: str) -> int:
    return ISOLATION.index(level) if level in ISOLATION else 0


def _log(report: Mapping[str, Any], rule: Rule) -> list[str]:
    lines = []
    for name, score in (report.get("scores") or {}).items():
        mark = " (this contest)" if name == rule.name else ""
        terms = f"{score.get('params')} + {score.get('ops')} = {score.get('total')}"
        lines.append(f"rule {name}: {terms}{mark}")
    if report.get("isolation"):
        lines.append(f"isolation of the scoring process: {report['isolation']}")
    return lines
