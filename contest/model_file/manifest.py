"""The manifest of a model file: what is needed to rebuild the network, and what is claimed about it.

It comes from strangers, so every field has a type and a limit, and nothing in it names code.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from contest.candidate import Architecture
from contest.errors import RefusedError

FORMAT = "contest-model"
VERSION = 1

MAX_LAYERS = 2_000
MAX_CHANNELS = 16_384
MAX_ELEMENTS = 200_000_000
MAX_TEXT = 200
MAX_MANIFEST_BYTES = 2_000_000

Name = Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-/]*$")]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Value = bool | int | float | Text | tuple[int, ...]


class Strict(BaseModel):
    """Unknown keys are refused and values are not converted from other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LayerSpec(Strict):
    """One convolution, linear layer or batch norm as it is after pruning and quantisation.

    A batch norm is `affine`, or `folded` where the layer before it has taken its multiplier and shift into step and
    bias. `number_bits` are those of step and bias: 8 are stored as integers and one scale.
    """

    kind: Literal["conv", "linear", "affine", "folded"]
    outputs: Channels
    inputs: Channels = 1
    groups: Channels = 1
    kernel: Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(max_length=2)] = Field(default_factory=list)
    bias: bool = False
    weight_bits: Annotated[int, Field(ge=1, le=32)] = 32
    per_channel: bool = False
    number_bits: Literal[8, 32] = 32
    input_bits: Annotated[int, Field(ge=1, le=8)] | None = None
    input_signed: bool = False
    stored: Literal["float32", "float16"] = "float32"

    @field_validator("weight_bits")
    @classmethod
    def _known_bits(cls, bits: int) -> int:
        if bits not in (*range(1, 9), 16, 32):
            raise ValueError(f"weight_bits is {bits}; it must be 1 to 8, 16 or 32")
        return bits

    @model_validator(mode="after")
    def _short_numbers_of_codes(self) -> Self:
        if self.number_bits == 8 and self.weight_bits > 8:
            raise ValueError(f"number_bits is 8 with weight_bits {self.weight_bits}; only quantised layers have them")
        return self

    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight: [outputs, inputs / groups, *kernel]."""
        return (self.outputs, self.inputs // self.groups, *self.kernel)

    def shape_text(self) -> str:
        return f"{self.inputs} -> {self.outputs}" + (f", groups={self.groups}" if self.groups > 1 else "")


class Parent(Strict):
    """The network before compression, to which p_s and p_u of the report are relative."""

    weights: Number
    macs: Number


class Claims(Strict):
    """What the participant says; stored beside what is measured, never believed."""

    p_s: float | None = None
    p_u: float | None = None
    q_w: Number | None = None
    q_a: Number | None = None
    accuracy: Fraction | None = None
    score: Number | None = None


class ArchitectureSpec(Strict):
    """`contest.candidate.Architecture` as it stands in a file."""

    family: Name
    options: Annotated[dict[Name, Value], Field(max_length=64)] = Field(default_factory=dict)

    def architecture(self) -> Architecture:
        return Architecture(self.family, dict(self.options))


class Manifest(Strict):
    """The whole manifest. `provenance` is free text by key (seed, recipe, split, versions, study, trial)."""

    format: Literal["contest-model"] = "contest-model"
    version: Literal[1] = 1
    architecture: ArchitectureSpec
    image_shape: tuple[Channels, Channels, Channels]
    classes: Channels
    layers: Annotated[dict[Name, LayerSpec], Field(max_length=MAX_LAYERS)]
    parent: Parent | None = None
    claims: Claims = Claims()
    provenance: Annotated[dict[Name, Annotated[str, StringConstraints(max_length=20_000)]], Field(max_length=64)] = (
        Field(default_factory=dict)
    )

    def text(self) -> str:
        """The manifest as JSON text."""
        return self.model_dump_json()


def parse_manifest(text: str) -> Manifest:
    """A manifest from JSON text. RefusedError names the first field that is wrong."""
    if len(text) > MAX_MANIFEST_BYTES:
        raise RefusedError(f"the manifest has {len(text):,} characters; the limit is {MAX_MANIFEST_BYTES:,}")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise RefusedError(f"the manifest is not valid: {_first(error.errors())}") from error
    except RecursionError as error:
        raise RefusedError("the manifest is nested too deeply") from error


def _first(errors: list[Any]) -> str:
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"])[:MAX_TEXT] or "the text"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    said = f"{place}: {str(first['msg'])[:MAX_TEXT]}"
    return said.encode("ascii", "backslashreplace").decode() + more  # the key is a stranger's text
