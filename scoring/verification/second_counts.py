"""Second opinions on multiply-accumulates: fvcore's counter, and PyTorch's own, which counts below Python.

fvcore traces, and misses what it has no rule for, so it informs; only where PyTorch's counter disagrees as well may the
network have been misread, and that blocks ranking.
"""

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

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scoring.analysis.cost_model import total_macs
from scoring.readers.subject import Subject, example_images, input_type

COUNTED = ("conv", "linear", "addmm", "matmul", "bmm", "baddbmm", "mm", "einsum", "scaled_dot_product_attention")
"""fvcore's operators that the contest prices as MACs; it also counts batch norms and pooling, which are free."""


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


def dispatched_macs(model: nn.Module, image: Tensor) -> int:
    """MACs of `model(image)` by PyTorch's counter of dispatched operations, attention taken apart into its products."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return int(counter.get_total_flops()) // 2


def other_counts(subject: Subject) -> tuple[list[str], list[str]]:
    """(problems, notes): where other counters see other multiply-accumulates in the module that was read."""
    if subject.module is None:
        return [], []
    ours = total_macs(subject.graph)
    image = example_images(subject.image_shape, 1).to(input_type(subject.module))
    different = disagreement(ours, fvcore_count(subject.module, image))
    if different is None:
        return [], []
    theirs = dispatched_macs(subject.module, image)
    if ours == theirs:
        return [], [different]
    return [f"{different}, {theirs:,} by PyTorch's dispatch counter"], []


def disagreement(ours: int, opinion: SecondOpinion) -> str | None:
    """None, or how the two counts differ. Ours may be larger where fvcore names what it left out."""
    if ours == opinion.macs:
        return None
    left_out = [name for name in opinion.unsupported if any(word in name for word in COUNTED)]
    if ours > opinion.macs and left_out:
        return None
    return f"multiply-accumulates: {ours:,} counted here, {opinion.macs:,} by fvcore"
