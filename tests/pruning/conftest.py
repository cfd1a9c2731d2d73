"""Small networks of every kind that a pruning method must cope with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Two convolutions around a shortcut that changes the number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.one = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
        self.two = nn.Conv2d(8, 8, 3, padding="same")
        self.shortcut = nn.Conv2d(6, 8, 1, stride=2)
        self.relu = nn.ReLU()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = self.relu(self.two(self.relu(self.one(x))) + self.shortcut(x))
        return self.head(x.mean((2, 3)))


def convolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 7, 3, stride=2),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(7 * 9, 5),
    )


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 12, 1, groups=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 5))


def quantised() -> nn.Module:
    from contest.candidate import Bits
    from contest.quantisation import quantise

    return quantise(convolution(), Bits(3, 4), torch.rand(16, 3, 8, 8))


def binary() -> nn.Module:
    from contest.candidate import Bits
    from contest.quantisation import quantise

    return quantise(convolution(), Bits(1, 2), torch.rand(16, 3, 8, 8))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolution": convolution,
    "grouped": grouped,
    "linear": linear,
    "residual": Residual,
    "quantised": quantised,
    "binary": binary,
}


@pytest.fixture(params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    """A network for 5 classes of images of 3 x 8 x 8."""
    torch.manual_seed(7)
    return NETWORKS[request.param]()


@pytest.fixture
def samples() -> list[tuple[Tensor, Tensor]]:
    """Two batches, of unequal size."""
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.rand(n, 3, 8, 8, generator=generator), torch.randint(0, 5, (n,), generator=generator)) for n in (12, 5)
    ]
