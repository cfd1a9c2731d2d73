"""Methods that take whole channels: filters by their L1 norm, and ThiNet by what the layer that reads them loses.

Filters by L1 norm (Li et al. 2016, Pruning Filters for Efficient ConvNets, arXiv 1608.08710, section 3.1): in each
layer the filters of smallest sum of absolute weights go first. Sums are compared inside a layer only, and every layer
loses the same fraction of its filters. The paper retrains between layers; `contest.pruning.prune.layer_after_layer`
does that. The last layer's rows are the classes and stay.

ThiNet (Luo et al. 2017, arXiv 1707.06342, section 3.2, algorithm 1) takes input channels. With x_ij the contribution of
channel j to output value i, the set T of removed channels grows by the channel that keeps sum_i (sum_{j in T} x_ij)^2
smallest. Channels are judged by the layer that reads them, so it needs no knowledge of which layer made them; the
filters that made a removed channel are dead once no layer reads it (`contest.pruning.structured` removes them).
The image's own channels stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.batches import Batches, Loss, forward
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


def by_norm(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
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
    Method("filter-l1", by_norm, "whole filters of smallest L1 norm in each layer go", "arXiv 1608.08710")
)


@dataclass(frozen=True)
class ThiNet:
    """Hyperparameters of ThiNet."""

    places: int = 512
    """Output places (of all samples together) at which each layer is judged; the paper draws 10 an image."""


def greedy_order(patches: Tensor, weight: Tensor) -> Tensor:
    """The order in which channels go: int64 [channels], each step the one whose loss is least.

    With G_jk = sum_i x_ij x_ik the loss of a set T is the sum of G over T x T, so a step adds the j of least
    G_jj + 2 * sum_{t in T} G_tj.

    Args:
        patches: what the layer sees at each place, [places, channels, kernel].
        weight: [outputs, channels, kernel].
    """
    gram = contribution_products(patches.double(), weight.double())
    cost = gram.diagonal().clone()
    order: list[int] = []
    for _ in range(len(cost)):
        j = int(cost.argmin())
        order.append(j)
        cost += 2 * gram[j]
        cost[order] = torch.inf
    return torch.tensor(order, device=cost.device)


def contribution_products(patches: Tensor, weight: Tensor) -> Tensor:
    """G_jk = sum over places and outputs of the contributions of channels j and k: [channels, channels].

    A contribution is sum_a patch_ja w_ja, so that G_jk = sum_ab (sum_p u_pja u_pkb) (sum_o w_oja w_okb): two
    small products for each pair of kernel positions, and no tensor of places x outputs x channels.
    """
    channels, kernel = weight.shape[1:]
    gram = weight.new_zeros(channels, channels)
    for a in range(kernel):
        for b in range(kernel):
            gram += (patches[:, :, a].T @ patches[:, :, b]) * (weight[:, :, a].T @ weight[:, :, b])
    return gram


def layer_patches(
    model: nn.Module, batches: Batches, wanted: dict[str, nn.Module], places: int
) -> tuple[dict[str, Tensor], str]:
    """What the wanted layers see at `places` places over all batches, and the name of the layer that was called first.

    Patches are taken batch by batch, so that sequences may be of another length in each.
    """
    seen: dict[str, list[Tensor]] = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda module, args, name=name: seen.setdefault(name, []).append(
                patches_of(module, _tensor(args[0]).detach(), places)
            )
        )
        for name, layer in wanted.items()
    ]
    try:
        with torch.no_grad():
            for inputs, _ in batches:
                forward(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise UsageError("thinet scores with data; give at least one batch of (inputs, targets)")
    return {name: _some(torch.cat(parts), places) for name, parts in seen.items()}, next(iter(seen))


def _tensor(value: object) -> Tensor:
    """Quantised layers may be handed a value with its scale; the value is what counts."""
    found = value if isinstance(value, Tensor) else getattr(value, "value", None)
    assert isinstance(found, Tensor)
    return found


def _some(rows: Tensor, places: int) -> Tensor:
    return rows[torch.randperm(len(rows))[:places].to(rows.device)] if len(rows) > places else rows


def patches_of(layer: nn.Module, inputs: Tensor, places: int = ThiNet.places) -> Tensor:
    """What the layer sees at up to `places` random output places: [places, input channels, kernel].

    Raises:
        UsageError: the layer is neither linear nor a convolution over one or two dimensions.
    """
    if isinstance(layer, nn.Linear):
        rows = inputs.reshape(-1, inputs.shape[-1], 1)
    elif isinstance(layer, nn.Conv1d | nn.Conv2d):
        kernel = math.prod(layer.kernel_size)
        columns = nn.functional.unfold(_padded(layer, inputs), *_flat(layer))
        rows = columns.transpose(1, 2).reshape(-1, inputs.shape[1], kernel)
    else:
        raise UsageError(
            f"thinet prunes convolutions over one or two dimensions and linear layers, not {type(layer).__name__}"
        )
    return _some(rows, places)


def _padded(layer: nn.Conv1d | nn.Conv2d, inputs: Tensor) -> Tensor:
    """The inputs [N, C, H, W] with the layer's padding; a sequence is an image of one row."""
    if isinstance(layer.padding, str):
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        both = [(size // 2, size - size // 2) if layer.padding == "same" else (0, 0) for size in total]
    else:
        both = [(size, size) for size in layer.padding]
    sides = [side for pair in reversed(both) for side in pair]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = nn.functional.pad(inputs, sides, mode=mode)
    return padded if isinstance(layer, nn.Conv2d) else padded.unsqueeze(2)


def _flat(layer: nn.Conv1d | nn.Conv2d) -> tuple[tuple[int, ...], tuple[int, ...], int, tuple[int, ...]]:
    """Kernel, dilation, padding (none: it is there already) and stride over two dimensions."""
    front = () if isinstance(layer, nn.Conv2d) else (1,)
    return (*front, *layer.kernel_size), (*front, *layer.dilation), 0, (*front, *layer.stride)


def by_loss_of_output(model: nn.Module, batches: Batches, loss: Loss, options: ThiNet) -> Scores:
    """For each weight, its input channel's place in the greedy order, in (0, 1]; the first layer is inf."""
    model.eval()
    found = whole_layers(model, "thinet")
    patches, first = layer_patches(model, batches, found, options.places)
    scores: Scores = {}
    for name, layer in found.items():
        weight = effective_weight(layer)
        if name == first or name not in patches:
            scores[name] = torch.full(weight.shape, torch.inf, dtype=torch.float64, device=weight.device)
            continue
        groups = int(getattr(layer, "groups", 1))
        flat = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        # Channels of different groups reach different outputs: their losses add up without cross terms.
        scores[name] = worth(_merged(patches[name], flat), input_channel(layer))
    return scores


def _merged(patches: Tensor, weight: Tensor) -> Tensor:
    """The greedy order over all groups; `weight` is [groups, outputs a group, channels a group, kernel]."""
    groups, outputs, width, kernel = weight.shape
    if groups == 1:
        return greedy_order(patches, weight[0])
    dense = weight.new_zeros(groups * outputs, groups * width, kernel)
    for group in range(groups):
        dense[group * outputs : (group + 1) * outputs, group * width : (group + 1) * width] = weight[group]
    return greedy_order(patches, dense)


thinet = register(
    Method(
        "thinet",
        by_loss_of_output,
        "whole channels that the next layer's output misses least go",
        "arXiv 1707.06342",
        uses_data=True,
        hyperparameters=ThiNet(),
    )
)
