"""What the laboratory's options say in words: lists, compression ratios, trainings, files of ratios."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contest.errors import UsageError

if TYPE_CHECKING:
    from contest.lab import Training


def numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"'{text}' is not a list of numbers such as 0.5,0.9") from error


def names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def methods(text: str) -> tuple[str, ...]:
    """Methods with commas; `name:one=1,two=2` is one of them."""
    found: list[str] = []
    for part in names(text):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return tuple(found)


def ratios(ratios: str, sparsities: str, exponents: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """Compression ratios, however they were said: c itself, a sparsity 1 - 1/c, or an exponent with c = 10^e."""
    given = [
        name for name, text in (("--ratios", ratios), ("--sparsities", sparsities), ("--exponents", exponents)) if text
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} say the same thing; give one of them")
    if exponents:
        return tuple(10**exponent for exponent in numbers(exponents))
    if sparsities:
        found = numbers(sparsities)
        if not all(0 <= sparsity < 1 for sparsity in found):
            raise UsageError(f"--sparsities is {sparsities}; each must lie in [0, 1)")
        return tuple(round(1 / (1 - sparsity), 9) for sparsity in found)
    return numbers(ratios) or default


def training(text: str, default: Training) -> Training:
    """`epochs=2,optimiser=adam,learning_rate=0.001` over the experiment's own defaults."""
    types: dict[str, Callable[[str], Any]] = {"float": float, "bool": lambda text: text.lower() in ("1", "true", "yes")}
    kinds = {field.name: types.get(str(field.type), str) for field in dataclasses.fields(default)}
    chosen: dict[str, Any] = {}
    for part in names(text):
        name, separator, value = part.partition("=")
        if not separator or name not in kinds:
            raise UsageError(f"training option '{part}' is none of {', '.join(f'{known}=...' for known in kinds)}")
        try:
            chosen[name] = kinds[name](value)
        except ValueError as error:
            raise UsageError(f"training option {name}={value}: {error}") from error
    return dataclasses.replace(default, **chosen)


def ratios_of(path: Path) -> tuple[tuple[str, float], ...]:
    """The ratios of a file that the sensitivity experiment wrote."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["layers"]
        return tuple((str(name), float(ratio)) for name, ratio in found.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no file of ratios from `contest lab sensitivity`: {error!r}") from error
