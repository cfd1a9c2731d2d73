"""Branches of a convolution that exist while it is trained, and one convolution that computes what they do.

A 3x3 convolution with its batch norm becomes the sum of three, each with a batch norm of its own: the 3x3, a 1x1, and
the input itself where shapes agree (Ding 2021, arXiv 2101.03697, section 3; depthwise: Vasu 2022, arXiv 2206.04040,
section 3.2). All three are linear once statistics are fixed, so they are one 3x3 convolution with one batch norm
afterwards: the file and its score know nothing of them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contest.errors import UsageError
from contest.networks.batch_norms import folded, measure_norms, norms_behind, replace_submodule, set_norm


class Branches(nn.Module):
    """norm(kernel(x)) + point_norm(point(x)) + skip_norm(x) of maps [N, C, H, W], x at the stride's pixels.

    A depthwise 1x1 convolution is a factor for each channel, which its batch norm takes out again: a depthwise kernel
    has no `point`. `skip_norm` is there where inputs and outputs are equally many and, but for depthwise kernels, the
    stride is 1. `place` is the name under which the network had `norm`; the weights of further norms begin as `share`.
    """

    def __init__(self, kernel: nn.Conv2d, norm: nn.BatchNorm2d, place: str, share: float) -> None:
        super().__init__()
        self.kernel, self.norm, self.place = kernel, norm, place
        depthwise = kernel.groups == kernel.in_channels == kernel.out_channels
        self.point: nn.Conv2d | None = None
        self.point_norm: nn.BatchNorm2d | None = None
        self.skip_norm: nn.BatchNorm2d | None = None
        if not depthwise:
            stride = cast(tuple[int, int], kernel.stride)
            self.point = nn.Conv2d(kernel.in_channels, kernel.out_channels, 1, stride, groups=kernel.groups, bias=False)
            fan_out = kernel.out_channels / kernel.groups
            nn.init.normal_(self.point.weight, 0.0, (2.0 / fan_out) ** 0.5)
            self.point_norm = nn.BatchNorm2d(kernel.out_channels, norm.eps, norm.momentum)
        if kernel.in_channels == kernel.out_channels and (depthwise or max(kernel.stride) == 1):
            self.skip_norm = nn.BatchNorm2d(kernel.out_channels, norm.eps, norm.momentum)
        for extra in (self.point_norm, self.skip_norm):
            if extra is not None:
                nn.init.constant_(extra.weight, share)
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.kernel(x))
        if self.point is not None and self.point_norm is not None:
            y = y + self.point_norm(self.point(x))
        if self.skip_norm is not None:
            rows, columns = cast(tuple[int, int], self.kernel.stride)
            y = y + self.skip_norm(x[..., ::rows, ::columns] if max(rows, columns) > 1 else x)
        return cast(Tensor, y)

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """(weight, shift [channels]) of the one convolution that computes what the branches do in evaluation mode."""
        kernel = self.kernel
        multiplier, shift = folded(self.norm)
        weight = kernel.weight * multiplier.view(-1, 1, 1, 1)
        rows, columns = kernel.weight.shape[2:]
        around = (columns // 2, columns // 2, rows // 2, rows // 2)
        if self.point is not None and self.point_norm is not None:
            multiplier, further = folded(self.point_norm)
            weight = weight + F.pad(self.point.weight * multiplier.view(-1, 1, 1, 1), around)
            shift = shift + further
        if self.skip_norm is not None:
            multiplier, further = folded(self.skip_norm)
            one = torch.zeros_like(weight)
            channels = torch.arange(len(weight), device=weight.device)
            one[channels, channels % weight.shape[1], rows // 2, columns // 2] = multiplier
            weight, shift = weight + one, shift + further
        return weight, shift


def add_branches(model: nn.Module, *, keep: bool = False) -> None:
    """Give branches to every convolution with a kernel of 3x3 or more that a batch norm alone reads, in place.

    keep: the network computes what it did before (further branches begin at zero); else each branch begins at one.
    Raises UsageError where no convolution can have them.
    """
    modules: dict[str, Any] = dict(model.named_modules())
    found = [(name, norm) for name, norm in norms_behind(model).items() if _takes_branches(modules[name])]
    if not found:
        raise UsageError(
            "branches = true, but no convolution of this network can have them: an odd kernel of 3x3 or more that "
            "keeps the map's size, without a bias, whose output a batch norm alone reads; set branches to false"
        )
    for name, norm in found:
        replace_submodule(model, name, Branches(modules[name], modules[norm], norm, 0.0 if keep else 1.0))
        replace_submodule(model, norm, nn.Identity())


@torch.no_grad()
def fold_branches(model: nn.Module, images: Tensor) -> None:
    """One convolution and one batch norm again in the place of each one's branches: the same function, in place.

    images: float [N, C, H, W] in [0, 1], from which the batch norms' statistics come, so that training can go on.
    """
    branched = [(name, module) for name, module in model.named_modules() if isinstance(module, Branches)]
    norms = []
    for name, branches in branched:
        weight, shift = branches.folded()
        branches.kernel.weight.copy_(weight)
        set_norm(branches.norm, torch.ones_like(shift), shift)
        replace_submodule(model, name, branches.kernel)
        replace_submodule(model, branches.place, branches.norm)
        norms.append(branches.norm)
    measure_norms(model, norms, images)


def _takes_branches(layer: nn.Conv2d) -> bool:
    sizes = layer.kernel_size
    keeps = layer.padding == tuple(size // 2 for size in sizes) and set(layer.dilation) == {1}
    odd = all(size % 2 for size in sizes) and min(sizes) > 1
    return odd and keeps and layer.bias is None and layer.padding_mode == "zeros"
