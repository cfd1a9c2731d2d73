"""What the families share: the frame of a classifier, residual blocks, shortcuts and initialisation.

All shapes follow from the modules, nothing in a `forward` knows a number of channels: channels can be
removed, layers swapped and the network traced (torch.fx, ONNX) without a special case.
Activations are modules and never work in place; the residual addition is torch's `+`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, cast

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.networks.options import ImageShape

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

# Mean and standard deviation of a training set's pixels in [0, 1], by number of channels: CIFAR-10 and MNIST.
# They stand until the data set's own are known (`contest.networks.see`).
STATISTICS: dict[int, Statistics] = {
    1: ((0.1307,), (0.3081,)),
    3: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}

Shortcut = Literal["projection", "pad", "pool"]


class Normalise(nn.Module):
    """(x - mean) / std for each channel of images [N, C, H, W] in [0, 1]: no parameters, two buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        mean, std = STATISTICS.get(channels, ((0.5,) * channels, (0.25,) * channels))
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def use(self, statistics: Statistics) -> None:
        """Normalise with (mean, standard deviation), a number each for every channel."""
        for buffer, numbers in zip((self.mean, self.std), statistics, strict=True):
            buffer.copy_(torch.tensor(numbers).view_as(buffer))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class PadShortcut(nn.Sequential):
    """Option A of He 2015 (arXiv 1512.03385, section 4.2): every stride-th pixel, new channels are zero.

    A max-pool with a window of one pixel takes the pixels, so that the values stay on the grid of a
    quantiser. Its output's channels are tied to positions: structured pruning leaves them alone.
    """

    kind = "pad"

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        if out_channels < channels:
            raise UsageError(
                f"shortcut '{self.kind}' cannot go from {channels} to {out_channels} channels: widths must not fall; "
                "use shortcut 'projection'"
            )
        super().__init__()
        self.pool = self._pool(stride)
        self.pad = nn.ConstantPad3d((0, 0, 0, 0, 0, out_channels - channels), 0.0)

    def _pool(self, stride: int) -> nn.Module:
        return nn.MaxPool2d(1, stride)


class PoolShortcut(PadShortcut):
    """The same of the mean of stride x stride pixels (as in He 2018, arXiv 1812.01187, section 4.2, but without the
    1x1): no weights and, under rules by which pooling and sums are free, no price."""

    kind = "pool"

    def _pool(self, stride: int) -> nn.Module:
        return nn.AvgPool2d(stride, ceil_mode=True)


class ChannelShuffle(nn.ChannelShuffle):
    """[N, C, H, W]: channel i of group j goes to place i * groups + j (Zhang 2017, arXiv 1707.01083, section 3.1).

    In shape operations, which every reader, exporter and runtime knows; torch's own operator is none of them.
    """

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x.unflatten(1, (self.groups, -1))).transpose(1, 2).flatten(1, 2)


class Opposites(nn.Module):
    """[N, C, H, W] -> [N, 2C, H, W]: x and -x, before a ReLU (Shang 2016, arXiv 1603.05201, section 2.1).

    Early filters come in opposite pairs, so one convolution of half the outputs says what both say.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, -x), 1)


class Residual(nn.Module):
    """act(body(x) + shortcut(x)) of maps [N, C, H, W]."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.body(x) + self.shortcut(x)))


class Classifier(nn.Sequential):
    """Images [N, C, H, W] in [0, 1] -> logits [N, classes].

    normalise, stem, stages (a sequence of sequences of blocks), head (if any), mean over the map, hidden
    linear layers (if any), fc; dropout before each linear layer.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        stem: nn.Module,
        stages: Iterable[nn.Module],
        features: int,
        classes: int,
        *,
        head: nn.Module | None = None,
        hidden: tuple[int, ...] = (),
        dropout: float = 0.0,
        zero_last: bool = False,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(image_shape[0])
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        if head is not None:
            self.head = head
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        for index, width in enumerate(hidden, 1):
            if dropout:
                self.add_module(f"dropout{index}", nn.Dropout(dropout))
            self.add_module(f"fc{index}", nn.Linear(features, width))
            self.add_module(f"act{index}", nn.ReLU())
            features = width
        if dropout:
            self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(features, classes)
        initialise(self)
        if zero_last:
            zero_last_norms(self)


def make_activation(name: str) -> nn.Module:
    return {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish}[name]()


def sequence(**modules: nn.Module | None) -> nn.Sequential:
    """A sequence of named modules in the order given; None is left out."""
    result = nn.Sequential()
    for name, module in modules.items():
        if module is not None:
            result.add_module(name, module)
    return result


def conv(
    channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the map's size at stride 1 (odd kernels)."""
    for name, count in (("input", channels), ("output", out_channels)):
        if count % groups:
            raise UsageError(f"groups = {groups} does not divide the {count} {name} channels of a convolution")
    return nn.Conv2d(channels, out_channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=bias)


