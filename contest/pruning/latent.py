"""Weights that a layer computes from others: `torch.nn.utils.prune`, weight norm, spectral norm, parametrizations.

The *latent* weight is the parameter that training changes and masks act on; the *effective* weight is what the layer
multiplies with. In a plain layer both are `layer.weight`.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from contest.errors import UsageError


def latent_weight(layer: nn.Module, name: str) -> nn.Parameter | None:
    """The parameter behind the layer's weight, of the weight's shape; None for a layer without weight.

    Raises UsageError, naming the layer, for a weight that is computed in a way in which no single parameter stands for
    it.
    """
    own = layer._parameters
    if parametrize.is_parametrized(layer, "weight"):
        chain: Any = layer.parametrizations["weight"]  # type: ignore[index]
        found: dict[str, nn.Parameter] = dict(chain.named_parameters(recurse=False))
        # Of several, the last has the shape: weight norm keeps the lengths first and then the directions.
        shaped = [parameter for parameter in found.values() if parameter.shape == _effective(layer).shape]
        if shaped:
            return shaped[-1]
        raise UsageError(
            f"the weight of layer '{name}' is computed by {_kinds(layer)} from parameters of other shapes, so single "
            "weights of it cannot be pruned: torch.nn.utils.parametrize.remove_parametrizations makes it plain"
        )
    for key in ("weight", "weight_orig", "weight_v"):  # plain; prune and spectral norm; weight norm
        if own.get(key) is not None:
            return own[key]
    if getattr(layer, "weight", None) is None or isinstance(layer.weight, nn.UninitializedParameter):
        return None
    raise UsageError(
        f"the weight of layer '{name}' is no parameter, so it cannot be pruned: assign an nn.Parameter to it"
    )


@torch.no_grad()
def effective_weight(layer: nn.Module) -> Tensor:
    """What the layer multiplies with, detached; nothing in the layer changes (spectral norm would count a step)."""
    return _effective(layer).detach()


def _effective(layer: nn.Module) -> Tensor:
    if parametrize.is_parametrized(layer, "weight"):
        chain: Any = layer.parametrizations["weight"]  # type: ignore[index]
        modes = {module: module.training for module in chain.modules()}
        chain.eval()
        try:
            with torch.no_grad():
                weight: Tensor = chain()
        finally:
            for module, mode in modes.items():
                module.training = mode
        return weight
    for (
        hook
    ) in layer._forward_pre_hooks.values():  # (what these hooks leave in `layer.weight` is that of the last call)
        if isinstance(hook, torch_prune.BasePruningMethod) and hook._tensor_name == "weight":
            pruned: Tensor = hook.apply_mask(layer)
            return pruned
        if isinstance(hook, WeightNorm) and hook.name == "weight":
            normed: Tensor = hook.compute_weight(layer)
            return normed
        if isinstance(hook, SpectralNorm) and hook.name == "weight":
            scaled: Tensor = hook.compute_weight(layer, do_power_iteration=False)
            return scaled
    plain = layer.weight
    assert isinstance(plain, Tensor)
    return plain


@torch.no_grad()
def zero(layer: nn.Module, latent: Tensor, dead: Tensor) -> None:
    """Make the latent weights zero where `dead`, so that the effective ones are.

    Weight norm divides by the length of each filter, which a filter of zeros does not have: there the length that it
    multiplies with becomes zero instead.
    """
    latent.masked_fill_(dead, 0.0)
    if latent is layer._parameters.get("weight") or not bool(dead.any()):
        return
    lengths, axis = _lengths(layer)
    if lengths is not None:
        axes = [] if axis is None else [i for i in range(latent.dim()) if i != axis]
        gone = dead.all() if axis is None else dead.amin(axes, keepdim=True)
        latent.masked_fill_(gone.expand_as(latent), 1.0)
        lengths.masked_fill_(gone.reshape(lengths.shape), 0.0)


def check_zeros(layer: nn.Module, name: str, dead: Tensor) -> None:
    """Raise UsageError, naming the layer, where effective weights are not zero although the latent ones are."""
    if "weight" in layer._parameters:
        return
    left = int(effective_weight(layer)[dead].count_nonzero())
    if left:
        raise UsageError(
            f"{left} pruned weights of layer '{name}' are not zero, since {_kinds(layer)} computes its weight from "
            "zeros: make it plain before pruning (torch.nn.utils.parametrize.remove_parametrizations)"
        )


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy of the model whose weights are plain parameters with the effective values."""
    for layer in model.modules():
        weight = vars(layer).get("weight")
        if isinstance(weight, Tensor):  # left by the last forward pass; torch copies no tensors with a history
            layer.__dict__["weight"] = weight.detach()
    plain = copy.deepcopy(model)
    for layer in plain.modules():
        _make_plain(layer)
    return plain


def _make_plain(layer: nn.Module) -> None:
    if parametrize.is_parametrized(layer):
        # torch takes the weight off the class, which a copy shares with the layer that it was copied from.
        kind = type(layer)
        own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
        layer.__class__ = type(kind.__name__, kind.__bases__, own)
        for name in list(layer.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    for hook in list(layer._forward_pre_hooks.values()):
        if isinstance(hook, torch_prune.BasePruningMethod):
            torch_prune.remove(layer, hook._tensor_name)
        elif isinstance(hook, WeightNorm):
            remove_weight_norm(layer, hook.name)
        elif isinstance(hook, SpectralNorm):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.nn.utils.remove_spectral_norm(layer, hook.name)


def _lengths(layer: nn.Module) -> tuple[Tensor | None, int | None]:
    """Weight norm's lengths and the axis that they belong to (None: one length for the whole weight)."""
    if parametrize.is_parametrized(layer, "weight"):
        chain: Any = layer.parametrizations["weight"]  # type: ignore[index]
        if hasattr(chain, "original1") and hasattr(chain[0], "dim"):
            axis = chain[0].dim
            return chain.original0, None if axis in (None, -1) else axis
        return None, None
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == "weight":
            return layer._parameters["weight_g"], None if hook.dim in (None, -1) else hook.dim
    return None, None


def _kinds(layer: nn.Module) -> str:
    if not parametrize.is_parametrized(layer, "weight"):
        return "a hook"
    return ", ".join(type(module).__name__ for module in layer.parametrizations["weight"])  # type: ignore[index]
