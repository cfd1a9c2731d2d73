"""What is known of each data set by its name: a row of `known.toml`, or a `<name>.toml` of one's own. Without torch."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from contest.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Facts:
    """What is known of a data set before its images are read; None: the images or the networks say it."""

    name: str
    title: str
    """As people write it: `CIFAR-10`."""
    torchvision: str | None = None
    """The class of `torchvision.datasets` that downloads it."""
    image_shape: tuple[int, int, int] | None = None
    """(channels, height, width)."""
    classes: int | tuple[str, ...] | None = None
    """The names of the classes in the order of the labels, or their number."""
    flips: bool | None = None
    """Whether a mirrored image still shows its class; None: where images are in colour."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Of the training pixels in [0, 1], by channel; None: CIFAR-10's in colour, MNIST's in grey."""

    @property
    def number_of_classes(self) -> int | None:
        return len(self.classes) if isinstance(self.classes, tuple) else self.classes

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(mean, standard deviation) by channel, with which networks normalise their images."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)


@cache
def known() -> dict[str, Facts]:
    """Every data set that is known by name."""
    rows = tomllib.loads((Path(__file__).parent / "known.toml").read_text())
    return {name: _facts(name, row, "known.toml") for name, row in rows.items()}


def facts(name: str) -> Facts:
    """What is known of `name`; of a name that nobody knows, nothing else than it."""
    return known().get(name, Facts(name, name))


def names_help() -> str:
    """The help of an option that takes a data set."""
    return f"{', '.join(sorted(known()))}, or your own in --data."


def read_facts(name: str, path: Path) -> Facts:
    """A user's own `<name>.toml`: the keys of `known.toml`, without the table. Raises DataError for any other."""
    try:
        row = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"'{path}' is not a readable TOML file: {error}") from error
    return _facts(name, row, str(path))


_KINDS: dict[str, tuple[str, Any]] = {
    "title": ("a text", lambda v: isinstance(v, str)),
    "torchvision": ("the name of a class of torchvision.datasets", lambda v: isinstance(v, str)),
    "image_shape": ("[channels, height, width]", lambda v: _numbers(v, int, 1) and len(v) == 3),
    "classes": (
        "the names of the classes or their number",
        lambda v: (isinstance(v, int) and v > 1) or (isinstance(v, list) and all(isinstance(one, str) for one in v)),
    ),
    "flips": ("true or false", lambda v: isinstance(v, bool)),
    "mean": ("a number a channel", lambda v: _numbers(v, (int, float), 0)),
    "std": ("a number above 0 a channel", lambda v: _numbers(v, (int, float), 1e-6)),
}


def _numbers(value: object, kind: Any, least: float) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, kind) and one >= least for one in value)


def _facts(name: str, row: dict[str, Any], origin: str) -> Facts:
    for key, value in row.items():
        if key not in _KINDS:
            keys = [field.name for field in fields(Facts)][1:]
            raise DataError(f"'{origin}' has a key '{key}'{did_you_mean(key, keys)}; the keys are {', '.join(keys)}")
        wanted, fits = _KINDS[key]
        if not fits(value):
            raise DataError(f"'{origin}': {key} is {value!r}; it must be {wanted}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    made = Facts(name, **{"title": name} | values)
    channels = None if made.image_shape is None else made.image_shape[0]
    for key in ("mean", "std"):
        numbers = getattr(made, key)
        if numbers is not None and len(numbers) != (channels or len(numbers)):
            raise DataError(f"'{origin}': {key} has {len(numbers)} numbers for {channels} channels")
    if (made.mean is None) != (made.std is None) or (made.mean and made.std and len(made.mean) != len(made.std)):
        raise DataError(f"'{origin}': mean and std belong together, a number each for every channel")
    return made
