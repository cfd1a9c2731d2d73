"""Any timm model by name, behind the same `normalise`. Importing this module imports timm (3 s)."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Mapping
from typing import Any, cast

import timm
from torch import Tensor, nn

from contest.errors import UsageError
from contest.networks.blocks import Normalise
from contest.networks.options import ImageShape

_OUTSIDE = {*inspect.signature(timm.create_model).parameters} - {"kwargs"}
"""What `create_model` does besides calling the network's function: a checkpoint's path, a folder of downloads."""


class TimmNetwork(nn.Module):
    """Images [N, C, H, W] in [0, 1] -> logits [N, classes]: normalise, then timm's network as it is."""

    def __init__(self, channels: int, net: nn.Module) -> None:
        super().__init__()
        self.normalise = Normalise(channels)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(self.normalise(x)))


def build_timm(name: str, image_shape: ImageShape, classes: int, options: Mapping[str, Any]) -> nn.Module:
    """`timm.create_model` without pretrained weights; `options` go to it as they are.

    Networks that need to know the image's size (transformers) are told. Raises UsageError if timm has no
    such model or cannot build it.
    """
    outside = sorted({*options} & _OUTSIDE | {o for o in options if o.startswith("pretrained")})
    if outside:
        raise UsageError(f"'{outside[0]}' is not an option of a network: nothing is loaded, cached or compiled here")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=6, cutoff=0.5)
        others = f"near it: {', '.join(near)}" if near else "`timm.list_models()` names those that it has"
        raise UsageError(f"timm has no model '{name}'; {others}")
    chosen = {"num_classes": classes, "in_chans": image_shape[0], **options}
    default = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if default is not None and default.fixed_input_size:
        chosen.setdefault("img_size", image_shape[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns of its own renamed models and options
        try:
            net = timm.create_model(name, pretrained=False, **chosen)
        except Exception as error:  # timm looks options up and computes with them as they are
            what = f"{type(error).__name__}: {error}" if not isinstance(error, (TypeError, ValueError)) else error
            raise UsageError(
                f"timm model '{name}' cannot be built for images {image_shape} with {chosen}: {what}"
            ) from error
    return TimmNetwork(image_shape[0], net)
