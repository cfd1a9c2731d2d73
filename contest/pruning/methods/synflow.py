"""SynFlow: iterative synaptic flow conservation, without data, before training.

Tanaka et al. 2020, arXiv 2006.05467, algorithm 1: R is the sum of the outputs of the network with absolute
parameters on an input of ones, a weight's score is w * dR/dw, and the density falls exponentially over 100
rounds. In float64 (products over many layers leave float32's range) and with batch norm in evaluation mode;
absolute values are taken of parameters, not of batch norm's running statistics.

Beyond the paper's image networks: ones also stand behind an embedding (which has no input of ones to take; one that is
itself prunable passes on the sum of its rows), and norms over a sample (layer norm), which would turn ones into zeros
and end the flow, only multiply by their weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.batches import Batches, Loss, forward, logits, mapped, take
from contest.pruning.methods.gradients import trainable
from contest.pruning.registry import Method, Scores, register

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True)
class SynFlow:
    """Hyperparameters."""

    rounds: int = 100
    """Steps over which the density falls exponentially to the target."""


def score(model: nn.Module, batches: Batches, loss: Loss, options: SynFlow) -> Scores:
    """|w| * dR/d|w| in float64. Of `batches` only the shape of the first sample is used."""
    inputs = next((inputs for inputs, _ in batches), None)
    if inputs is None:
        raise UsageError("synflow needs one batch to know the input's shape; its values are not used")
    model.double()
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    weights = trainable(model)
    with flowing(model):
        flow = logits(forward(model, mapped(take(inputs, 0, 1), _ones))).sum()
    gradients = torch.autograd.grad(flow, list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if gradient is None else weight.detach() * gradient
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }


def _ones(inputs: Tensor) -> Tensor:
    """Ones for numbers; whole numbers are indices (or masks and lengths), of which the values must stay possible."""
    return torch.ones_like(inputs, dtype=torch.float64) if inputs.is_floating_point() else inputs


@contextmanager
def flowing(model: nn.Module) -> Iterator[None]:
    """Ones flow through embeddings and norms over a sample as well."""
    prunable = {id(weight) for weight in trainable(model).values()}

    def embedded(module: Any, _: Any, output: Tensor) -> Tensor:
        if id(module.weight) in prunable:
            flow: Tensor = module.weight.sum(0).expand_as(output)
            return flow
        return torch.ones_like(output)

    def normalised(module: Any, args: tuple[Tensor, ...], _: Tensor) -> Tensor:
        x, weight = args[0], getattr(module, "weight", None)
        if weight is None:
            return x
        trailing = isinstance(module, nn.LayerNorm | nn.RMSNorm)
        scaled: Tensor = x * (weight if trailing else weight.view(-1, *[1] * (x.dim() - 2)))
        return scaled

    rules: list[tuple[Any, Callable[..., Tensor]]] = [((nn.Embedding, nn.EmbeddingBag), embedded), (NORMS, normalised)]
    handles = [
        module.register_forward_hook(rule)
        for kinds, rule in rules
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


synflow = register(
    Method(
        "synflow",
        score,
        "weights of least synaptic flow go, in 100 rounds, without data",
        "arXiv 2006.05467",
        "before",
        hyperparameters=SynFlow(),
    )
)