def conv_norm(
    channels: int,
    out_channels: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: str | None = None,
    opposites: bool = False,
) -> nn.Sequential:
    """Convolution, batch norm and, if `act` names one, activation: children `conv`, `norm`, `act`.

    opposites: half of the outputs are computed, the others are their negatives. Raises UsageError for an odd number.
    """
    if opposites and out_channels % 2:
        raise UsageError(
            f"{out_channels} channels cannot be pairs of opposites: choose an even number, or opposites = none"
        )
    computed = out_channels // 2 if opposites else out_channels
    return sequence(
        conv=conv(channels, computed, kernel, stride, groups),
        norm=nn.BatchNorm2d(computed),
        opposites=Opposites() if opposites else None,
        act=make_activation(act) if act else None,
    )


def make_shortcut(kind: str, channels: int, out_channels: int, stride: int) -> nn.Module:
    """Identity where shapes agree, else a 1x1 convolution with batch norm, or pixels or their means padded with
    zeros."""
    if stride == 1 and channels == out_channels:
        return nn.Identity()
    if kind != "projection":
        return (PoolShortcut if kind == "pool" else PadShortcut)(channels, out_channels, stride)
    return conv_norm(channels, out_channels, 1, stride)


def odd(family: str, kernel: int) -> int:
    """`kernel`, if a convolution with it can keep the map's size."""
    if kernel % 2 == 0:
        raise UsageError(f"'{family}' option kernel = {kernel}: must be odd")
    return kernel


def stage_plan(
    family: str, widths: tuple[int, ...], depths: tuple[int, ...], strides: tuple[int, ...] = ()
) -> list[tuple[int, int, int]]:
    """(width, depth, stride) of each stage; strides default to 1 in the first stage and 2 in the others."""
    strides = strides or (1,) + (2,) * (len(widths) - 1)
    for name, values in (("depths", depths), ("strides", strides)):
        if len(values) != len(widths):
            raise UsageError(
                f"'{family}' option {name} = {values} has {len(values)} stages, widths = {widths} has "
                f"{len(widths)}: they must be equally many"
            )
    return list(zip(widths, depths, strides, strict=True))


def stages_of_blocks(
    plan: Iterable[tuple[int, int, int]], channels: int, block: Callable[[int, int, int], nn.Module], expansion: int = 1
) -> tuple[list[nn.Module], int]:
    """(stages, channels behind them) of a plan of `stage_plan`, for a stem that gives `channels`.

    `block(channels, width, stride)` makes one block of width * `expansion` outputs; the first of a stage has the
    stride.
    """
    stages: list[nn.Module] = []
    for width, depth, stride in plan:
        blocks = []
        for index in range(depth):
            blocks.append(block(channels, width, stride if index == 0 else 1))
            channels = width * expansion
        stages.append(nn.Sequential(*blocks))
    return stages, channels


def initialise(model: nn.Module) -> None:
    """Kaiming normal, fan-out, for convolutions (He 2015, arXiv 1502.01852); hidden linear layers by fan-in.

    The last linear layer keeps torch's default: small logits at the start. On the meta device there is
    nothing to fill, and torch would import its decompositions for it (1.5 s).
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            # torch's fan-out counts all output channels; in a grouped convolution one input reaches
            # only the channels of its group.
            fan_out = module.weight[0, 0].numel() * module.out_channels / module.groups
            nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and module is not linears[-1]:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)


def zero_last_norms(model: nn.Module) -> None:
    """Each residual block starts as its shortcut: the last batch norm of its body multiplies by 0 (Goyal
    2017, arXiv 1706.02677, section 5.1)."""
    for module in model.modules():
        if isinstance(module, Residual):
            norms = [child for child in module.body.modules() if isinstance(child, nn.BatchNorm2d)]
            nn.init.zeros_(norms[-1].weight)
