"""What a pruning method is, and how its scores become masks. Adding a method touches one file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from contest.errors import UsageError, did_you_mean
from contest.pruning.masks import prunable
from contest.pruning.preserved import preserved

Batches = Iterable[tuple[Tensor, Tensor]]
"""(inputs, targets) pairs that can be gone through more than once: a list, a DataLoader."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> a scalar, the mean over the batch."""
Scores = dict[str, Tensor]
Score = Callable[[nn.Module, Batches, Loss], Mapping[str, Tensor]]
"""The higher a weight's score, the longer it lives."""


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
        f"no pruning method is called '{name}'{did_you_mean(name, _METHODS)}; there are {', '.join(sorted(_METHODS))}, "
        "or name your own as package.module:function"
    )
