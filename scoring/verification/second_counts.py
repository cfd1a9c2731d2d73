"""Second opinions on multiply-accumulates: fvcore's counter, and PyTorch's own, which counts below Python.

fvcore traces, and misses what it has no rule for, so it informs; only where PyTorch's counter disagrees as well may the
network have been misread, and that blocks ranking.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore decorates its losses with torch.jit.script, which is deprecated
    from fvcore.nn import FlopCountAnalysis

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from scoring.analysis.layer_costs import total_macs
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


class _Dispatched(TorchDispatchMode):
    """Adds up what PyTorch's own formulas say of each operation that it dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled; saying so spares the import of torch._dynamo, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.operations += int(formula(*args, **(kwargs or {}), out_val=result))
        return result


def dispatched_macs(model: nn.Module, image: Tensor) -> int:
    """MACs of `model(image)` by PyTorch's formulas, attention taken apart into its products."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), _Dispatched() as counter:
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return int(counter.operations) // 2


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
