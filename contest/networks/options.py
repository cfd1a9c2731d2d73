"""Options of a family are the keyword arguments of its function; their types and limits stand in its signature.

    def vgg(image_shape: ImageShape, classes: int, *, depth: Depth = 16, width: Factor = 1.0) -> nn.Module

`bind` checks what a caller chose against that signature, so that a family states its limits once and
every message has the same form: the option, its value, the limit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

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
