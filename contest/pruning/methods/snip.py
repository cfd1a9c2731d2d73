"""SNIP: connection sensitivity |w * dL/dw|, once, before training.

Lee et al. 2018, arXiv 1810.02340, section 4, equation 5: the effect on the loss of scaling a connection.
"""

from __future__ import annotations

from torch import nn

from contest.pruning.batches import Batches, Loss
from contest.pruning.methods.gradients import as_in_training, mean_gradient
from contest.pruning.prunable import prunable
from contest.pruning.registry import Method, Scores, register


def score(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
    """|w * dL/dw|, L the mean loss over all samples of `batches`."""
    as_in_training(model)
    gradients = mean_gradient(model, batches, loss)
    return {name: (weight.detach() * gradients[name]).abs() for name, weight in prunable(model).items()}


snip = register(
    Method("snip", score, "connections that the loss feels least go", "arXiv 1810.02340", "before", uses_data=True)
)
