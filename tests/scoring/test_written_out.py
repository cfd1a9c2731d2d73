"""Activations that a file writes out step by step: free as the activation, and only if they are one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoring.analysis.cost_model import analyse
from scoring.costs import Costs
from scoring.graph.interpreter import run_graph
from scoring.readers.read import read
from tests.scoring.helpers import Network, subject, through_onnx

Function = Callable[[Tensor], Tensor]

WRITTEN: dict[str, tuple[Function, Function]] = {
    "gelu": (F.gelu, lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))),
    "gelu in another order": (F.gelu, lambda x: 0.5 * (x * (torch.erf(x * 0.70710678) + 1.0))),
    "gelu by tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3)))),
    ),
    "gelu by tanh and products": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * x * (1 + 0.044715 * x * x))),
    ),
    "hard swish": (F.hardswish, lambda x: x * F.relu6(x + 3) / 6),
    "hard swish by clamp": (F.hardswish, lambda x: torch.clamp(x + 3, 0, 6) * (1 / 6) * x),
    "hard swish by hard sigmoid": (F.hardswish, lambda x: x * F.hardsigmoid(x)),
    "silu": (F.silu, lambda x: x * torch.sigmoid(x)),
    "mish": (F.mish, lambda x: x * torch.tanh(F.softplus(x))),
}
PRODUCTS: dict[str, tuple[Function, int]] = {
    "a square": (lambda x: x * x, 1),
    "a cube": (lambda x: x.pow(3), 2),
    "a polynomial": (lambda x: x * (x + 1.0) * 0.5, 1),
    "a gate by another channel": (lambda x: x * torch.sigmoid(x.flip(1)), 1),
    "a gate by a pool": (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), 1),
    "a function of many numbers": (
        lambda x: x * torch.sigmoid(1.1 * torch.tanh(0.3 * x + 0.7) + 0.9 * torch.sigmoid(0.2 * x - 0.4)),
        1,
    ),
    "nearly gelu": (lambda x: x * 0.5 * (1.02 + torch.erf(x / math.sqrt(2.0))), 0),
    "a sigmoid of another slope": (lambda x: x * torch.sigmoid(1.702 * x), 0),
    "scaled by channel": (lambda x: x * torch.sigmoid(x * torch.linspace(0.9, 1.1, 4).reshape(1, 4, 1, 1)), 1),
}
ELEMENTS = 4 * 8 * 8


def network(activation: Function) -> nn.Module:
    torch.manual_seed(0)
    run: Callable[..., Tensor] = lambda s, x: s.fc(activation(s.conv(x)).mean((2, 3)))  # noqa: E731
    return Network(run, conv=nn.Conv2d(3, 4, 3, padding=1), fc=nn.Linear(4, 10)).eval()


def products(costs: Costs) -> int:
    return sum(op.products for op in costs.operations if op.kind == "multiply")  # the pooling behind is priced besides


def exported(model: nn.Module, folder: Path) -> Path:
    path = folder / "exported.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.rand(1, 3, 8, 8),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )
    return path


@pytest.mark.parametrize("name", WRITTEN)
def test_written_out_costs_what_the_activation_costs(name: str, tmp_path: Path) -> None:
    named, written = (subject(network(function)) for function in WRITTEN[name])
    figures = [
        (c.operations, c.parameters, c.unknown_operations) for c in (analyse(named.graph), analyse(written.graph))
    ]
    assert figures[0] == figures[1] and not figures[0][2]
    images = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(run_graph(written.graph, images)[written.graph.output], written.run(images))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_from_an_old_exporter(name: str, tmp_path: Path) -> None:
    costs = analyse(read(exported(network(WRITTEN[name][1]), tmp_path)).graph)
    own = analyse(subject(network(WRITTEN[name][0])).graph)
    assert (products(costs), costs.unknown_operations, costs.parameters) == (0, (), own.parameters)


def test_old_exporters_write_gelu_by_erf(tmp_path: Path) -> None:
    path = exported(network(F.gelu), tmp_path)
    assert b"Erf" in path.read_bytes()
    costs = analyse(read(path).graph)
    assert (products(costs), costs.unknown_operations) == (0, ())


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_that_are_no_activation_are_charged(name: str, tmp_path: Path) -> None:
    function, times = PRODUCTS[name]
    assert products(analyse(subject(network(function)).graph)) == times * ELEMENTS
    if "channel" not in name:  # `flip` has no operator in ONNX
        assert products(analyse(through_onnx(network(function), tmp_path).graph)) == times * ELEMENTS


def test_a_step_that_is_read_elsewhere_stays() -> None:
    def function(x: Tensor) -> Tensor:
        gate = torch.sigmoid(x)
        return x * gate + gate.flip(1)

    graph = subject(network(function)).graph
    assert {"Silu", "Sigmoid"} <= {node.kind for node in graph.nodes}


def test_any_function_of_one_value_is_an_activation() -> None:
    for function in (lambda x: x / (1 + torch.exp(-x)), lambda x: x.pow(4)):
        costs = analyse(subject(network(function)).graph)
        assert costs.unknown_operations == ()
        assert products(costs) == sum(op.steps for op in costs.operations) == 0
    costs = analyse(subject(network(lambda x: torch.special.i0(x))).graph)
    assert any("i0" in name for name in costs.unknown_operations)
