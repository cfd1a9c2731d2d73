"""The space of candidates: named dimensions that any sampler asks for, and how their values become a candidate.

Dimensions are conditional: a family is asked only for its own. Values lie on grids, so that a repeated
candidate is recognised, and every combination can be built: what depends on another value is a ratio of it.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from contest.errors import UsageError
from contest.networks.options import Asks, Draw, Value
from contest.networks.registry import family_rows

Part = Literal["architecture", "recipe", "compression"]

_BITS = (1, 2, 3, 4, 5, 6, 8)

RECIPE: Mapping[str, Draw] = {
    "optimiser": Draw(("muon", "sgd")),  # in this order: whoever says nothing (a study of before) has SGD
    "learning_rate": Draw(low=0.05, high=0.6, log=True),
    "weight_decay": Draw((1e-4, 2e-4, 3e-4, 5e-4, 1e-3)),
    "schedule": Draw(("cosine", "onecycle")),
    "label_smoothing": Draw((0.0, 0.05, 0.1)),
    "cutout": Draw((0, 8)),
    "mixup": Draw((0.0, 0.2)),
    "cutmix": Draw((0.0, 1.0)),
    "ema_decay": Draw((0.0, 0.98, 0.995, 0.999)),
    "batch_size": Draw((64, 128)),
    "branches": Draw((False,)),  # beside each 3x3 convolution while it trains: twice the time on a CPU
    "flip": Draw((True,)),
    "crop": Draw((4,)),
    # With a teacher: the weight of its soft labels, and the temperature at which they are given. Without one: none.
    "distillation": Draw((0.0,)),
    "temperature": Draw((3.0,)),
    "taught_epochs": Draw((0,)),  # of augmented images for which the teacher answers
}
"""How a float parent is trained: a row for each field of `contest.candidate.Recipe` that a search chooses."""

TAUGHT: Mapping[str, Any] = {"distillation": [0.0, 0.5, 0.7, 0.9], "temperature": [2.0, 3.0, 4.0, 6.0]}
"""Changes where a study has a teacher."""

COMPRESSION: Mapping[str, Draw] = {
    "structured": Draw((0.0, 0.1, 0.2, 0.3, 0.4)),
    "sparsity": Draw((0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
    "pruning": Draw(("magnitude",)),  # whose scores choose the zeros; every method of contest.pruning
    "channels": Draw(("l1", "l2", "bn")),  # the importance by which channels are removed
    "weight_bits": Draw(_BITS),
    "activation_bits": Draw(_BITS[1:]),
    # The later stages hold most weights, the first most activations: one bit more or less than the others.
    "shift_1": Draw((0, 1)),
    "shift_3": Draw((0, -1)),
    "depthwise_shift": Draw((0, 1, 2)),  # depthwise layers have fewest weights and lose most at few bits
    "widen_shift": Draw((-1, 0)),  # the 1x1 layers before them, and after them
    "narrow_shift": Draw((-1, 0)),
    "symmetric": Draw((False, True)),  # weights from -2^(b-1) to 2^(b-1): where zeros are free, one level more
    "first_bits": Draw((2, 3, 4, 5, 6, 8)),  # of the first layer and of the image that it sees
    "last_bits": Draw((2, 3, 4, 6, 8)),
    "number_bits": Draw((8, 32)),  # of what batch norms leave behind; 4 to 7 are for --fix
    # Fields of the tuning's recipe, by their names behind `tune_`.
    "tune_learning_rate": Draw(low=0.005, high=0.3, log=True),
    "tune_dampening": Draw((0.0,)),
    "tune_share": Draw((0.1, 0.15, 0.25, 0.35, 0.5, 0.65)),
}
"""What is done to a float parent: its children differ in these."""

SMALL_IMAGES: Mapping[str, Any] = {
    "family": ["thin", "resnet"],
    "width": {"low": 2, "high": 16, "step": 2},
    "thin_block": ["basic"],
    "blocks_1": [1, 2],
    "blocks_2": [1, 2],
    "blocks_3": [0, 1, 2],
    "blocks_4": [0],
    "opposites": ["none"],
    "tail": ["block"],
    "pool_shortcut": [False],
    "cutout": [0],
    "mixup": [0.0],
    "cutmix": [0.0],
    "flip": [False],
    "crop": [1],
    "batch_size": [64],
    "depthwise_shift": [0],
    "widen_shift": [0],
    "narrow_shift": [0],
}
"""Changes for 8x8 images of digits, which a mirror turns into something else."""


@dataclass(frozen=True)
class Dimension:
    """A draw, what part of a candidate it decides, and the families that have it (empty: all)."""

    draw: Draw
    part: Part
    families: frozenset[str] = frozenset()

    def of(self, family: str) -> bool:
        return not self.families or family in self.families


@dataclass(frozen=True)
class Space:
    """Dimensions by name, in the order in which they are asked."""

    parts: Mapping[str, Dimension]
    side: int = 32
    """The shorter side of the images."""

    @cached_property
    def dimensions(self) -> dict[str, Draw]:
        return {name: dimension.draw for name, dimension in self.parts.items()}

    @cached_property
    def compression(self) -> list[str]:
        return [name for name, dimension in self.parts.items() if dimension.part == "compression"]

    @cached_property
    def architecture(self) -> list[str]:
        return [name for name, dimension in self.parts.items() if dimension.part == "architecture"]

    def of(self, family: str) -> list[str]:
        """The dimensions that `family` is asked for, without the family itself."""
        return [name for name, dimension in self.parts.items() if name != "family" and dimension.of(family)]

    def values(self, trial: Asks) -> dict[str, Value]:
        """Ask `trial` for the dimensions of the family that it chooses."""
        family = str(self.dimensions["family"].ask("family", trial))
        return {"family": family, **{name: self.dimensions[name].ask(name, trial) for name in self.of(family)}}

    def complete(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """`values` moved onto this space's grids; what is missing takes the middle of its dimension."""
        draws = self.dimensions
        family = str(draws["family"].nearest(values.get("family", "resnet")))
        return {
            "family": family,
            **{n: draws[n].nearest(values[n]) if n in values else draws[n].middle() for n in self.of(family)},
        }

    def asked(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The part of `values` that a sampler is asked for (dimensions with one value are not)."""
        return {n: v for n, v in values.items() if len(self.dimensions[n].choices) != 1}

    def narrow(self, changes: Mapping[str, Any]) -> Space:
        """Dimensions replaced: a list of choices, one value, or `{low=, high=, step=, log=}`.

        Raises UsageError for a dimension that does not exist or a value of the wrong form.
        """
        parts = dict(self.parts)
        for name, change in changes.items():
            if name not in parts:
                raise UsageError(f"the space has no dimension '{name}'; it has {', '.join(parts)}")
            parts[name] = replace(parts[name], draw=_changed(name, parts[name].draw, change))
        return Space(parts, self.side)


def _changed(name: str, old: Draw, change: Any) -> Draw:
    if isinstance(change, Mapping):
        return _range(name, old, change)
    choices = tuple(change) if isinstance(change, list | tuple) else (change,)
    if not choices or not all(isinstance(choice, int | float | str | bool) for choice in choices):
        raise UsageError(f"space: {name} = {change!r}: give a value, a list of values or low and high")
    if name == "family":
        rows = family_rows()
        for choice in choices:
            if choice not in rows or rows[str(choice)].not_searched:
                why = rows[str(choice)].not_searched if choice in rows else "no family is called so"
                known = ", ".join(n for n, row in rows.items() if not row.not_searched)
                raise UsageError(f"space: family {choice!r} is not searched ({why}); choose from {known}")
    return replace(old, choices=tuple(dict.fromkeys(_of_kind(name, old, choice) for choice in choices)))


def _range(name: str, old: Draw, change: Mapping[str, Any]) -> Draw:
    whole = _whole(old)
    try:
        new = replace(old, choices=(), **{"step": old.step or int(whole), **change})
    except TypeError as error:
        raise UsageError(f"space: {name} = {dict(change)}: use low, high, step and log") from error
    numbers = [new.low, new.high]
    if any(isinstance(choice, str | bool) for choice in old.choices):
        allowed = ", ".join(map(str, old.choices))
        raise UsageError(f"space: {name} = {dict(change)}: it has no numbers; give values of {allowed}")
    if (
        not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)
        or not new.low <= new.high
        or (new.log and new.low <= 0)
    ):
        raise UsageError(f"space: {name}: low = {new.low} must not lie above high = {new.high} (log: above 0)")
    if "step" in change and not (isinstance(new.step, int) and new.step >= 1):
        raise UsageError(f"space: {name}: step = {new.step} must be a whole number from 1; leave it out for 1 or none")
    if new.step and any(n != int(n) for n in numbers):
        raise UsageError(
            f"space: {name}: low = {new.low} and high = {new.high} must be whole numbers, as its steps are"
        )
    return new


def _whole(draw: Draw) -> bool:
    """Whether only whole numbers are drawn."""
    return bool(draw.step) or (
        bool(draw.choices) and all(isinstance(c, int) and not isinstance(c, bool) for c in draw.choices)
    )


TRUTHS: Mapping[str, bool] = {"true": True, "false": False, "1": True, "0": False}
"""How a dimension that is on or off is written."""


def _of_kind(name: str, old: Draw, choice: Value) -> Value:
    """A choice as its dimension has them: on or off, a (whole) number, or a text that is known where texts are.

    Raises UsageError for any other.
    """
    words = [known for known in old.choices if isinstance(known, str)]
    if name == "family":
        return choice
    if name == "pruning" and str(choice).partition(":")[0] in words:
        from contest.pruning import method  # here, since it imports torch

        method(str(choice))  # raises for an option that it does not have
        return choice
    if words:
        if choice in words:
            return choice
    elif old.choices and all(isinstance(known, bool) for known in old.choices):
        if (truth := TRUTHS.get(str(choice).lower())) is not None:
            return truth
    elif isinstance(choice, int | float) and not isinstance(choice, bool) and math.isfinite(choice):
        if not _whole(old):
            return choice
        if choice == int(choice):
            return int(choice)
    if not old.choices:
        allowed = f"{old.low:g} to {old.high:g}"
    else:
        allowed = ", ".join(str(c).lower() if isinstance(c, bool) else str(c) for c in old.choices)
    kind = "whole numbers, " if _whole(old) else ""
    raise UsageError(f"space: {name} = {choice!r} makes no network; in the default space it is {kind}{allowed}")


def read_space(path: Path) -> dict[str, Any]:
    """A space file (TOML): `dimension = value`, `[list]` or `{low=, high=, step=, log=}`."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"space file {path}: {error}") from error


def whole_space() -> Space:
    """Every dimension there is: a loop over the families' rows, then the recipe and the compression."""
    from contest.pruning import methods  # here, since it imports torch

    rows = {name: row for name, row in family_rows().items() if not row.not_searched}
    parts = {"family": Dimension(Draw(tuple(n for n, row in rows.items() if row.by_default)), "architecture")}
    for name, row in rows.items():
        for dimension, draw in row.draws.items():
            known = parts.get(dimension)
            families = (known.families if known else frozenset()) | {name}
            parts[dimension] = Dimension(known.draw if known else draw, "architecture", families)
    parts |= {name: Dimension(draw, "recipe") for name, draw in RECIPE.items()}
    parts |= {name: Dimension(draw, "compression") for name, draw in COMPRESSION.items()}
    others = sorted(set(methods()) - {"magnitude"})
    parts["pruning"] = Dimension(Draw(("magnitude", *others)), "compression")
    return Space(parts)


def make_space(image_shape: tuple[int, int, int], changes: Mapping[str, Any], *, taught: bool = False) -> Space:
    """The default space for images of that shape, narrowed by `changes`; `taught`: there is a teacher."""
    space = Space(whole_space().parts, min(image_shape[1:]))
    if min(image_shape[1:]) < 16:
        space = space.narrow(SMALL_IMAGES)
    elif image_shape[0] == 1:
        space = space.narrow({"flip": [False], "crop": [2]})  # digits: a mirror makes other signs of them
    return space.narrow(TAUGHT if taught else {}).narrow(changes)
