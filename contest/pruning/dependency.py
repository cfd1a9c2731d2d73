"""Which channels of which layers can only be removed together: Torch-Pruning's dependency graph, made plain.

The graph (Fang 2023, arXiv 2301.12900) is traced once. Each of its groups becomes units of positions in every
layer concerned, so that weights can be counted for any choice and each layer is cut once. Groups that reach
the logits, layers that are to be kept, or operations that tie channels to positions (shortcuts padded with
zeros, channel shuffles) are left out.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from contest.errors import TrainingError, UsageError
from contest.pruning.batches import Inputs, forward, logits, mapped, tensors

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


IMAGES = 2


def unfaithful(model: nn.Module, groups: Sequence[ChannelGroup], example: Inputs, seed: int = 0) -> dict[int, str]:
    """The groups, by number, whose channels cannot be removed without changing what the others compute, and why.

    All groups lose half of their units together; only where that goes wrong are they halved until the culprits stand
    alone.
    """
    generator = torch.Generator().manual_seed(seed)
    removed = [_some(group, generator) for group in groups]

    def search(numbers: list[int]) -> dict[int, str]:
        problem = difference(model, [groups[n] for n in numbers], [removed[n] for n in numbers], example, seed)
        if problem is None or len(numbers) == 1:
            return {} if problem is None else {numbers[0]: problem}
        middle = len(numbers) // 2
        return search(numbers[:middle]) | search(numbers[middle:])

    return search(list(range(len(groups)))) if groups else {}


def difference(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    removed: Sequence[Sequence[int]],
    example: Inputs,
    seed: int = 0,
) -> str | None:
    """What is wrong with removing `removed[i]` units of `groups[i]`; None if it computes what the masked one does."""
    generator = torch.Generator().manual_seed(seed)
    images = mapped(example, lambda tensor: _drawn(tensor, generator))
    for random in (True, False):  # (random weights may leave the range of a logarithm or a root: then its own)
        masked, marked = copy.deepcopy((model, list(groups)))
        if random:
            _randomise(masked, generator)
        smaller, shrunk = copy.deepcopy((masked, marked))
        try:
            cut(shrunk, removed)
            handles = _mask(marked, removed)
        except (IndexError, RuntimeError, ValueError):
            return "the dependency graph names channels that a layer does not have"
        expected = _logits(masked, images)
        for handle in handles:
            handle.remove()
        try:
            got = _logits(smaller, images)
        except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
            return f"the network without them does not run ({str(error).splitlines()[0][:200]})"
        if got.shape != expected.shape:
            return f"the network without them gives {tuple(got.shape)}, not {tuple(expected.shape)}"
        if bool(expected.isfinite().all()):
            break
    tolerance = 1e-4 * float(expected.abs().max()) + 1e-7
    off = float((got - expected).abs().max())
    if not off <= tolerance:
        return f"the network without them is not the network with them masked (logits differ by {off:.2g})"
    return None


def _drawn(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers in the form of an input; whole numbers (indices, lengths) stay what they are."""
    if not tensor.is_floating_point():
        return tensor[:1].expand(IMAGES, *tensor.shape[1:]).clone() if tensor.dim() else tensor
    return torch.rand(IMAGES, *tensor.shape[1:], generator=generator).to(tensor)


def _some(group: ChannelGroup, generator: torch.Generator) -> list[int]:
    """Half of the units, by chance; at least one, and as many stay as must."""
    count = max(1, min(group.units // 2, group.units - group.fewest))
    chosen: list[int] = torch.randperm(group.units, generator=generator)[:count].tolist()
    return chosen


@torch.no_grad()
def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Weights of a size that neither dies out nor grows through many layers, and statistics of batch norms."""
    for module in model.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator).to(tensor)
            if tensor.dim() > 1 and name in module._parameters:
                tensor.copy_(noise * (2 / max(1, tensor[0].numel())) ** 0.5)
            elif name == "running_var" or (name == "weight" and tensor.dim() == 1):
                tensor.copy_(1 + 0.5 * torch.tanh(noise))
            elif name in ("running_mean", "bias"):
                tensor.copy_(0.2 * noise)


def _mask(groups: Sequence[ChannelGroup], removed: Sequence[Sequence[int]]) -> list[RemovableHandle]:
    """Zero what the removed channels are multiplied with; layer norms leave them out of their statistics."""
    handles = []
    for group, units in zip(groups, removed, strict=True):
        for part in group.slices:
            positions = sorted(position for unit in units for position in part.positions[unit])
            if isinstance(part.module, nn.LayerNorm):
                handles.append(part.module.register_forward_hook(_norm_of_the_others(positions)))
            elif not part.out:
                _zero_inputs(part, positions)
    return handles


@torch.no_grad()
def _zero_inputs(part: Slice, positions: list[int]) -> None:
    weight = part.module.weight
    assert isinstance(weight, Tensor)
    groups = int(getattr(part.module, "groups", 1))
    if getattr(part.module, "transposed", False):
        weight[positions] = 0
    elif groups == 1:
        weight[:, positions] = 0
    else:
        outputs, inputs = weight.shape[0] // groups, weight.shape[1]
        for position in positions:
            group = position // inputs
            weight[group * outputs : (group + 1) * outputs, position % inputs] = 0


def _norm_of_the_others(removed: list[int]) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(norm: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        left = sorted(set(range(output.shape[-1])) - set(removed))
        weight = None if norm.weight is None else norm.weight[left]
        bias = None if norm.bias is None else norm.bias[left]
        result = torch.zeros_like(output)
        result[..., left] = F.layer_norm(args[0][..., left], (len(left),), weight, bias, norm.eps)
        return result

    return hook


def _logits(model: nn.Module, images: Inputs) -> Tensor:
    devices = [tensor.device for tensor in tensors(images)[:1] if tensor.is_cuda]
    with torch.no_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(0)  # (a network that draws numbers draws the same ones)
        return logits(forward(model.eval(), images))
