"""A network that learns fast, as a teacher should: after Jordan 2024 (arXiv 2404.00498).

The first layer whitens patches of 2x2 pixels and is not trained; the convolutions behind it begin as the identity
(Zagoruyko & Komodakis 2017, arXiv 1706.00388); batch norms have a bias only, which learns 64 times as fast; nothing
else has a bias, and the logits are scaled down. Three stages pool right after their first convolution, so most of the
work happens on small maps. `RECIPES` are the trainings that belong to it.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from contest.candidate import Option, Recipe
from contest.networks.blocks import Normalise, conv
from contest.networks.options import ImageShape, Limit, Widths

PATCH = 2
LOGIT_SCALE = 1 / 9
EPSILON = 5e-4
"""Added to the variances that are divided by: the smallest are noise."""


class Whitening(nn.Sequential):
    """Patches of 2x2 pixels along the principal directions of the training set, at unit variance, and their negatives.

    `see` sets the weights from images; until then they are random, and they are never trained.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = channels * PATCH**2
        self.conv = nn.Conv2d(channels, 2 * size, PATCH, bias=False)
        self.conv.weight.requires_grad_(False)
        self.act = nn.GELU()

    @torch.no_grad()
    def see(self, images: Tensor) -> None:
        """`images` float [N, C, H, W] as this layer gets them."""
        channels = images.shape[1]
        patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
        variances, directions = torch.linalg.eigh(torch.cov(patches.double().T))
        filters = (directions / (variances + EPSILON).sqrt()).T.flip(0).view(-1, channels, PATCH, PATCH)
        self.conv.weight.copy_(torch.cat([filters, -filters]))


class LogitScale(nn.Module):
    """x * factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def fast_teacher(
    image_shape: ImageShape,
    classes: int,
    *,
    widths: Widths = (64, 256, 256),
    depth: Annotated[int, Limit(1, 16)] = 2,
) -> nn.Module:
    """Stages of `depth` 3x3 convolutions each, a max-pool behind the first; a maximum over the last map."""
    model = nn.Sequential()
    model.add_module("normalise", Normalise(image_shape[0]))
    model.add_module("stem", Whitening(image_shape[0]))
    stages = nn.Sequential()
    channels, side = 2 * image_shape[0] * PATCH**2, min(image_shape[1:]) - PATCH + 1
    for width in widths:
        stage = nn.Sequential()
        for index in range(depth):
            stage.append(_dirac(conv(channels, width)))
            if index == 0 and side >= 2:
                stage.append(nn.MaxPool2d(2))
                side //= 2
            stage.append(_bias_only(nn.BatchNorm2d(width, momentum=0.4)))
            stage.append(nn.GELU())
            channels = width
        stages.append(stage)
    model.add_module("stages", stages)
    model.add_module("pool", nn.AdaptiveMaxPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", nn.Linear(channels, classes, bias=False))
    model.add_module("scale", LogitScale(LOGIT_SCALE))
    return model


def _dirac(layer: nn.Conv2d) -> nn.Conv2d:
    """As many outputs as there are inputs begin as these; further ones stay random."""
    if not layer.weight.is_meta:
        nn.init.dirac_(layer.weight.data[: layer.in_channels])
    return layer


def _bias_only(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    norm.weight.requires_grad_(False)
    return norm


PRESETS: dict[str, dict[str, Option]] = {
    "fast-teacher": {},
    "fast-teacher-wide": {"widths": (128, 384, 384)},
}

_RECIPE = Recipe(
    epochs=10,
    batch_size=1024,
    learning_rate=1.5,
    momentum=0.85,
    weight_decay=1.33e-3,
    schedule="triangle",
    label_smoothing=0.2,
    lookahead=0.95,
    norm_bias_rate=64,
    alternate_flips=True,
    crop=2,
)
RECIPES = {"fast-teacher": _RECIPE, "fast-teacher-wide": _RECIPE}

ROW = {"not_searched": "it teaches: its first layer is made from images and it is never compressed"}
