"""Every registered pruning method, and a user's own, goes through the same tests."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contest import pruning
from contest.errors import UsageError

Samples = list[tuple[Tensor, Tensor]]
loss = nn.functional.cross_entropy


def by_position(model: nn.Module, batches: pruning.Batches, loss: pruning.Loss) -> dict[str, Tensor]:
    """A user's own method: later weights live longer; it also disturbs all it can reach."""
    scores = {name: torch.arange(w.numel()).view(w.shape).double() for name, w in pruning.prunable(model).items()}
    for inputs, targets in batches:
        loss(model.train()(inputs), targets).backward()
    for parameter in model.parameters():
        parameter.requires_grad_(False).fill_(3.0)
    model.half()
    random.random(), np.random.rand(), torch.rand(3)
    return scores


def all_equal(model: nn.Module, batches: pruning.Batches, loss: pruning.Loss) -> dict[str, Tensor]:
    return {name: torch.ones_like(weight) for name, weight in pruning.prunable(model).items()}


METHODS = [*pruning.methods(), f"{__name__}:by_position", f"{__name__}:all_equal"]


@pytest.fixture(params=METHODS)
def how(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def snapshot(model: nn.Module) -> list[Any]:
    state: list[Any] = []
    for parameter in model.parameters():
        gradient = None if parameter.grad is None else parameter.grad.clone()
        state.append(
            (id(parameter), parameter.data_ptr(), parameter.requires_grad, parameter.detach().clone(), gradient)
        )
    state += [(id(b), b.data_ptr(), b.clone()) for b in model.buffers()]
    state += [m.training for m in model.modules()]
    state += [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    state += [torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()]  # type: ignore[index,union-attr]
    return state


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def prune(model: nn.Module, how: str, sparsity: float, samples: Samples, **more: Any) -> pruning.Masks:
    return pruning.prune(model, how, sparsity, batches=samples, loss=loss, **more)


@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.9, 1.0])
def test_exactly_as_many_as_asked_for_live(network: nn.Module, how: str, sparsity: float, samples: Samples) -> None:
    masks = prune(network, how, sparsity, samples)
    weights = pruning.prunable(network)
    total = sum(weight.numel() for weight in weights.values())
    pruning.validate(network, masks)
    assert list(masks) == list(weights)
    assert sum(int(mask.sum()) for mask in masks.values()) == total - round(total * sparsity)
    pruning.hold(network, masks)
    report = pruning.sparsity(network, masks)
    assert report.nonzeros == total - round(total * sparsity)
    assert report.prunable == pytest.approx(sparsity, abs=0.51 / total)


def test_the_model_stays_bit_for_bit(network: nn.Module, how: str, samples: Samples) -> None:
    network.train()
    loss(network(samples[0][0]), samples[0][1]).backward()  # gradients that must survive
    next(network.children()).eval()  # and a mixture of training flags
    first = next(network.parameters())
    first.requires_grad_(False)
    before = snapshot(network)
    prune(network, how, 0.5, samples)
    pruning.method(how)(network, samples, loss)
    assert same(before, snapshot(network))


def test_the_model_stays_also_when_scoring_fails(network: nn.Module) -> None:
    def fails(model: nn.Module, batches: pruning.Batches, loss: pruning.Loss) -> dict[str, Tensor]:
        model.double()
        raise ZeroDivisionError

    before = snapshot(network)
    with pytest.raises(ZeroDivisionError):
        pruning.prune(network, fails, 0.5)
    assert same(before, snapshot(network))


def test_same_seed_same_masks(network: nn.Module, how: str, samples: Samples) -> None:
    torch.manual_seed(0)
    one = prune(network, how, 0.6, samples, seed=4)
    torch.manual_seed(1)
    two = prune(network, how, 0.6, samples, seed=4)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_pruned_before_stays_pruned(network: nn.Module, how: str, samples: Samples) -> None:
    first = prune(network, "random", 0.4, samples, seed=9)
    second = prune(network, how, 0.7, samples, masks=first)
    assert all(bool((second[name] <= first[name]).all()) for name in first)
    total = sum(mask.numel() for mask in first.values())
    assert sum(int(mask.sum()) for mask in second.values()) == total - round(total * 0.7)


def test_zeros_stay_zeros_while_training(network: nn.Module, how: str, samples: Samples) -> None:
    masks = prune(network, how, 0.5, samples)
    pruning.enforce(network, masks)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for inputs, targets in samples * 2:
        optimiser.zero_grad()
        loss(network.train()(inputs), targets).backward()
        optimiser.step()
        pruning.hold(network, masks)
    for name, weight in pruning.prunable(network).items():
        assert bool((weight[~masks[name]] == 0).all()), name
        layer = network.get_submodule(name.removesuffix(".weight"))
        if hasattr(layer, "quant_weight"):  # the weight as the network computes with it
            used = layer.quant_weight()
            assert bool((getattr(used, "value", used)[~masks[name]] == 0).all()), name


def test_asking_for_less_than_is_gone_is_refused(samples: Samples) -> None:
    model = nn.Linear(10, 10)
    masks = pruning.prune(model, "random", 0.5)
    with pytest.raises(UsageError, match="leave only 50 of 100"):
        pruning.prune(model, "magnitude", 0.2, masks=masks)


def test_ties_are_broken_by_position(network: nn.Module, samples: Samples) -> None:
    masks = prune(network, f"{__name__}:all_equal", 0.5, samples)
    flat = torch.cat([mask.flatten() for mask in masks.values()])
    keep = len(flat) - round(len(flat) * 0.5)
    assert bool(flat[:keep].all()) and not bool(flat[keep:].any())


@pytest.mark.parametrize("name", ["nowhere", "no.such.module:score", f"{__name__}:nothing", f"{__name__}:METHODS"])
def test_a_method_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="pruning method"):
        pruning.method(name)


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow", "thinet", "second-order"])
def test_methods_that_need_data_say_so(name: str) -> None:
    with pytest.raises(UsageError, match="batch"):
        pruning.prune(nn.Linear(3, 2), name, 0.5)


def test_wrong_scores_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with pytest.raises(UsageError, match=r"no score for '0\.weight'"):
        pruning.prune(model, lambda model, batches, loss: {}, 0.5)
    with pytest.raises(UsageError, match=r"shape \(3,\)"):
        pruning.prune(
            model, lambda model, batches, loss: {"0.weight": torch.ones(3), "1.weight": torch.ones(2, 2)}, 0.5
        )
    nan = {"0.weight": torch.full((2, 3), torch.nan), "1.weight": torch.ones(2, 2)}
    with pytest.raises(UsageError, match="NaN"):
        pruning.prune(model, lambda model, batches, loss: nan, 0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(how: str, samples: Samples) -> None:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 5)).cuda()
    batches = [(inputs.cuda(), targets.cuda()) for inputs, targets in samples]
    masks = prune(model, how, 0.8, batches)
    pruning.hold(model, masks)
    assert all(mask.is_cuda for mask in masks.values())
    total = sum(mask.numel() for mask in masks.values())
    assert pruning.sparsity(model, masks).nonzeros == total - round(total * 0.8)
