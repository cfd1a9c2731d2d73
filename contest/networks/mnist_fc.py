"""The laboratory's fully connected network: 784-1024-1024-10 on MNIST."""

from __future__ import annotations

import math

from torch import nn

from contest.networks.blocks import Normalise, sequence
from contest.networks.options import Dropout, ImageShape, Widths


def mnist_fc(
    image_shape: ImageShape, classes: int, *, hidden: Widths = (1024, 1024), dropout: Dropout = 0.0
) -> nn.Module:
    """784-1024-1024-10 on MNIST: 1,863,690 parameters (Frankle & Carbin's LeNet, wider).

    It begins as `nn.Linear` does: all layers then have weights of like size. With wider hidden weights (Kaiming's)
    global magnitude pruning would remove the output layer first, and the curve would collapse too early.
    """
    layers: dict[str, nn.Module | None] = {"normalise": Normalise(image_shape[0]), "flatten": nn.Flatten()}
    features = math.prod(image_shape)
    for index, width in enumerate(hidden, 1):
        layers[f"fc{index}"] = nn.Linear(features, width)
        layers[f"act{index}"] = nn.ReLU()
        layers[f"dropout{index}"] = nn.Dropout(dropout) if dropout else None
        features = width
    layers["fc"] = nn.Linear(features, classes)
    return sequence(**layers)


ROW = {"by_default": False}
