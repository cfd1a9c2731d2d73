"""Random pruning: the baseline that every method must beat."""

from __future__ import annotations

import torch
from torch import nn

from contest.pruning.batches import Batches, Loss
from contest.pruning.prunable import prunable
from contest.pruning.registry import Method, Scores, register


def score(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
    """Uniform noise from torch's CPU generator, so that the same seed gives the same masks on any device."""
    return {name: torch.rand(weight.shape).to(weight.device) for name, weight in prunable(model).items()}


random = register(Method("random", score, "weights go at random, the baseline", when="before"))
