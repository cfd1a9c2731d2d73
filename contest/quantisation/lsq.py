"""Learned-step quantisation, fused: one autograd function instead of a chain of small ones.

The quantiser is Brevitas's `IntQuant` with a learned scale: `clamp(round(x / step), low, high) * step`, round
half to even, gradients straight through inside the range and zero outside. The gradient of the step is that of
LSQ (Esser 2020, arXiv 1902.08153, eq. 3), times the paper's `1 / sqrt(n * high)` (section 2.2).

Why fused: stock quantisers are memory-bound chains of ten elementwise passes with a saved tensor for each. Here
the forward pass makes one new tensor, and the backward pass needs one elementwise pass and two dot products,
because `sum(g * d out / d step) = (g . out - g_x . x) / step`, where `g_x` is the gradient of the input.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST_STEP = 1e-6


def integer_range(bits: int, signed: bool, symmetric: bool = False) -> tuple[int, int]:
    """(low, high) of a `bits`-bit code: 0..2^b - 1, or -2^(b-1)..2^(b-1) - 1. One signed bit is -1 and 0.

    symmetric: -2^(b-1)..2^(b-1), which are 2^b codes besides the 0 that a bitmask holds.
    """
    if symmetric:
        return -(2 ** (bits - 1)), 2 ** (bits - 1)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def quantise_(scaled: Tensor, low: int, high: int) -> Tensor:
    """Round `x / step` to codes in place, in the order in which Brevitas and ONNX do it."""
    return scaled.round_().clamp_(low, high)


class _QuantiseTensor(torch.autograd.Function):
    """One step for the whole tensor; x of any shape and floating type, step of shape [1] float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int, step_gradient: float) -> Tensor:
        # A number without dimensions leaves x in its own type (bf16 stays bf16); on the CPU it costs nothing to read,
        # on a GPU reading it would wait for the device.
        width = step.reshape(()) if x.is_cuda else step.item()
        out = quantise_(x / width, low, high).mul_(width)
        ctx.save_for_backward(x, out, step)
        ctx.constants = (low, high, step_gradient)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        x, out, step = ctx.saved_tensors
        low, high, step_gradient = ctx.constants
        if x.is_cuda:
            width = step.reshape(())
            g_x = torch.where((x > (low - 0.5) * width) & (x < (high + 0.5) * width), g, 0)
        else:
            width = step.item()
            g_x = torch.ops.aten.hardtanh_backward(g, x, (low - 0.5) * width, (high + 0.5) * width)
        g_step = None
        if ctx.needs_input_grad[1]:
            g_step = ((_dot(g, out) - _dot(g_x, x)) * (step_gradient / width)).reshape(1)
        return g_x, g_step, None, None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum of products in float32, without copies where both are dense in the same layout."""
    if a.stride() != b.stride():
        b = b.contiguous(memory_format=torch.channels_last) if b.dim() == 4 else b.contiguous()
        a = a.contiguous(memory_format=torch.channels_last) if a.dim() == 4 else a.contiguous()
    flat_a, flat_b = a.as_strided((a.numel(),), (1,)), b.as_strided((b.numel(),), (1,))
    return torch.dot(flat_a, flat_b).float()


class _QuantiseWeight(torch.autograd.Function):
    """Weights with one step, or one for each output channel (step broadcasts against the weight).

    Binary weights are `sign(w) * step` (Courbariaux 2015, arXiv 1511.00363): deterministic, gradients straight through
    where the latent weight lies within -1..1, so latent weights do not run away.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, step: Tensor, low: int, high: int, step_gradient: float, binary: bool
    ) -> Tensor:
        codes = binary_codes(weight) if binary else quantise_(weight / step, low, high)
        ctx.save_for_backward(weight, step, codes)
        ctx.constants = (low, high, step_gradient, binary)
        return codes * step

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        weight, step, codes = ctx.saved_tensors
        low, high, step_gradient, binary = ctx.constants
        if binary:
            g_weight, g_codes = g * step * (weight.abs() <= 1), g * codes
        else:
            scaled = weight / step
            inside = (scaled >= low - 0.5) & (scaled <= high + 0.5)
            g_weight, g_codes = g * inside, g * torch.where(inside, codes - scaled, codes)
        return g_weight, g_codes.sum_to_size(step.shape) * step_gradient, None, None, None, None


