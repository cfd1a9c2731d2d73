"""Global magnitude, and weights at random: the plainest method, and the baseline that every method must beat.

Magnitude (Han et al. 2015, Learning both Weights and Connections, arXiv 1506.02626, section 3): the weights of largest
absolute value live, without data, and without retraining of its own (there retraining follows, with the mask held).
"""

from __future__ import annotations

import torch
from torch import nn

from contest.pruning.batches import Batches, Loss
from contest.pruning.prunable import prunable, weights
from contest.pruning.registry import Method, Scores, register


def absolute_values(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
    """|w| for every prunable weight."""
    return {name: weight.abs() for name, weight in weights(model).items()}


magnitude = register(
    Method("magnitude", absolute_values, "smallest absolute values of all layers together go", "arXiv 1506.02626")
)


def noise(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
    """Uniform noise from torch's CPU generator, so that the same seed gives the same masks on any device."""
    return {name: torch.rand(weight.shape).to(weight.device) for name, weight in prunable(model).items()}


random = register(Method("random", noise, "weights go at random, the baseline", when="before"))
