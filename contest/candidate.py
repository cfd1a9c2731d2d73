"""A candidate is plain data: everything that decides which network comes out of a training.

`Candidate.to_json` and `from_json` are exact inverses; the same candidate, data and seed give the same network.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from contest.errors import UsageError

Option = int | float | str | bool | tuple[int, ...]

_LATER: Mapping[str, Any] = {"later": True}
"""Metadata of a field that older files lack: `plain` leaves it out where it has its default, so that the keys of
studies, checkpoints and answers of teachers from before it still fit."""


def plain(instance: Any) -> dict[str, Any]:
    """A candidate or a part of it as plain data, without younger fields that have their defaults."""
    values = {field: getattr(instance, field.name) for field in dataclasses.fields(instance)}
    return {
        field.name: plain(value) if dataclasses.is_dataclass(value) else value
        for field, value in values.items()
        if not (field.metadata.get("later") and value == field.default)
    }


@dataclass(frozen=True)
class Architecture:
    """A network before compression: a family of `contest.networks` and its options.

    Options are plain data (numbers, strings, tuples of integers) and hold only what the caller chose;
    a family fills in its own defaults.
    """

    family: str
    options: Mapping[str, Option] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.family, tuple(sorted(self.options.items()))))

    def __str__(self) -> str:
        """As `contest train` takes it: `thin:depths=1-3,widths=32-64`."""
        options = ",".join(f"{key}={_written(value)}" for key, value in sorted(self.options.items()))
        return f"{self.family}:{options}" if options else self.family


def _written(value: Option) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Bits:
    """Bits of weights and activations: 1 to 8 quantised, 16 half precision, 32 float.

    `layers` overrides single layers by module name or prefix, or "first" and "last": `{"first": (8, 8), "fc": (4, 8)}`
    gives (weight bits, bits of the layer's input). The first layer takes the 8-bit image as it is unless an override
    asks for fewer bits. `numbers` are the bits of what is left of a batch norm behind a quantised layer, one multiplier
    and one shift a channel: 32, or 4 to 8 (integers and a scale). `symmetric`: weights of b bits, 1 to 7, are multiples
    from -2^(b-1) to 2^(b-1): a rule that counts nonzero weights has the 0 in its bitmask, so that b bits hold all
    others.
    """

    weights: int = 32
    activations: int = 32
    per_channel: bool = True
    layers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    numbers: int = 32
    symmetric: bool = field(default=False, metadata=_LATER)

    def __post_init__(self) -> None:
        for name, (weights, activations) in {"*": (self.weights, self.activations), **self.layers}.items():
            for kind, bits in (("weight", weights), ("activation", activations)):
                if bits not in (*range(1, 9), 16, 32):
                    raise UsageError(f"{kind} bits of '{name}' are {bits}; they must be 1 to 8, 16 or 32")

        if self.numbers not in (*range(4, 9), 32):
            raise UsageError(f"numbers have {self.numbers} bits; they must be 4 to 8 or 32")

    def __hash__(self) -> int:
        layers = tuple(sorted(self.layers.items()))
        return hash((self.weights, self.activations, self.per_channel, self.numbers, self.symmetric, layers))

    @property
    def quantised(self) -> bool:
        return self.weights <= 8 or any(weights <= 8 for weights, _ in self.layers.values())


@dataclass(frozen=True)
class Recipe:
    """One training run. Epochs may be fractions; a batch is a number of images."""

    epochs: float = 10.0
    batch_size: int = 256
    optimiser: Literal["sgd", "muon", "adamw"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "onecycle", "triangle", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    """Epochs of linear rise; `onecycle` and `triangle` have their own and take none besides."""
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    """Decay a step of the exponential moving average of the weights; 0 is none."""
    lookahead: float = field(default=0.0, metadata=_LATER)
    """Decay a step, at the end, of slow weights to which training returns every five steps; 0 is none."""
    norm_bias_rate: float = field(default=1.0, metadata=_LATER)
    """Factor on the learning rate of batch norms' biases; where it is not 1, they decay as fast as the weights do."""
    dampening: float = field(default=0.0, metadata=_LATER)
    """Largest pull of quantised weights to their grid, against weights that jump between two codes; it grows along a
    cosine from 0 (`contest.quantisation.dampen`). Without quantised weights it does nothing."""
    number_epochs: float = field(default=0.0, metadata=_LATER)
    """Of a quantised training's `epochs`, the last: weights stand still, and what is left of batch norms is trained as
    the file will hold it, in integers of few bits (`contest.model_file.numbers`). None where `Bits.numbers` is 32."""
    branches: bool = field(default=False, metadata=_LATER)
    """Train each 3x3 convolution with branches beside it, 1x1 and the identity, and fold them into it at the end
    (`contest.networks.branches`); for float trainings."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0 is no clipping."""
    flip: bool = True
    """Mirror half of the images, where the data set says that a mirrored image still shows its class."""
    alternate_flips: bool = field(default=False, metadata=_LATER)
    """Mirror each image in every second epoch instead of by chance: no two epochs in a row show the same one (Jordan
    2024, arXiv 2404.00498, section 3.6)."""
    crop: int = 4
    """Pixels of reflected padding for the random crop, of an image of 32 pixels and scaled to others; 0 is no crop."""
    cutout: int = 0
    """Side of the square that is cut out, in pixels of an image of 32 likewise; 0 is none."""
    mixup: float = 0.0
    cutmix: float = 0.0
    """Beta-distribution alpha of mixup and cutmix; 0 is none; both: one of the two for each batch."""
    distillation: float = 0.0
    """Weight of the teacher's soft targets in the loss (0 to 1); the labels have the rest."""
    temperature: float = 4.0
    taught_epochs: int = 0
    """The teacher answers for the very images, augmented and mixed, of so many epochs, and training goes round these;
    0: its answer for a plain image stands for all that augmentation makes of it. A teacher should see what its
    student sees (Beyer 2022, arXiv 2106.05237, section 3)."""


@dataclass(frozen=True)
class Candidate:
    """architecture -> train -> remove channels -> quantise -> mask and fine-tune."""

    architecture: Architecture
    bits: Bits = Bits()
    structured: float = 0.0
    """Fraction of channels' weights that structured pruning removes (p_s aimed at)."""
    unstructured: float = 0.0
    """p_u: zeros made by masks, as a fraction of the weights of the network before structured pruning."""
    train: Recipe = Recipe()
    """The float training."""
    tune: Recipe = Recipe(epochs=2.0, learning_rate=0.01, warmup_epochs=0.0)
    """Fine-tuning after channels were removed, and again (quantised, masks held) at the end."""
    seed: int = 0
    pruning: str = field(default="magnitude", metadata=_LATER)
    """The method of `contest.pruning` whose scores choose the zeros."""
    channels: str = field(default="l1", metadata=_LATER)
    """The importance by which channels are removed (`contest.pruning.structured`)."""
    tune_seed: int = field(default=0, metadata=_LATER)
    """Added to the seed of the tuning alone: seeds of one compression share their float training."""
    start: str = field(default="", metadata=_LATER)
    """The content (sha256, 16 digits) of a given float parent, which stands for the float training; empty: none."""
    ratios: tuple[tuple[str, float], ...] = field(default=(), metadata=_LATER)
    """Zeros inside single layers instead of p_u: names of weights, each with a fraction of what channels left of it."""

    def __post_init__(self) -> None:
        if not (0 <= self.structured < 1 and 0 <= self.unstructured < 1):
            raise UsageError(f"p_s = {self.structured} and p_u = {self.unstructured} must both lie in [0, 1)")
        if self.structured + self.unstructured >= 1:
            raise UsageError(
                f"p_s + p_u = {self.structured + self.unstructured:g}: both are fractions of the same weights "
                "and must add up to less than 1"
            )
        if self.ratios and self.unstructured:
            raise UsageError(f"p_u = {self.unstructured:g} and ratios of layers both say how many zeros; give one")
        for name, ratio in self.ratios:
            if not 0 <= ratio < 1:
                raise UsageError(f"the ratio of {name} is {ratio:g}; it must lie in [0, 1)")

    def to_json(self) -> str:
        """One line of JSON with sorted keys: equal candidates give equal text."""
        return json.dumps(plain(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Candidate:
        """The inverse of `to_json`. Raises UsageError for unknown keys or wrong values."""
        try:
            data = json.loads(text)
            return Candidate(
                architecture=_architecture(data.pop("architecture")),
                bits=_bits(data.pop("bits", {})),
                train=Recipe(**data.pop("train", {})),
                tune=Recipe(**data.pop("tune", {})),
                ratios=tuple((str(name), float(ratio)) for name, ratio in data.pop("ratios", ())),
                **data,
            )
        except KeyError as error:
            raise UsageError(f"not a candidate: it has no {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"not a candidate: {error}") from error

    @staticmethod
    def read(path: Path) -> Candidate:
        """The candidate in a file. Raises UsageError, which names the file, for any other content."""
        try:
            return Candidate.from_json(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{path}: not a candidate: no text ({error}); give a candidate.json of a search"
            ) from error
        except UsageError as error:
            raise UsageError(f"{path}: {error}; give a candidate.json of a search") from error


def _architecture(data: dict[str, Any]) -> Architecture:
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in data.get("options", {}).items()}
    return Architecture(data["family"], options)


def _bits(data: dict[str, Any]) -> Bits:
    layers = {name: (int(pair[0]), int(pair[1])) for name, pair in data.pop("layers", {}).items()}
    return Bits(**data, layers=layers)


def number_epochs(epochs: float) -> float:
    """How many of a tuning's epochs numbers of less than 8 bits have, where nothing else is said."""
    return round(min(0.5, 0.1 * epochs), 3)


def check(recipe: Recipe) -> None:
    """Raises UsageError for a number outside its range."""
    limits = {
        "epochs": (0, math.inf),
        "batch_size": (1, math.inf),
        "learning_rate": (0, math.inf),
        "momentum": (0, 1),
        "weight_decay": (0, math.inf),
        "warmup_epochs": (0, math.inf),
        "label_smoothing": (0, 1),
        "ema_decay": (0, 1),
        "lookahead": (0, 1),
        "norm_bias_rate": (0, math.inf),
        "dampening": (0, math.inf),
        "number_epochs": (0, recipe.epochs),
        "clip_norm": (0, math.inf),
        "crop": (0, math.inf),
        "cutout": (0, math.inf),
        "mixup": (0, math.inf),
        "cutmix": (0, math.inf),
        "distillation": (0, 1),
        "temperature": (1e-3, math.inf),
        "taught_epochs": (0, math.inf),
    }
    for name, (low, high) in limits.items():
        value = getattr(recipe, name)
        if not low <= value <= high or value == math.inf:
            raise UsageError(f"{name} is {value}; it must lie between {low:g} and {high:g}")
