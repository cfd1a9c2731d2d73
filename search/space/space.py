"""The space of candidates: named dimensions that any sampler asks for, and how their values become a candidate.

Dimensions are conditional: a family is asked only for its own. Values lie on grids, so that a repeated
candidate is recognised, and every combination can be built: what depends on another value is a ratio of it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from contest.candidate import Architecture, Bits, Candidate, Option, Recipe
from contest.errors import UsageError

Value = int | float | str | bool


class Asks(Protocol):
    """What a space needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Dimension:
    """One value to choose: from `choices`, or a number between `low` and `high`, both allowed.

    `step` makes it an integer on a grid; without it, it is a float (log-uniform with `log`), kept to two
    significant digits.
    """

    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: int = 0
    log: bool = False
    families: frozenset[str] = frozenset()
    """Families that have this dimension; empty: all."""

    def ask(self, name: str, trial: Asks) -> Value:
        if len(self.choices) == 1:
            return self.choices[0]
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        if self.step:
            return trial.suggest_int(name, int(self.low), int(self.high), step=self.step)
        return two_digits(trial.suggest_float(name, self.low, self.high, log=self.log))

    def grid(self) -> list[Value]:
        """Every allowed value, in order; of a float without a grid its two ends."""
        if self.choices:
            return list(self.choices)
        if self.step:
            return list(range(int(self.low), int(self.high) + 1, self.step))
        return [self.low, self.high]

    def nearest(self, value: Value) -> Value:
        """The allowed value nearest to `value`, for candidates that are brought in from outside."""
        if self.choices:
            if value in self.choices:
                return value
            numbers = [c for c in self.choices if not isinstance(c, str)]
            if isinstance(value, str) or len(numbers) < len(self.choices):
                return self.choices[0]
            return min(numbers, key=lambda choice: abs(choice - value))
        number = min(max(float(value), self.low), self.high)
        if self.step:
            return int(self.low) + round((number - self.low) / self.step) * self.step
        return two_digits(number)


def two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _of(*families: str) -> frozenset[str]:
    return frozenset(families)


_BITS = (2, 3, 4, 5, 6, 8)
_STAGED = _of("thin", "resnet", "dsresnet", "preact", "mobilenet")
_SHORTCUTS = _of("thin", "resnet", "dsresnet", "preact")
_DENSE = _of("densenet")

DIMENSIONS: Mapping[str, Dimension] = {
    "family": Dimension(("thin", "resnet", "dsresnet", "preact", "mobilenet", "densenet")),
    # Widths: the first stage's channels, and by what each later stage is wider than the one before.
    "width": Dimension(low=6, high=32, step=2, families=_STAGED),
    "growth_2": Dimension((1.0, 1.5, 2.0, 2.5), families=_STAGED),
    "growth_3": Dimension((1.0, 1.5, 2.0, 2.5), families=_STAGED),
    # Leave the full resolution right after the stem: there are no first stage's blocks then.
    "early": Dimension((False, True), families=_of("thin")),
    "blocks_1": Dimension(low=1, high=4, step=1, families=_STAGED),
    "blocks_2": Dimension(low=1, high=4, step=1, families=_STAGED),
    "blocks_3": Dimension(low=1, high=4, step=1, families=_STAGED),
    "shortcut": Dimension(("projection", "pad"), families=_SHORTCUTS),
    "thin_block": Dimension(("basic", "bottleneck", "inverted", "separable"), families=_of("thin")),
    "blocks_4": Dimension(low=0, high=3, step=1, families=_of("thin")),
    "growth_4": Dimension((1.0, 1.5, 2.0), families=_of("thin")),
    "expansion": Dimension((1.5, 2.0, 3.0, 4.0, 6.0), families=_of("mobilenet", "thin")),  # of inverted blocks
    "kernel": Dimension((3, 5), families=_of("mobilenet", "dsresnet")),
    "dense_growth": Dimension((4, 8, 12), families=_DENSE),
    "dense_layers": Dimension(low=3, high=12, step=1, families=_DENSE),
    "groups": Dimension((1, 2, 4), families=_DENSE),
    "stem_stride": Dimension((1, 2)),
    "structured": Dimension((0.0, 0.1, 0.2, 0.3, 0.4)),
    "sparsity": Dimension((0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)),
    "weight_bits": Dimension(_BITS),
    "activation_bits": Dimension(_BITS),
    # The later stages hold most weights, the first most activations: one bit more or less than the others.
    "shift_1": Dimension((0, 1)),
    "shift_3": Dimension((0, -1)),
    "first_bits": Dimension((5, 8)),  # of the first layer and of the image that it sees
    "last_bits": Dimension((4, 8)),
    "learning_rate": Dimension(low=0.05, high=0.6, log=True),
    "weight_decay": Dimension((1e-4, 2e-4, 5e-4, 1e-3)),
    "schedule": Dimension(("cosine", "onecycle")),
    "label_smoothing": Dimension((0.0, 0.05, 0.1)),
    "cutout": Dimension((0, 8)),
    "mixup": Dimension((0.0, 0.2)),
    "cutmix": Dimension((0.0, 1.0)),
    "ema_decay": Dimension((0.0,)),
    "tune_share": Dimension((0.35, 0.5, 0.65)),
    "tune_learning_rate": Dimension(low=0.01, high=0.2, log=True),
    "batch_size": Dimension((128,)),
    "flip": Dimension((True,)),
    "crop": Dimension((4,)),
}
"""The default space, made for 32x32 images. A value alone is fixed."""

