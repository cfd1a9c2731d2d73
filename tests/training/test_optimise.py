"""Optimiser, schedules, loss and average against PyTorch's own and arithmetic written out."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from training_helpers import equal_states, network, quadrants

from contest.candidate import Recipe, check
from contest.datasets import Batch
from contest.errors import UsageError
from contest.networks import build, parse
from contest.training import fit
from contest.training.averaging import Average, Lookahead
from contest.training.loop import loss_of, make_optimiser, make_schedule
from contest.training.muon import is_turned, orthogonal


def rates(recipe: Recipe, steps: int, per_epoch: int) -> list[float]:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], recipe.learning_rate)
    schedule = make_schedule(optimiser, recipe, steps, per_epoch)
    seen = []
    for _ in range(steps):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return seen


def test_cosine_is_torchs() -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.4)
    reference, expected = CosineAnnealingLR(optimiser, T_max=20), []
    for _ in range(20):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        reference.step()
    assert rates(Recipe(learning_rate=0.4, warmup_epochs=0), 20, 5) == pytest.approx(expected)


def test_onecycle_is_torchs() -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.4, momentum=0.9)
    reference, expected = OneCycleLR(optimiser, 0.4, total_steps=20, cycle_momentum=False), []
    for _ in range(20):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        reference.step()
    assert rates(Recipe(learning_rate=0.4, schedule="onecycle"), 20, 5) == pytest.approx(expected)


def test_warm_up_is_linear_and_per_step() -> None:
    constant = rates(Recipe(learning_rate=0.6, schedule="constant", warmup_epochs=1), 12, 5)
    assert constant == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5] + [0.6] * 7)
    cosine = rates(Recipe(learning_rate=0.6, warmup_epochs=1), 12, 5)
    assert cosine[:6] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert cosine[-1] == pytest.approx(0.3 * (1 + math.cos(math.pi * 6 / 7)))


def test_triangle_has_its_corners() -> None:
    seen = rates(Recipe(learning_rate=2.0, schedule="triangle"), 100, 10)
    assert (seen[0], seen[23]) == pytest.approx((0.4, 2.0)) and max(seen) == seen[23]
    assert seen[61] == pytest.approx(2 - 1.86 * 38 / 77)
    assert seen[99] == pytest.approx(2 * (0.07 + 0.93 / 77))


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("schedule", ["cosine", "constant", "onecycle", "triangle"])
def test_runs_of_few_steps_have_a_rate(schedule: str, steps: int) -> None:
    seen = rates(Recipe(schedule=schedule), steps, 100)  # type: ignore[arg-type]
    assert len(seen) == steps and max(seen) > 0


class Stepped(nn.Module):
    """A layer with a scalar and a per-channel parameter, as learned quantiser steps are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))
        self.bias = nn.Parameter(torch.ones(3))
        self.step = nn.Parameter(torch.tensor(0.1))


@pytest.mark.parametrize("optimiser", ["sgd", "muon", "adamw"])
def test_only_weights_decay(optimiser: str) -> None:
    """Without a gradient, only decay moves a parameter: by learning rate x decay of its value."""
    model = Stepped()
    recipe = Recipe(optimiser=optimiser, learning_rate=0.5, weight_decay=0.1, momentum=0.0)  # type: ignore[arg-type]
    made = make_optimiser(model, recipe)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    assert model.weight.flatten().tolist() == pytest.approx([0.95] * 6)
    assert model.bias.tolist() == [1.0] * 3 and model.step.item() == pytest.approx(0.1)


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (5, 5)])
def test_muons_direction_is_the_singular_vectors_of_the_gradient(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(1, *shape)
    found = orthogonal(matrix)[0]
    u, sizes, v = torch.linalg.svd(matrix[0], full_matrices=False)
    inside = u.mT @ found @ v.mT
    certain = sizes > 0.2 * sizes.max()  # four iterations do not lift what is hardly there
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-5), "the same singular vectors"
    assert ((inside.diagonal()[certain] > 0.6) & (inside.diagonal()[certain] < 1.3)).all(), "all about as long"


def test_muon_turns_convolutions_and_leaves_their_length() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.Flatten())
    model.append(nn.Linear(6, 2))
    other = copy.deepcopy(model)
    recipe = Recipe(optimiser="muon", learning_rate=0.5, weight_decay=0.1, momentum=0.9)
    made, plain = make_optimiser(model, recipe), make_optimiser(other, replace(recipe, optimiser="sgd"))
    for _ in range(3):
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            two.grad = one.grad.clone()
        before = model[0].weight.detach().clone()
        made.step(), plain.step()
    after, length = model[0].weight.detach(), before.norm()
    assert after.norm() == pytest.approx(length.item(), rel=1e-5)
    # A step of 0.5 * 0.4 of the length, then back to the sphere: it turns by at most arcsin 0.2 (at least half of it).
    turned = torch.arccos((before * after).sum() / length**2).item()
    assert 0.1 < turned <= math.asin(0.2) + 1e-3
    for name, value in other.state_dict().items():
        if name != "0.weight":
            assert torch.equal(model.state_dict()[name], value), f"{name} moves as with plain SGD"


