"""Pruning: the methods in one registry, and one exact-k mask for all of them.

    from contest import pruning
    masks = pruning.prune(model, "magnitude", sparsity=0.9)
    pruning.enforce(model, masks)   # and pruning.hold(model, masks) after every optimiser step

Structured pruning that removes channels for good is `contest.pruning.structured`.
"""

import contest.pruning.methods  # noqa: F401  (each built-in method enters itself; first, as a function has the name below)
from contest.pruning.batches import Batches, Loss
from contest.pruning.masks import (
    LayerSparsity,
    Masks,
    Sparsity,
    enforce,
    exact_k,
    exact_k_each,
    full,
    hold,
    kept,
    sparsity,
    sparsity_of_compression,
    validate,
)
from contest.pruning.prunable import (
    DEFAULT,
    Choice,
    Choices,
    Coverage,
    choose,
    coverage,
    preserved,
    prunable,
    prunable_modules,
    require_prunable,
)
from contest.pruning.prune import (
    Round,
    fine_grained_masks,
    fit_masked,
    iterative,
    layer_after_layer,
    prune,
    prune_what_remains,
    read_ratios,
    state_of,
)
from contest.pruning.registry import Method, Score, Scores, method, methods, register

__all__ = [
    "DEFAULT",
    "Batches",
    "Choice",
    "Choices",
    "Coverage",
    "LayerSparsity",
    "Loss",
    "Masks",
    "Method",
    "Round",
    "Score",
    "Scores",
    "Sparsity",
    "choose",
    "coverage",
    "enforce",
    "exact_k",
    "exact_k_each",
    "fine_grained_masks",
    "fit_masked",
    "full",
    "hold",
    "iterative",
    "kept",
    "layer_after_layer",
    "method",
    "methods",
    "preserved",
    "prunable",
    "prunable_modules",
    "prune",
    "prune_what_remains",
    "read_ratios",
    "register",
    "require_prunable",
    "sparsity",
    "sparsity_of_compression",
    "state_of",
    "validate",
]
