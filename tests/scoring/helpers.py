"""Small networks and short ways to their costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import contest.model_file  # noqa: F401  (registers torch.ops.contest.quantise)
from scoring.analysis.cost_model import analyse
from scoring.costs import Costs, Operation
from scoring.graph.graph import Subject
from scoring.readers.read import read, subject_of_module


class Network(nn.Module):
    """Modules by name, and a function that runs them."""

    def __init__(self, run: Callable[..., Tensor], **modules: nn.Module | Tensor) -> None:
        super().__init__()
        for name, module in modules.items():
            if isinstance(module, nn.Module):
                self.add_module(name, module)
            else:
                self.register_buffer(name, module)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def quantise(x: Tensor, step: Tensor, low: int = 0, high: int = 15) -> Tensor:
    result: Tensor = torch.ops.contest.quantise(x, step, low, high)
    return result


def subject(model: nn.Module, shape: tuple[int, int, int] = (3, 8, 8), **options: object) -> Subject:
    return subject_of_module(model.eval(), shape, **options)  # type: ignore[arg-type]


def costs(model: nn.Module, shape: tuple[int, int, int] = (3, 8, 8), **options: object) -> Costs:
    return analyse(subject(model, shape, **options).graph)


def operation(found: Costs, name: str) -> Operation:
    (row,) = [op for op in found.operations if op.name == name]
    return row


def through_onnx(model: nn.Module, folder: Path, shape: tuple[int, int, int] = (3, 8, 8), **options: object) -> Subject:
    """The same network written as ONNX and read back."""
    from scoring.onnx_writer import write_onnx

    path = folder / "network.onnx"
    write_onnx(subject(model, shape, **options).graph, path)
    return read(path)
