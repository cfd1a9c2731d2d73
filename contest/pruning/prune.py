"""From the scores of a method to masks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.batches import Batches, Loss
from contest.pruning.masks import Masks, enforce, exact_k, kept
from contest.pruning.preserved import preserved
from contest.pruning.prunable import prunable, require_prunable
from contest.pruning.registry import Method, Score, method


def prune(
    model: nn.Module,
    how: str | Method | Score,
    sparsity: float,
    *,
    batches: Batches = (),
    loss: Loss = nn.functional.cross_entropy,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Masks for `model` at a sparsity of all its prunable weights; the model itself stays as it is.

    Args:
        sparsity: fraction of prunable weights to remove, in [0, 1]. Exactly `kept(weights, sparsity)` live,
            also under methods that remove whole filters or channels: the last one goes in part, if need be.
        batches: (inputs, targets) on the model's device, for methods that use data.
        seed: of the torch generator inside the method; same seed, same masks.
        masks: weights pruned before; they stay dead and count as removed.

    Returns:
        A mask for every prunable weight. Apply them with `hold`.
    """
    chosen = method(how)
    require_prunable(model)
    weights = prunable(model)
    total = sum(weight.numel() for weight in weights.values())
    final = kept(total, sparsity)
    with preserved(model):
        torch.manual_seed(seed)
        alive: Masks = {} if masks is None else dict(masks)
        enforce(model, alive)
        begin = total - sum(int((~mask).sum()) for mask in alive.values())
        if final > begin:
            raise UsageError(
                f"sparsity {sparsity:g} keeps {final} weights, but the given masks leave only {begin} of {total}"
            )
        for step in range(1, chosen.rounds + 1):
            last = step == chosen.rounds or not final
            keep = final if last else round(begin * (final / begin) ** (step / chosen.rounds))
            scores = chosen(model, batches, loss)
            dead = {name: ~mask for name, mask in alive.items()}
            ranked = {
                name: score.masked_fill(dead[name].to(score.device), -torch.inf) if name in dead else score
                for name, score in scores.items()
            }
            alive = exact_k(ranked, keep)
            enforce(model, alive)
    return alive
