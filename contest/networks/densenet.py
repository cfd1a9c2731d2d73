"""Densely connected networks (Huang 2017, arXiv 1608.06993), with grouped convolutions as an option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from contest.candidate import Option
from contest.networks.blocks import Classifier, conv, make_activation, sequence
from contest.networks.options import Activation, Depths, Draw, Groups, ImageShape, Limit, Stride, Width, stem_stride


class DenseLayer(nn.Module):
    """[N, C, H, W] -> [N, C + growth, H, W]: the input and, behind it, what the body made of it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, cast(Tensor, self.body(x))], 1)


def densenet(
    image_shape: ImageShape,
    classes: int,
    *,
    growth: Width = 12,
    depths: Depths = (16, 16, 16),
    bottleneck: Annotated[int, Limit(0, 16)] = 4,
    reduction: Annotated[float, Limit(0.05, 1.0)] = 0.5,
    groups: Groups = 1,
    stem_width: Annotated[int, Limit(0, 8192)] = 0,
    stem_stride: Stride = 1,
    activation: Activation = "relu",
) -> nn.Module:
    """`growth` channels a layer, `depths` layers a block; the default is DenseNet-BC (L = 100, k = 12).

    `bottleneck` times `growth` channels lie between the 1x1 and the 3x3 convolution (0: no 1x1); transitions
    keep `reduction` of the channels; `groups` divide the 3x3 convolutions; stem: 0 is 2 x growth.
    """
    channels = stem_width or 2 * growth
    stem = conv(image_shape[0], channels, 3, stem_stride)
    side = min(image_shape[1:]) // stem_stride
    stages = []
    for number, depth in enumerate(depths):
        stage = nn.Sequential()
        for _ in range(depth):
            stage.append(DenseLayer(_body(channels, growth, bottleneck * growth, groups, activation)))
            channels += growth
        if number < len(depths) - 1:
            kept = max(1, int(channels * reduction))
            stage.append(_transition(channels, kept, activation, pool=side >= 2))
            channels, side = kept, side // 2
        stages.append(stage)
    head = sequence(norm=nn.BatchNorm2d(channels), act=make_activation(activation))
    return Classifier(image_shape, stem, stages, channels, classes, head=head)


def _body(channels: int, growth: int, hidden: int, groups: int, act: str) -> nn.Sequential:
    layers: dict[str, nn.Module] = {"norm1": nn.BatchNorm2d(channels), "act1": make_activation(act)}
    if not hidden:
        return sequence(**layers, conv=conv(channels, growth, 3, groups=groups))
    return sequence(
        **layers,
        conv1=conv(channels, hidden, 1),
        norm2=nn.BatchNorm2d(hidden),
        act2=make_activation(act),
        conv2=conv(hidden, growth, 3, groups=groups),
    )


def _transition(channels: int, out: int, act: str, *, pool: bool) -> nn.Sequential:
    return sequence(
        norm=nn.BatchNorm2d(channels),
        act=make_activation(act),
        conv=conv(channels, out, 1),
        pool=nn.AvgPool2d(2) if pool else None,
    )


PRESETS: dict[str, dict[str, Option]] = {
    "densenet100": {},
    "densenet40": {"depths": (12, 12, 12), "bottleneck": 0, "reduction": 1.0, "stem_width": 16},
    "densenet121": {"growth": 32, "depths": (6, 12, 24, 16)},
}

DRAWS = {
    "dense_growth": Draw((4, 8, 12)),
    "dense_layers": Draw(low=3, high=12, step=1),
    "groups": Draw((1, 2, 4)),
    "stem_stride": Draw((1, 2)),
}


def from_draws(values: Mapping[str, Any]) -> dict[str, Option]:
    return {
        "growth": int(values["dense_growth"]),
        "depths": (int(values["dense_layers"]),) * 3,
        "groups": int(values["groups"]),
        **stem_stride(values),
    }
