"""Inverted residuals with linear bottlenecks (Sandler 2018, arXiv 1801.04381), strides chosen for small images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from torch import nn

from contest.candidate import Option
from contest.networks.blocks import Classifier, Residual, conv_norm, make_shortcut, odd, sequence, stage_plan
from contest.networks.options import (
    STAGED,
    Activation,
    Depths,
    Draw,
    Dropout,
    Expansion,
    Factor,
    ImageShape,
    Kernel,
    Limit,
    Stride,
    Strides,
    Width,
    Widths,
    staged,
)
from contest.networks.wide_end import WideEnd


def mobilenet(
    image_shape: ImageShape,
    classes: int,
    *,
    width: Factor = 1.0,
    widths: Widths = (16, 24, 32, 64, 96, 160, 320),
    depths: Depths = (1, 2, 3, 4, 3, 3, 1),
    strides: Strides = (1, 1, 2, 2, 1, 2, 1),
    expansion: Expansion = 6.0,
    first_expansion: Expansion = 1.0,
    kernel: Kernel = 3,
    stem_width: Width = 32,
    stem_stride: Stride = 1,
    head_width: Annotated[int, Limit(0, 8192)] = 1280,
    activation: Activation = "relu",
    dropout: Dropout = 0.0,
) -> nn.Module:
    """`width` multiplies all widths, rounded to multiples of 8 as the paper's code does when it is not 1.

    `head_width` is the 1x1 convolution before the mean (0: none; it does not shrink with `width` < 1).
    """
    odd("mobilenet", kernel)
    channels = scaled(stem_width, width)
    stem = conv_norm(image_shape[0], channels, 3, stem_stride, act=activation)
    stages = []
    for number, (stage_width, depth, stride) in enumerate(stage_plan("mobilenet", widths, depths, strides)):
        ratio, out = (expansion if number else first_expansion), scaled(stage_width, width)
        blocks = []
        for index in range(depth):
            blocks.append(inverted(channels, out, kernel, stride if index == 0 else 1, ratio, activation))
            channels = out
        stages.append(nn.Sequential(*blocks))
    head = None
    if head_width:
        features = scaled(head_width, max(width, 1.0))
        head = conv_norm(channels, features, 1, act=activation)
        channels = features
    return Classifier(image_shape, stem, stages, channels, classes, head=head, dropout=dropout)


def scaled(width: int, factor: float) -> int:
    """`width * factor` to a multiple of 8, never more than a tenth below (the paper's `make_divisible`)."""
    if factor == 1:
        return width
    rounded = max(8, int(width * factor + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width * factor else rounded


def inverted(
    channels: int,
    out: int,
    kernel: int,
    stride: int,
    expansion: float,
    act: str,
    opposites: bool = False,
    wide: bool = False,
    pool: bool = False,
) -> nn.Module:
    """1x1 up, depthwise, 1x1 down without activation; a shortcut only where the shapes agree.

    opposites: the 1x1 up computes half of its outputs, the others are their negatives. wide: no 1x1 down, as a last
    block may end (`WideEnd`). pool: a shortcut also where the shapes differ (`PoolShortcut`).
    """
    hidden = max(1, round(channels * expansion))
    body = sequence(
        expand=conv_norm(channels, hidden, 1, act=act, opposites=opposites) if expansion != 1 else None,
        depthwise=conv_norm(hidden, hidden, kernel, stride, groups=hidden, act=act),
        project=None if wide else conv_norm(hidden, out, 1),
    )
    if not pool and (stride != 1 or channels != out):
        return body
    shortcut = make_shortcut("pool", channels, out, stride)
    return WideEnd(body, shortcut) if wide else Residual(body, shortcut, nn.Identity())


PRESETS: dict[str, dict[str, Option]] = {"mobilenetv2": {}}

DRAWS = {**STAGED, "expansion": Draw((1.5, 2.0, 3.0, 4.0, 6.0)), "kernel": Draw((3, 5))}


def from_draws(values: Mapping[str, Any]) -> dict[str, Option]:
    return {
        **staged(values),
        "stem_width": int(values["width"]),
        "expansion": float(values["expansion"]),
        "kernel": int(values["kernel"]),
        "head_width": 0,
    }
