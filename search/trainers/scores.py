"""Prices of candidates: from the architecture alone before training, from the file after it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from contest.candidate import Architecture, Bits, Candidate
from search.study.trial import Price


def price_before(candidate: Candidate, rule: str, image_shape: tuple[int, int, int], classes: int) -> Price:
    """The price that a candidate aims at. Raises ContestError if it cannot be built.

    Removing a fraction p_s of the weights in whole channels removes about the same fraction of operations;
    zeros are free. Scales and shifts do not shrink, so this is slightly less than what the file will cost: right
    for asking whether a candidate *can* win.
    """
    params, ops, numbers, macs, weights = _dense(candidate.architecture, candidate.bits, rule, image_shape, classes)
    left = 1 - candidate.structured
    return Price(
        params=(params - numbers) * (left - candidate.unstructured) + numbers * left,
        ops=ops * left,
        macs=round(macs * left),
        weights=round(weights * left),
    )


@lru_cache(maxsize=16384)
def _dense(
    architecture: Architecture, bits: Bits, rule: str, image_shape: tuple[int, int, int], classes: int
) -> tuple[float, float, float, int, int]:
    """(parameter term, operation term, part of the parameter term that is not weights, MACs, weights)."""
    import dataclasses

    from scoring.rules import load_rule, price
    from scoring.score import architecture_costs

    costs = architecture_costs(architecture, bits, image_shape, classes)
    loaded = load_rule(rule)
    score = price(costs, loaded)
    # Numbers beside the weights (scales, multipliers, shifts) are not pruned: priced alone, with the weights gone.
    bare = dataclasses.replace(costs, operations=tuple(dataclasses.replace(op, nonzeros=0) for op in costs.operations))
    return score.params, score.ops, price(bare, loaded).params, costs.macs, costs.weights


def price_after(model: Path, rule: str) -> Price:
    """The price measured on a network's file (one that this program wrote: opened without the isolated child)."""
    from scoring.rules import load_rule
    from scoring.score import score_file

    report = score_file(model, rule=rule, trust=True).to_json()
    terms, measured = report["scores"][load_rule(rule).name], report["measured"]
    return Price(params=terms["params"], ops=terms["ops"], macs=measured["macs"], weights=measured["weights"])
