"""What a pruning method is, and how its scores become masks. Adding a method touches one file."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.masks import Masks, enforce, exact_k, kept, prunable

Batches = Iterable[tuple[Tensor, Tensor]]
"""(inputs, targets) pairs that can be gone through more than once: a list, a DataLoader."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> a scalar, the mean over the batch."""
Scores = dict[str, Tensor]
Score = Callable[[nn.Module, Batches, Loss], Mapping[str, Tensor]]
"""The higher a weight's score, the longer it lives."""


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Give the model and the random generators back bit for bit, whatever happens inside.

    Parameters (objects, storages, values, dtypes), buffers, gradients, `requires_grad` and training flags
    of every module, and the states of Python's, NumPy's and torch's generators.
    """
    modules = [(module, module.training, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    parameters = [(p, p.data, p.data.clone(), p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.data, buffer.data.clone()) for buffer in model.buffers()]
    python, numpy = random.getstate(), np.random.get_state()
    for parameter in model.parameters():
        parameter.grad = None  # out of reach: a cast of the model would cast its gradients too
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
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


@dataclass(frozen=True)
class Method:
    """A pruning method: how it scores, and in what steps and units its scores are used.

    Calling it scores a model and leaves the model as it was.
    """

    name: str
    score: Score
    what: str
    paper: str = ""
    when: Literal["before", "after"] = "after"
    """Whether it is made for a network before or after training."""
    uses_data: bool = False
    rounds: int = 1
    """Steps over which the density falls exponentially from 1 to the target, scoring anew in each."""

    def __call__(self, model: nn.Module, batches: Batches, loss: Loss) -> Scores:
        """Scores of every prunable weight, finite or -inf, same shapes; higher lives longer.

        Raises:
            UsageError: the method leaves a prunable weight out or gives a wrong shape.
        """
        with preserved(model):
            scores = {name: score.detach().clone() for name, score in self.score(model, batches, loss).items()}
        weights = prunable(model)
        for name, weight in weights.items():
            if name not in scores:
                raise UsageError(f"method '{self.name}' gave no score for '{name}'")
            if scores[name].shape != weight.shape:
                raise UsageError(
                    f"method '{self.name}' scored '{name}' with shape {tuple(scores[name].shape)}; "
                    f"the weight has {tuple(weight.shape)}"
                )
        return {name: scores[name] for name in weights}


_METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Enter a method under its name."""
    if method.name in _METHODS:
        raise UsageError(f"a pruning method called '{method.name}' exists already; choose another name")
    _METHODS[method.name] = method
    return method


def methods() -> dict[str, Method]:
    """All built-in and registered methods by name."""
    return dict(_METHODS)


def method(name: str | Method | Score) -> Method:
    """A method by name, or a user's `score(model, batches, loss)` as `package.module:function` or callable.

    Raises:
        UsageError: there is no such method, module or function.
    """
    if isinstance(name, Method):
        return name
    if not isinstance(name, str):
        return Method(getattr(name, "__name__", "custom"), name, "your own method", uses_data=True)
    if name in _METHODS:
        return _METHODS[name]
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"pruning method '{name}' cannot be imported: {error}") from error
        if isinstance(found, Method):
            return found
        if not callable(found):
            raise UsageError(f"pruning method '{name}' is not a function score(model, batches, loss)")
        return Method(name, found, "your own method", uses_data=True)
    raise UsageError(
        f"no pruning method is called '{name}'; there are {', '.join(sorted(_METHODS))}, "
        "or name your own as package.module:function"
    )


def prune(
    model: nn.Module,
    how: str | Method | Score,
    sparsity: float,
    *,
    batches: Batches = (),
    loss: Loss = nn.functional.cross_entropy,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Masks for `model` at a sparsity of all its prunable weights; the model itself stays as it is.

    Args:
        sparsity: fraction of prunable weights to remove, in [0, 1]. Exactly `kept(weights, sparsity)` live,
            also under methods that remove whole filters or channels: the last one goes in part, if need be.
        batches: (inputs, targets) on the model's device, for methods that use data.
        seed: of the torch generator inside the method; same seed, same masks.
        masks: weights pruned before; they stay dead and count as removed.

    Returns:
        A mask for every prunable weight. Apply them with `hold`.
    """
    chosen = method(how)
    weights = prunable(model)
    total = sum(weight.numel() for weight in weights.values())
    final = kept(total, sparsity)
    with preserved(model):
        torch.manual_seed(seed)
        alive: Masks = {} if masks is None else dict(masks)
        enforce(model, alive)
        begin = total - sum(int((~mask).sum()) for mask in alive.values())
        if final > begin:
            raise UsageError(
                f"sparsity {sparsity:g} keeps {final} weights, but the given masks leave only {begin} of {total}"
            )
        for step in range(1, chosen.rounds + 1):
            last = step == chosen.rounds or not final
            keep = final if last else round(begin * (final / begin) ** (step / chosen.rounds))
            scores = chosen(model, batches, loss)
            dead = {name: ~mask for name, mask in alive.items()}
            ranked = {
                name: score.masked_fill(dead[name].to(score.device), -torch.inf) if name in dead else score
                for name, score in scores.items()
            }
            alive = exact_k(ranked, keep)
            enforce(model, alive)
    return alive