def test_muon_turns_what_batch_norms_follow() -> None:
    turned = {
        name for name, layer in build(parse("thin:block=inverted,expansion=2")).named_modules() if is_turned(layer)
    }
    assert "stem.conv" in turned and not any("depthwise" in name or name == "fc" for name in turned)
    assert not is_turned(nn.Conv2d(4, 4, 3)) and not is_turned(nn.Conv2d(4, 4, 3, groups=2, bias=False))
    assert is_turned(nn.Conv2d(4, 4, 3, bias=False)) and not is_turned(nn.Conv2d(1, 4, 3, bias=False))


def test_muon_leaves_a_convolution_that_begins_as_zero_to_sgd() -> None:
    layer = nn.Conv2d(3, 4, 1, bias=False)
    nn.init.zeros_(layer.weight)
    made = make_optimiser(layer, Recipe(optimiser="muon", learning_rate=0.1, momentum=0.0, weight_decay=0.0))
    layer.weight.grad = torch.ones_like(layer.weight)
    made.step()
    assert torch.allclose(layer.weight, torch.full_like(layer.weight, -0.1))


def test_muon_steps_against_the_gradient() -> None:
    """On a plain quadratic in the direction of a layer it comes as near as the length of its steps allows."""
    torch.manual_seed(2)
    layer = nn.Conv2d(4, 4, 1, bias=False)
    wanted = torch.randn_like(layer.weight)
    wanted *= layer.weight.detach().norm() / wanted.norm()
    made = make_optimiser(layer, Recipe(optimiser="muon", learning_rate=0.1))
    for step in range(400):
        made.param_groups[0]["lr"] = 0.04 * (1 - step / 400)
        made.zero_grad()
        (layer.weight - wanted).square().sum().backward()
        made.step()
    assert (layer.weight - wanted).norm() < 0.02 * wanted.norm()


def test_biases_of_batch_norms_may_learn_faster_and_decay_as_fast_as_weights() -> None:
    model = network()
    made = make_optimiser(model, Recipe(learning_rate=0.5, weight_decay=0.1, momentum=0.0, norm_bias_rate=4.0))
    nn.init.ones_(model[1].bias), nn.init.ones_(model[6].bias)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    assert model[1].bias.tolist() == pytest.approx([0.95] * 8), "1 - 0.5 * 0.1, as a weight"
    assert model[6].bias.tolist() == [1.0] * 4, "another bias"
    model[1].bias.grad, model[6].bias.grad = torch.ones(8), torch.ones(4)
    made.param_groups[2]["weight_decay"] = 0.0
    made.step()
    assert model[1].bias.tolist() == pytest.approx([0.95 - 4 * 0.5] * 8)
    assert model[6].bias.tolist() == pytest.approx([1 - 0.5] * 4)


def test_lookahead_goes_back_to_slow_weights_every_five_steps() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    lookahead, slow = Lookahead(model, 0.9, steps=12), 0.0
    for step in range(1, 13):
        with torch.no_grad():
            model.weight.add_(1.0)
        fast = model.weight.item()
        lookahead.update(model, step)
        if step in (5, 10, 12):
            decay = 0.9**5 * (step / 12) ** 3
            slow = decay * slow + (1 - decay) * fast
            assert model.weight.item() == pytest.approx(slow)
        else:
            assert model.weight.item() == fast


