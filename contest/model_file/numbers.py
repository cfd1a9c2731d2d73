"""The numbers beside quantised weights: what is left of a batch norm, as integers and a scale.

A batch norm behind a quantised convolution is one multiplier and one shift a channel. Folded into the convolution,
they are the step of its weights and its bias, and a file stores either as integers of few bits and one scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contest.candidate import Architecture
from contest.networks import batch_norms
from contest.networks.batch_norms import is_batch_norm, replace_submodule


def largest_code(bits: int) -> int:
    """Codes of so many bits lie from its negative to it; 8 bits are an int8, fewer leave 0 out, which costs nothing."""
    return 127 if bits == 8 else 2 ** (bits - 1)


def to_codes(values: Tensor, importance: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """int8 codes and their scale [1] for `values` [C]: the scale of the least `sum((importance * error) ** 2)`.

    Large values are clipped where that makes the many others better.
    """
    high = largest_code(bits)
    largest = values.abs().max().clamp_min(torch.finfo(values.dtype).tiny)
    scales = largest / high * torch.logspace(0, -1.5, 61).view(-1, 1)
    codes = _rounded(values, scales, bits)
    best = (importance * (codes * scales - values)).square().sum(1).argmin()
    return codes[best].to(torch.int8), scales[best].clone()


def _rounded(values: Tensor, scale: Tensor, bits: int) -> Tensor:
    high = largest_code(bits)
    return (values / scale).round().clamp(-128 if bits == 8 else -high, high)


class _Rounded(torch.autograd.Function):
    """codes * scale of `values`; gradients go through as if nothing had been rounded."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, bits: int) -> Tensor:
        return _rounded(values, scale, bits) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


class RoundedNorm(nn.Module):
    """A batch norm of known statistics as the file will store it: multiplier and shift, rounded, of `bits` bits.

    `weight` and `bias` are the batch norm's and can be trained; the scales of the codes stay as they were chosen. What
    rounding a multiplier does to its channel's mean, the shift takes back. `step` [C] is that of the weights of the
    convolution before it; channels without a weight (`alive` [C]) have no multiplier.
    """

    gain: Tensor
    mean: Tensor
    step: Tensor
    alive: Tensor
    multiplier_scale: Tensor
    shift_scale: Tensor

    def __init__(self, norm: nn.BatchNorm2d, step: Tensor, alive: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.weight, self.bias = nn.Parameter(norm.weight.detach().clone()), nn.Parameter(norm.bias.detach().clone())
        variance, mean = norm.running_var, norm.running_mean
        assert variance is not None and mean is not None
        self.register_buffer("gain", 1 / torch.sqrt(variance + norm.eps))
        self.register_buffer("mean", mean.clone())
        self.register_buffer("step", step.detach().expand(len(mean)).clone())
        self.register_buffer("alive", alive)
        with torch.no_grad():
            wanted = self._multiplied_step()
            # A channel varies by its batch norm's weight, whatever its multiplier: errors count relative to that.
            importance = torch.where(wanted != 0, self.weight / wanted, 0)
            self.register_buffer("multiplier_scale", to_codes(wanted, importance, bits)[1])
            shift = self._shift(_Rounded.apply(wanted, self.multiplier_scale, bits))
            self.register_buffer("shift_scale", to_codes(shift, torch.ones_like(shift), bits)[1])

    def _multiplied_step(self) -> Tensor:
        return torch.where(self.alive, self.gain * self.weight * self.step, 0)

    def _shift(self, multiplied_step: Tensor) -> Tensor:
        multiplier = self.gain * self.weight
        lost = multiplier - multiplied_step / self.step
        return self.bias - self.mean * multiplier + torch.where(self.alive, self.mean * lost, 0)

    @torch.no_grad()
    def codes(self) -> tuple[Tensor, Tensor]:
        """int8 codes [C] of the step that has taken up the multiplier, and of the shift."""
        wanted = self._multiplied_step()
        shift = self._shift(_Rounded.apply(wanted, self.multiplier_scale, self.bits))
        found = _rounded(wanted, self.multiplier_scale, self.bits), _rounded(shift, self.shift_scale, self.bits)
        return found[0].to(torch.int8), found[1].to(torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        """What the stored network makes of the convolution's output [N, C, ...]."""
        step: Tensor = _Rounded.apply(self._multiplied_step(), self.multiplier_scale, self.bits)
        shift: Tensor = _Rounded.apply(self._shift(step), self.shift_scale, self.bits)
        nothing, one = torch.zeros_like(self.mean), torch.ones_like(self.mean)
        return F.batch_norm(x, nothing, one, step / self.step, shift, False, 0.0, 0.0)


def norms_behind(architecture: Architecture, image_shape: tuple[int, int, int], classes: int) -> dict[str, str]:
    """`batch_norms.norms_behind` of the architecture's network."""
    from contest.networks import build

    with torch.device("cpu" if architecture.family.startswith("timm/") else "meta"):
        model = build(architecture, image_shape=image_shape, classes=classes)
    return batch_norms.norms_behind(model)


def foldable_norms(model: nn.Module, behind: Mapping[str, str]) -> dict[str, str]:
    """Of `behind` (norms by their convolutions' names): those of quantised convolutions without a bias."""
    modules = dict(model.named_modules())
    return {
        name: norm
        for name, norm in behind.items()
        if name in modules
        and norm in modules
        and (is_batch_norm(modules[norm]) or isinstance(modules[norm], RoundedNorm))
        and weights_of(modules[name]) is not None
        and modules[name].bias is None
    }


def weights_of(module: nn.Module) -> Any:
    """The weight quantiser of a quantised layer, if any (importing Brevitas takes seconds, so only where it is)."""
    if not hasattr(module, "weight_quant"):
        return None
    from contest.quantisation.layers import weight_quantiser

    return weight_quantiser(module)


@torch.no_grad()
def rounded(layer: Any, norm: Any, bits: int) -> RoundedNorm:
    """The numbers that stand for a batch norm behind a quantised convolution."""
    if isinstance(norm, RoundedNorm):
        return norm
    weights = weights_of(layer)
    alive = weights.codes(layer.weight).flatten(1).ne(0).any(1)
    return RoundedNorm(norm, weights.positive_step(), alive, bits)


def round_norms(model: nn.Module, behind: Mapping[str, str], bits: int) -> bool:
    """Put the numbers of the file in the place of the model's batch norms, and let weights stand still.

    What is left to train are the numbers, the steps of the inputs, and what is not quantised. False, and the model as
    it was, where no batch norm can be folded.
    """
    modules = dict(model.named_modules())
    pairs = foldable_norms(model, behind)
    for name, norm in pairs.items():
        replace_submodule(model, norm, rounded(modules[name], modules[norm], bits))
    for module in modules.values() if pairs else ():
        weights = weights_of(module)
        if weights is not None:
            module.get_parameter("weight").requires_grad_(False)
            weights.step.requires_grad_(False)
    return bool(pairs)
