"""The compression settings that a float parent can be given, and what each costs: the pool from which children come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from contest.candidate import Candidate
from contest.errors import ContestError
from contest.networks.options import Value
from search.space.candidates import compressed
from search.space.space import Space
from search.study.trial import TrialPrice
from search.trainers.protocol import Trainer

FILE_OVERHEAD = 1.02
"""A network's file costs up to so many times what its price before training says."""
UNEQUAL = 1
"""Weights and inputs differ by at most so many bits: an operation costs what the wider of the two has."""


@dataclass(frozen=True)
class Setting:
    """A child that could be trained: the values of its compression, the candidate, and its price before training."""

    values: Mapping[str, Value]
    candidate: Candidate
    price: TrialPrice


class Pool:
    """Settings for one parent, priced once.

    Args:
        parent: the float candidate; its children share its architecture, recipe and seed.
        values: all dimensions of the parent; its own compression settings are the centre from which others differ.
        tune_epochs: of the children.
    """

    def __init__(
        self, space: Space, trainer: Trainer, parent: Candidate, values: Mapping[str, Value], tune_epochs: float
    ) -> None:
        self._space, self._trainer, self._parent, self._epochs = space, trainer, parent, tune_epochs
        self._values = dict(values)
        self._known: dict[tuple[Value, ...], Setting | None] = {}
        self.names = [name for name in space.compression if name in self._values]

    def setting(self, values: Mapping[str, Value]) -> Setting | None:
        """The child with these values; None if the network cannot be built so."""
        key = tuple(values[name] for name in self.names)
        if key not in self._known:
            whole = {**self._values, **{name: values[name] for name in self.names}}
            try:
                candidate = compressed(self._parent, whole, tune_epochs=self._epochs)
                self._known[key] = Setting(whole, candidate, self._trainer.price(candidate))
            except (ContestError, ValueError, RuntimeError):
                self._known[key] = None
        return self._known[key]

    def grid(self) -> list[Setting]:
        """Bits of weights, of inputs and zeros in all sensible combinations, the rest as the parent has it."""
        dimensions = self._space.dimensions
        found = []
        for weights in self._choices("weight_bits"):
            for inputs in self._choices("activation_bits"):
                if abs(int(weights) - int(inputs)) > UNEQUAL and len(dimensions["activation_bits"].grid()) > 1:
                    continue
                for zeros in self._choices("sparsity"):
                    chosen = {"weight_bits": weights, "activation_bits": inputs, "sparsity": zeros}
                    found.append(self.setting({**self._values, **chosen}))
        return [setting for setting in found if setting is not None]

    def around(self, centres: Sequence[Setting]) -> list[Setting]:
        """Settings one step in one dimension away from one of `centres`."""
        found = [self.setting(values) for centre in centres for values in self._steps(centre.values)]
        return [setting for setting in found if setting is not None]

    def _steps(self, values: Mapping[str, Value]) -> Iterator[dict[str, Value]]:
        for name in self.names:
            for value in self._space.dimensions[name].beside(values[name]):
                yield {**values, name: value}

    def _choices(self, name: str) -> list[Value]:
        return self._space.dimensions[name].grid() if name in self.names else [self._values.get(name, 0)]


def with_length(setting: Setting, epochs: float) -> Setting:
    """The same setting tuned for `epochs`."""
    rounds = 2 if setting.candidate.structured else 1  # before and after quantisation
    tune = replace(setting.candidate.tune, epochs=epochs / rounds)
    return replace(setting, candidate=replace(setting.candidate, tune=tune))
