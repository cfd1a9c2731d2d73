"""Thin, deep residual networks: the family made for the record, 5 to 15 million MACs on 32x32 images.

Under the contest's rule a multiply-accumulate at b bits costs 2 b / 32 / 8.3e8 and a weight of which 40 %
remain costs 0.4 b / 32 / 5.6e6: one weight is worth about 30 MACs, and a channel's multiplier and shift
(never less than 16 bits) as much as many weights. So:

* operations are spent where a weight is used few times: on maps of 8x8 and 4x4 pixels, not on 32x32. `strides`
  and `stem_stride` move the map down early, a fourth stage adds width where it is cheap, and `head_width`
  widens the features on the last map only;
* a 3x3 convolution costs 9 w^2, so 10 million MACs buy 7 of them at any stage (doubling the width and halving
  the map cancel out); `bottleneck` with ratio 1/2 costs 3.25 w^2 for a block of three layers, `groups` on its
  3x3 convolution 1 + 2.25 / groups, `separable` 2 (w^2 + 9 w): depth for the same operations;
* few wide layers need fewer multipliers and shifts than many thin ones, and depthwise layers lose most at few
  bits (a team's all-4-bit network fell to 84 %), so `basic` is where a search may start.

This is arithmetic about costs; which of them reaches 90 % is for the search to find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from torch import nn

from contest.candidate import Option
from contest.errors import UsageError
from contest.networks.blocks import (
    ChannelShuffle,
    Classifier,
    Shortcut,
    conv,
    conv_norm,
    make_activation,
    make_shortcut,
    odd,
    sequence,
    stage_plan,
    stages_of_blocks,
)
from contest.networks.dsresnet import separable
from contest.networks.mobilenet import inverted
from contest.networks.options import (
    SHORTCUT,
    STAGED,
    Activation,
    Depths,
    Draw,
    Dropout,
    Groups,
    ImageShape,
    Kernel,
    Limit,
    Stride,
    Strides,
    Widths,
    stage_widths,
    stages,
    stem_stride,
)
from contest.networks.resnet import bottleneck, residual
from contest.networks.wide_end import wide_features

Optional = Annotated[int, Limit(0, 8192)]

_EXPANSION = {"basic": 1.0, "bottleneck": 0.5, "inverted": 3.0, "separable": 1.0}


def thin(
    image_shape: ImageShape,
    classes: int,
    *,
    widths: Widths = (16, 32, 64),
    depths: Depths = (2, 2, 2),
    strides: Strides = (),
    block: Literal["basic", "bottleneck", "inverted", "separable"] = "basic",
    expansion: Annotated[float, Limit(0, 16)] = 0.0,
    groups: Groups = 1,
    kernel: Kernel = 3,
    stem_width: Optional = 0,
    stem_kernel: Kernel = 3,
    stem_stride: Stride = 1,
    head_width: Optional = 0,
    shortcut: Shortcut = "projection",
    activation: Activation = "relu",
    opposites: Literal["none", "stem", "first", "all"] = "none",
    tail: Literal["block", "wide"] = "block",
    dropout: Dropout = 0.0,
    zero_last: bool = False,
) -> nn.Module:
    """Every dimension is free; 0 stands for a default.

    `expansion`: channels inside a block relative to its output (to its input in `inverted`); default 1 in
    `basic` and `separable`, 1/2 in `bottleneck`, 3 in `inverted`. `groups`: of the kernel x kernel convolutions
    of `basic` (with a channel shuffle between the two) and `bottleneck`. `stem_width`: default the first of
    `widths`. `head_width`: a 1x1 convolution before the mean (default: none). `opposites`: where half of the
    channels before an activation are the others' negatives, which are not computed: in the stem; there and in the
    first block's 1x1 that widens; there and in all of these (the latter two with block `inverted`). `tail`: whether the
    last block of `inverted` ones narrows its maps, or the classifier does that behind the mean, for a thirtieth of the
    price (`contest.networks.wide_end`). `shortcut`: where shapes differ (`make_shortcut`); `inverted` blocks have one
    there with `pool` only.
    """
    odd("thin", kernel)
    if groups > 1 and block in ("inverted", "separable"):
        raise UsageError(f"'thin' option groups = {groups}: must be 1 with block '{block}', which is depthwise")
    if min(image_shape[1:]) + 2 * ((stem_kernel - 1) // 2) < stem_kernel:
        raise UsageError(
            f"'thin' option stem_kernel = {stem_kernel} is too large for images of {image_shape[1]}x{image_shape[2]}"
        )
    if opposites in ("first", "all") and block != "inverted":
        raise UsageError(
            f"'thin' option opposites = {opposites}: needs block 'inverted', whose 1x1 convolutions widen; with "
            f"'{block}' it can be none or stem"
        )
    if tail == "wide" and (block != "inverted" or head_width):
        raise UsageError(
            "'thin' option tail = wide: needs block 'inverted', whose last 1x1 convolution has no activation behind "
            "it, and no head_width"
        )
    ratio = expansion or _EXPANSION[block]
    channels = stem_width or widths[0]
    stem = conv_norm(image_shape[0], channels, stem_kernel, stem_stride, act=activation, opposites=opposites != "none")

    pairs = {"first": 1, "all": sum(depths)}.get(opposites, 0)  # blocks that compute half of their wide maps
    made = 0

    def make(inputs: int, out: int, stride: int) -> nn.Module:
        nonlocal made
        made += 1
        if block == "inverted":
            wide = tail == "wide" and made == sum(depths)
            pool = shortcut == "pool" and out >= inputs
            return inverted(inputs, out, kernel, stride, ratio, activation, made <= pairs, wide, pool)
        body = _body(block, inputs, ratio, out, kernel, stride, groups, activation)
        return residual(body, make_shortcut(shortcut, inputs, out, stride), activation)

    stages, channels = stages_of_blocks(stage_plan("thin", widths, depths, strides), channels, make)
    if tail == "wide":
        channels = wide_features(stages[-1][-1], channels)  # type: ignore[index]
    head = conv_norm(channels, head_width, 1, act=activation) if head_width else None
    return Classifier(
        image_shape,
        stem,
        stages,
        head_width or channels,
        classes,
        head=head,
        dropout=dropout,
        zero_last=zero_last,
    )


def _body(
    block: str, channels: int, ratio: float, out: int, kernel: int, stride: int, groups: int, act: str
) -> nn.Sequential:
    """The residual branch; its inner channels are rounded up to a multiple of `groups`."""
    inner = -(-max(1, round(out * ratio)) // groups) * groups
    if block == "separable":
        return separable(channels, out, kernel, stride, act, inner)
    if block == "bottleneck":
        return bottleneck(channels, inner, out, stride, act, kernel, groups)
    return sequence(
        conv1=conv(channels, inner, kernel, stride, groups),
        norm1=nn.BatchNorm2d(inner),
        act1=make_activation(act),
        shuffle=ChannelShuffle(groups) if groups > 1 else None,
        conv2=conv(inner, out, kernel, 1, groups),
        norm2=nn.BatchNorm2d(out),
    )


PRESETS: dict[str, dict[str, Option]] = {
    # The number is millions of MACs on 32x32, the letter the block.
    "thin8": {"widths": (8, 16, 32, 64), "depths": (1, 2, 2, 2)},
    "thin13": {"widths": (12, 20, 40, 80), "depths": (1, 2, 2, 2)},
    "thin16b": {
        "block": "bottleneck",
        "widths": (32, 64, 128),
        "depths": (2, 3, 3),
        "stem_width": 16,
        "groups": 4,
    },
    "thin8s": {"block": "separable", "widths": (20, 40, 80, 128), "depths": (1, 2, 3, 2)},
    "thin6i": {"block": "inverted", "widths": (12, 20, 40, 80), "depths": (1, 2, 3, 2), "head_width": 192},
}

DRAWS = {
    **STAGED,
    **SHORTCUT,
    # Leave the full resolution right after the stem: there are no first stage's blocks then.
    "early": Draw((False, True)),
    "thin_block": Draw(("basic", "bottleneck", "inverted", "separable")),
    "blocks_4": Draw(low=0, high=3, step=1),
    "growth_4": Draw((1.0, 1.5, 2.0)),
    "expansion": Draw((1.5, 2.0, 3.0, 4.0, 6.0)),  # of inverted blocks
    "opposites": Draw(("stem", "none", "first")),  # (what a point does not say is the middle)
    "tail": Draw(("wide", "block")),  # of inverted blocks
    "pool_shortcut": Draw((True, False)),
}


def from_draws(values: Mapping[str, Any]) -> dict[str, Option]:
    widths = list(stage_widths(values))
    depths, strides = [int(values[f"blocks_{stage}"]) for stage in (1, 2, 3)], [1, 2, 2]
    if values["blocks_4"]:
        widths.append(2 * round(widths[-1] * values["growth_4"] / 2))
        depths.append(int(values["blocks_4"]))
        strides.append(2)
    options: dict[str, Option] = {**stem_stride(values), "shortcut": str(values["shortcut"])}
    options["block"] = str(values["thin_block"])
    if values["thin_block"] == "inverted":
        options["expansion"] = float(values["expansion"])
        if values.get("tail") == "wide":  # (what old studies have not said has to stay unsaid: it is a part of keys)
            options["tail"] = "wide"
    if values.get("pool_shortcut"):
        options["shortcut"] = "pool"
    if values["early"]:
        options["stem_width"] = widths[0]
        widths, depths, strides = widths[1:], depths[1:], strides[1:]
    return {**options, **_pairs(values, stage_widths(values)[0]), **stages(widths, depths, strides)}


def _pairs(values: Mapping[str, Any], stem: int) -> dict[str, Option]:
    """The option `opposites`, as far as there are pairs: even numbers of channels, and 1x1 convolutions that widen."""
    choice = str(values.get("opposites", "none"))
    if choice == "none" or stem % 2:
        return {}
    inverted = values["thin_block"] == "inverted"
    if choice == "first" and (not inverted or round(stem * float(values["expansion"])) % 2):
        choice = "stem"
    return {"opposites": choice}
