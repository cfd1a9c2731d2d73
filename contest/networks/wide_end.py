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


class WideEnd(nn.Module):
    """[N, C, H, W] -> [N, C + wide, H, W]: a last block's input, for its shortcut, and its wide maps."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.body(x)), 1)


def wide_features(block: nn.Module) -> int:
    """Channels of what a last block that does not narrow gives, with or without a shortcut."""
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    shortcut = convolutions[0].in_channels if isinstance(block, WideEnd) else 0
    return shortcut + convolutions[-1].out_channels


@torch.no_grad()
def with_wide_end(known: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights `known` of a network, for one that differs by its wide end alone.

    Args:
        known: a state dict by name, of float tensors.
        own: that of the network which is to compute the same. Where it is no such network, `known` comes back.
    """
    found = dict(known)
    for name in known:
        down = name.removesuffix(".conv.weight")
        if not name.endswith(".project.conv.weight") or name in own:
            continue
        if not {f"{down}.norm.{part}" for part in ("weight", "bias", "running_mean", "running_var")} <= known.keys():
            continue
        fc = known.get("fc.weight")
        if fc is None or fc.shape[1] != known[name].shape[0]:
            continue
        weight, bias = _folded(known, down)
        merged = fc @ weight
        if ".body." in name:  # a block with a shortcut
            merged = torch.cat((fc, merged), 1)
        if "fc.weight" not in own or own["fc.weight"].shape != merged.shape:
            continue
        found["fc.weight"], found["fc.bias"] = merged, known["fc.bias"] + fc @ bias
    return found


EPSILON = nn.BatchNorm2d(1).eps


def _folded(known: Mapping[str, Tensor], down: str) -> tuple[Tensor, Tensor]:
    """(weight [out, in], bias [out]) of a 1x1 convolution with the batch norm behind it."""
    scale = known[f"{down}.norm.weight"] / (known[f"{down}.norm.running_var"] + EPSILON).sqrt()
    weight = known[f"{down}.conv.weight"].flatten(1) * scale[:, None]
    return weight, known[f"{down}.norm.bias"] - known[f"{down}.norm.running_mean"] * scale
