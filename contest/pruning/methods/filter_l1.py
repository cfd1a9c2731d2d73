"""Whole filters by L1 norm: in each layer the filters of smallest sum of absolute weights go first.

Li et al. 2016, Pruning Filters for Efficient ConvNets, arXiv 1608.08710, section 3.1: sums are compared
inside a layer only, and every layer loses the same fraction of its filters. The paper retrains between
layers; `contest.pruning.prune.layer_after_layer` does that. The last layer's rows are the classes and stay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.batches import Batches, Loss
from contest.pruning.latent import effective_weight
from contest.pruning.prunable import layers, owner, prunable
from contest.pruning.registry import Method, Scores, register


def whole_layers(model: nn.Module, method: str) -> dict[str, nn.Module]:
    """The prunable layers by the name of their weight, for a method that takes whole filters or channels.

    Raises:
        UsageError: a prunable weight is neither a convolution's nor a linear layer's.
    """
    found = layers(model)
    for name in prunable(model):
        if name not in found:
            raise UsageError(
                f"{method} takes whole channels of convolutions and linear layers; '{name}' belongs to a "
                f"{type(owner(model, name)).__name__}"
            )
    return found


def output_channel(layer: nn.Module) -> Tensor:
    """The number of the output channel (filter, row) of each weight: int64, the shape of the weight."""
    return _channels(layer)[0]


def input_channel(layer: nn.Module) -> Tensor:
    """The number of the input channel (feature, column) of each weight: int64, the shape of the weight."""
    return _channels(layer)[1]


def _channels(layer: nn.Module) -> tuple[Tensor, Tensor]:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    groups = int(getattr(layer, "groups", 1))
    first, second = weight.shape[:2]
    # A convolution's weight is [out, in / groups, ...], a transposed one's [in, out / groups, ...].
    own = torch.arange(first, device=weight.device)
    other = own.div(first // groups, rounding_mode="floor")[:, None] * second + torch.arange(
        second, device=weight.device
    )
    tail = (1,) * (weight.dim() - 2)
    one = own.view(-1, 1, *tail).expand_as(weight)
    two = other.view(first, second, *tail).expand_as(weight)
    return (two, one) if getattr(layer, "transposed", False) else (one, two)


def worth(order: Tensor, channel: Tensor) -> Tensor:
    """Scores under which whole channels go in `order`, and every layer loses the same fraction.

    Args:
        order: channel numbers, the first to go first; int64 [channels].
        channel: the channel of each weight, any shape.

    Returns:
        For each weight the fraction of the layer that is gone once its channel is, in (0, 1]; a layer's
        last channel has 1, so no layer is emptied before all are down to one.
    """
    channels = len(order)
    score = torch.empty(channels, dtype=torch.float64, device=order.device)
    score[order] = torch.arange(1, channels + 1, dtype=torch.float64, device=order.device) / channels
    return score[channel]


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
