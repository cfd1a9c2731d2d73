"""The fused quantiser against Brevitas's own, and against arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from brevitas.core.bit_width import BitWidthConst
from brevitas.core.function_wrapper import Identity, RoundSte, TensorClamp
from brevitas.core.quant import IntQuant
from brevitas.core.quant.int import RescalingIntQuant
from brevitas.core.scaling import ParameterScaling
from brevitas.core.zero_point import ZeroZeroPoint
from torch import nn

from contest.quantisation.lsq import LearnedStep, best_step, integer_range


class One(nn.Module):
    """An integer threshold of one: Brevitas's scale is then the step itself."""

    def forward(self, bit_width: torch.Tensor) -> torch.Tensor:
        return torch.ones(())


def brevitas_quantiser(bits: int, signed: bool, step: float) -> RescalingIntQuant:
    return RescalingIntQuant(
        IntQuant(
            narrow_range=False,
            signed=signed,
            input_view_impl=Identity(),
            float_to_int_impl=RoundSte(),
            tensor_clamp_impl=TensorClamp(),
        ),
        ParameterScaling(step, scaling_shape=()),
        One(),
        ZeroZeroPoint(),
        BitWidthConst(bits),
    )


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("signed", [False, True])
def test_activations_quantise_as_brevitas_does(bits: int, signed: bool) -> None:
    torch.manual_seed(bits)
    x = torch.randn(8, 5, 6, 7) * 1.7
    step = 0.21
    ours = LearnedStep(bits, signed=signed, step=torch.tensor([step]), weight=False)
    theirs = brevitas_quantiser(bits, signed, step)
    x_ours, x_theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    upstream = torch.randn_like(x)

    y_ours = ours(x_ours)[0]
    y_theirs = theirs(x_theirs)[0]
    y_ours.backward(upstream)
    y_theirs.backward(upstream)

    assert torch.equal(y_ours, y_theirs)
    assert torch.allclose(x_ours.grad, x_theirs.grad, rtol=1e-6)  # theirs multiplies by the step and divides again
    scale = 1 / math.sqrt(x[0].numel() * max(integer_range(bits, signed)[1], 1))
    expected = theirs.scaling_impl.value.grad * scale
    assert torch.allclose(ours.step.grad, expected, rtol=2e-4, atol=1e-5)


def test_weights_have_the_gradients_of_the_formula() -> None:
    """LSQ eq. 3 by hand: inside the range the step's gradient is code - w / step, outside it is the bound."""
    weight = torch.tensor([[0.30, -0.12, 0.90, -2.0]], requires_grad=True)
    quantiser = LearnedStep(3, signed=True, step=torch.tensor([0.2]), weight=True)
    value = quantiser(weight)[0]
    value.sum().backward()
    # w / step = 1.5, -0.6, 4.5, -10 -> codes 2, -1, 3 (clamped), -4 (clamped)
    assert torch.allclose(value, torch.tensor([[0.4, -0.2, 0.6, -0.8]]))
    assert torch.equal(weight.grad, torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    by_hand = (2 - 1.5) + (-1 + 0.6) + 3 - 4
    assert torch.allclose(quantiser.step.grad, torch.tensor([by_hand / math.sqrt(4 * 3)]), atol=1e-6)


def test_a_masked_binary_weight_is_zero_and_not_plus_step() -> None:
    weight = torch.tensor([[0.0, 0.5], [-0.5, 0.0]])
    quantiser = LearnedStep(1, signed=True, step=torch.tensor([0.3]), weight=True, binary=True)
    assert torch.allclose(quantiser(weight)[0], torch.tensor([[0.3, 0.3], [-0.3, 0.3]]))
    quantiser.mask = torch.tensor([[False, True], [True, False]])
    assert torch.allclose(quantiser(weight)[0], torch.tensor([[0.0, 0.3], [-0.3, 0.0]]))
    assert quantiser.codes(weight).tolist() == [[0, 1], [-1, 0]]


def test_latent_binary_weights_outside_one_get_no_gradient() -> None:
    """BinaryConnect clips the latent weights at 1."""
    weight = torch.tensor([[0.5, 1.5, -3.0]], requires_grad=True)
    quantiser = LearnedStep(1, signed=True, step=torch.tensor([0.25]), weight=True, binary=True)
    quantiser(weight)[0].sum().backward()
    assert torch.allclose(weight.grad, torch.tensor([[0.25, 0.0, 0.0]]))


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_times_step_is_the_quantised_weight(bits: int) -> None:
    torch.manual_seed(bits)
    weight = torch.randn(6, 4, 3, 3)
    step = best_step(weight, bits, True, bits == 1, per_channel=True)
    quantiser = LearnedStep(bits, signed=True, step=step, weight=True, binary=bits == 1)
    codes = quantiser.codes(weight)
    assert torch.equal(quantiser(weight)[0], codes.float() * quantiser.positive_step().view(-1, 1, 1, 1))
    assert len(codes.unique()) <= 2**bits


def test_best_step_beats_the_largest_magnitude() -> None:
    """For three bits of a normal distribution the least squared error clips the tails (Banner 2019)."""
    torch.manual_seed(0)
    x = torch.randn(10_000)
    step = best_step(x, 3, True)
    assert 0.4 < step.item() < 0.75  # the optimum of 8 uniform levels is 0.586 (Max 1960, table 2)
    assert x.abs().max() / 4 > step.item()


def test_bf16_stays_bf16() -> None:
    quantiser = LearnedStep(3, signed=False, step=torch.tensor([0.25]), weight=False)
    x = torch.rand(2, 3, 4, 4).bfloat16().requires_grad_()
    y = quantiser(x)[0]
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("start", [0.0, 1e-9, -1e-9, -0.05])
@pytest.mark.parametrize("weight", [False, True])
def test_a_step_at_zero_comes_back(start: float, weight: bool) -> None:
    """An optimiser that overshoots leaves the step at 0 or below: gradient descent finds the good step again."""
    torch.manual_seed(0)
    x = torch.randn(64, 16)
    quantiser = LearnedStep(4, signed=True, step=torch.tensor([0.3]), weight=weight)
    quantiser.step.data.fill_(start)
    optimiser = torch.optim.SGD([quantiser.step], lr=0.3)
    for _ in range(300):
        optimiser.zero_grad()
        (quantiser(x)[0] - x).square().mean().backward()
        optimiser.step()
    best = best_step(x, 4, True)
    assert quantiser.positive_step().item() == pytest.approx(best.item(), rel=0.3)
    assert (quantiser(x)[0] - x).square().mean() < 0.02  # a step of zero would leave 1.0, all of the variance
