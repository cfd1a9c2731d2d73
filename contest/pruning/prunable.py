"""Which weights of a model are prunable: those of convolutions and linear layers, or those that a user names.

Biases and norms never are. The choice is kept with the model (`choose`), so that masks, methods, sizes and reports all
speak of the same weights, and a copy of the model takes it along.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.latent import effective_weight, latent_weight
from contest.training.device import cpu_convolutions

Choice = str | tuple[nn.Module | str, str]
"""A parameter's name, a module's name or prefix, a pattern such as `encoder.*`, or (module, parameter)."""
Choices = Sequence[Choice] | Callable[[nn.Module], Sequence[Choice]]
DEFAULT = "default"
"""Stands for the weights of convolutions and linear layers."""

_CHOSEN = "_prunable_names"
_SHOWN = 6


def prunable_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Convolutions (any dimension, grouped, transposed) and linear layers with a weight, in module order.

    A weight that several modules share comes once, under its first name. Quantised layers (Brevitas derives them from
    these classes) and layers under `torch.nn.utils.prune`, weight norm or a parametrization are included: their latent
    weight is the prunable one.
    """
    for name, (module, _) in _layers(model).items():
        yield name.rpartition(".")[0], module


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The prunable weights by the name of the layer's weight (`stem.conv.weight`), in module order.

    Raises UsageError, naming the layer, for a weight that is computed from parameters that do not stand for it.
    """
    own = {name: latent for name, (_, latent) in _layers(model).items()}
    chosen: tuple[str, ...] | None = getattr(model, _CHOSEN, None)
    if chosen is None:
        return own
    return {name: own[name] if name in own else model.get_parameter(name) for name in chosen}


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The prunable convolutions and linear layers by the name of their weight."""
    own = _layers(model)
    return {name: own[name][0] for name in getattr(model, _CHOSEN, own) if name in own}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The values that the prunable layers multiply with, detached: those of `prunable` unless a layer computes them."""
    own = layers(model)
    return {
        name: effective_weight(own[name]) if name in own else weight.detach()
        for name, weight in prunable(model).items()
    }


def _layers(model: nn.Module) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """Convolutions and linear layers with their latent weights, by the names of their weights."""
    found: dict[str, tuple[nn.Module, nn.Parameter]] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            continue
        latent = latent_weight(module, name)
        if latent is not None and id(latent) not in seen:
            seen.add(id(latent))
            found[f"{name}.weight" if name else "weight"] = (module, latent)
    return found


def choose(model: nn.Module, wanted: Choices = (DEFAULT,)) -> None:
    """Say which weights of `model` are prunable from now on; `default` among them keeps the usual ones.

    Embeddings, recurrent and attention matrices (`lstm.weight_hh_l0`, `attention.in_proj_weight`) can be named too; of
    a module all its matrices are taken.

    Raises:
        UsageError: a name fits nothing, or only a vector.
    """
    choices = wanted(model) if callable(wanted) else wanted
    if isinstance(choices, str):
        choices = (choices,)
    if tuple(choices) == (DEFAULT,):
        if hasattr(model, _CHOSEN):
            delattr(model, _CHOSEN)
        return
    usual = {name: latent for name, (_, latent) in _layers(model).items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    names |= {
        id(parameter): name for name, parameter in usual.items()
    }  # a layer's weight is called so, computed or not
    aliases = {name: names[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    aliases |= {name: name for name in usual}
    everything = {names[id(p)]: p for _, p in model.named_parameters()}
    modules = {id(module): name for name, module in model.named_modules()}
    taken: set[str] = set()
    for choice in choices:
        if choice == DEFAULT:
            taken |= set(usual)
            continue
        fitting = _fitting(choice, list(aliases), modules)
        matrices = {aliases[name] for name in fitting if everything[aliases[name]].dim() >= 2}
        if not matrices:
            text = choice if isinstance(choice, str) else f"({choice[0]}, {choice[1]!r})"
            why = "fits only vectors (biases, norms), which are not pruned" if fitting else "fits no parameter"
            known = ", ".join(name for name, p in everything.items() if p.dim() >= 2)
            raise UsageError(f"prunable '{text}' {why}; there are: {known}")
        taken |= matrices
    setattr(model, _CHOSEN, tuple(name for name in everything if name in taken))


def owner(model: nn.Module, name: str) -> nn.Module:
    """The module that holds the parameter called `name` (of a parametrization, the layer)."""
    parent = name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]
    return model.get_submodule(parent)


@dataclass(frozen=True)
class Coverage:
    """How much of a model can be pruned, and what cannot."""

    weights: int
    parameters: int
    left_out: tuple[tuple[str, str, int], ...]
    """(name, kind of its module, size) of the matrices that are not prunable."""
    vectors: int
    """Numbers in biases and norms."""

    def sentence(self) -> str:
        parts = [f"{name} ({kind}, {size:,})" for name, kind, size in self.left_out[:_SHOWN]]
        if len(self.left_out) > _SHOWN:
            parts.append(f"{len(self.left_out) - _SHOWN} more")
        parts.append(f"biases and norms ({self.vectors:,})")
        share = 100 * self.weights / max(self.parameters, 1)
        return (
            f"{share:.2f} % of all {self.parameters:,} parameters are prunable ({self.weights:,}); "
            f"left out: {', '.join(parts)}."
        )


def coverage(model: nn.Module) -> Coverage:
    """What part of the model is prunable."""
    chosen = prunable(model)
    ids = {id(parameter) for parameter in chosen.values()}
    others = [(name, p) for name, p in model.named_parameters() if id(p) not in ids]
    matrices = tuple((name, type(owner(model, name)).__name__, p.numel()) for name, p in others if p.dim() >= 2)
    vectors = sum(p.numel() for _, p in others if p.dim() < 2)
    return Coverage(
        sum(p.numel() for p in chosen.values()), sum(p.numel() for p in model.parameters()), matrices, vectors
    )


def require_prunable(model: nn.Module) -> Coverage:
    """The coverage; raises UsageError where nothing can be pruned."""
    found = coverage(model)
    if not found.weights:
        names = ", ".join(f"{name} ({kind})" for name, kind, _ in found.left_out[:_SHOWN]) or "only vectors"
        raise UsageError(
            "the model has no weight that can be pruned: convolutions and linear layers are by default, and it has "
            f"{names}; name some, as Task(prunable=(...)) or with --prunable"
        )
    return found


def _fitting(choice: Choice, names: list[str], modules: dict[int, str]) -> list[str]:
    if not isinstance(choice, str):
        module, parameter = choice
        if not isinstance(module, str):
            module = modules.get(id(module), "?")
        choice = f"{module}.{parameter}" if module else parameter
    return [n for n in names if n == choice or n.startswith(f"{choice}.") or fnmatchcase(n, choice)]


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Give the model and the random generators back bit for bit, whatever happens inside. Gradients are safe there.

    Parameters (objects, storages, values, dtypes), buffers, gradients, `requires_grad` and training flags
    of every module, and the states of Python's, NumPy's and torch's generators.
    """
    modules = [(module, module.training, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    parameters = [(p, p.data, p.data.clone(), p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.data, buffer.data.clone()) for buffer in model.buffers()]
    # What weight norm and the like left behind in the last forward pass: those inside leave other values and types.
    computed = [
        (module, weight) for module in model.modules() if isinstance(weight := vars(module).get("weight"), Tensor)
    ]
    with_dropout = [module for module in model.modules() if isinstance(module, nn.RNNBase | nn.MultiheadAttention)]
    dropouts = [(module, module.dropout) for module in with_dropout]
    python, numpy = random.getstate(), np.random.get_state()
    for parameter in model.parameters():
        parameter.grad = None  # out of reach: a cast of the model would cast its gradients too
    try:
        with torch.random.fork_rng(), cpu_convolutions(model):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for recurrent, dropout in dropouts:
            recurrent.dropout = dropout
        for module, weight in computed:
            module.__dict__["weight"] = weight
        with torch.no_grad():
            for module, training, own_parameters, own_buffers in modules:
                module.training = training
                module._parameters.update(own_parameters)
                module._buffers.update(own_buffers)
            for tensor, data, value in buffers:
                tensor.data = data
                tensor.copy_(value)
            for parameter, data, value, requires_grad, gradient in parameters:
                parameter.grad = None
                parameter.data = data
                parameter.copy_(value)
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
