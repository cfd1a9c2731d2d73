"""GraSP: keep what the gradient's flow needs; score -w * (H g), the largest go; once, before training.

Wang et al. 2020, arXiv 2002.07376, section 4, equation 8; the outputs are divided by a temperature of 200
inside the loss, as in the authors' experiments.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from contest.pruning.batches import Batches, Loss
from contest.pruning.methods.gradients import as_in_training, losses, mean_gradient, trainable
from contest.pruning.registry import Method, Scores, register


@dataclass(frozen=True)
class Grasp:
    """Hyperparameters."""

    temperature: float = 200.0
    """What the logits are divided by inside the loss."""


def hessian_gradient(model: nn.Module, batches: Batches, loss: Loss, temperature: float = Grasp.temperature) -> Scores:
    """H g over the prunable weights, H and g of the mean loss over all samples, by parameter name."""
    weights = trainable(model)
    gradient = mean_gradient(model, batches, loss, temperature)
    products = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    samples_seen = 0
    for value, count in losses(model, batches, loss, temperature):
        own = torch.autograd.grad(value, list(weights.values()), create_graph=True, allow_unused=True)
        flow = torch.stack(
            [(mine * gradient[name]).sum() for name, mine in zip(weights, own, strict=True) if mine is not None]
        ).sum()
        if flow.requires_grad:  # otherwise the loss is linear in the weights, and H is zero
            second = torch.autograd.grad(flow, list(weights.values()), allow_unused=True)
            for name, part in zip(weights, second, strict=True):
                if part is not None:
                    products[name] += part * count
        samples_seen += count
    return {name: total / samples_seen for name, total in products.items()}


def score(model: nn.Module, batches: Batches, loss: Loss, options: Grasp) -> Scores:
    """w * (H g): the negative of the paper's score, since here the highest live."""
    as_in_training(model)
    products = hessian_gradient(model, batches, loss, options.temperature)
    return {name: weight.detach() * products[name] for name, weight in trainable(model).items()}


grasp = register(
    Method("grasp", score, "what the gradient's flow needs least goes", "arXiv 2002.07376", "before", True, Grasp())
)
