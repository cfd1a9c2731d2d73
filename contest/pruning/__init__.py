"""Pruning: one small file a method, one registry, one exact-k mask.

    from contest import pruning
    masks = pruning.prune(model, "magnitude", sparsity=0.9)
    pruning.hold(model, masks)      # again after every optimiser step

Structured pruning that removes channels for good is `contest.pruning.structured`.
"""

from contest.pruning import magnitude, random
from contest.pruning.masks import (
    LayerSparsity,
    Masks,
    Sparsity,
    exact_k,
    exact_k_each,
    full,
    hold,
    kept,
    prunable,
    prunable_modules,
    sparsity,
    sparsity_of_compression,
    validate,
)
from contest.pruning.registry import Batches, Loss, Method, Score, Scores, method, methods, preserved, prune, register

__all__ = [
    "Batches",
    "LayerSparsity",
    "Loss",
    "Masks",
    "Method",
    "Score",
    "Scores",
    "Sparsity",
    "exact_k",
    "exact_k_each",
    "full",
    "hold",
    "kept",
    "magnitude",
    "method",
    "methods",
    "preserved",
    "prunable",
    "prunable_modules",
    "prune",
    "random",
    "register",
    "sparsity",
    "sparsity_of_compression",
    "validate",
]
