"""ThiNet: whole input channels, by what a layer's output loses without them, chosen greedily.

Luo et al. 2017, arXiv 1707.06342, section 3.2, algorithm 1. With x_ij the contribution of channel j to output
value i, the set T of removed channels grows by the channel that keeps sum_i (sum_{j in T} x_ij)^2 smallest.
Channels are judged by the layer that reads them, so it needs no knowledge of which layer made them; the
filters that made a removed channel are dead once no layer reads it (`contest.pruning.structured` removes them).
The image's own channels stay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.latent import effective_weight
from contest.pruning.methods.channels import input_channel, layers, worth
from contest.pruning.registry import Batches, Loss, Method, Scores, register

PLACES = 512
"""Output places (of all images together) at which each layer is judged; the paper draws 10 an image."""


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


def layer_inputs(model: nn.Module, batches: Batches, wanted: dict[str, nn.Module]) -> tuple[dict[str, Tensor], str]:
    """The inputs of the wanted layers over all batches, and the name of the layer that was called first."""
    seen: dict[str, list[Tensor]] = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, name=name: seen.setdefault(name, []).append(_tensor(args[0]).detach())
        )
        for name, layer in wanted.items()
    ]
    try:
        with torch.no_grad():
            for inputs, _ in batches:
                model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise UsageError("thinet scores with data; give at least one batch of (inputs, targets)")
    return {name: torch.cat(parts) for name, parts in seen.items()}, next(iter(seen))


def _tensor(value: object) -> Tensor:
    """Quantised layers may be handed a value with its scale; the value is what counts."""
    found = value if isinstance(value, Tensor) else getattr(value, "value", None)
    assert isinstance(found, Tensor)
    return found


def patches_of(layer: nn.Module, inputs: Tensor, places: int = PLACES) -> Tensor:
    """What the layer sees at up to `places` random output places: [places, input channels, kernel]."""
    if isinstance(layer, nn.Linear):
        rows = inputs.reshape(-1, inputs.shape[-1], 1)
    elif isinstance(layer, nn.Conv2d):
        if isinstance(layer.padding, str):
            total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            vertical, horizontal = total if layer.padding == "same" else (0, 0)
            sides = (horizontal // 2, horizontal - horizontal // 2, vertical // 2, vertical - vertical // 2)
        else:
            vertical, horizontal = layer.padding
            sides = (horizontal, horizontal, vertical, vertical)
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        padded = nn.functional.pad(inputs, sides, mode=mode)
        columns = nn.functional.unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride)
        kernel = layer.kernel_size[0] * layer.kernel_size[1]
        rows = columns.transpose(1, 2).reshape(-1, inputs.shape[1], kernel)
    else:
        raise UsageError(f"thinet prunes two-dimensional convolutions and linear layers, not {type(layer).__name__}")
    if len(rows) > places:
        rows = rows[torch.randperm(len(rows))[:places].to(rows.device)]
    return rows


def score(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
    """For each weight, its input channel's place in the greedy order, in (0, 1]; the first layer is inf."""
    model.eval()
    found = layers(model)
    inputs, first = layer_inputs(model, batches, found)
    scores: Scores = {}
    for name, layer in found.items():
        weight = effective_weight(layer)
        if name == first or name not in inputs:
            scores[name] = torch.full(weight.shape, torch.inf, dtype=torch.float64, device=weight.device)
            continue
        patches = patches_of(layer, inputs[name])
        groups = int(getattr(layer, "groups", 1))
        flat = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        # Channels of different groups reach different outputs: their losses add up without cross terms.
        scores[name] = worth(_merged(patches, flat), input_channel(layer))
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
    )
)
