"""Fine-grained pruning: magnitude inside each layer, one ratio for every layer or one for each.

MIT 6.5940 (TinyML), lab 1; the granularity of Han et al. 2015, arXiv 1506.02626, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from contest.pruning.batches import Batches, Loss
from contest.pruning.masks import Masks, exact_k_each
from contest.pruning.prunable import weights
from contest.pruning.registry import Method, Scores, register


def score(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
    """For each weight, its place by absolute value inside its own tensor, in (0, 1].

    Ranked over all tensors together this gives every layer the same sparsity.
    """
    scores: Scores = {}
    for name, weight in weights(model).items():
        # Descending and stable, so that of equal weights the earlier one has the higher place.
        order = weight.abs().flatten().argsort(descending=True, stable=True)
        place = torch.empty(weight.numel(), dtype=torch.float64, device=weight.device)
        place[order] = torch.arange(weight.numel(), 0, -1, dtype=torch.float64, device=weight.device)
        scores[name] = (place / weight.numel()).view(weight.shape)
    return scores


def fine_grained_masks(model: nn.Module, sparsities: Mapping[str, float] | float) -> Masks:
    """Masks with one sparsity for every prunable tensor, or one for each named one (others stay whole).

    Args:
        sparsities: a fraction, or fractions by parameter name (`conv1.weight`).

    Raises:
        UsageError: a name is no prunable weight, or a fraction is outside [0, 1].
    """
    sizes = {name: weight.abs() for name, weight in weights(model).items()}
    each = sparsities if isinstance(sparsities, Mapping) else dict.fromkeys(sizes, sparsities)
    return exact_k_each(sizes, each)


fine_grained = register(
    Method("fine-grained", score, "smallest absolute values inside each layer go, one ratio a layer", "MIT 6.5940")
)
