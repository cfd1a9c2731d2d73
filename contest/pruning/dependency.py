"""Which channels of which layers can only be removed together: Torch-Pruning's dependency graph, made plain.

The graph (Fang 2023, arXiv 2301.12900) is traced once. Each of its groups becomes units of positions in every
layer concerned, so that weights can be counted for any choice and each layer is cut once. Groups that reach
the logits, layers that are to be kept, or operations that tie channels to positions (shortcuts padded with
zeros, channel shuffles) are left out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from contest.errors import TrainingError, UsageError
from contest.pruning.batches import Inputs, forward, tensors

_POSITIONAL = ("constantpad", "shuffle", "index", "roll", "flip", "repeat")
"""Operations (parts of autograd's names for them) that tie channels to positions in ways the graph does not know."""


@dataclass
class Slice:
    """One layer's channels that belong to a group: `positions[unit]` are its channels in direction `out` or in."""

    module: nn.Module
    out: bool
    pruner: Any
    positions: list[list[int]]


@dataclass
class ChannelGroup:
    """Channels of several layers that can only go together; a unit is the smallest part that can be removed."""

    slices: list[Slice]
    units: int
    channels_per_unit: int
    fewest: int
    """Units that must remain."""


def channel_groups(model: nn.Module, example: Inputs, keep: Sequence[str]) -> Iterator[ChannelGroup]:
    """The groups of coupled channels that may be cut, from Torch-Pruning's graph of one forward pass on `example`."""
    kept = _kept(model, keep)
    graph = _trace(model, example)
    for group in graph.get_all_groups():
        found = _group(graph, group, kept)
        if found is not None and found.units > found.fewest:
            yield found


def _kept(model: nn.Module, keep: Sequence[str]) -> set[nn.Module]:
    modules = dict(model.named_modules())
    for name in keep:
        if name not in modules:
            near = ", ".join(sorted(child for child, _ in model.named_children()))
            raise UsageError(f"layer '{name}' that is to be kept does not exist; the network has {near}")
    return {inner for name in keep for inner in modules[name].modules()}


def _trace(model: nn.Module, example: Inputs) -> Any:
    """Torch-Pruning's dependency graph. It follows autograd, so every parameter needs a gradient meanwhile."""
    import torch_pruning

    frozen = [p for p in model.parameters() if not p.requires_grad]
    training = {module: module.training for module in model.modules()}
    model.requires_grad_(True)
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unknown operations and parameters: such groups are left out below
            # Nothing is known to the graph about a shuffle but where it stands.
            shuffles = {type(module) for module in model.modules() if isinstance(module, nn.ChannelShuffle)}
            return torch_pruning.DependencyGraph().build_dependency(
                model,
                (example,),
                forward_fn=lambda traced, inputs: tensors(forward(traced, inputs[0])),
                customized_pruners={kind: torch_pruning.ops.DummyPruner() for kind in shuffles},
                verbose=False,
            )
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            f"Torch-Pruning cannot follow this network ({type(error).__name__}: {error}), so no channels can be "
            "removed from it; choose its widths instead, or prune single weights"
        ) from error
    finally:
        for p in frozen:
            p.requires_grad_(False)
        for module, mode in training.items():
            module.training = mode


def _group(graph: Any, group: Any, kept: set[nn.Module]) -> ChannelGroup | None:
    """Torch-Pruning's group of all channels of one layer as slices; None if it has to stay as it is."""
    from torch_pruning import ops

    depth = 1  # channel groups that the units must respect
    parts: dict[tuple[nn.Module, bool], tuple[Any, list[tuple[int, int]]]] = {}
    roots = len(group[0].idxs)
    for item in group:
        module, kind = item.dep.target.module, item.dep.target.type
        if kind in (ops.OPTYPE.OUTPUT, ops.OPTYPE.PARAMETER, ops.OPTYPE.MHA, ops.OPTYPE.LSTM) or module in kept:
            return None
        if isinstance(module, nn.ChannelShuffle):
            return None
        if isinstance(module, ops._ElementWiseOp) and any(name in str(module._grad_fn).lower() for name in _POSITIONAL):
            return None
        out = graph.is_out_channel_pruning_fn(item.dep.handler)
        if out and not item.dep.target.outputs:
            return None  # the logits
        pruner = graph.get_pruner_of_module(module)
        if pruner is None or pruner.get_out_channels(module) is None:
            continue
        if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
            if layer_sizes(module)[3]:
                out = True  # a depthwise channel is input and output at once
            elif module.transposed or module.groups == module.out_channels:
                return None
            else:
                depth = math.lcm(depth, module.groups)
        elif pruner.prune_in_channels == pruner.prune_out_channels:
            out = True
        if any(root is None for root in item.root_idxs):
            return None
        pairs = parts.setdefault((module, out), (pruner, []))[1]
        pairs.extend(zip(item.root_idxs, item.idxs, strict=True))
    if roots % depth:
        return None
    units = roots // depth
    slices = []
    for (module, out), (pruner, pairs) in parts.items():
        positions: list[set[int]] = [set() for _ in range(units)]
        for root, position in pairs:
            positions[root % units].add(position)
        if len({len(channels) for channels in positions}) > 1 or not positions[0]:
            return None  # some channels of the layer belong to others: not a unit that can go alone
        if not all(_balanced(module, out, channels) for channels in positions):
            return None
        slices.append(Slice(module, out, pruner, [sorted(channels) for channels in positions]))
    # With one channel left a group, a grouped convolution would turn into a depthwise one.
    return ChannelGroup(slices, units, depth, fewest=1 if depth == 1 else 2)


def _balanced(module: nn.Module, out: bool, channels: set[int]) -> bool:
    """Whether `channels` lie at the same places in each channel group of a grouped convolution."""
    if not isinstance(module, nn.modules.conv._ConvNd) or module.groups == 1 or layer_sizes(module)[3]:
        return True
    size = (module.out_channels if out else module.in_channels) // module.groups
    places = {channel % size for channel in channels}
    return channels == {place + group * size for place in places for group in range(module.groups)}


def cut(groups: Sequence[ChannelGroup], removed: Sequence[Sequence[int]]) -> None:
    """Cut every layer once, with all positions that all groups take from it."""
    positions: dict[tuple[nn.Module, bool], tuple[Any, list[int]]] = {}
    for group, units in zip(groups, removed, strict=True):
        for part in group.slices:
            pruner, taken = positions.setdefault((part.module, part.out), (part.pruner, []))
            taken.extend(position for unit in units for position in part.positions[unit])
    for (module, out), (pruner, taken) in positions.items():
        if taken:
            (pruner.prune_out_channels if out else pruner.prune_in_channels)(module, sorted(taken))


def layer_sizes(module: nn.Module) -> tuple[int, int, int, bool]:
    """(output channels, input channels, weights of one kernel, depthwise) of a convolution or linear layer."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features, 1, False
    assert isinstance(module, nn.modules.conv._ConvNd)
    depthwise = 1 < module.groups == module.out_channels == module.in_channels
    return module.out_channels, module.in_channels, math.prod(module.kernel_size), depthwise
