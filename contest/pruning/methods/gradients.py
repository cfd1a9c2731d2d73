"""What the loss's gradients say of a weight: SNIP and GraSP before training, second-order saliency after it.

SNIP (Lee et al. 2018, arXiv 1810.02340, section 4, equation 5) keeps the connections whose scaling the loss feels most,
|w * dL/dw|. GraSP (Wang et al. 2020, arXiv 2002.07376, section 4, equation 8) keeps what the gradient's flow needs: of
-w * (H g) the largest go; the outputs are divided by a temperature of 200 inside the loss, as in the authors'
experiments. Second order (LeCun, Denker & Solla 1989, Optimal Brain Damage, equation 5) is what the loss gains when a
weight becomes zero at a minimum, h_kk * w^2 / 2; the diagonal of the Hessian is taken as that of the empirical Fisher
information, the mean over samples of the squared gradient of each sample's own loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.batches import Batches, Loss, forward, samples, take, with_logits
from contest.pruning.prunable import prunable
from contest.pruning.registry import Method, Scores, register


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


def connection_sensitivity(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
    """|w * dL/dw|, L the mean loss over all samples of `batches`."""
    as_in_training(model)
    gradients = mean_gradient(model, batches, loss)
    return {name: (weight.detach() * gradients[name]).abs() for name, weight in prunable(model).items()}


snip = register(
    Method(
        "snip",
        connection_sensitivity,
        "connections that the loss feels least go",
        "arXiv 1810.02340",
        "before",
        uses_data=True,
    )
)


@dataclass(frozen=True)
class Grasp:
    """Hyperparameters of GraSP."""

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


def gradient_flow(model: nn.Module, batches: Batches, loss: Loss, options: Grasp) -> Scores:
    """w * (H g): the negative of the paper's score, since here the highest live."""
    as_in_training(model)
    products = hessian_gradient(model, batches, loss, options.temperature)
    return {name: weight.detach() * products[name] for name, weight in trainable(model).items()}


grasp = register(
    Method(
        "grasp", gradient_flow, "what the gradient's flow needs least goes", "arXiv 2002.07376", "before", True, Grasp()
    )
)


@dataclass(frozen=True)
class SecondOrder:
    """Hyperparameters of second-order saliency."""

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


def saliency(model: nn.Module, batches: Batches, loss: Loss, options: SecondOrder) -> Scores:
    """w^2 * F / 2, F the diagonal of the empirical Fisher information in evaluation mode."""
    model.eval()
    fisher = fisher_diagonal(model, batches, loss, options.samples)
    return {name: weight.detach().square() * fisher[name] / 2 for name, weight in trainable(model).items()}


second_order = register(
    Method(
        "second-order",
        saliency,
        "weights of least diagonal-Fisher saliency go",
        "LeCun 1989, OBD",
        uses_data=True,
        hyperparameters=SecondOrder(),
    )
)
