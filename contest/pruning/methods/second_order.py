"""Second-order saliency: what the loss gains, to second order, when a weight becomes zero.

LeCun, Denker & Solla 1989, Optimal Brain Damage, equation 5: saliency = h_kk * w^2 / 2 at a minimum of the
loss. The diagonal of the Hessian is taken as that of the empirical Fisher information, the mean over samples
of the squared gradient of each sample's own loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from contest.errors import UsageError
from contest.pruning.batches import Batches, Loss, forward, samples, take
from contest.pruning.methods.gradients import trainable
from contest.pruning.registry import Method, Scores, register


@dataclass(frozen=True)
class SecondOrder:
    """Hyperparameters."""

    samples: int = 256
    """One backward pass a sample: more are slow and change the ranking little."""


def fisher_diagonal(model: nn.Module, batches: Batches, loss: Loss, number: int = SecondOrder.samples) -> Scores:
    """Mean over the first `number` samples of the squared gradient, by parameter name."""
    weights = trainable(model)
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    singles = (
        (take(inputs, i, i + 1), take(targets, i, i + 1)) for inputs, targets in batches for i in range(samples(inputs))
    )
    count = 0
    for inputs, targets in islice(singles, number):
        gradients = torch.autograd.grad(
            loss(forward(model, inputs), targets), list(weights.values()), allow_unused=True
        )
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                squares[name] += gradient.square()
        count += 1
    if not count:
        raise UsageError("second-order pruning scores with data; give at least one batch of (inputs, targets)")
    return {name: total / count for name, total in squares.items()}


def score(model: nn.Module, batches: Batches, loss: Loss, options: SecondOrder) -> Scores:
    """w^2 * F / 2, F the diagonal of the empirical Fisher information in evaluation mode."""
    model.eval()
    fisher = fisher_diagonal(model, batches, loss, options.samples)
    return {name: weight.detach().square() * fisher[name] / 2 for name, weight in trainable(model).items()}


second_order = register(
    Method(
        "second-order",
        score,
        "weights of least diagonal-Fisher saliency go",
        "LeCun 1989, OBD",
        uses_data=True,
        hyperparameters=SecondOrder(),
    )
)
