"""Networks as students write them, trained a moment on digits, and the files in which they save them."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.nn.quantized import FloatFunctional
from torch.nn.utils import prune

from contest.datasets import load
from contest.datasets.images import Images


class LeNet(nn.Module):
    """The tutorial's: `view` with the batch size asked of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 12, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.fc = nn.Linear(12 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2).contiguous()
        return self.fc(x.view(x.size(0), -1))  # type: ignore[no-any-return]


def lenet() -> nn.Module:
    return LeNet()


def digits() -> Images:
    test = load("digits").test
    assert test is not None
    return test


def train(model: nn.Module, steps: int = 40) -> nn.Module:
    """A short epoch; in evaluation mode afterwards."""
    data = load("digits").train
    x, y = data.pixels.float() / 255, data.labels
    torch.manual_seed(0)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.train()
    for step in range(steps):
        batch = torch.arange(step * 32, step * 32 + 32) % len(y)
        optimiser.zero_grad()
        F.cross_entropy(model(x[batch].reshape(-1).view(-1, 1, 8, 8)), y[batch]).backward()
        optimiser.step()
    return model.eval()


@functools.cache
def trained() -> nn.Module:
    torch.manual_seed(1)
    return train(LeNet())


def correct(model: nn.Module) -> int:
    """Right answers on the test digits, counted as the author would."""
    test = digits()
    images = (test.pixels.float() / 255).reshape(-1).view(-1, 1, 8, 8)
    with torch.no_grad():
        return int((model(images).argmax(1) == test.labels).sum())


def _state() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trained().state_dict().items()}


def _prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in _state().items()}


def _optimiser() -> dict[str, Any]:
    model = LeNet()
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    optimiser.step()
    return optimiser.state_dict()


def _pruned(remove: bool) -> dict[str, Tensor]:
    model = LeNet()
    model.load_state_dict(_state())
    prune.random_unstructured(model.conv2, "weight", 0.0)
    if remove:
        prune.remove(model.conv2, "weight")
    return model.state_dict()


def _averaged() -> dict[str, Tensor]:
    return torch.optim.swa_utils.AveragedModel(trained()).state_dict()


CHECKPOINTS: dict[str, Callable[[], Any]] = {
    "state_dict": _state,
    "net, acc and epoch": lambda: {"net": _prefixed("module."), "acc": np.float64(91.3), "epoch": np.int64(7)},
    "with argparse and optimiser": lambda: {
        "state_dict": _state(),
        "args": argparse.Namespace(lr=0.1, out=Path("runs")),
        "optimizer": _optimiser(),
        "best_acc": torch.tensor(0.9),
    },
    "model_state_dict of a compiled model": lambda: {"model_state_dict": _prefixed("_orig_mod."), "loss": 0.3},
    "compiled and parallel": lambda: _prefixed("module._orig_mod."),
    "Lightning's": lambda: {"state_dict": _prefixed("model."), "callbacks": {"x": [1]}, "epoch": 3},
    "model beside its average": lambda: {"model": _state(), "model_ema": {k: 0 * v for k, v in _state().items()}},
    "averaged": _averaged,
    "timm's with EMA": lambda: {"state_dict_ema": {k: 0 * v for k, v in _state().items()}, "state_dict": _state()},
    "nested twice": lambda: {"checkpoint": {"weights": _state(), "step": 9}},
    "in a list": lambda: [_optimiser(), _state()],
    "beside numbers": lambda: {**_state(), "epoch": 3, "lr": 0.1},
    "numpy arrays": lambda: {name: tensor.numpy() for name, tensor in _state().items()},
    "after a profiler": lambda: {**_state(), "total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)},
    "pruned with masks": lambda: _pruned(False),
    "pruned and removed": lambda: _pruned(True),
    "a part of a larger module": lambda: _prefixed("backbone."),
    "whole module": trained,
    "whole module in a dictionary": lambda: {"net": trained(), "acc": 91.0},
    "whole parallel module": lambda: nn.DataParallel(trained()),
}
"""Form -> what was saved."""


class Quantisable(nn.Module):
    """As the course teaches eager-mode quantisation: stubs, fused blocks, a FloatFunctional for the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(8), nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(8), nn.ReLU()
        self.add = FloatFunctional()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(self.quant(x))))
        x = self.add.add(x, self.relu2(self.bn2(self.conv2(x))))
        return self.dequant(self.fc(self.pool(x).flatten(1)))  # type: ignore[no-any-return]


def prepared() -> nn.Module:
    torch.backends.quantized.engine = "x86" if "x86" in torch.backends.quantized.supported_engines else "qnnpack"
    model = Quantisable().train()
    model.qconfig = quantization.get_default_qat_qconfig(torch.backends.quantized.engine)  # type: ignore[assignment]
    model = quantization.fuse_modules_qat(model, [["conv1", "bn1", "relu1"], ["conv2", "bn2", "relu2"]])
    return quantization.prepare_qat(model)  # type: ignore[no-any-return]


def converted() -> nn.Module:
    """What a student's factory returns for the state dictionary of a converted network."""
    return quantization.convert(prepared().eval())  # type: ignore[no-any-return]


@functools.cache
def aware() -> nn.Module:
    torch.manual_seed(0)
    return train(prepared(), 60)


class Functional(nn.Module):
    """For FX: plain functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x + torch.relu(self.bn2(self.conv2(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 2), 1))  # type: ignore[no-any-return]


class Rounded(torch.autograd.Function):
    """The straight-through estimator as a function of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class LearnedStep(nn.Module):
    """LSQ as its paper's listing has it: a scaled gradient for the step, and a detached difference for rounding."""

    def __init__(self, bits: int, signed: bool) -> None:
        super().__init__()
        self.low, self.high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        self.step = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        scale = (x.numel() * self.high) ** -0.5
        step = (self.step - self.step * scale).detach() + self.step * scale
        codes = (x / step).clamp(self.low, self.high)
        return ((codes.round() - codes).detach() + codes) * step


class HandWritten(nn.Module):
    """Weights and activations through quantisers of the student's own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(32, 10)
        self.weights, self.activations = LearnedStep(4, signed=True), LearnedStep(3, signed=False)

    def weight(self, w: Tensor) -> Tensor:
        if self.how == "lsq":
            return self.weights(w)  # type: ignore[no-any-return]
        if self.how == "binary":
            return torch.sign(w) * w.abs().mean()
        if self.how == "dorefa":
            squeezed = torch.tanh(w) / (2 * torch.tanh(w).abs().max()) + 0.5
            return 2 * (Rounded.apply(squeezed * 15) / 15) - 1  # type: ignore[no-any-return]
        step = w.detach().abs().amax((1, 2, 3), keepdim=True) / 7
        return w + (torch.clamp(torch.round(w / step), -7, 7) * step - w).detach()

    def activation(self, x: Tensor) -> Tensor:
        if self.how == "lsq":
            return self.activations(F.relu(x))  # type: ignore[no-any-return]
        if self.how == "dorefa":
            return Rounded.apply(torch.clamp(x, 0, 1) * 15) / 15  # type: ignore[no-any-return]
        if self.how == "binary":
            return F.relu(x)
        x = F.relu(x)
        return x + (torch.clamp(torch.round(x / 0.2), 0, 15) * 0.2 - x).detach()

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.conv1, self.conv2):
            x = self.activation(F.conv2d(x, self.weight(layer.weight), layer.bias, padding=1))
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))  # type: ignore[no-any-return]


def binary() -> nn.Module:
    return HandWritten("binary")
