"""Whole filters by L1 norm: in each layer the filters of smallest sum of absolute weights go first.

Li et al. 2016, Pruning Filters for Efficient ConvNets, arXiv 1608.08710, section 3.1: sums are compared
inside a layer only, and every layer loses the same fraction of its filters. The paper retrains between
layers; `contest.pruning.iterative.layer_after_layer` does that. The last layer's rows are the classes and stay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contest.pruning.batches import Batches, Loss
from contest.pruning.latent import effective_weight
from contest.pruning.methods.channels import output_channel, whole_layers, worth
from contest.pruning.registry import Method, Scores, register


def filter_sums(layer: nn.Module) -> Tensor:
    """Sum of absolute weights of each filter: float64 [output channels]."""
    weight = effective_weight(layer)
    channel = output_channel(layer).flatten()
    sums = torch.zeros(int(channel.max()) + 1, dtype=torch.float64, device=weight.device)
    return sums.index_add(0, channel, weight.abs().double().flatten())


def score(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
    """For each weight, its filter's place by L1 norm inside its layer, in (0, 1]; the last layer is inf."""
    scores: Scores = {}
    for name, layer in whole_layers(model, "filter-l1").items():
        order = filter_sums(layer).argsort(stable=True)
        scores[name] = worth(order, output_channel(layer))
    if len(scores) > 1:
        last = next(reversed(scores))
        scores[last] = torch.full_like(scores[last], torch.inf)
    return scores


filter_l1 = register(
    Method("filter-l1", score, "whole filters of smallest L1 norm in each layer go", "arXiv 1608.08710")
)
