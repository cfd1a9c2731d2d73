"""The end of a network of inverted blocks, without its last 1x1 convolution.

Nothing but a mean lies between the last block's 1x1 down and the classifier: no activation. So the classifier can do
both in one, once an image instead of once a pixel (Howard 2019, arXiv 1905.02244, section 5.1, has the mean before the
last 1x1 too). In float the network is the same; with 60 channels, four times widened, on 8x8 pixels 0.9 million
multiply-accumulates and four fifths of the weights concerned are gone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from contest.candidate import Architecture

_DOWN = "project.conv.weight"
EPSILON = nn.BatchNorm2d(1).eps
GAIN = 4.0
"""Of the wide maps: their means are small beside those of the shortcut, and a step of the weights that see them as much
smaller. In 2.67 epochs at 4 bits from a float network the loss comes to 0.300 with 1, 0.300 with 2, 0.292 with 4 and
0.294 with 8 (docs/record). Stored networks rely on it."""


class WideEnd(nn.Module):
    """[N, C, H, W] -> [N, out + wide, H', W'], a last block's shortcut, of `out` channels, and its wide maps times
    `GAIN`."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.shortcut(x), self.body(x) * GAIN), 1)


def wide_features(block: nn.Module, out: int) -> int:
    """Channels of what a last block gives that does not narrow to `out`, with or without a shortcut."""
    wide = [module.out_channels for module in block.modules() if isinstance(module, nn.Conv2d)][-1]
    return wide + out if isinstance(block, WideEnd) else wide


def is_wide(architecture: Architecture) -> bool:
    """Whether its last block ends wide."""
    return architecture.options.get("tail") == "wide"


def whole(architecture: Architecture) -> Architecture:
    """The network that computes the same with a last 1x1 convolution."""
    return Architecture(architecture.family, {**architecture.options, "tail": "block"})


@torch.no_grad()
def with_wide_end(known: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights `known` of a network, for one that differs by its wide end alone.

    Args:
        known: a state dict by name, of float tensors.
        own: that of the network which is to compute the same.

    Returns what `known` has for `own`, with the merged classifier where `own` lacks nothing but the last 1x1.
    """
    found = {name: tensor for name, tensor in known.items() if name in own}
    for block in (name.removesuffix(_DOWN) for name in known.keys() - own.keys() if name.endswith(_DOWN)):
        names = [f"{block}project.norm.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        if f"{block}depthwise.conv.weight" not in own or not {*names, "fc.weight", "fc.bias"} <= known.keys():
            continue  # the block is not there at all, or has no batch norm any more
        gain, bias, mean, variance = (known[name] for name in names)
        scale, fc = gain / (variance + EPSILON).sqrt(), known["fc.weight"]
        if fc.shape[1:] != scale.shape:
            continue  # another network's classifier
        merged = fc @ (known[block + _DOWN].flatten(1) * scale[:, None])
        if block.endswith(".body."):  # it has a shortcut
            merged = torch.cat((fc, merged / GAIN), 1)
        found["fc.weight"], found["fc.bias"] = merged, known["fc.bias"] + fc @ (bias - mean * scale)
    return found
