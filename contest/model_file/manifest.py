"""The manifest of a model file: what is needed to rebuild the network, and what is claimed about it.

It comes from strangers, so every field has a type and a limit, and nothing in it names code.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator
from torch import Tensor, nn

from contest.candidate import Architecture
from contest.errors import RefusedError

_LIBRARY = torch.library.Library("contest", "DEF")
# Not `torch.library.custom_op`, whose first call imports the compiler: seconds, in every isolated child.
_LIBRARY.define("quantise(Tensor x, Tensor step, int low, int high) -> Tensor")


def quantise_operator(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """`clamp(round(x / step), low, high) * step`, half to even, for x of any shape and step of one element.

    One operator, so that a trace of the network shows a quantiser as what it is.
    """
    width = step.reshape(())
    return (x / width).round_().clamp_(low, high).mul_(width)


_LIBRARY.impl("quantise", quantise_operator, "CompositeExplicitAutograd")


def _quantised_shape(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    return torch.empty_like(x)


torch.library.register_fake("contest::quantise", _quantised_shape, lib=_LIBRARY)


class WeightLayer(nn.Module):
    """What `Conv2d` and `Linear` share: the weight, the bias and the quantiser of the input.

    Attributes: `weight_bits` (1 to 8, 16 or 32), `input_bits` (1 to 8 or None: the input is not quantised here) and
    `input_signed`.
    """

    codes: Tensor
    step: Tensor
    weight: Tensor
    bias: Tensor | None
    input_step: Tensor

    def __init__(self, spec: LayerSpec, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.spec = spec
        self.weight_bits, self.input_bits, self.input_signed = spec.weight_bits, spec.input_bits, spec.input_signed
        shape = spec.weight_shape()
        if spec.weight_bits <= 8:
            self.register_buffer("codes", torch.zeros(shape, dtype=torch.int8, device=device))
            self._register("step", torch.ones(shape[0] if spec.per_channel else 1, device=device))
        else:
            self.register_buffer("weight", torch.zeros(shape, dtype=self.float_type, device=device))
        self._register("bias", torch.zeros(shape[0], dtype=self.float_type, device=device) if spec.bias else None)
        if spec.input_bits is not None:
            self.register_buffer("input_step", torch.ones(1, device=device))

    def _register(self, name: str, value: Tensor | None) -> None:
        if value is None or self.spec.number_bits == 32:
            self.register_buffer(name, value)
            return
        # (zeros_like would import sympy on the meta device, which takes longer than all the rest of opening a file)
        self.register_buffer(f"{name}_codes", torch.zeros(value.shape, dtype=torch.int8, device=value.device))
        self.register_buffer(f"{name}_scale", torch.ones(1, device=value.device))

    def numbers(self, name: str) -> Tensor | None:
        """The `step` or the `bias`, one number a channel, as the layer computes with them."""
        if self.spec.number_bits == 32 or (name == "bias" and not self.spec.bias):
            found: Tensor | None = getattr(self, name)
            return found
        scale: Tensor = getattr(self, f"{name}_scale")
        codes: Tensor = getattr(self, f"{name}_codes")
        return codes.to(scale.dtype) * scale

    @property
    def float_type(self) -> torch.dtype:
        """The type that the layer computes in: half precision only where the weights are 16 bits."""
        return torch.float16 if self.weight_bits == 16 else torch.float32

    def input_range(self) -> tuple[int, int]:
        """(low, high) of the codes of the input."""
        assert self.input_bits is not None
        if self.input_signed:
            return -(2 ** (self.input_bits - 1)), 2 ** (self.input_bits - 1) - 1
        return 0, 2**self.input_bits - 1

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The input and the weight that the multiplications see."""
        if self.input_bits is not None:
            x = torch.ops.contest.quantise(x, self.input_step, *self.input_range())
        if self.weight_bits > 8:
            return x.to(self.weight.dtype), self.weight
        step = self.numbers("step")
        assert step is not None
        step = step.view(-1, *([1] * (self.codes.dim() - 1))) if len(step) > 1 else step
        return x.to(step.dtype), self.codes.to(step.dtype) * step

    def extra_repr(self) -> str:
        return f"{self.spec.shape_text()}, weight_bits={self.weight_bits}, input_bits={self.input_bits}"


class Conv2d(WeightLayer):
    """A convolution of [N,C,H,W]; geometry from the architecture, channels from the manifest."""

    def __init__(self, spec: LayerSpec, geometry: nn.Conv2d, device: torch.device | str = "cpu") -> None:
        super().__init__(spec, device)
        self.stride, self.padding, self.dilation = geometry.stride, geometry.padding, geometry.dilation
        self.groups = spec.groups

    def forward(self, x: Tensor) -> Tensor:
        x, weight = self.operands(x)
        return F.conv2d(x, weight, self.numbers("bias"), self.stride, self.padding, self.dilation, self.groups)


class Linear(WeightLayer):
    """A linear layer of [..., C]."""

    def forward(self, x: Tensor) -> Tensor:
        x, weight = self.operands(x)
        return F.linear(x, weight, self.numbers("bias"))


class Affine(nn.Module):
    """Batch norm with its statistics folded in: one multiplier and one shift a channel (dimension 1).

    They may be *stored* in half precision; they are applied in the type of the input.
    """

    multiplier: Tensor
    shift: Tensor

    def __init__(self, channels: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.register_buffer("multiplier", torch.ones(channels, dtype=dtype, device=device))
        self.register_buffer("shift", torch.zeros(channels, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        # The batch-norm kernel rather than x * m + s: to the last bit what the trained network computes.
        multiplier, shift = self.multiplier.to(x.dtype), self.shift.to(x.dtype)
        zero, one = torch.zeros_like(shift), torch.ones_like(multiplier)
        return F.batch_norm(x, zero, one, multiplier, shift, False, 0.0, 0.0)

    def extra_repr(self) -> str:
        return f"{len(self.shift)}, stored={self.multiplier.dtype}"


def code_bits(network: nn.Module) -> dict[str, int]:
    """Bits of each tensor of integer codes of a stored network, by its name: of weights, and of what is beside them."""
    found = {}
    for name, layer in network.named_modules():
        if not isinstance(layer, WeightLayer) or layer.weight_bits > 8:
            continue
        found[f"{name}.codes"] = layer.weight_bits
        if layer.spec.number_bits <= 8:
            numbers = ["step_codes", "bias_codes"] if layer.spec.bias else ["step_codes"]
            found |= {f"{name}.{number}": layer.spec.number_bits for number in numbers}
    return found


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
    bias. `number_bits` are those of step and bias: 4 to 8 are stored as integers and one scale.
    """

    kind: Literal["conv", "linear", "affine", "folded"]
    outputs: Channels
    inputs: Channels = 1
    groups: Channels = 1
    kernel: Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(max_length=2)] = Field(default_factory=list)
    bias: bool = False
    weight_bits: Annotated[int, Field(ge=1, le=32)] = 32
    per_channel: bool = False
    number_bits: Literal[4, 5, 6, 7, 8, 32] = 32
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
        if self.number_bits <= 8 < self.weight_bits:
            pair = f"number_bits is {self.number_bits} with weight_bits {self.weight_bits}"
            raise ValueError(f"{pair}; only quantised layers have them")
        return self

    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight: [outputs, inputs / groups, *kernel]."""
        return (self.outputs, self.inputs // self.groups, *self.kernel)

    def shape_text(self) -> str:
        return f"{self.inputs} -> {self.outputs}" + (f", groups={self.groups}" if self.groups > 1 else "")


class ClaimedParent(Strict):
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
    parent: ClaimedParent | None = None
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
