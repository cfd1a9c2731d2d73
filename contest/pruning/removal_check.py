"""Whether removing channels is what masking them is: tried on copies with random weights and random images.

A layer that loses input channels must compute what it computed with those columns at zero. A dependency graph can be
wrong about which columns they are (flattened after a permutation, behind the channels of an image that is concatenated)
or about what else looks at the channels (group norm, chunks). With random weights no such mistake stays unseen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from contest.pruning.batches import Inputs, forward, logits, mapped, tensors
from contest.pruning.dependency import ChannelGroup, Slice, cut

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
