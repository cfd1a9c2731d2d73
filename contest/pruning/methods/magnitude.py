"""Global magnitude: the weights of largest absolute value live. No data, no retraining of its own.

Han et al. 2015, Learning both Weights and Connections, arXiv 1506.02626, section 3 (there followed by
retraining with the mask held).
"""

from __future__ import annotations

from torch import nn

from contest.pruning.batches import Batches, Loss
from contest.pruning.prunable import weights
from contest.pruning.registry import Method, Scores, register


def score(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
    """|w| for every prunable weight."""
    return {name: weight.abs() for name, weight in weights(model).items()}


magnitude = register(
    Method("magnitude", score, "smallest absolute values of all layers together go", "arXiv 1506.02626")
)
