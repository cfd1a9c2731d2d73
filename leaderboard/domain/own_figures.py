"""Why a team's own figure differs: the mistakes that students' calculators make, each worked out for their network.

Of ten calculators in students' repositories six were materially wrong, always in one of these ways. Each cause is a
formula of the measured report; the ones that give the team's figure are named first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scoring.report import Report
from scoring.rules import Rule

CLOSE = 0.02
"""A figure within two percent of a cause's is explained by it."""


@dataclass(frozen=True)
class Own:
    """What a team worked out: its score, or the quantities of the formula (fractions and bits)."""

    score: float | None = None
    p_s: float | None = None
    p_u: float | None = None
    q_w: float | None = None
    q_a: float | None = None
    weights: float | None = None
    operations: float | None = None

    def total(self, rule: Rule) -> float | None:
        """The score that it typed, or the formula of the course's text with its quantities."""
        if self.score is not None:
            return self.score
        if self.weights is None or self.operations is None:
            return None
        kept = 1 - (self.p_s or 0.0)
        q_w = 32.0 if self.q_w is None else self.q_w
        q_a = q_w if self.q_a is None else self.q_a
        params = (kept - (self.p_u or 0.0)) * self.weights * q_w / 32 / rule.params_reference
        return params + kept * self.operations * max(q_w, q_a) / 32 / rule.operations_reference


@dataclass(frozen=True)
class Cause:
    """One known mistake: what it does, the score that it gives here, and whether that is the team's."""

    name: str
    about: str
    score: float
    explains: bool = False


def explain(report: Report, rule: Rule, own: Own, earlier: Report | None = None) -> list[Cause]:
    """Known causes that apply to this network, those that give the team's figure first.

    earlier: of a former submission of the team, to see whether zeros grew back.
    """
    figure = own.total(rule)
    found = []
    for name, about, formula in _CAUSES:
        value = formula(report, rule, own)
        if value is not None and math.isfinite(value) and abs(value / report.scores[rule.name].total - 1) > 1e-3:
            found.append(Cause(name, about, value, figure is not None and _close(value, figure)))
    if earlier is not None and (grown := _grown(report, rule, earlier)) is not None:
        found.append(Cause(*GREW_BACK, grown, figure is not None and _close(grown, figure)))
    return sorted(found, key=lambda cause: (not cause.explains, cause.name))


def _close(value: float, figure: float) -> bool:
    return figure > 0 and abs(math.log(value / figure)) <= CLOSE if value > 0 else False


def _terms(report: Report, rule: Rule) -> tuple[float, float]:
    score = report.scores[rule.name]
    return score.params, score.ops


def _doubled(report: Report, rule: Rule, own: Own) -> float | None:
    params, ops = _terms(report, rule)
    return params + (2 * ops if rule.convention == "macs" else ops / 2)


def _zeros_off_operations(report: Report, rule: Rule, own: Own) -> float | None:
    params, ops = _terms(report, rule)
    weights, nonzeros = report.measured.get("weights"), report.measured.get("nonzeros")
    return params + ops * nonzeros / weights if weights and nonzeros is not None else None


def _removed_twice(report: Report, rule: Rule, own: Own) -> float | None:
    params, ops = _terms(report, rule)
    p_w, p_o = report.measured.get("p_s_weights"), report.measured.get("p_s_ops")
    p = own.p_s if own.p_s is not None else p_o
    if not p:
        return None
    kept_w = 1 - (p if p_w is None else p_w)
    zeros = report.measured.get("p_u") or 0.0
    return params * (1 - p) * (kept_w - zeros) / (kept_w - zeros or 1) + ops * (1 - p)


def _claimed_bits(report: Report, rule: Rule, own: Own) -> float | None:
    params, ops = _terms(report, rule)
    q_w, q_ops = report.measured.get("q_w"), report.measured.get("q_ops")
    if own.q_w is None or not q_w or not q_ops or q_w < 16:
        return None
    wide = max(own.q_w, own.q_a if own.q_a is not None else own.q_w)
    return params * own.q_w / q_w + ops * wide / q_ops


def _latent(report: Report, rule: Rule, own: Own) -> float | None:
    params, ops = _terms(report, rule)
    q_w = report.measured.get("q_w")
    return params / q_w + ops if q_w and q_w >= 16 else None


def _weights_alone(report: Report, rule: Rule, own: Own) -> float | None:
    _, ops = _terms(report, rule)
    q_w, nonzeros = report.measured.get("q_w"), report.measured.get("nonzeros")
    return nonzeros * q_w / 32 / rule.params_reference + ops if q_w and nonzeros else None


def _under(name: str) -> Callable[[Report, Rule, Own], float | None]:
    def score(report: Report, rule: Rule, own: Own) -> float | None:
        return report.scores[name].total if name in report.scores and name != rule.name else None

    return score


_Formula = Callable[[Report, Rule, Own], float | None]
_CAUSES: tuple[tuple[str, str, _Formula], ...] = (
    (
        "operations doubled",
        "a multiply-accumulate is two operations under 8.3e8 and one under 2.8e8: one figure was "
        "divided by the other's reference",
        _doubled,
    ),
    (
        "zeros taken off operations",
        "unstructured zeros save storage, not operations: only removed channels do",
        _zeros_off_operations,
    ),
    (
        "p_s applied twice",
        "channels that are gone from the file are gone from its counts: multiplying by (1 - p_s) takes them off again",
        _removed_twice,
    ),
    ("the reference of rule lab", "8.3e8 operations: the course's text until 2025-02", _under("lab")),
    (
        "the reference of rule lab-macs",
        "2.8e8 multiply-accumulates: the course's text since 2025-02",
        _under("lab-macs"),
    ),
    ("MicroNet's reference", "the script that the course's text gave until 2024", _under("micronet")),
    (
        "bits claimed for a float file",
        "the file holds 16 or 32 bits a weight, whatever the training simulated: write the integers and their scales",
        _claimed_bits,
    ),
    (
        "latent weights",
        "BinaryConnect's float weights were saved instead of their signs: one bit was meant, the file holds all",
        _latent,
    ),
    (
        "weights alone",
        "batch norms, biases and scales are numbers that inference needs: they are charged, too",
        _weights_alone,
    ),
)


def _grown(report: Report, rule: Rule, earlier: Report) -> float | None:
    now, before = report.measured.get("nonzeros"), earlier.measured.get("nonzeros")
    same = report.measured.get("weights") == earlier.measured.get("weights")
    if not same or not now or not before or before >= now:
        return None
    params, ops = _terms(report, rule)
    return params * before / now + ops


GREW_BACK = (
    "zeros that grew back",
    "an earlier submission had more zeros: masks were not held in training (in distilling, most often)",
)
