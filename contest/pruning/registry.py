"""What a pruning method is, and which there are. Adding a method touches one file.

A method's hyperparameters are a frozen dataclass. Its fields are options of the method's name, on the command line
and wherever a method is named: `grasp:temperature=100`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from contest.errors import UsageError, did_you_mean
from contest.pruning.batches import Batches, Loss, take
from contest.pruning.prunable import preserved, prunable, require_prunable

Scores = dict[str, Tensor]
Score = Callable[[nn.Module, Batches, Loss], Mapping[str, Tensor]]
"""The higher a weight's score, the longer it lives."""
ScoreWith = Callable[[nn.Module, Batches, Loss, Any], Mapping[str, Tensor]]
"""The same, with the method's hyperparameters."""
TRIED_SAMPLES = 8


@dataclass(frozen=True)
class Method:
    """A pruning method: how it scores, and in what steps and units its scores are used.

    Calling it scores a model and leaves the model as it was.
    """

    name: str
    score: Score | ScoreWith
    """Takes the hyperparameters as a fourth argument where the method has some."""
    what: str
    paper: str = ""
    when: Literal["before", "after"] = "after"
    """Whether it is made for a network before or after training."""
    uses_data: bool = False
    hyperparameters: Any = None
    """An instance of a frozen dataclass. Its field `rounds`, if any, is the number of steps over which the density
    falls exponentially from 1 to the target, scoring anew in each."""

    @property
    def rounds(self) -> int:
        return int(getattr(self.hyperparameters, "rounds", 1))

    @property
    def options(self) -> dict[str, Any]:
        """The hyperparameters by name, with their values."""
        return {f.name: getattr(self.hyperparameters, f.name) for f in fields(self.hyperparameters or _Nothing())}

    def with_options(self, given: Mapping[str, str | float]) -> Method:
        """The same method with other hyperparameters; each is read as the type of its default.

        Raises:
            UsageError: there is no such option, or its value is of another type.
        """
        known, chosen = self.options, {}
        for name, value in given.items():
            if name not in known:
                there = ", ".join(known) or "none"
                raise UsageError(f"pruning method '{self.name}' has no option '{name}'; there are: {there}")
            try:
                chosen[name] = type(known[name])(value)
            except ValueError as error:
                kind = type(known[name]).__name__
                raise UsageError(
                    f"pruning method '{self.name}' option {name} is '{value}'; it must be {kind}"
                ) from error
        return replace(self, hyperparameters=replace(self.hyperparameters, **chosen)) if chosen else self

    def __call__(self, model: nn.Module, batches: Batches, loss: Loss) -> Scores:
        """Scores of every prunable weight, finite or -inf, same shapes; higher lives longer.

        Raises:
            UsageError: the method leaves a prunable weight out or gives a wrong shape.
        """
        more = () if self.hyperparameters is None else (self.hyperparameters,)
        with preserved(model), differentiable_twice(model):
            found = self.score(model, batches, loss, *more)
            scores = {name: score.detach().clone() for name, score in found.items()}
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

    def obstacle(self, model: nn.Module, batches: Batches, loss: Loss) -> str:
        """Why this method cannot score this model, in one sentence, or nothing: tried on a few samples of one batch."""
        require_prunable(model)
        few = [(take(x, 0, TRIED_SAMPLES), take(y, 0, TRIED_SAMPLES)) for x, y in _first(batches)]
        try:
            scores = self(model, few, loss)
        except UsageError as error:
            return str(error)
        except Exception as error:  # a model or a method of anyone's may raise anything; it must not end the others
            line = str(error).strip().partition("\n")[0]
            return f"{self.name} cannot score this model: {type(error).__name__}: {line}"
        if any(bool(score.isnan().any()) for score in scores.values()):
            return f"{self.name} gives scores that are no numbers on this model"
        if len(scores) and not any(bool(score.count_nonzero()) for score in scores.values()):
            return f"{self.name} gives every weight of this model the score 0, so that it ranks nothing"
        return ""


@dataclass(frozen=True)
class _Nothing:
    """The hyperparameters of a method without any."""


def _first(batches: Batches) -> Batches:
    for batch in batches:
        return [batch]
    return []


@contextmanager
def differentiable_twice(model: nn.Module) -> Iterator[None]:
    """Attention and recurrent layers run through kernels that have second derivatives, not through the fused ones."""
    fused: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [library.enabled for library in fused]
    try:
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            for library in fused:
                library.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for library, enabled in zip(fused, before, strict=True):
            library.enabled = enabled


_METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Enter a method under its name."""
    if method.name in _METHODS:
        raise UsageError(f"a pruning method called '{method.name}' exists already; choose another name")
    _METHODS[method.name] = method
    return method


def methods() -> dict[str, Method]:
    """All built-in and registered methods by name, in the order of the alphabet."""
    return dict(sorted(_METHODS.items()))


def method(name: str | Method | Score) -> Method:
    """A method by name, with options if need be (`grasp:temperature=100`), or a user's own.

    A user's is a function `score(model, batches, loss)`, or a `Method`, as `package.module:function` or itself.

    Raises:
        UsageError: there is no such method, option, module or function.
    """
    if isinstance(name, Method):
        return name
    if not isinstance(name, str):
        return Method(getattr(name, "__name__", "custom"), name, "your own method", uses_data=True)
    head, separator, tail = name.partition(":")
    if head in _METHODS:
        return _METHODS[head].with_options(_options(name, tail)) if separator else _METHODS[head]
    if separator:
        try:
            found = getattr(importlib.import_module(head), tail)
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


def _options(name: str, text: str) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    for part in text.split(","):
        key, separator, value = part.partition("=")
        if not separator:
            raise UsageError(f"pruning method '{name}': options are given as name=value, not '{part}'")
        found[key.strip()] = value.strip()
    return found
