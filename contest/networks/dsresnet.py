"""Residual networks of depthwise-separable convolutions: the student teams' favourite.

A 3x3 convolution becomes a depthwise one and a 1x1 one (Howard 2017, arXiv 1704.04861) inside the block of
He 2015: about 8 times fewer operations and weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from contest.candidate import Option
from contest.networks.blocks import (
    Classifier,
    Shortcut,
    conv_norm,
    make_shortcut,
    odd,
    sequence,
    stage_plan,
    stages_of_blocks,
)
from contest.networks.options import (
    SHORTCUT,
    STAGED,
    Activation,
    Depths,
    Draw,
    ImageShape,
    Kernel,
    Stride,
    Strides,
    Width,
    Widths,
    staged_with_shortcut,
)
from contest.networks.resnet import Depth, blocks_of_depth, residual


def dsresnet(
    image_shape: ImageShape,
    classes: int,
    *,
    depth: Depth = 20,
    width: Width = 16,
    widths: Widths = (),
    depths: Depths = (),
    strides: Strides = (),
    kernel: Kernel = 3,
    stem_stride: Stride = 1,
    shortcut: Shortcut = "projection",
    activation: Activation = "relu",
    zero_last: bool = False,
) -> nn.Module:
    """`widths` (default: width, 2 width, 4 width) and `depths`, blocks of each stage (default: from `depth`,
    which counts a separable pair as one layer). The stem is an ordinary 3x3 convolution."""
    odd("dsresnet", kernel)
    widths = widths or (width, 2 * width, 4 * width)
    depths = depths or blocks_of_depth("dsresnet", depth, len(widths), 2)
    channels = widths[0]
    stem = conv_norm(image_shape[0], channels, 3, stem_stride, act=activation)

    def make(inputs: int, out: int, stride: int) -> nn.Module:
        body = separable(inputs, out, kernel, stride, activation)
        return residual(body, make_shortcut(shortcut, inputs, out, stride), activation)

    stages, channels = stages_of_blocks(stage_plan("dsresnet", widths, depths, strides), channels, make)
    return Classifier(image_shape, stem, stages, channels, classes, zero_last=zero_last)


def separable(channels: int, out: int, kernel: int, stride: int, act: str, inner: int = 0) -> nn.Sequential:
    """Depthwise, pointwise (to `inner` channels, default `out`), activation, depthwise, pointwise; a batch
    norm after each."""
    inner = inner or out
    return sequence(
        depthwise1=conv_norm(channels, channels, kernel, stride, groups=channels),
        pointwise1=conv_norm(channels, inner, 1, act=act),
        depthwise2=conv_norm(inner, inner, kernel, groups=inner),
        pointwise2=conv_norm(inner, out, 1),
    )


PRESETS: dict[str, dict[str, Option]] = {
    **{f"dsresnet{depth}": {"depth": depth} for depth in (8, 14, 20, 32, 44, 56)},
    "dsresnet10": {"widths": (32, 64, 128, 256), "depths": (1, 1, 1, 1)},
}

DRAWS = {**STAGED, **SHORTCUT, "kernel": Draw((3, 5))}


def from_draws(values: Mapping[str, Any]) -> dict[str, Option]:
    return {**staged_with_shortcut(values), "kernel": int(values["kernel"])}
