"""The plan of a budget: how much of it goes into the first network, into comparing settings, and into long tunings.

    | first parent (float) | first child | six short tunes | long tunes, step by step | second parent ...

Up to `FEW` epochs all of it is the first network: three networks that have not converged are worth less than one that
has. From `SEARCHES` epochs on at least six settings are compared from the one parent before the first long tuning. A
parent gets no more epochs than help it; what is then left pays for further parents.
"""

from __future__ import annotations

from dataclasses import dataclass

FEW = 10.0
SEARCHES = 20.0
TUNE_SHARE = 0.1
"""Of the first network's epochs where it takes all of the budget; measured, docs/search.md."""
FLOAT_SHARE = 0.4
SHORT_SHARE = 0.18
SHORT_TUNES = 6
LEAST = 0.05
"""Epochs below which a training is no training."""


@dataclass(frozen=True)
class Plan:
    """Epochs of each kind of training; `whole` is the budget in float epochs of the first network."""

    whole: float
    parent: float
    child: float
    short: float
    shorts: int
    long: float
    longs: int

    @property
    def searches(self) -> bool:
        return self.shorts > 0


def make_plan(
    whole: float, ratio: float, converged: float, *, given: bool = False, tune_share: float = TUNE_SHARE
) -> Plan:
    """Spend `whole` float epochs, where a tuned epoch costs `ratio` float ones.

    converged: epochs from which a float training hardly gains; given: the parent exists already.
    """
    whole = max(whole, 0.0)
    if whole < FEW and not given:
        parent = (1 - tune_share) * whole
        return Plan(whole, parent, tune_share * whole / ratio, 0.0, 0, 0.0, 0)
    few = whole <= SEARCHES and not given
    parent = 0.0 if given else min(converged, (0.6 if few else FLOAT_SHARE) * whole)
    trained = converged if given else parent
    rest = whole - parent
    child = min(0.15 * trained, 0.25 * rest / ratio)
    if few:
        long = min(0.35 * trained, (rest - child * ratio) / ratio / 2)
        return Plan(whole, parent, child, 0.0, 0, long, 2)
    short = min(0.12 * trained, SHORT_SHARE * whole / SHORT_TUNES / ratio, 0.3 * rest / SHORT_TUNES / ratio)
    rest -= child * ratio + SHORT_TUNES * short * ratio
    long = min(0.35 * trained, rest / ratio / 2)
    return Plan(whole, parent, child, short, SHORT_TUNES, long, max(1, int(rest / ratio / max(long, LEAST))))