def test_sgd_is_nesterovs() -> None:
    """v <- m v + g; w <- w - lr (g + m v), after Sutskever 2013, for two steps with gradients 1 and 2."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    made = make_optimiser(model, Recipe(learning_rate=0.1, momentum=0.5, weight_decay=0.0))
    for gradient in (1.0, 2.0):
        model.weight.grad = torch.full((1, 1), gradient)
        made.step()
    velocity = 0.5 * 1 + 2
    assert model.weight.item() == pytest.approx(3 - 0.1 * (1 + 0.5 * 1) - 0.1 * (2 + 0.5 * velocity))


def softmax(
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_is_hintons_with_smoothed_labels(mixed: bool) -> None:
    random = np.random.default_rng(0)
    logits, teacher = random.normal(size=(6, 4)) * 3, random.normal(size=(6, 4)) * 3
    labels = random.integers(0, 4, 6)
    shares = np.eye(4)[labels]
    if mixed:
        shares = 0.7 * shares + 0.3 * np.eye(4)[labels[::-1]]
    recipe = Recipe(label_smoothing=0.2, distillation=0.25, temperature=3.0)
    smooth = 0.8 * shares + 0.2 / 4
    hard = -(smooth * np.log(softmax(logits))).sum(1).mean()
    student, taught = softmax(logits / 3), softmax(teacher / 3)
    soft = 9 * (taught * np.log(taught / student)).sum(1).mean()
    targets = torch.from_numpy(shares).float() if mixed else torch.from_numpy(labels)
    batch = Batch(torch.empty(0), torch.from_numpy(labels), targets, torch.from_numpy(taught).float())
    found = loss_of(torch.from_numpy(logits), batch, recipe).item()
    assert found == pytest.approx(0.75 * hard + 0.25 * soft, rel=1e-5)


def test_a_network_may_have_more_outputs_than_there_are_classes() -> None:
    labels = torch.tensor([0, 1])
    logits = torch.randn(2, 5)
    shares = torch.eye(2)
    plain = loss_of(logits, Batch(torch.empty(0), labels, labels, None), Recipe())
    mixed = loss_of(logits, Batch(torch.empty(0), labels, shares, None), Recipe())
    torch.testing.assert_close(plain, mixed)


def test_the_average_follows_its_recursion_with_buffers_and_counters() -> None:
    model = network()
    average = Average(model, decay=0.5)
    weight = model[0].weight.detach().clone()
    variance = model[1].running_var.clone()
    for step in range(1, 8):
        with torch.no_grad():
            model[0].weight.add_(1.0)
            model[1].running_var.mul_(2)
            model[1].num_batches_tracked.add_(3)
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        weight = decay * weight + (1 - decay) * model[0].weight.detach()
        variance = decay * variance + (1 - decay) * model[1].running_var
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.applied(model):
        torch.testing.assert_close(model[0].weight.detach(), weight)
        torch.testing.assert_close(model[1].running_var, variance)
        assert model[1].num_batches_tracked.item() == 21
    assert all(torch.equal(own[name], tensor) for name, tensor in model.state_dict().items())


def test_the_average_of_masked_weights_is_masked_where_the_mask_is_now() -> None:
    model = nn.Linear(4, 1, bias=False)

    def hold(model: nn.Module) -> None:
        model.weight.data[:, :2] = 0

    average = Average(model, 0.9, hold)
    hold(model)
    average.update(model)
    assert average.tensors["weight"][0, 0] != 0
    average.copy_to(model)
    assert model.weight[0, :2].tolist() == [0, 0] and (model.weight[0, 2:] != 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; it must lie between 0.001 and inf"),
        ({"distillation": 1.5}, "distillation is 1.5; it must lie between 0 and 1"),
        ({"epochs": -1.0}, "epochs is -1.0"),
        ({"epochs": math.inf}, "epochs is inf"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
    ],
)
def test_impossible_recipes_are_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check(Recipe(**change))  # type: ignore[arg-type]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="optimiser is 'lion'; it must be sgd, muon or adamw"):
        make_optimiser(network(), Recipe(optimiser="lion"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="schedule is 'step'"):
        rates(Recipe(schedule="step"), 3, 1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no parameters"):
        make_optimiser(nn.ReLU(), Recipe())


def test_a_run_that_cannot_end_in_time_goes_through_all_of_its_schedule_in_longer_strides() -> None:
    """Sixty steps of 20 ms and more in half a second: fewer steps, and the last ones at the lowest rates."""
    shares: list[float] = []

    def slow(model: nn.Module, share: float) -> None:
        shares.append(share)
        time.sleep(0.02)

    recipe = Recipe(epochs=10, batch_size=16, learning_rate=0.05, crop=0, lookahead=0.9, ema_decay=0.9)
    begun = time.time()
    history = fit(network(), quadrants(), recipe, validation=quadrants(), before_step=slow, ends_at=begun + 0.6)
    assert time.time() - begun < 0.6 + 0.6  # at least one step an epoch, and a loaded machine
    assert 10 <= len(shares) < 45 and shares == sorted(shares)
    assert shares[-1] > 0.8  # below a tenth of the rate, where 45 of 60 steps alone would have ended at a half
    assert len(history.epochs) == 10 and history.validation_accuracy is not None
    made = [epoch.share for epoch in history.epochs]
    assert sum(made) * 6 == pytest.approx(len(shares)) and min(made) < 1


def test_a_run_that_ends_in_time_is_the_run_without_an_end() -> None:
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.05, crop=0, lookahead=0.9, schedule="onecycle")
    one, other = network(), network()
    fit(one, quadrants(), recipe, bf16=False)
    fit(other, quadrants(), recipe, bf16=False, ends_at=time.time() + 600)
    assert equal_states(one, other)
