"""Masks: which weights live. What every pruning method shares stands here once.

A mask keeps exactly the number of weights asked for: equal scores are broken by position, so nothing is over-pruned.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.latent import check_zeros, zero
from contest.pruning.prunable import layers, prunable, weights

Masks = dict[str, Tensor]
"""A bool tensor for each pruned parameter, by the parameter's name; True lives."""


def kept(weights: int, sparsity: float) -> int:
    """How many of `weights` live at a sparsity in [0, 1], rounded to the nearest whole weight."""
    if not 0 <= sparsity <= 1:
        raise UsageError(f"sparsity is {sparsity:g}; it is a fraction and must lie in [0, 1]")
    return weights - round(weights * sparsity)


def sparsity_of_compression(ratio: float) -> float:
    """Compression ratio c (1 is the whole network) as a sparsity: 1 - 1/c."""
    if ratio < 1:
        raise UsageError(f"compression ratio is {ratio:g}; 1 is the unpruned network, it cannot be less")
    return 1 - 1 / ratio


def exact_k(scores: Mapping[str, Tensor], keep: int) -> Masks:
    """The `keep` highest scores over all tensors together live. Ties: the earlier position lives.

    Positions run through the tensors in the order of the mapping, row-major inside each. Linear time (a
    selection, not a sort).

    Raises:
        UsageError: `keep` is negative or more than there are, or a score is NaN.
    """
    total = sum(score.numel() for score in scores.values())
    if not 0 <= keep <= total:
        raise UsageError(f"cannot keep {keep} of {total} weights; choose a number from 0 to {total}")
    for name, score in scores.items():
        if bool(score.isnan().any()):
            raise UsageError(f"the scores of '{name}' contain NaN; a weight cannot be ranked by it")
    if keep in (0, total):
        return {name: torch.full_like(score, bool(keep), dtype=torch.bool) for name, score in scores.items()}
    flat = torch.cat([score.detach().flatten() for score in scores.values()])
    threshold = flat.kthvalue(total - keep + 1).values  # the keep-th largest
    alive = flat > threshold
    ties = (flat == threshold).nonzero().flatten()
    alive[ties[: keep - int(alive.sum())]] = True
    parts = alive.split([score.numel() for score in scores.values()])
    return {
        name: part.view(score.shape).to(score.device) for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def exact_k_each(scores: Mapping[str, Tensor], sparsities: Mapping[str, float]) -> Masks:
    """`exact_k` inside each named tensor with its own sparsity; tensors without one stay whole."""
    unknown = sorted(set(sparsities) - set(scores))
    if unknown:
        raise UsageError(f"no prunable weight is called {', '.join(unknown)}; there are: {', '.join(scores)}")
    masks: Masks = {}
    for name, score in scores.items():
        masks |= exact_k({name: score}, kept(score.numel(), sparsities.get(name, 0.0)))
    return masks


def validate(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Raise UsageError unless every mask is a bool tensor of the shape of a prunable weight of `model`."""
    found = prunable(model)
    for name, mask in masks.items():
        if name not in found:
            raise UsageError(f"mask '{name}' fits no prunable weight; there are: {', '.join(found)}")
        if mask.dtype != torch.bool:
            raise UsageError(f"mask '{name}' is {mask.dtype}; it must be torch.bool, True where a weight lives")
        if mask.shape != found[name].shape:
            raise UsageError(f"mask '{name}' has shape {tuple(mask.shape)}, its weight {tuple(found[name].shape)}")


def full(model: nn.Module) -> Masks:
    """Masks under which every prunable weight lives."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in prunable(model).items()}


@torch.no_grad()
def hold(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights that `masks` removes to +0.0, in place; call it after every optimiser step.

    Masks lie on any device (they are moved, which costs little when they lie beside the weights).
    """
    known, own = prunable(model), layers(model)
    for name, mask in masks.items():
        try:
            weight = known[name]
        except KeyError:
            validate(model, masks)
            raise
        dead = ~mask.to(weight.device)
        if name in own:
            zero(own[name], weight, dead)
        else:  # an embedding, a recurrent or an attention matrix
            weight.masked_fill_(dead, 0.0)


def enforce(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """`hold`, and in quantised layers also put each mask behind its quantiser, where it stays.

    A quantiser need not map 0 to 0 (a binary one maps it to +scale), so zero latent weights are not enough.
    Call it once when masks are new; after each optimiser step `hold` is enough.

    Raises UsageError for a parametrization that makes other weights than zero of zeros.
    """
    validate(model, masks)
    hold(model, masks)
    for name, layer in layers(model).items():
        if name in masks:
            check_zeros(layer, name.removesuffix(".weight"), ~masks[name])
    if "brevitas" in sys.modules:  # otherwise nothing can be quantised, and the import takes seconds
        from contest.quantisation import set_masks

        set_masks(model, masks)


@dataclass(frozen=True)
class LayerSparsity:
    """One prunable weight tensor."""

    name: str
    shape: tuple[int, ...]
    weights: int
    nonzeros: int

    @property
    def sparsity(self) -> float:
        return 1 - self.nonzeros / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class Sparsity:
    """Zeros of a network: for each prunable tensor, of all prunable weights, of the whole model."""

    layers: tuple[LayerSparsity, ...]
    parameters: int
    """All parameters of the model, prunable or not."""

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def nonzeros(self) -> int:
        return sum(layer.nonzeros for layer in self.layers)

    @property
    def prunable(self) -> float:
        """Fraction of the prunable weights that are zero: what 'sparsity' means in this project."""
        return 1 - self.nonzeros / self.weights if self.weights else 0.0

    @property
    def model(self) -> float:
        """Zeros among prunable weights as a fraction of all parameters."""
        return (self.weights - self.nonzeros) / self.parameters if self.parameters else 0.0


def sparsity(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> Sparsity:
    """Count zeros: those of the weights themselves, or, with `masks`, those that the masks make."""
    layers = []
    for name, weight in weights(model).items():
        alive = weight if masks is None else masks.get(name, torch.ones((), dtype=torch.bool))
        nonzeros = int(torch.count_nonzero(alive.expand(weight.shape)))
        layers.append(LayerSparsity(name, tuple(weight.shape), weight.numel(), nonzeros))
    return Sparsity(tuple(layers), sum(parameter.numel() for parameter in model.parameters()))