def binary_codes(weight: Tensor) -> Tensor:
    """+1 where the weight is at least 0, else -1."""
    return torch.where(weight >= 0, 1.0, -1.0).to(weight.dtype)


class _PositiveStep(torch.autograd.Function):
    """`max(|step|, SMALLEST_STEP)` whose gradient never vanishes.

    The gradients of the absolute value at 0 and of the maximum below SMALLEST_STEP are zero: a step that an optimiser
    once pushed there would stay for good, and its layer with it. Here they go through, with the sign of the step.
    """

    @staticmethod
    def forward(ctx: Any, step: Tensor) -> Tensor:
        ctx.save_for_backward(step)
        return step.abs().clamp_min(SMALLEST_STEP)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (step,) = ctx.saved_tensors
        found: Tensor = torch.where(step < 0, -gradients[0], gradients[0])
        return found


def per_output(step: Tensor, weight: Tensor) -> Tensor:
    """Steps [1] or [channels] in the shape in which they are broadcast against the weight."""
    return step.view(-1, *[1] * (weight.dim() - 1)) if len(step) > 1 else step


class LearnedStep(nn.Module):
    """A Brevitas `tensor_quant`: returns (value, scale, zero point, bit width).

    `step` is [1] (per tensor) or [channels] (per output channel, weights only). `mask` (weights only, bool,
    the weight's shape) is applied behind the quantiser, so that a pruned binary weight is 0 and not +step.
    `symmetric` (weights only): see `integer_range`.
    """

    mask: Tensor | None

    def __init__(
        self,
        bits: int,
        *,
        signed: bool,
        step: Tensor,
        weight: bool,
        binary: bool = False,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.bits, self.signed, self.is_weight, self.binary = bits, signed, weight, binary
        self.low, self.high = (-1, 1) if binary else integer_range(bits, signed, symmetric)
        self.step = nn.Parameter(step.detach().reshape(-1).float().clamp_min(SMALLEST_STEP))
        self.register_buffer("mask", None)

    def positive_step(self) -> Tensor:
        positive: Tensor = _PositiveStep.apply(self.step)
        return positive

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        step = self.positive_step()
        if self.is_weight:
            value, step = self._weight(x, step)
        else:
            factor = 1 / math.sqrt(max(x[0].numel(), 1) * max(self.high, 1))
            value = _QuantiseTensor.apply(x, step, self.low, self.high, factor)
        return value, step, x.new_zeros(()), torch.tensor(float(self.bits), device=x.device)

    def _weight(self, weight: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        step = per_output(step, weight)
        factor = 1 / math.sqrt(weight.numel() / step.numel() * max(self.high, 1))
        value = _QuantiseWeight.apply(weight, step, self.low, self.high, factor, self.binary)
        return (value if self.mask is None else value * self.mask), step

    @torch.no_grad()
    def codes(self, weight: Tensor) -> Tensor:
        """The integer codes (int8, the weight's shape) that `forward` multiplies with the step."""
        step = per_output(self.positive_step(), weight)
        codes = binary_codes(weight) if self.binary else quantise_(weight / step, self.low, self.high)
        return (codes if self.mask is None else codes * self.mask).to(torch.int8)


@torch.no_grad()
def best_step(
    x: Tensor, bits: int, signed: bool, binary: bool = False, per_channel: bool = False, symmetric: bool = False
) -> Tensor:
    """The step with the least squared error, out of 40 fractions of the largest magnitude; [1] or [channels]."""
    rows = x.detach().float().reshape(x.shape[0], -1) if per_channel else x.detach().float().reshape(1, -1)
    if binary:
        return rows.abs().mean(1).clamp_min(SMALLEST_STEP)
    if not per_channel and rows.numel() > 200_000:
        rows = rows[:, :: rows.numel() // 100_000]
    low, high = integer_range(bits, signed, symmetric)
    largest = rows.abs().amax(1).clamp_min(SMALLEST_STEP) / max(high, -low, 1)
    best, least = largest.clone(), torch.full_like(largest, float("inf"))
    for fraction in torch.linspace(0.05, 1.0, 40).tolist():
        step = largest * fraction
        error = (quantise_(rows / step[:, None], low, high) * step[:, None] - rows).square().sum(1)
        best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    return best
