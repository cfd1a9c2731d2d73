"""Structured pruning: whole channels are removed and the network is smaller (Li 2016, arXiv 1608.08710).

Coupled channels (`contest.pruning.dependency`) are ranked by importance and go, least important first, until
the wanted fraction of weights is gone. The image's channels, the logits and layers that are to be kept stay, and
so do groups whose removal would not do what masking them does (`contest.pruning.dependency`).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn

from contest.errors import TrainingError, UsageError
from contest.pruning.batches import Inputs
from contest.pruning.dependency import ChannelGroup, channel_groups, cut, difference, layer_sizes, unfaithful
from contest.pruning.latent import plain_copy
from contest.pruning.prunable import layers as prunable_layers
from contest.pruning.prunable import prunable

Importance = Literal["l1", "l2", "bn", "random"]
Ranking = Literal["uniform", "global"]


@dataclass(frozen=True)
class Removal:
    """The smaller network and what it cost: weights of convolutions and linear layers, and channels by layer."""

    model: nn.Module
    weights_before: int
    weights_after: int
    channels: dict[str, tuple[int, int]]
    """Output channels before and after, of every layer that lost some."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Layers whose channels cannot be removed without changing what the others compute, and what went wrong."""

    @property
    def fraction(self) -> float:
        """The fraction of prunable weights that went: p_s of the weights."""
        return 1 - self.weights_after / self.weights_before


def remove_channels(
    model: nn.Module,
    fraction: float,
    image_shape: tuple[int, ...] = (),
    importance: Importance = "l1",
    *,
    example: Inputs = None,
    keep: Sequence[str] = (),
    ranking: Ranking = "uniform",
    multiple: int = 1,
    seed: int = 0,
) -> nn.Module:
    """A copy of `model` without about `fraction` of its prunable weights; see `prune_channels`."""
    return prune_channels(
        model,
        fraction,
        image_shape,
        importance,
        example=example,
        keep=keep,
        ranking=ranking,
        multiple=multiple,
        seed=seed,
    ).model


def prune_channels(
    model: nn.Module,
    fraction: float,
    image_shape: tuple[int, ...] = (),
    importance: Importance = "l1",
    *,
    example: Inputs = None,
    keep: Sequence[str] = (),
    ranking: Ranking = "uniform",
    multiple: int = 1,
    seed: int = 0,
) -> Removal:
    """Remove the least important channels until the weights left are as near to the wish as whole channels allow.

    Args:
        model: takes [N, *image_shape], or `example`; it is not changed. Gradients do not come along.
        fraction: of the weights of convolutions and linear layers, in [0, 1).
        importance: of a channel, averaged over the layers that share it, each scaled to mean 1: L1 or L2 norm of
            its filters, absolute batch-norm multiplier (Liu 2017, arXiv 1708.06519), or random by `seed`.
        example: inputs of another form, with one sample: indices, a tuple, a mapping.
        keep: names of layers, or of modules that hold them, whose channels (in and out) stay.
        ranking: "uniform" takes the same share of channels everywhere; "global" compares importance across layers.
        multiple: channels that remain in a layer are a multiple of it where the layer had as many.

    Raises:
        UsageError: the fraction is out of reach, or an argument does not exist.
        TrainingError: removing the channels would do something else than masking them; it names their layers.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"fraction of weights to remove = {fraction:g}: must lie in [0, 1)")
    if multiple < 1:
        raise UsageError(f"channels to a multiple of {multiple}: must be at least 1")
    pruned = plain_copy(model)
    pruned.zero_grad(set_to_none=True)
    layers = _Layers(pruned)
    if example is None:
        parameter = next(model.parameters())
        example = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    groups, left_out = _faithful(pruned, list(channel_groups(pruned, example, keep)), example)
    generator = torch.Generator().manual_seed(seed)
    order = _order([_importance(group, importance, generator) for group in groups], groups, ranking)
    removed = _choose(groups, order, layers, fraction, multiple, left_out)
    before = layers.weights()
    widths = {name: _channels(module) for name, module in pruned.named_modules() if _channels(module)}
    problem = difference(pruned, groups, removed, example) if any(removed) else None
    cut(groups, removed)
    channels = {
        name: (before, after)
        for name, before in widths.items()
        if (after := _channels(pruned.get_submodule(name))) != before
    }
    if problem is not None:
        raise TrainingError(f"the channels of {', '.join(channels)} cannot be removed together: {problem}")
    return Removal(pruned, before, sum(w.numel() for w in prunable(pruned).values()), channels, left_out)


def _faithful(
    model: nn.Module, groups: list[ChannelGroup], example: Inputs
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The groups whose removal does what masking does, and of the others the layers and what goes wrong."""
    wrong = unfaithful(model, groups, example)
    names = {module: name for name, module in model.named_modules()}
    left_out: dict[str, str] = {}
    for number, problem in wrong.items():
        makers = [part.module for part in groups[number].slices if part.out]
        layers = [module for module in makers if _channels(module)] or makers[:1]
        left_out |= {names[module]: problem for module in layers}
    return [group for number, group in enumerate(groups) if number not in wrong], left_out