SMALL_IMAGES: Mapping[str, Any] = {
    "family": ["resnet"],
    "width": {"low": 4, "high": 16, "step": 2},
    "blocks_1": [1, 2],
    "blocks_2": [1, 2],
    "blocks_3": [1, 2],
    "stem_stride": [1],
    "cutout": [0],
    "cutmix": [0.0],
    "flip": [False],
    "crop": [1],
    "batch_size": [64],
}
"""Changes for 8x8 images of digits, which a mirror turns into something else."""


@dataclass(frozen=True)
class Space:
    """Dimensions by name, in the order in which they are asked."""

    dimensions: Mapping[str, Dimension]

    def values(self, trial: Asks) -> dict[str, Value]:
        """Ask `trial` for the dimensions of the family that it chooses."""
        family = str(self.dimensions["family"].ask("family", trial))
        chosen: dict[str, Value] = {"family": family}
        for name, dimension in self.dimensions.items():
            if name != "family" and (not dimension.families or family in dimension.families):
                chosen[name] = dimension.ask(name, trial)
        return chosen

    def complete(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """`values` moved onto this space's grids; what is missing takes the middle of its dimension."""
        family = str(self.dimensions["family"].nearest(values.get("family", "resnet")))
        chosen: dict[str, Value] = {"family": family}
        for name, dimension in self.dimensions.items():
            if name == "family" or (dimension.families and family not in dimension.families):
                continue
            middle: Value = (
                dimension.choices[len(dimension.choices) // 2]
                if dimension.choices
                else (dimension.low + dimension.high) / 2
            )
            chosen[name] = dimension.nearest(values.get(name, middle))
        return chosen

    def asked(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The part of `values` that a sampler is asked for (dimensions with one value are not)."""
        return {n: v for n, v in values.items() if len(self.dimensions[n].choices) != 1}

    def narrow(self, changes: Mapping[str, Any]) -> Space:
        """Dimensions replaced: a list of choices, one value, or `{low=, high=, step=, log=}`.

        Raises UsageError for a dimension that does not exist or a value of the wrong form.
        """
        dimensions = dict(self.dimensions)
        for name, change in changes.items():
            if name not in dimensions:
                raise UsageError(f"the space has no dimension '{name}'; it has {', '.join(dimensions)}")
            dimensions[name] = _changed(name, dimensions[name], change)
        return Space(dimensions)


def _changed(name: str, old: Dimension, change: Any) -> Dimension:
    if isinstance(change, Mapping):
        try:
            new = replace(old, choices=(), **change)
        except TypeError as error:
            raise UsageError(f"space: {name} = {dict(change)}: use low, high, step and log") from error
        if not new.low <= new.high or (new.log and new.low <= 0):
            raise UsageError(f"space: {name}: low = {new.low} must not lie above high = {new.high} (log: above 0)")
        return new
    choices = tuple(change) if isinstance(change, list | tuple) else (change,)
    if not choices or not all(isinstance(choice, int | float | str | bool) for choice in choices):
        raise UsageError(f"space: {name} = {change!r}: give a value, a list of values or low and high")
    words = [choice for choice in old.choices if isinstance(choice, str)]
    for choice in choices if name != "family" else ():
        if (isinstance(choice, str) or words) and choice not in words:
            allowed = ", ".join(map(str, old.choices)) or f"{old.low:g} to {old.high:g}"
            raise UsageError(f"space: {name} = {choice!r} makes no network; in the default space it is {allowed}")
    if name == "family":
        unknown = [c for c in choices if c not in FAMILIES]
        if unknown:
            raise UsageError(f"space: family {unknown[0]!r} is not searched; choose from {', '.join(FAMILIES)}")
    return replace(old, choices=choices)


def read_space(path: Path) -> dict[str, Any]:
    """A space file (TOML): `dimension = value`, `[list]` or `{low=, high=, step=, log=}`."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"space file {path}: {error}") from error


def make_space(image_shape: tuple[int, int, int], changes: Mapping[str, Any]) -> Space:
    """The default space for images of that shape, narrowed by `changes`."""
    from contest.networks import families

    space = Space(DIMENSIONS)
    known = [f for f in FAMILIES if f in families()]
    space = space.narrow({"family": [f for f in space.dimensions["family"].choices if f in known]})
    if min(image_shape[1:]) < 16:
        space = space.narrow(SMALL_IMAGES)
    elif image_shape[0] == 1:
        space = space.narrow({"flip": [False], "crop": [2]})  # digits: a mirror makes other signs of them
    return space.narrow(changes)


def check_space(space: Space, changes: Mapping[str, Any]) -> None:
    """Raise UsageError for a narrowed dimension of which some value makes no candidate (17 bits, a sparsity of 2)."""
    for name in changes:
        dimension = space.dimensions[name]
        for value in dimension.choices or (dimension.low, dimension.high):
            to_candidate(space.complete({name: value}), epochs=10.0)


def _widths(v: Mapping[str, Any]) -> tuple[int, ...]:
    """Channels of the stages, multiples of 2; ratios keep every combination possible."""
    first = int(v["width"])
    second = 2 * round(first * v["growth_2"] / 2)
    return first, second, 2 * round(second * v["growth_3"] / 2)


def _stages(v: Mapping[str, Any]) -> dict[str, Option]:
    options: dict[str, Option] = {
        "widths": _widths(v),
        "depths": (int(v["blocks_1"]), int(v["blocks_2"]), int(v["blocks_3"])),
        "strides": (1, 2, 2),
    }
    if v["stem_stride"] != 1:
        options["stem_stride"] = int(v["stem_stride"])
    return options


def _resnet(v: Mapping[str, Any]) -> dict[str, Option]:
    return {**_stages(v), "shortcut": str(v["shortcut"])}


def _thin(v: Mapping[str, Any]) -> dict[str, Option]:
    options = {**_resnet(v), "block": str(v["thin_block"])}
    if v["thin_block"] == "inverted":
        options["expansion"] = float(v["expansion"])
    widths = list(_widths(v))
    depths, strides = [int(v["blocks_1"]), int(v["blocks_2"]), int(v["blocks_3"])], [1, 2, 2]
    if v["blocks_4"]:
        widths.append(2 * round(widths[-1] * v["growth_4"] / 2))
        depths.append(int(v["blocks_4"]))
        strides.append(2)
    if v["early"]:
        options["stem_width"] = widths[0]
        widths, depths, strides = widths[1:], depths[1:], strides[1:]
    return {**options, "widths": tuple(widths), "depths": tuple(depths), "strides": tuple(strides)}


def _dsresnet(v: Mapping[str, Any]) -> dict[str, Option]:
    return {**_resnet(v), "kernel": int(v["kernel"])}


def _densenet(v: Mapping[str, Any]) -> dict[str, Option]:
    options: dict[str, Option] = {
        "growth": int(v["dense_growth"]),
        "depths": (int(v["dense_layers"]),) * 3,
        "groups": int(v["groups"]),
    }
    if v["stem_stride"] != 1:
        options["stem_stride"] = int(v["stem_stride"])
    return options


def _mobilenet(v: Mapping[str, Any]) -> dict[str, Option]:
    return {
        **_stages(v),
        "stem_width": int(v["width"]),
        "expansion": float(v["expansion"]),
        "kernel": int(v["kernel"]),
        "head_width": 0,
    }


FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Option]]] = {
    "thin": _thin,
    "resnet": _resnet,
    "dsresnet": _dsresnet,
    "preact": _resnet,
    "mobilenet": _mobilenet,
    "densenet": _densenet,
}
"""How a family of `contest.networks` is made from values. A new family is a function here and its dimensions."""


