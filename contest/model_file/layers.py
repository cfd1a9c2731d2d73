"""Layers of the inference network: buffers and arithmetic only, no Brevitas, nothing to train.

A layer of at most 8 bits holds integer `codes` and the `step` they are multiples of; others hold `weight`. Where step
and bias have 8 bits, they are integers too: `step_codes` and `step_scale`, `bias_codes` and `bias_scale`. A layer
whose input is quantised holds `input_step`. The arithmetic is, operation by operation, that of the Brevitas layer
it came from, so that the predictions are the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contest.model_file.manifest import LayerSpec

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
        self.register_buffer(f"{name}_codes", torch.zeros_like(value, dtype=torch.int8))
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


def is_weight_layer(module: Any) -> bool:
    """Whether the network stores this module in the inference form."""
    return isinstance(module, WeightLayer)
