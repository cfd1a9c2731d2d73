"""Operations of each prunable layer for one sample: multiply-accumulates, and floating point operations (2x)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from contest.pruning.methods.channels import layers


def layer_macs(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Multiply-accumulates of each convolution and linear layer for one sample, by the weight's name.

    A layer that is called several times (a recurrent use) counts each call; one that is never called is 0.

    Args:
        example: a batch of inputs; counts are divided by its size.
    """
    found = layers(model)
    macs = dict.fromkeys(found, 0)

    def count(name: str, layer: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        transposed = bool(getattr(layer, "transposed", False))
        places = inputs if transposed else outputs  # each is read, or written, once for each of these products
        macs[name] += places.numel() // len(example) * math.prod(weight.shape[1:])

    handles = [
        layer.register_forward_hook(lambda module, args, out, name=name: count(name, module, args[0], out))
        for name, layer in found.items()
    ]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return macs
