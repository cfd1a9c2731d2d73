"""MACs and weights of an architecture before anything is built for real."""

from __future__ import annotations

from functools import lru_cache

from contest.candidate import Architecture
from contest.networks.registry import build


@lru_cache(maxsize=65536)
def macs_and_weights(
    architecture: Architecture, image_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10
) -> tuple[int, int]:
    """(multiply-accumulates for one image, prunable weights) in milliseconds, without memory for weights
    (the first call of a process waits 2 s for torch's import of its meta kernels).

    MACs are those of convolutions, linear layers and matrix products (attention), counted by torch's own
    operator counter on the meta device. Weights are those of convolutions and linear layers, without
    biases and batch norm. Raises UsageError where the architecture cannot be built.
    """
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build(architecture, image_shape, classes).eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            model(torch.empty(1, *image_shape))
    layers = (module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear)))
    return counter.get_total_flops() // 2, sum(layer.weight.numel() for layer in layers)
