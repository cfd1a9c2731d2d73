"""Batch norm statistics that are measured anew, against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contest.candidate import Recipe
from contest.datasets import load
from contest.training import refresh_statistics

PLAIN = Recipe(batch_size=100, flip=False, crop=0)


def test_a_norm_gets_the_mean_and_variance_of_what_reaches_it() -> None:
    """Against the moments of the first batch norm's input over all images, computed at once in double precision."""
    torch.manual_seed(0)
    images = load("digits").train.take(torch.arange(1200))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.2), nn.Dropout(0.5), nn.Flatten())
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean.fill_(7.0)  # type: ignore[union-attr]
    model.train()
    refresh_statistics(model, images, PLAIN)
    with torch.no_grad():
        reaches = model[0](images.pixels.float() / 255).double()
    assert norm.running_mean is not None and norm.running_var is not None
    assert torch.allclose(norm.running_mean.double(), reaches.mean((0, 2, 3)), atol=1e-5)
    # The mean of the batches' variances lacks the variance of their means: a hundredth of it.
    assert torch.allclose(norm.running_var.double(), reaches.var((0, 2, 3)), rtol=0.03)
    assert norm.momentum == 0.2 and norm.training and model[2].training


def test_nothing_but_the_statistics_changes_and_the_seed_decides() -> None:
    images = load("digits").train
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = []
    for seed in (0, 0, 1):
        refresh_statistics(model, images, Recipe(batch_size=64, crop=1, flip=False), seed=seed)
        found.append(model[1].running_mean.clone())  # type: ignore[operator]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("model", [nn.Sequential(nn.Flatten(), nn.Linear(64, 10))])
def test_a_network_without_batch_norms_is_left_alone(model: nn.Module) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    refresh_statistics(model, load("digits").train, PLAIN)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
