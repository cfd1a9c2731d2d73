"""Iterative pruning with its rewinding variants, and layer after layer."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from contest import pruning
from contest.errors import UsageError


class Trainer:
    """Three steps of SGD on fixed data; remembers the weights at every step."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x, self.t = torch.rand(32, 6, generator=generator), torch.randint(0, 3, (32,), generator=generator)
        self.calls = 0
        self.states: list[dict[str, Tensor]] = []

    def __call__(self, model: nn.Module, after_step: object) -> None:
        assert callable(after_step)
        self.calls += 1
        optimiser = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        for _ in range(3):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(self.x), self.t).backward()
            optimiser.step()
            after_step(model)
            self.states.append(pruning.state_of(model))


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3))


@pytest.mark.parametrize("rewind", ["initial", "kept", 0, 2])
def test_remaining_weights_are_rewound_bit_for_bit(rewind: pruning.schedules.Rewind) -> None:
    model, train = net(), Trainer()
    initial = pruning.state_of(model)
    finished: list[dict[str, Tensor]] = []
    for found in pruning.iterative(model, train, fraction=0.3, rounds=3, rewind=rewind):
        if found.index:
            origin = {"initial": initial, 0: initial, 2: train.states[1], "kept": finished[-1]}[rewind]
            for name, value in found.rewound.items():
                alive = found.masks.get(name, torch.ones_like(value, dtype=torch.bool))
                assert torch.equal(value[alive], origin[name][alive]), name
                assert bool((value[~alive] == 0).all())
        weights = pruning.prunable(model)
        total = sum(w.numel() for w in weights.values())
        report = pruning.sparsity(model)
        assert report.nonzeros == total - round(total * (1 - 0.7**found.index))
        assert all(bool((weights[n][~mask] == 0).all()) for n, mask in found.masks.items())
        finished.append(pruning.state_of(model))
    assert train.calls == 4


def test_masks_of_later_rounds_lie_inside_earlier_ones() -> None:
    masks = [found.masks for found in pruning.iterative(net(), Trainer(), fraction=0.5, rounds=3)]
    for early, late in pairwise(masks):
        assert all(bool((late[name] <= early[name]).all()) for name in early)


def test_a_step_that_never_comes_is_refused() -> None:
    with pytest.raises(UsageError, match="had only 3 steps"):
        list(pruning.iterative(net(), Trainer(), fraction=0.5, rounds=1, rewind=99))


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="fraction"):
        list(pruning.iterative(net(), Trainer(), fraction=fraction, rounds=1))


@pytest.mark.parametrize("how", ["filter-l1", "thinet", "magnitude"])
def test_layer_after_layer(how: str) -> None:
    model, train = net(), Trainer()
    batches = [(train.x, train.t)]
    masks = pruning.layer_after_layer(model, how, {"0.weight": 0.5, "3.weight": 0.4}, train, batches=batches)
    assert train.calls == 2
    assert int(masks["0.weight"].sum()) == 30 and int(masks["3.weight"].sum()) == 18
    # The second layer was scored in the network that the first one's retraining left.
    between = net()
    between.load_state_dict(train.states[2])
    expected = pruning.exact_k(
        {"3.weight": pruning.method(how)(between, batches, nn.functional.cross_entropy)["3.weight"]}, 18
    )
    assert torch.equal(masks["3.weight"], expected["3.weight"])
    pruning.hold(between, {})
    weights = pruning.prunable(model)
    assert all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.items())