class _Layers:
    """Sizes of the prunable layers, to count weights without cutting anything."""

    def __init__(self, model: nn.Module) -> None:
        self.sizes: dict[nn.Module, tuple[int, int, int, bool]] = {}
        for module in prunable_layers(model).values():
            self.sizes[module] = layer_sizes(module)

    def weights(self, groups: Sequence[ChannelGroup] = (), removed: Sequence[int] = ()) -> int:
        """Prunable weights that are left when `removed[i]` units of `groups[i]` are gone."""
        lost: dict[tuple[nn.Module, bool], int] = {}
        for group, count in zip(groups, removed, strict=True):
            for part in group.slices:
                key = (part.module, part.out)
                lost[key] = lost.get(key, 0) + count * len(part.positions[0])
        total = 0
        for module, (out, into, area, depthwise) in self.sizes.items():
            out -= lost.get((module, True), 0)
            into -= lost.get((module, False), 0)
            total += out * area if depthwise else out * into // getattr(module, "groups", 1) * area
        return total


def _channels(module: nn.Module) -> int:
    """Output channels of a convolution or linear layer; 0 for other modules."""
    return layer_sizes(module)[0] if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) else 0


def _importance(group: ChannelGroup, kind: str, generator: torch.Generator) -> Tensor | None:
    """Importance [units], mean 1; None where the group has nothing to judge by."""
    if kind == "random":
        return torch.rand(group.units, generator=generator)
    measures: dict[str, Callable[[nn.Module], Tensor | None]] = {
        "l1": lambda module: _filter_norms(module, 1),
        "l2": lambda module: _filter_norms(module, 2),
        "bn": _multipliers,
    }
    if kind not in measures:
        raise UsageError(f"importance '{kind}' does not exist; there are {', '.join(measures)} and random")
    found = []
    for part in group.slices:
        values = measures[kind](part.module) if part.out else None
        if values is not None:
            mean = torch.stack([values[positions].mean() for positions in part.positions])
            found.append(mean / mean.mean().clamp_min(torch.finfo(mean.dtype).tiny))
    return torch.stack(found).mean(0) if found else None


def _filter_norms(module: nn.Module, power: int) -> Tensor | None:
    """Norm of the weights of each output channel."""
    if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return None
    weight = module.weight.detach().cpu().double()
    if isinstance(module, nn.modules.conv._ConvNd) and module.transposed:
        weight = weight.transpose(0, 1)
    return cast(Tensor, weight.flatten(1).norm(p=power, dim=1))


def _multipliers(module: nn.Module) -> Tensor | None:
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
        return module.weight.detach().abs().cpu().double()
    return None


def _order(importances: Sequence[Tensor | None], groups: Sequence[ChannelGroup], ranking: str) -> list[tuple[int, int]]:
    """(group, unit) in the order in which they go; those that must remain are not in it."""
    if ranking not in ("uniform", "global"):
        raise UsageError(f"ranking '{ranking}' does not exist; there are uniform and global")
    keyed = []
    for number, (values, group) in enumerate(zip(importances, groups, strict=True)):
        if values is None:
            continue
        ascending = torch.argsort(values, stable=True).tolist()
        for rank, unit in enumerate(ascending[: group.units - group.fewest]):
            key = (rank + 1) / group.units if ranking == "uniform" else float(values[unit])
            keyed.append((key, number, rank, unit))
    return [(number, unit) for _, number, _, unit in sorted(keyed)]


def _choose(
    groups: Sequence[ChannelGroup],
    order: Sequence[tuple[int, int]],
    layers: _Layers,
    fraction: float,
    multiple: int,
    left_out: Mapping[str, str],
) -> list[list[int]]:
    """Units to remove from each group: the start of `order` whose loss of weights is nearest to `fraction`."""
    before = layers.weights()

    def plan(length: int) -> list[list[int]]:
        chosen: list[list[int]] = [[] for _ in groups]
        for number, unit in order[:length]:
            chosen[number].append(unit)
        return [units[: _rounded(group, len(units), multiple)] for group, units in zip(groups, chosen, strict=True)]

    def lost(length: int) -> float:
        return 1 - layers.weights(groups, [len(units) for units in plan(length)]) / before

    most = lost(len(order))
    if most < fraction:
        raise UsageError(
            f"fraction of weights to remove = {fraction:g}: removing channels can take at most {most:.4f} of this "
            f"network; ask for less, or keep fewer layers{_why(left_out)}"
        )
    length = bisect.bisect_left(range(len(order)), fraction, key=lost)
    shorter = length
    while shorter and lost(shorter) == lost(length):
        shorter -= 1
    return plan(min((shorter, length), key=lambda n: abs(lost(n) - fraction)))


def _rounded(group: ChannelGroup, units: int, multiple: int) -> int:
    """At most `units`, so that the channels that remain are a multiple of `multiple`."""
    step = multiple // math.gcd(multiple, group.channels_per_unit)
    remaining = -(-(group.units - units) // step) * step
    return max(0, group.units - remaining)


def _why(left_out: Mapping[str, str]) -> str:
    if not left_out:
        return ""
    return ". Left out: " + "; ".join(f"the channels of '{name}': {problem}" for name, problem in left_out.items())
