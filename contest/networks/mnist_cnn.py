"""The laboratory's small convolutional network for MNIST."""

from __future__ import annotations

from torch import nn

from contest.errors import UsageError
from contest.networks.blocks import Normalise, sequence
from contest.networks.options import Dropout, ImageShape, Width, Widths


def mnist_cnn(
    image_shape: ImageShape,
    classes: int,
    *,
    widths: Widths = (32, 64),
    hidden: Width = 128,
    conv_dropout: Dropout = 0.25,
    dropout: Dropout = 0.5,
) -> nn.Module:
    """Convolutions of 32 and 64 channels without padding, max-pool, 128 hidden: 1,199,648 prunable weights.

    PyTorch's MNIST example (github.com/pytorch/examples, mnist/main.py), initialised as there: without batch norm,
    fan-out initialisation would let the signal fade.
    """
    if len(widths) != 2:
        raise UsageError(f"'mnist_cnn' option widths = {widths}: must be two, one for each convolution")
    channels, height, width = image_shape
    if min(height, width) < 6:
        raise UsageError(f"'mnist_cnn' cannot take images of {height}x{width}: they must be at least 6x6")
    first, second = widths
    features = second * ((height - 4) // 2) * ((width - 4) // 2)
    return sequence(
        normalise=Normalise(channels),
        conv1=nn.Conv2d(channels, first, 3),
        act1=nn.ReLU(),
        conv2=nn.Conv2d(first, second, 3),
        act2=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        dropout1=nn.Dropout(conv_dropout),
        flatten=nn.Flatten(),
        fc1=nn.Linear(features, hidden),
        act3=nn.ReLU(),
        dropout2=nn.Dropout(dropout),
        fc=nn.Linear(hidden, classes),
    )


ROW = {"by_default": False}
