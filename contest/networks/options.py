"""Options of a family are the keyword arguments of its function; their types and limits stand in its signature.

    def vgg(image_shape: ImageShape, classes: int, *, depth: Depth = 16, width: Factor = 1.0) -> nn.Module

`bind` checks what a caller chose against that signature, so that a family states its limits once and
every message has the same form: the option, its value, the limit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin, get_type_hints

from contest.candidate import Option
from contest.errors import UsageError


@dataclass(frozen=True)
class Limit:
    """Smallest and largest value of an option, both allowed; of every element where it is a tuple."""

    low: float
    high: float


ImageShape = tuple[int, int, int]
"""Channels, height, width."""
Width = Annotated[int, Limit(1, 8192)]
Widths = Annotated[tuple[int, ...], Limit(1, 8192)]
Depths = Annotated[tuple[int, ...], Limit(1, 256)]
Stride = Annotated[int, Limit(1, 8)]
Strides = Annotated[tuple[int, ...], Limit(1, 8)]
Kernel = Annotated[int, Limit(1, 15)]
Groups = Annotated[int, Limit(1, 8192)]
Expansion = Annotated[float, Limit(0.05, 16)]
Factor = Annotated[float, Limit(0.01, 16)]
Dropout = Annotated[float, Limit(0, 0.95)]
Activation = Literal["relu", "relu6", "hardswish"]


@dataclass(frozen=True)
class OptionSpec:
    """What a family says about one of its options."""

    name: str
    kind: Any
    """int, float, bool, str, or tuple (of integers)."""
    default: Option
    limit: Limit | None = None
    choices: tuple[Option, ...] = ()


@cache
def specs(family: Callable[..., Any]) -> Mapping[str, OptionSpec]:
    """The options of a family's function, read from its signature."""
    hints = get_type_hints(family, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(family).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        kind: Any = hints[name]
        limit: Limit | None = None
        choices: tuple[Any, ...] = ()
        if get_origin(kind) is Annotated:
            kind, limit = get_args(kind)[:2]
        if get_origin(kind) is Literal:
            choices = get_args(kind)
            kind = type(choices[0])
        found[name] = OptionSpec(name, get_origin(kind) or kind, parameter.default, limit, choices)
    return found


def bind(name: str, family: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` as keyword arguments for `family`, each of the type that the signature asks for.

    Raises UsageError for an option that does not exist, of a wrong type or outside its limits.
    """
    known = specs(family)
    for option in options:
        if option not in known:
            raise UsageError(f"'{name}' has no option '{option}'; it has {', '.join(known) or 'none'}")
    return {option: _checked(name, known[option], value) for option, value in options.items()}


def _checked(family: str, spec: OptionSpec, value: Any) -> Any:
    where = f"'{family}' option {spec.name} = {value!r}"
    if spec.kind is tuple:
        value = (value,) if isinstance(value, int) else value
        if not isinstance(value, (tuple, list)) or not all(_is_integer(element) for element in value):
            raise UsageError(f"{where}: must be integers, such as 16-32-64")
        elements = value = tuple(value)
    else:
        right = {
            int: _is_integer(value),
            float: _is_integer(value) or isinstance(value, float),
            bool: isinstance(value, bool),
            str: isinstance(value, str),
        }[spec.kind]
        if not right:
            raise UsageError(f"{where}: must be of type {spec.kind.__name__}")
        elements = (value,)
    if spec.choices and value not in spec.choices:
        raise UsageError(f"{where}: must be one of {', '.join(map(str, spec.choices))}")
    if spec.limit and not all(spec.limit.low <= element <= spec.limit.high for element in elements):
        raise UsageError(f"{where}: must lie between {spec.limit.low:g} and {spec.limit.high:g}")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def parse_options(text: str) -> dict[str, Option]:
    """`"depth=20,widths=16-32-64,shortcut=pad"` (or `widths=(16, 32, 64)`) as plain data."""
    options: dict[str, Option] = {}
    for part in _split(text):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UsageError(f"'{part.strip()}' in '{text}' is no option; write name=value,name=value")
        options[name.strip()] = _value(value.strip())
    return options


def _split(text: str) -> list[str]:
    """Split at the commas that are outside parentheses."""
    parts, level = [""], 0
    for character in text:
        level += (character == "(") - (character == ")")
        if character == "," and level == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def _value(text: str) -> Option:
    if text in ("True", "true", "False", "false"):
        return text in ("True", "true")
    if text.startswith("(") and text.endswith(")"):
        return tuple(_integer(part) for part in text[1:-1].split(",") if part.strip())
    if "-" in text[1:] and all(part.isdigit() for part in text.split("-")):
        return tuple(int(part) for part in text.split("-"))
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"'{text.strip()}' is no integer") from error


Value = int | float | str | bool


class Asks(Protocol):
    """What a space needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Draw:
    """One value to choose: from `choices`, or a number between `low` and `high`, both allowed.

    `step` makes it an integer on a grid; without it, it is a float (log-uniform with `log`), kept to two
    significant digits.
    """

    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: int = 0
    log: bool = False

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

    def beside(self, value: Value) -> list[Value]:
        """The neighbouring values: the next choices or grid points, a factor up and down for floats; of words all."""
        if any(isinstance(choice, str) for choice in self.choices):
            return [choice for choice in self.choices if choice != value]
        if self.choices or self.step:
            grid = self.grid()
            place = grid.index(self.nearest(value))
            return [grid[p] for p in (place - 1, place + 1) if 0 <= p < len(grid)]
        assert not isinstance(value, str)
        near = (self.nearest(value / 2), self.nearest(value * 2)) if self.log else (self.low, self.high)
        return [v for v in near if v != value]

    def middle(self) -> Value:
        if self.choices:
            return self.choices[len(self.choices) // 2]
        return self.nearest((self.low * self.high) ** 0.5 if self.log else (self.low + self.high) / 2)


def two_digits(value: float) -> float:
    return float(f"{value:.2g}")


FromDraws = Callable[[Mapping[str, Any]], dict[str, Option]]


@dataclass(frozen=True)
class Family:
    """One row: what builds a network, its options with their types and limits, and how a search draws them."""

    name: str
    function: Callable[..., Any]
    options: Mapping[str, OptionSpec]
    draws: Mapping[str, Draw] = field(default_factory=dict)
    from_draws: FromDraws = dict
    first: str = "first"
    """The layer that sees the image, and the one that gives the logits: names of modules, or what `Bits` calls them."""
    last: str = "last"
    not_searched: str = ""
    """Why a search cannot draw it; empty: it can."""
    by_default: bool = True
    """Whether a search takes it without being told to."""


# What the families of stages share. Widths: the first stage's channels, and by what each later one is wider.
_GROWTHS = (1.0, 1.5, 2.0, 2.5)
STAGED: Mapping[str, Draw] = {
    "width": Draw(low=4, high=32, step=2),
    "growth_2": Draw(_GROWTHS),
    "growth_3": Draw(_GROWTHS),
    "blocks_1": Draw(low=1, high=4, step=1),
    "blocks_2": Draw(low=1, high=4, step=1),
    "blocks_3": Draw(low=1, high=4, step=1),
    "stem_stride": Draw((1, 2)),
}
SHORTCUT: Mapping[str, Draw] = {"shortcut": Draw(("projection", "pad"))}


def staged(values: Mapping[str, Any]) -> dict[str, Option]:
    """Widths (multiples of 2: ratios keep every combination possible), depths and strides of three stages."""
    depths = [int(values[f"blocks_{stage}"]) for stage in (1, 2, 3)]
    return {**stages(stage_widths(values), depths, (1, 2, 2)), **stem_stride(values)}


def stages(widths: Sequence[int], depths: Sequence[int], strides: Sequence[int]) -> dict[str, Option]:
    """The options of those stages that have blocks (the first one where none has)."""
    kept = [place for place, depth in enumerate(depths) if depth] or [0]
    return {
        "widths": tuple(widths[place] for place in kept),
        "depths": tuple(max(1, depths[place]) for place in kept),
        "strides": tuple(strides[place] for place in kept),
    }


def stage_widths(values: Mapping[str, Any]) -> tuple[int, ...]:
    first = int(values["width"])
    second = 2 * round(first * values["growth_2"] / 2)
    return first, second, 2 * round(second * values["growth_3"] / 2)


def stem_stride(values: Mapping[str, Any]) -> dict[str, Option]:
    return {} if values["stem_stride"] == 1 else {"stem_stride": int(values["stem_stride"])}


def staged_with_shortcut(values: Mapping[str, Any]) -> dict[str, Option]:
    return {**staged(values), "shortcut": str(values["shortcut"])}


def derived(family: str, specs: Mapping[str, OptionSpec]) -> tuple[dict[str, Draw], FromDraws]:
    """Draws of a family that brings none, from the types, limits and defaults in its signature."""
    draws = {f"{family}_{spec.name}": draw for spec in specs.values() if (draw := _draw(spec)) is not None}

    def from_draws(values: Mapping[str, Any]) -> dict[str, Option]:
        return {
            spec.name: _option(spec, values[name])
            for spec in specs.values()
            if (name := f"{family}_{spec.name}") in values
        }

    return draws, from_draws


def _draw(spec: OptionSpec) -> Draw | None:
    if spec.choices:
        return Draw(tuple(c for c in spec.choices if not isinstance(c, tuple)))
    if spec.kind is bool:
        return Draw((False, True))
    if isinstance(spec.default, tuple):
        return Draw((0.0625, 0.125, 0.25, 0.5, 1.0)) if spec.default else None
    if isinstance(spec.default, str):
        return None
    if not spec.default:  # a switch of size: without it
        return None
    near = [spec.default / 2, spec.default, spec.default * 2]
    if spec.limit is not None:
        near = [min(max(v, spec.limit.low), spec.limit.high) for v in near]
    kind = int if spec.kind is int else float
    return Draw(tuple(sorted({kind(v) for v in near})))


def _option(spec: OptionSpec, value: Any) -> Option:
    if isinstance(spec.default, tuple):
        return tuple(max(1, round(v * value)) for v in spec.default)
    return spec.kind(value)  # type: ignore[no-any-return]
