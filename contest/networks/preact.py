"""Residual networks with activation before the convolution (He 2016, arXiv 1603.05027, figure 1b)."""

from __future__ import annotations

from torch import nn

from contest.candidate import Option
from contest.networks.blocks import (
    Classifier,
    Residual,
    Shortcut,
    conv,
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
    Stride,
    Strides,
    Width,
    Widths,
    staged_with_shortcut,
)
from contest.networks.resnet import Depth, blocks_of_depth


def preact(
    image_shape: ImageShape,
    classes: int,
    *,
    depth: Depth = 20,
    width: Width = 16,
    widths: Widths = (),
    depths: Depths = (),
    strides: Strides = (),
    stem_stride: Stride = 1,
    shortcut: Shortcut = "projection",
    activation: Activation = "relu",
) -> nn.Module:
    """`widths` (default: width, 2 width, 4 width) and `depths`, blocks of each stage (default: from `depth`).

    The stem is a bare convolution; batch norm and activation come after the last block.
    """
    widths = widths or (width, 2 * width, 4 * width)
    depths = depths or blocks_of_depth("preact", depth, len(widths), 2)
    channels = widths[0]
    stem = conv(image_shape[0], channels, 3, stem_stride)

    def make(inputs: int, out: int, stride: int) -> nn.Module:
        return _block(inputs, out, stride, shortcut, activation)

    stages, channels = stages_of_blocks(stage_plan("preact", widths, depths, strides), channels, make)
    head = sequence(norm=nn.BatchNorm2d(channels), act=make_activation(activation))
    return Classifier(image_shape, stem, stages, channels, classes, head=head)


def _block(channels: int, out: int, stride: int, shortcut: str, act: str) -> nn.Module:
    """Where the shape changes, both branches start from the activated map; elsewhere x itself is added."""
    first = {"norm1": nn.BatchNorm2d(channels), "act1": make_activation(act)}
    rest = {
        "conv1": conv(channels, out, 3, stride),
        "norm2": nn.BatchNorm2d(out),
        "act2": make_activation(act),
        "conv2": conv(out, out),
    }
    if stride == 1 and channels == out:
        return Residual(sequence(**first, **rest), nn.Identity(), nn.Identity())
    branch = (
        conv(channels, out, 1, stride) if shortcut == "projection" else make_shortcut(shortcut, channels, out, stride)
    )
    return sequence(**first, residual=Residual(sequence(**rest), branch, nn.Identity()))


PRESETS: dict[str, dict[str, Option]] = {
    **{f"preact{depth}": {"depth": depth} for depth in (20, 32, 44, 56, 110)},
    "preact18": {"widths": (64, 128, 256, 512), "depths": (2, 2, 2, 2)},
}

DRAWS = {**STAGED, **SHORTCUT}
from_draws = staged_with_shortcut
