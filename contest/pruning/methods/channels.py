"""Which input and output channel every weight of a layer belongs to, for methods that take whole ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.prunable import layers, owner, prunable


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
