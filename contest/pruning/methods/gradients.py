"""Gradients of the loss with respect to the prunable weights, as the data-driven methods need them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.batches import Batches, Loss, forward, samples, with_logits
from contest.pruning.prunable import prunable
from contest.pruning.registry import Scores


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The prunable weights, all asking for gradients (the caller restores that)."""
    weights = prunable(model)
    for weight in weights.values():
        weight.requires_grad_(True)
    return weights


def as_in_training(model: nn.Module) -> None:
    """Training mode (batch norm normalises with the batch), but without dropout's noise."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
        elif isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            module.dropout = 0.0  # a number of theirs; `preserved` gives it back


def losses(model: nn.Module, batches: Batches, loss: Loss, temperature: float = 1.0) -> Iterator[tuple[Tensor, int]]:
    """The mean loss of each batch and its number of samples; the logits are divided by `temperature`."""
    empty = True
    for inputs, targets in batches:
        empty = False
        outputs = forward(model, inputs)
        if temperature != 1:
            outputs = with_logits(outputs, lambda scores: scores / temperature)
        yield loss(outputs, targets), samples(inputs)
    if empty:
        raise UsageError("this pruning method scores with data; give at least one batch of (inputs, targets)")


def mean_gradient(model: nn.Module, batches: Batches, loss: Loss, temperature: float = 1.0) -> Scores:
    """Gradient of the mean loss over all samples of all batches, by parameter name.

    A weight that the loss does not depend on has gradient 0.
    """
    weights = trainable(model)
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    total = 0
    for value, count in losses(model, batches, loss, temperature):
        gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                sums[name] += gradient * count
        total += count
    return {name: gradient / total for name, gradient in sums.items()}
