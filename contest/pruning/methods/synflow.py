"""SynFlow: iterative synaptic flow conservation, without data, before training.

Tanaka et al. 2020, arXiv 2006.05467, algorithm 1: R is the sum of the outputs of the network with absolute
parameters on an input of ones, a weight's score is w * dR/dw, and the density falls exponentially over 100
rounds. In float64 (products over many layers leave float32's range) and with batch norm in evaluation mode;
absolute values are taken of parameters, not of batch norm's running statistics.
"""

from __future__ import annotations

import torch
from torch import nn

from contest.errors import UsageError
from contest.pruning.methods.gradients import trainable
from contest.pruning.registry import Batches, Loss, Method, Scores, register


def score(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
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
    flow = model(torch.ones((1, *inputs.shape[1:]), dtype=torch.float64, device=inputs.device)).sum()
    gradients = torch.autograd.grad(flow, list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if gradient is None else weight.detach() * gradient
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }


synflow = register(
    Method(
        "synflow",
        score,
        "weights of least synaptic flow go, in 100 rounds, without data",
        "arXiv 2006.05467",
        "before",
        rounds=100,
    )
)
