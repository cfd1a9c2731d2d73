"""Residual networks for small images (He 2015, arXiv 1512.03385, sections 3.3 and 4.2).

`resnet20` and its sisters have three stages of 16-32-64 channels; `resnet18`, `resnet50` are the ImageNet
networks with a 3x3 stem and no max-pool: the contest's reference is `resnet18`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import nn

from contest.candidate import Option
from contest.errors import UsageError
from contest.networks.blocks import (
    Classifier,
    Residual,
    Shortcut,
    conv,
    conv_norm,
    make_activation,
    make_shortcut,
    sequence,
    stage_plan,
    stages_of_blocks,
)
from contest.networks.options import (
    SHORTCUT,
    STAGED,
    Activation,
    Depths,
    ImageShape,
    Limit,
    Stride,
    Strides,
    Width,
    Widths,
    staged_with_shortcut,
)

Depth = Annotated[int, Limit(5, 1202)]


def resnet(
    image_shape: ImageShape,
    classes: int,
    *,
    depth: Depth = 20,
    width: Width = 16,
    widths: Widths = (),
    depths: Depths = (),
    strides: Strides = (),
    block: Literal["basic", "bottleneck"] = "basic",
    expansion: Annotated[int, Limit(1, 8)] = 4,
    stem_stride: Stride = 1,
    shortcut: Shortcut = "projection",
    activation: Activation = "relu",
    zero_last: bool = False,
) -> nn.Module:
    """`widths` (default: width, 2 width, 4 width) and `depths`, blocks of each stage (default: from `depth`).

    A bottleneck block has `expansion` times its width at its output.
    """
    widths = widths or (width, 2 * width, 4 * width)
    depths = depths or blocks_of_depth("resnet", depth, len(widths), 2 if block == "basic" else 3)
    expansion = expansion if block == "bottleneck" else 1
    channels = widths[0]
    stem = conv_norm(image_shape[0], channels, 3, stem_stride, act=activation)

    def make(inputs: int, width: int, stride: int) -> nn.Module:
        out = width * expansion
        body = (basic if block == "basic" else bottleneck)(inputs, width, out, stride, activation)
        return residual(body, make_shortcut(shortcut, inputs, out, stride), activation)

    plan = stage_plan("resnet", widths, depths, strides)
    stages, channels = stages_of_blocks(plan, channels, make, expansion)
    return Classifier(image_shape, stem, stages, channels, classes, zero_last=zero_last)


def blocks_of_depth(family: str, depth: int, stages: int, layers: int) -> tuple[int, ...]:
    """Blocks of each stage in a network of `depth` layers: a stem, a classifier, equally deep stages."""
    blocks, rest = divmod(depth - 2, stages * layers)
    if blocks < 1 or rest:
        raise UsageError(
            f"'{family}' option depth = {depth}: must be {stages * layers} n + 2 with n >= 1 for {stages} stages "
            f"of blocks of {layers} layers; or give depths, the number of blocks of each stage"
        )
    return (blocks,) * stages


def basic(channels: int, width: int, out: int, stride: int, act: str) -> nn.Sequential:
    return sequence(
        conv1=conv(channels, width, 3, stride),
        norm1=nn.BatchNorm2d(width),
        act1=make_activation(act),
        conv2=conv(width, out),
        norm2=nn.BatchNorm2d(out),
    )


def bottleneck(
    channels: int, width: int, out: int, stride: int, act: str, kernel: int = 3, groups: int = 1
) -> nn.Sequential:
    """The stride is in the middle convolution, as in torchvision (ResNet v1.5)."""
    return sequence(
        conv1=conv(channels, width, 1),
        norm1=nn.BatchNorm2d(width),
        act1=make_activation(act),
        conv2=conv(width, width, kernel, stride, groups),
        norm2=nn.BatchNorm2d(width),
        act2=make_activation(act),
        conv3=conv(width, out, 1),
        norm3=nn.BatchNorm2d(out),
    )


def residual(body: nn.Module, shortcut: nn.Module, act: str) -> Residual:
    return Residual(body, shortcut, make_activation(act))


def _imagenet(depths: tuple[int, ...], block: str) -> dict[str, Option]:
    return {"widths": (64, 128, 256, 512), "depths": depths, "block": block}


PRESETS: dict[str, dict[str, Option]] = {
    **{f"resnet{depth}": {"depth": depth} for depth in (8, 14, 20, 26, 32, 38, 44, 56, 110)},
    "resnet10": _imagenet((1, 1, 1, 1), "basic"),
    "resnet18": _imagenet((2, 2, 2, 2), "basic"),
    "resnet34": _imagenet((3, 4, 6, 3), "basic"),
    "resnet50": _imagenet((3, 4, 6, 3), "bottleneck"),
    "resnet101": _imagenet((3, 4, 23, 3), "bottleneck"),
}

DRAWS = {**STAGED, **SHORTCUT}
from_draws = staged_with_shortcut
