"""A CIFAR ResNet as one writes it oneself, in floats or with Brevitas's layers. It is yours: change what you like."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

Make = Callable[..., nn.Module]


class Layers(NamedTuple):
    """What the network is built of."""

    conv: Make = nn.Conv2d
    relu: Make = nn.ReLU
    linear: Make = nn.Linear
    image: Make = nn.Identity
    """In front of the first convolution."""
    features: Make = nn.Identity
    """Behind the average pool: a mean of 4-bit numbers has more than 4 bits."""


def brevitas(bits: int) -> Layers:
    """Weights and activations of `bits`; the image and the last layer keep 8."""
    import brevitas.nn as qnn

    return Layers(
        conv=partial(qnn.QuantConv2d, weight_bit_width=bits),
        relu=partial(qnn.QuantReLU, bit_width=bits),
        linear=partial(qnn.QuantLinear, weight_bit_width=8, bias=True),
        image=partial(qnn.QuantIdentity, bit_width=8),
        features=partial(qnn.QuantIdentity, bit_width=8),
    )


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, layers: Layers) -> None:
        super().__init__()
        self.conv1 = layers.conv(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = layers.relu()
        self.conv2 = layers.conv(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            conv = layers.conv(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))
        self.relu2 = layers.relu()

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """Images [N, C, H, W] from 0 to 1 to one number a class. Who normalises images does it in here."""

    def __init__(
        self,
        widths: tuple[int, ...] = (16, 32, 64),
        blocks: int = 3,
        channels: int = 3,
        classes: int = 10,
        layers: Layers = Layers(),  # noqa: B008 (it cannot be changed)
    ) -> None:
        super().__init__()
        self.image = layers.image()
        self.stem = layers.conv(channels, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.relu = layers.relu()
        stages, inputs = [], widths[0]
        for stage, outputs in enumerate(widths):
            for block in range(blocks):
                stages.append(Block(inputs, outputs, 2 if stage and not block else 1, layers))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.features = layers.features()
        self.head = layers.linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """One number a class; the largest is the answer."""
        x = self.relu(self.bn(self.stem(self.image(x))))
        x = self.pool(self.blocks(x)).flatten(1)
        return self.head(self.features(x))  # type: ignore[no-any-return]
