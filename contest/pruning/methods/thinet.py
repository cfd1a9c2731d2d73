"""ThiNet: whole input channels, by what a layer's output loses without them, chosen greedily.

Luo et al. 2017, arXiv 1707.06342, section 3.2, algorithm 1. With x_ij the contribution of channel j to output
value i, the set T of removed channels grows by the channel that keeps sum_i (sum_{j in T} x_ij)^2 smallest.
Channels are judged by the layer that reads them, so it needs no knowledge of which layer made them; the
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
from contest.pruning.methods.filter_l1 import input_channel, whole_layers, worth
from contest.pruning.registry import Method, Scores, register


@dataclass(frozen=True)
class ThiNet:
    """Hyperparameters."""

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


def score(model: nn.Module, batches: Batches, loss: Loss, options: ThiNet) -> Scores:
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
        score,
        "whole channels that the next layer's output misses least go",
        "arXiv 1707.06342",
        uses_data=True,
        hyperparameters=ThiNet(),
    )
)
