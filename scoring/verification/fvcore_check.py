"""A second opinion on multiply-accumulates: fvcore's counter, whose "flops" are MACs, beside our own count."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore decorates its losses with torch.jit.script, which is deprecated
    from fvcore.nn import FlopCountAnalysis

from scoring.costs import Costs

COUNTED = ("conv", "linear", "addmm", "matmul", "bmm", "baddbmm", "mm", "einsum", "scaled_dot_product_attention")
"""fvcore's operators that the contest prices as MACs; it also counts batch norms and pooling, which are free."""
_PRICED = ("conv", "conv_transpose", "linear", "matmul")


@dataclass(frozen=True)
class SecondOpinion:
    """MACs by fvcore, and what it left out: a count that ignores operations is no count."""

    macs: int
    unsupported: Mapping[str, int]
    uncalled: tuple[str, ...]


def fvcore_count(model: nn.Module, image: Tensor) -> SecondOpinion:
    """fvcore's MACs of `model(image)` in the operations that the contest prices."""
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            found = FlopCountAnalysis(model, image)
            found.tracer_warnings("none")
            macs = sum(int(count) for name, count in found.by_operator().items() if name in COUNTED)
            return SecondOpinion(macs, dict(found.unsupported_ops()), tuple(sorted(found.uncalled_modules())))
    finally:
        logger.setLevel(level)


def disagreement(costs: Costs, opinion: SecondOpinion) -> str | None:
    """None, or how the two counts differ. Ours may be larger where fvcore names what it left out."""
    ours = sum(op.macs for op in costs.operations if op.kind in _PRICED)
    if ours == opinion.macs:
        return None
    left_out = [name for name in opinion.unsupported if any(word in name for word in COUNTED)]
    if ours > opinion.macs and left_out:
        return None
    return f"multiply-accumulates: {ours:,} counted here, {opinion.macs:,} by fvcore"
