"""Batches of any form: tensors, tuples and dictionaries of them go in; a tensor, a dictionary or an object comes out.

What a pruning method and the laboratory do with inputs and outputs stands here: give them to a model, count and
take samples, find the logits.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from contest.errors import UsageError

Inputs = Any
"""A tensor [N, ...], or a tuple, list or mapping of such; also targets."""
Outputs = Any
"""A tensor, or a tuple, list, mapping or object with tensors in it, such as one with `logits`."""
Batches = Iterable[tuple[Inputs, Inputs]]
"""(inputs, targets) pairs that can be gone through more than once: a list, a DataLoader."""
Loss = Callable[[Outputs, Inputs], Tensor]
"""(outputs, targets) -> a scalar, the mean over the batch."""


def forward(model: nn.Module, inputs: Inputs) -> Outputs:
    """The model's outputs. A mapping goes in by name, a tuple by position, where `forward` has such parameters."""
    if isinstance(inputs, Mapping):
        parameters = inspect.signature(model.forward).parameters
        free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if free or all(name in parameters for name in inputs):
            return model(**inputs)
    elif type(inputs) in (tuple, list):
        kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
        places = sum(
            kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds
        )
        if inspect.Parameter.VAR_POSITIONAL in kinds or places >= len(inputs) > 1:
            return model(*inputs)
    return model(inputs)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every tensor changed; what is no tensor stays."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(part, change) for part in value))
    if isinstance(value, tuple | list):
        return type(value)(mapped(part, change) for part in value)
    if isinstance(value, Mapping):
        found = copy.copy(value)
        for name, part in value.items():
            found[name] = mapped(part, change)  # type: ignore[index]
        return found
    if tensors(value):
        found = copy.copy(value)
        for name, part in vars(value).items():
            setattr(found, name, mapped(part, change))
        return found
    return value


def tensors(value: Any) -> list[Tensor]:
    """All tensors of a structure, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in tensors(part)]
    if isinstance(value, tuple | list):
        return [tensor for part in value for tensor in tensors(part)]
    if hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        return [tensor for part in vars(value).values() for tensor in tensors(part)]
    return []


def samples(inputs: Inputs) -> int:
    """How many samples: the first dimension of the first tensor."""
    for tensor in tensors(inputs):
        if tensor.dim():
            return len(tensor)
    raise UsageError(f"inputs are a {type(inputs).__name__} without a tensor of samples; give tensors [N, ...]")


def take(value: Inputs, start: int, stop: int) -> Any:
    """Samples `start` to `stop` of inputs or targets, copied."""
    return mapped(value, lambda tensor: tensor[start:stop].clone() if tensor.dim() else tensor)


def logits(outputs: Outputs) -> Tensor:
    """The tensor of outputs that predictions are made from: `logits` by name, or else the first one."""
    if isinstance(outputs, Tensor):
        return outputs
    named = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    found = [named] if isinstance(named, Tensor) else tensors(outputs)
    if not found:
        raise UsageError(f"the model's output is a {type(outputs).__name__} without a tensor; give Task a `predict`")
    return found[0]


def with_logits(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Any:
    """The same outputs with the logits changed."""
    wanted = logits(outputs)
    return mapped(outputs, lambda tensor: change(tensor) if tensor is wanted else tensor)


def predictions(outputs: Outputs) -> Tensor:
    """The largest output's class; with one output a sample, whether it is positive (1) or not (0)."""
    scores = logits(outputs)
    if scores.dim() < 2:
        return (scores > 0).long()
    return (scores[..., 0] > 0).long() if scores.shape[-1] == 1 else scores.argmax(-1)


def pair(batch: Any) -> tuple[Inputs, Inputs]:
    """(inputs, targets) of what a loader gives: a pair, (several inputs ..., targets), or a mapping with its labels.

    Raises:
        UsageError: it is something else.
    """
    if isinstance(batch, Mapping):
        for name in ("labels", "label", "targets", "target"):
            if name in batch:
                return {key: value for key, value in batch.items() if key != name}, batch[name]
        raise UsageError(f"a batch is a mapping of {', '.join(map(str, batch))}; its targets must be called labels")
    if isinstance(batch, tuple | list) and len(batch) >= 2:
        return (batch[0] if len(batch) == 2 else tuple(batch[:-1])), batch[-1]
    raise UsageError(f"a batch is a {type(batch).__name__}; it must be (inputs, targets)")


class Pairs:
    """The batches of any loader as (inputs, targets) on one device."""

    def __init__(self, loader: Iterable[Any], device: str = "cpu") -> None:
        self.loader, self.device = loader, device

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Any:
        for batch in self.loader:
            inputs, targets = pair(batch)
            yield self._moved(inputs), self._moved(targets)

    def _moved(self, value: Any) -> Any:
        device = torch.device(self.device)
        return mapped(value, lambda tensor: tensor if tensor.device == device else tensor.to(device))
