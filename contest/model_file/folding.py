"""Batch norms as what inference needs of them: one multiplier and one shift a channel."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from contest.candidate import Architecture


@torch.no_grad()
def fold_batch_norms(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Fold each batch norm's statistics into its weight and bias, rounded to `dtype`, in place.

    The network that comes out computes what the file will store, so its accuracy is the file's accuracy.
    """
    for module in model.modules():
        if is_batch_norm(module):
            multiplier, shift = folded(module)
            module.weight.data = multiplier.to(dtype).float()
            module.bias.data = shift.to(dtype).float()
            module.running_mean = torch.zeros_like(shift)
            module.running_var = torch.ones_like(shift)
            module.eps = 0.0
    return model


def is_batch_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Exactly torch's batch norm with weight and statistics: subclasses do more (timm's also activate)."""
    if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return False
    plain = type(module) in (nn.BatchNorm1d, nn.BatchNorm2d)
    return plain and module.affine and module.track_running_stats


def folded(norm: Any) -> tuple[Tensor, Tensor]:
    """(multiplier, shift) [channels] of a batch norm in evaluation mode, rounded as torch's kernel rounds them."""
    multiplier = (1 / torch.sqrt(norm.running_var + norm.eps)) * norm.weight
    return multiplier, norm.bias - norm.running_mean * multiplier


def norms_behind(architecture: Architecture, image_shape: tuple[int, int, int], classes: int) -> dict[str, str]:
    """The batch norm that alone reads a convolution's output, by the convolution's name.

    None where torch.fx cannot follow the network.
    """
    from torch import fx

    from contest.networks import build

    with torch.device("cpu" if architecture.family.startswith("timm/") else "meta"):
        model = build(architecture, image_shape=image_shape, classes=classes)
    try:
        graph = fx.Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError):  # the path depends on the data: nothing is folded
        return {}
    modules, found = dict(model.named_modules()), {}
    for node in graph.nodes:
        reader = next(iter(node.users)) if len(node.users) == 1 else node
        calls = node.op == reader.op == "call_module"
        if calls and type(modules[node.target]) is nn.Conv2d and is_batch_norm(modules[reader.target]):
            found[node.target] = reader.target
    return found


def to_codes(values: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes and their scale [1] for `values` [C]: the scale of the least `sum((importance * error) ** 2)`.

    Large values are clipped where that makes the many others better.
    """
    largest = values.abs().max().clamp_min(torch.finfo(values.dtype).tiny)
    scales = largest / 127 * torch.logspace(0, -1.5, 61).view(-1, 1)
    codes = (values / scales).round().clamp(-128, 127)
    best = (importance * (codes * scales - values)).square().sum(1).argmin()
    return codes[best].to(torch.int8), scales[best].clone()
