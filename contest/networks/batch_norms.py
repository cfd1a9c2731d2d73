"""Batch norms as what they compute: a multiplier and a shift for each channel, read, set, and measured anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn


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


def set_norm(norm: Any, multiplier: Tensor, shift: Tensor) -> None:
    """Let a batch norm compute multiplier * x + shift, for now without statistics of its own."""
    norm.weight.copy_(multiplier)
    norm.bias.copy_(shift)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)


@torch.no_grad()
def measure_norms(model: nn.Module, norms: Iterable[Any], images: Tensor) -> None:
    """Give batch norms the statistics of what they see, and take them back from their weight and bias: the network
    computes what it did, and can be trained on."""
    seen: dict[Any, tuple[Tensor, Tensor]] = {}

    def look(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        dims = [d for d in range(args[0].dim()) if d != 1]
        seen[norm] = args[0].mean(dims), args[0].var(dims)

    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    training = model.training
    model.eval()(images)
    model.train(training)
    for handle in handles:
        handle.remove()
    for norm, (mean, variance) in seen.items():
        norm.bias.add_(norm.weight * mean)
        norm.weight.mul_((variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def norms_behind(model: nn.Module) -> dict[str, str]:
    """The batch norm that alone reads a convolution's output, by the convolution's name; none where torch.fx cannot
    follow the network."""
    from torch import fx

    modules: dict[str, Any] = dict(model.named_modules())
    try:
        graph = fx.Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError):  # the path depends on the data: nothing is known
        return {}
    found = {}
    for node in graph.nodes:
        reader = next(iter(node.users)) if len(node.users) == 1 else node
        calls = node.op == reader.op == "call_module"
        if calls and type(modules[node.target]) is nn.Conv2d and is_batch_norm(modules[reader.target]):
            found[node.target] = reader.target
    return found


def replace_submodule(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` in the place of the submodule `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
