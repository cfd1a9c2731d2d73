"""Operations of each prunable weight for one sample: multiply-accumulates, and floating point operations (2x)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from contest.pruning.batches import Inputs, forward, samples, tensors
from contest.pruning.prunable import layers, owner, prunable


@contextmanager
def module_by_module() -> Iterator[None]:
    """Transformers call their modules one by one, as they are written, and not one fused kernel in their place."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def layer_macs(model: nn.Module, example: Inputs) -> dict[str, int]:
    """Multiply-accumulates of each prunable weight for one sample, by its name.

    A layer that is called several times (a recurrent use) counts each call; one that is never called is 0. A matrix of
    a recurrent or attention module is multiplied once for each step of the sequence; an embedding only looks up.

    Args:
        example: a batch of inputs; counts are divided by its size.
    """
    batch, macs = samples(example), dict.fromkeys(prunable(model), 0)
    own = layers(model)
    handles = []
    for name in macs:
        attention = _attention_of(model, name)
        layer = None if attention is not None else own.get(name)
        module = layer or attention or owner(model, name)

        def count(
            module: nn.Module, args: Any, kwargs: Any, outputs: Any, name: str = name, layer: Any = layer
        ) -> None:
            if layer is not None:
                macs[name] += _of_layer(layer, tensors(args)[0], tensors(outputs)[0]) // batch
            elif not isinstance(module, nn.Embedding | nn.EmbeddingBag):
                inputs = (tensors(args) or tensors(kwargs))[0]
                steps = inputs.numel() // inputs.shape[-1] // batch
                macs[name] += steps * model.get_parameter(name).numel()

        handles.append(module.register_forward_hook(count, with_kwargs=True))
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), module_by_module():
            forward(model, example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return macs


def _of_layer(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> int:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    transposed = bool(getattr(layer, "transposed", False))
    places = inputs if transposed else outputs  # each is read, or written, once for each of these products
    return places.numel() * math.prod(weight.shape[1:])


def _attention_of(model: nn.Module, name: str) -> nn.Module | None:
    """The attention module whose weight this is: it multiplies with all of them itself, its output layer's too."""
    module = owner(model, name)
    if isinstance(module, nn.MultiheadAttention):
        return module
    if name.endswith("out_proj.weight"):
        parent = model.get_submodule(name.removesuffix(".weight").rpartition(".")[0])
        return parent if isinstance(parent, nn.MultiheadAttention) else None
    return None
