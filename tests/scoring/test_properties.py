"""What must hold for every network: the score only falls when something goes, and does not depend on the form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from contest.model_file import freeze, load, save
from contest.networks import build, parse
from scoring.analysis.cost_model import analyse
from scoring.costs import Costs, Number, Operation
from scoring.readers.read import read
from scoring.rules import built_in, load_rule, price
from tests.scoring.helpers import costs, through_onnx

KINDS = ("conv", "linear", "matmul", "multiply", "batch_norm")
RULES = [load_rule(name) for name in built_in()]
few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    weights = draw(st.integers(0, 10_000))
    outputs = draw(st.integers(1, 1_000))
    bits, activations = draw(st.integers(1, 32)), draw(st.integers(1, 32))
    return Operation(
        name=draw(st.text(max_size=5)),
        kind=draw(st.sampled_from(KINDS)),
        macs=outputs * draw(st.integers(1, 100)),
        products=draw(st.integers(0, 100)),
        outputs=outputs,
        weights=weights,
        nonzeros=draw(st.integers(0, weights)),
        weight_bits=bits,
        activation_bits=activations,
        operation_bits=max(bits, activations),
        bias=draw(st.booleans()),
    )


numbers = st.builds(Number, st.text(max_size=3), st.text(max_size=3), st.integers(0, 99), st.integers(1, 64))
tables = st.builds(Costs, st.lists(operations(), max_size=6).map(tuple), st.lists(numbers).map(tuple))


@given(tables, st.data())
def test_score_never_rises_when_something_goes(table: Costs, data: st.DataObject) -> None:
    for rule in RULES:
        score = price(table, rule)
        assert min(score.params, score.ops) >= 0
        assert score.total_with_bitmask >= score.total >= 0
        for i, op in enumerate(table.operations):
            less_bits = data.draw(st.integers(1, op.weight_bits))
            for change in (
                replace(op, nonzeros=max(0, op.nonzeros - 1)),
                replace(op, weight_bits=less_bits, operation_bits=max(less_bits, op.activation_bits)),
                replace(op, activation_bits=1, operation_bits=op.weight_bits),
            ):
                ops = (*table.operations[:i], change, *table.operations[i + 1 :])
                assert price(replace(table, operations=ops), rule).total <= score.total + 1e-15


@given(tables)
def test_costs_survive_json(table: Costs) -> None:
    assert Costs.from_json(table.to_json()) == table


def network(widths: tuple[int, int], seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    a, b = widths
    return nn.Sequential(
        nn.Conv2d(3, a, 3, padding=1, bias=False),
        nn.BatchNorm2d(a),
        nn.ReLU(),
        nn.Conv2d(a, b, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(b, 4),
    ).eval()


@few
@given(st.tuples(st.integers(2, 6), st.integers(2, 6)), st.integers(0, 1))
def test_fewer_channels_cost_less(widths: tuple[int, int], which: int) -> None:
    narrower = tuple(w - (i == which) for i, w in enumerate(widths))
    before, after = costs(network(widths)), costs(network(narrower))  # type: ignore[arg-type]
    for rule in RULES:
        assert price(after, rule).params < price(before, rule).params
        assert price(after, rule).ops < price(before, rule).ops


@few
@given(st.permutations(range(5)), st.integers(0, 3))
def test_order_of_channels_does_not_matter(order: list[int], seed: int) -> None:
    net, other = network((5, 4), seed), network((5, 4), seed)
    with torch.no_grad():
        for a, b in zip(net[:2].parameters(), other[:2].parameters(), strict=True):
            b.copy_(a[order])
        other[3].weight.copy_(net[3].weight[:, order])
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(net(images), other(images))
    assert costs(net) == costs(other)


@few
@given(st.integers(0, 44), st.integers(0, 3))
def test_zeroing_a_weight_never_costs(position: int, seed: int) -> None:
    net = network((4, 5), seed)
    before = costs(net)
    with torch.no_grad():
        net[7].weight.view(-1)[position % 20] = 0
        net[3].weight.view(-1)[position] = 0
    after = costs(net)
    assert after.nonzeros == before.nonzeros - 2
    for rule in RULES:
        assert price(after, rule).total < price(before, rule).total


@pytest.mark.parametrize("form", [".safetensors", ".onnx"])
def test_file_format_does_not_matter(form: str, tmp_path: Path) -> None:
    architecture = parse("resnet8")
    torch.manual_seed(0)
    network = freeze(build(architecture).eval(), architecture, image_shape=(3, 32, 32), classes=10, weight_bits=16)
    save(network, tmp_path / "model.pt")
    one = analyse(read(tmp_path / "model.pt").graph)
    if form == ".onnx":
        from scoring.convert import convert_file

        other = convert_file(tmp_path / "model.pt", tmp_path / "model.onnx")
    else:
        save(load(tmp_path / "model.pt"), tmp_path / "model.safetensors")
        other = analyse(read(tmp_path / "model.safetensors").graph)
    assert one.operations == other.operations
    assert one.parameters == other.parameters


def test_folding_into_onnx_keeps_zeros(tmp_path: Path) -> None:
    net = network((4, 5))
    with torch.no_grad():
        net[3].weight[:, 0] = 0
    assert analyse(through_onnx(net, tmp_path).graph).nonzeros == costs(net).nonzeros
