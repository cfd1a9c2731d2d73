"""The pull of quantised weights to their grid, against weights that oscillate between two codes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contest.candidate import Architecture, Bits, Candidate, Recipe, check
from contest.datasets import load
from contest.errors import UsageError
from contest.pipeline import compress
from contest.quantisation import dampen, quantise, quantised_layers
from contest.quantisation.layers import weight_quantiser
from contest.training import fit


def small(bits: Bits) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    return quantise(model, bits, torch.rand(8, 3, 8, 8))


@pytest.mark.parametrize("bits", [Bits(4, 8), Bits(2, 8, per_channel=False), Bits(3, 8, symmetric=True)])
def test_the_gradient_is_that_of_the_squared_distance_from_the_grid(bits: Bits) -> None:
    model = small(bits)
    layers = quantised_layers(model)
    assert len(layers) == 3
    wanted = {}
    for name, layer in layers.items():
        quantiser, weight = weight_quantiser(layer), layer.get_parameter("weight")
        assert quantiser is not None
        weight.grad = torch.ones_like(weight)
        # The loss written out, its gradient by autograd; outside of the range clip has none.
        w = weight.detach().clone().requires_grad_()
        step = quantiser.positive_step().detach().view(-1, *[1] * (w.dim() - 1))
        grid = quantiser.codes(weight).float() * step
        clipped = torch.minimum(torch.maximum(w, quantiser.low * step), quantiser.high * step)
        (0.3 * (clipped - grid).square().sum()).backward()
        wanted[name] = 1 + w.grad
    dampen(model, 0.3)
    for name, layer in layers.items():
        grad = layer.get_parameter("weight").grad
        assert grad is not None
        torch.testing.assert_close(grad, wanted[name], atol=1e-6, rtol=1e-5)


def test_a_training_with_it_ends_nearer_to_the_grid() -> None:
    digits = load("digits").train.take(torch.arange(300))
    found = {}
    for dampening in (0.0, 0.3):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
        fit(model, digits, Recipe(epochs=2, batch_size=30))
        quantise(model, Bits(3, 8), digits.pixels[:100].float() / 255)
        pulls: list[float] = []

        def pull(network: nn.Module, done: float, most: float = dampening, pulls: list[float] = pulls) -> None:
            pulls.append(done)
            dampen(network, most * done)

        fit(model, digits, Recipe(epochs=6, batch_size=30, learning_rate=0.05), before_step=pull)
        assert pulls == pytest.approx([step / 60 for step in range(60)])
        distances = []
        for layer in quantised_layers(model).values():
            quantiser, weight = weight_quantiser(layer), layer.get_parameter("weight").detach()
            assert quantiser is not None
            scaled = (weight / quantiser.positive_step().detach().view(-1, 1)).clamp(quantiser.low, quantiser.high)
            distances.append((scaled - scaled.round()).abs().flatten())
        found[dampening] = float(torch.cat(distances).mean())
    assert found[0.3] < 0.8 * found[0.0], found


def test_the_pipeline_dampens_the_tuning() -> None:
    digits = load("digits").train.take(torch.arange(200))
    codes = []
    for dampening in (0.0, 5.0):
        candidate = Candidate(
            Architecture("mnist_fc", {"hidden": (8,)}),
            Bits(2, 8),
            train=Recipe(epochs=1, batch_size=50, dampening=5.0),  # a float network has no grid
            tune=Recipe(epochs=3, batch_size=20, learning_rate=0.05, dampening=dampening),
        )
        made = compress(candidate, digits, None, image_shape=(1, 8, 8), classes=10, device="cpu")
        codes.append(dict(made.network.body.state_dict()))
    assert codes[0].keys() == codes[1].keys()
    assert any(not torch.equal(codes[0][name], codes[1][name]) for name in codes[0])


def test_a_pull_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="dampening is -1"):
        check(Recipe(dampening=-1))


def test_old_candidates_keep_their_text() -> None:
    text = Candidate(Architecture("resnet")).to_json()
    assert "dampening" not in text
    damped = Candidate(Architecture("resnet"), tune=Recipe(dampening=0.01))
    assert Candidate.from_json(damped.to_json()) == damped
