"""VGG with batch norm for small images (Simonyan 2014, arXiv 1409.1556, table 1: A, B, D, E).

`vgg-early` is the layout of Jordan 2024 (arXiv 2404.00498, section 3.1): a narrow stem, then three wide stages that
pool right after their first convolution, so that most of the work happens on small maps. It learns fast, as a teacher
should.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from torch import nn

from contest.candidate import Option
from contest.networks.blocks import Classifier, conv_norm, stage_plan
from contest.networks.options import Activation, Depths, Draw, Dropout, Factor, ImageShape, Limit, Widths

_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(
    image_shape: ImageShape,
    classes: int,
    *,
    depth: Literal[11, 13, 16, 19] = 16,
    width: Factor = 1.0,
    widths: Widths = (64, 128, 256, 512, 512),
    depths: Depths = (),
    hidden: Annotated[tuple[int, ...], Limit(1, 8192)] = (),
    stem_width: Annotated[int, Limit(0, 8192)] = 0,
    pool: Literal["last", "first"] = "last",
    activation: Activation = "relu",
    dropout: Dropout = 0.0,
) -> nn.Module:
    """`width` multiplies all `widths`; `depths` (convolutions of each stage) overrides `depth`.

    Each stage has a max-pool, behind its last or its first convolution (`pool`), as long as the map has more than one
    pixel a side. `stem_width`: a convolution before the stages (0: none). `hidden` linear layers (none by default, as
    usual for CIFAR-10) stand between the mean over the map and `fc`, dropout before each.
    """
    widths = tuple(max(1, round(value * width)) for value in widths)
    side, channels = min(image_shape[1:]), stem_width or image_shape[0]
    stem = conv_norm(image_shape[0], stem_width, act=activation) if stem_width else nn.Identity()
    stages = []
    for out, count, _ in stage_plan("vgg", widths, depths or _DEPTHS[depth]):
        stage = nn.Sequential()
        for _ in range(count):
            stage.append(conv_norm(channels, out, act=activation))
            channels = out
        if side >= 2:
            stage.insert(1 if pool == "first" else count, nn.MaxPool2d(2))
            side //= 2
        stages.append(stage)
    return Classifier(image_shape, stem, stages, channels, classes, hidden=hidden, dropout=dropout)


PRESETS: dict[str, dict[str, Option]] = {
    **{f"vgg{depth}": {"depth": depth} for depth in _DEPTHS},
    "vgg-early": {"stem_width": 24, "widths": (64, 256, 256), "depths": (2, 2, 2), "pool": "first"},
}

DRAWS = {
    "vgg_width": Draw((0.0625, 0.125, 0.25, 0.5)),
    "vgg_depth": Draw((11, 13, 16, 19)),
    "vgg_stem": Draw((0, 8, 16)),
    "vgg_pool": Draw(("last", "first")),
}
ROW = {"by_default": False}


def from_draws(values: Mapping[str, Any]) -> dict[str, Option]:
    return {
        "width": float(values["vgg_width"]),
        "depth": int(values["vgg_depth"]),
        "stem_width": int(values["vgg_stem"]),
        "pool": str(values["vgg_pool"]),
    }
