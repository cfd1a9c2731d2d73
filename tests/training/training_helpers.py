"""A small network and a small task for the tests of the training."""

from __future__ import annotations

import torch
from torch import nn

from contest.datasets import Images


def network(dropout: float = 0.0, classes: int = 4) -> nn.Sequential:
    """Convolution, batch norm, dropout, linear; for grey 8 x 8 images. The same weights at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(128, classes),
        )


def quadrants(count: int = 96) -> Images:
    """Noise with one bright quadrant, which is the class."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 4
    pixels = torch.randint(0, 120, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for index, label in enumerate(labels.tolist()):
        pixels[index, 0, 4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 100
    return Images(pixels, labels, flips=False)


def equal_states(one: nn.Module, other: nn.Module) -> bool:
    """Bit for bit."""
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