def to_candidate(v: Mapping[str, Any], *, epochs: float, seed: int = 0) -> Candidate:
    """The candidate that `values` (of one family) stand for, trained for `epochs` in all."""
    base = Bits(int(v["weight_bits"]), int(v["activation_bits"]), numbers=8)
    architecture = Architecture(str(v["family"]), FAMILIES[str(v["family"])](v))
    first = max(base.weights, base.activations, int(v["first_bits"]))
    layers = {"stem": (first, first), "fc": _last(base, int(v["last_bits"]))}
    third = min(3, len(_depths(architecture))) - 1
    for stage, shift in ((0, int(v["shift_1"])), (third, int(v["shift_3"]))):
        if shift:
            layers[f"stages.{stage}"] = (_shifted(base.weights, shift), _shifted(base.activations, shift))
    structured = float(v["structured"])
    # Networks that lose channels are tuned twice, before and after quantisation.
    tune = whole(epochs * float(v["tune_share"]) / (2 if structured else 1), epochs)
    train = Recipe(
        epochs=whole(epochs - tune * (2 if structured else 1), epochs),
        batch_size=int(v["batch_size"]),
        learning_rate=float(v["learning_rate"]),
        weight_decay=float(v["weight_decay"]),
        schedule=v["schedule"],
        warmup_epochs=round(min(1.0, 0.1 * epochs), 2),
        label_smoothing=float(v["label_smoothing"]),
        ema_decay=float(v["ema_decay"]),
        flip=bool(v["flip"]),
        crop=int(v["crop"]),
        cutout=int(v["cutout"]),
        mixup=float(v["mixup"]),
        cutmix=float(v["cutmix"]),
    )
    return Candidate(
        architecture=architecture,
        bits=replace(base, layers=layers),
        structured=structured,
        unstructured=round(float(v["sparsity"]) * (1 - structured), 4),
        train=train,
        tune=replace(train, epochs=tune, learning_rate=float(v["tune_learning_rate"]), warmup_epochs=0.0, cutout=0),
        seed=seed,
    )


def _depths(architecture: Architecture) -> tuple[int, ...]:
    depths = architecture.options["depths"]
    assert isinstance(depths, tuple)
    return depths


def whole(epochs: float, total: float) -> float:
    """Whole epochs, at least one, where a training has several; it is paused and shown after each."""
    return float(max(1, round(epochs))) if total >= 4 else round(epochs, 2)


def _last(base: Bits, bits: int) -> tuple[int, int]:
    return max(base.weights, bits), max(base.activations, bits)


def _shifted(bits: int, shift: int) -> int:
    return min(8, max(2, bits + shift))
