"""What is said of a network beside what was measured: by its file, and by a team that worked out its own figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from leaderboard.terms import added_to
from scoring.report import Report
from scoring.rules import Rule

MEASURED_AS = {"p_s": ("p_s_weights", "p_s_ops")}
"""What a file claims under one name is measured as two: either may be meant."""
_MORE_IS_BETTER = ("p_s", "p_s_weights", "p_s_ops", "p_u", "accuracy")
_ROUNDING = {
    "p_s": 5e-4,
    "p_s_weights": 5e-4,
    "p_s_ops": 5e-4,
    "p_u": 5e-4,
    "accuracy": 5e-5,
    "q_w": 5e-3,
    "q_a": 5e-3,
    "q_ops": 5e-3,
}
"""Half a unit of the last digit that anybody writes: a tenth of a percent, a hundredth of a bit."""
_RELATIVE_ROUNDING = 5e-4


def differences(measured: Mapping[str, Any] | None, claimed: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Keys that a file claims otherwise than they were measured, beyond rounding.

    A claim of something that could not be measured differs, unless it claims nothing (null or 0). `p_s` is one number
    of the formula and two of a network, of weights and of operations: a claim agrees if it is one of them.
    """
    if not measured or not claimed:
        return ()
    return tuple(key for key, claim in claimed.items() if claim is not None and not _agrees(key, claim, measured))


def flattering(measured: Mapping[str, Any] | None, claimed: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The differences that would have helped the claimer: more removed, fewer bits, smaller counts than measured.

    Zeros and removed channels are one saving: when channels turn out to be dead, their zeros count as removed, so a
    claim of p_u is no better than the truth while p_s and p_u together are not.
    """
    if not measured or not claimed:
        return ()
    found = [key for key in differences(measured, claimed) if _helps(key, claimed[key], measured)]
    together = [_number(claimed.get("p_s", 0.0)), _number(claimed.get("p_u"))]
    truth = [_number(measured.get("p_s_weights", 0.0)), _number(measured.get("p_u"))]
    known = [number for number in (*together, *truth) if number is not None]
    if "p_u" in found and len(known) == 4 and known[0] + known[1] <= known[2] + known[3] + _ROUNDING["p_u"]:
        found.remove("p_u")
    return tuple(found)


def _helps(key: str, claim: object, measured: Mapping[str, Any]) -> bool:
    known = [_number(measured.get(name)) for name in MEASURED_AS.get(key, (key,))]
    values = [value for value in known if value is not None]
    number = _number(claim)
    if number is None:
        return True  # a text where a number belongs helps nobody, but is no rounding either
    if not values:
        return number > 0 and key in _MORE_IS_BETTER
    return number > max(values) if key in _MORE_IS_BETTER else number < min(values)


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]


def _agrees(key: str, claim: object, measured: Mapping[str, Any]) -> bool:
    names = [name for name in MEASURED_AS.get(key, (key,)) if name in measured]
    values = [measured[name] for name in names if measured[name] is not None]
    if not names or (not values and claim == 0):
        return True
    return any(_same(key, claim, value) for value in values)


def _same(key: str, claim: object, value: object) -> bool:
    if isinstance(claim, int | float) and isinstance(value, int | float):
        rounding = _ROUNDING.get(key, 0.0)
        return math.isclose(claim, value, rel_tol=0 if rounding else _RELATIVE_ROUNDING, abs_tol=rounding + 1e-9)
    return claim == value


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

    def total(self, rule: Rule, added: Mapping[str, float] = MappingProxyType({})) -> float | None:
        """The score that it typed, or the formula of the course's text with its quantities.

        added: what the rule adds to that formula, as it was measured.
        """
        if self.score is not None:
            return self.score
        if self.weights is None or self.operations is None:
            return None
        kept = 1 - (self.p_s or 0.0)
        q_w = 32.0 if self.q_w is None else self.q_w
        q_a = q_w if self.q_a is None else self.q_a
        params = (kept - (self.p_u or 0.0)) * self.weights * q_w / 32 / rule.params_reference
        ops = kept * self.operations * max(q_w, q_a) / 32 / rule.operations_reference
        return params + ops + math.fsum(added.values())


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
    figure = own.total(rule, added_to(report.scores[rule.name]))
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


def _terms(report: Report, rule: Rule) -> tuple[float, float, float]:
    """Parameters, operations, and what the rule adds: no known mistake is made there."""
    score = report.scores[rule.name]
    return score.params, score.ops, math.fsum(added_to(score).values())


def _doubled(report: Report, rule: Rule, own: Own) -> float | None:
    params, ops, rest = _terms(report, rule)
    return params + (2 * ops if rule.convention == "macs" else ops / 2) + rest


def _zeros_off_operations(report: Report, rule: Rule, own: Own) -> float | None:
    params, ops, rest = _terms(report, rule)
    weights, nonzeros = report.measured.get("weights"), report.measured.get("nonzeros")
    return params + ops * nonzeros / weights + rest if weights and nonzeros is not None else None


def _removed_twice(report: Report, rule: Rule, own: Own) -> float | None:
    params, ops, rest = _terms(report, rule)
    p_w, p_o = report.measured.get("p_s_weights"), report.measured.get("p_s_ops")
    p = own.p_s if own.p_s is not None else p_o
    if not p:
        return None
    kept_w = 1 - (p if p_w is None else p_w)
    zeros = report.measured.get("p_u") or 0.0
    return params * (1 - p) * (kept_w - zeros) / (kept_w - zeros or 1) + ops * (1 - p) + rest


def _claimed_bits(report: Report, rule: Rule, own: Own) -> float | None:
    params, ops, rest = _terms(report, rule)
    q_w, q_ops = report.measured.get("q_w"), report.measured.get("q_ops")
    if own.q_w is None or not q_w or not q_ops or q_w < 16:
        return None
    wide = max(own.q_w, own.q_a if own.q_a is not None else own.q_w)
    return params * own.q_w / q_w + ops * wide / q_ops + rest


def _latent(report: Report, rule: Rule, own: Own) -> float | None:
    params, ops, rest = _terms(report, rule)
    q_w = report.measured.get("q_w")
    return params / q_w + ops + rest if q_w and q_w >= 16 else None


def _weights_alone(report: Report, rule: Rule, own: Own) -> float | None:
    _, ops, rest = _terms(report, rule)
    q_w, nonzeros = report.measured.get("q_w"), report.measured.get("nonzeros")
    return nonzeros * q_w / 32 / rule.params_reference + ops + rest if q_w and nonzeros else None


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
    params, ops, rest = _terms(report, rule)
    return params * before / now + ops + rest


GREW_BACK = (
    "zeros that grew back",
    "an earlier submission had more zeros: masks were not held in training (in distilling, most often)",
)
