"""Costs of an architecture before training, against those of the file that training would write."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from contest.candidate import Bits
from contest.errors import UsageError
from contest.model_file import freeze, save
from contest.networks import build, parse
from scoring.analysis.cost_model import analyse
from scoring.costs import Costs
from scoring.readers.read import read
from scoring.rules import load_rule, price
from scoring.score import architecture_costs

LAB = load_rule("lab")
TINY = "thin:widths=4-6,depths=1-1"


def written(name: str, bits: Bits, folder: Path) -> Costs:
    from contest.quantisation import quantise

    architecture = parse(name)
    torch.manual_seed(0)
    model = build(architecture).eval()
    if bits.quantised:
        model = quantise(model, bits, torch.rand(8, 3, 32, 32))
    network = freeze(model, architecture, image_shape=(3, 32, 32), classes=10, number_bits=bits.numbers)
    return analyse(read(save(network, folder / "model.pt")).graph)


def figures(costs: Costs) -> list[tuple[object, ...]]:
    return [(op.name, op.macs, op.weights, op.weight_bits, op.activation_bits) for op in costs.operations if op.macs]


def test_float_architecture_costs_what_its_file_costs(tmp_path: Path) -> None:
    plan = architecture_costs(parse("resnet8"))
    file = written("resnet8", Bits(), tmp_path)
    assert figures(plan) == figures(file)
    assert price(plan, LAB) == price(file, LAB)


@pytest.mark.slow
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", ["resnet8", "dsresnet"])
def test_quantised_architecture_costs_what_its_file_costs(name: str, per_channel: bool, tmp_path: Path) -> None:
    bits = Bits(3, 4, per_channel=per_channel, layers={"fc": (8, 8)})
    plan, file = architecture_costs(parse(name), bits), written(name, bits, tmp_path)
    assert figures(plan) == figures(file)
    assert plan.parameters == file.parameters
    assert price(plan, LAB).ops == price(file, LAB).ops


def test_bits_of_single_layers() -> None:
    plan = architecture_costs(parse("resnet8"), Bits(4, 4, layers={"stem": (8, 8), "stages.1": (2, 3)}))
    rows = {op.name: op for op in plan.operations if op.macs}
    assert (rows["stem.conv"].weight_bits, rows["stem.conv"].activation_bits) == (8, 8)
    assert (rows["stages.1.0.body.conv1"].weight_bits, rows["stages.1.0.body.conv1"].operation_bits) == (2, 3)
    assert rows["fc"].operation_bits == 4


FIRST_AND_LAST = [
    {"first": (8, 8), "last": (4, 6)},
    {"first": (4, 5), "fc": (8, 8)},
    {"stem": (2, 8), "last": (2, 2)},
    {"first": (3, 32), "stages": (5, 5)},
]


@pytest.mark.parametrize("numbers", [8, 32])
@pytest.mark.parametrize("layers", FIRST_AND_LAST)
def test_first_and_last_cost_what_the_file_of_that_network_costs(
    layers: dict[str, tuple[int, int]], numbers: Literal[8, 32], tmp_path: Path
) -> None:
    bits = Bits(3, 4, layers=layers, numbers=numbers)
    plan, file = architecture_costs(parse(TINY), bits), written(TINY, bits, tmp_path)
    assert figures(plan) == figures(file)
    assert plan.parameters == file.parameters
    assert price(plan, LAB).ops == price(file, LAB).ops


def test_numbers_of_eight_bits_by_arithmetic(tmp_path: Path) -> None:
    """A multiplier and a shift a channel at 8 bits instead of 32, and two scales a layer."""
    wide, short = (written(TINY, Bits(3, 4, numbers=numbers), tmp_path) for numbers in (32, 8))
    layers = [op for op in wide.operations if op.kind == "conv"]
    channels = sum({"stem.conv": 4}.get(op.name, 6 if "stages.1" in op.name else 4) for op in layers)
    fewer = (2 * channels * (32 - 8) - 2 * len(layers) * 32) / 32 / 5.6e6
    assert len(layers) == 6
    assert price(wide, LAB).params - price(short, LAB).params == pytest.approx(fewer, rel=1e-9)
    assert price(wide, LAB).ops == price(short, LAB).ops


def test_bits_of_a_layer_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"layers \['head'\], which the network lacks; it has \['stem.conv'"):
        architecture_costs(parse("resnet8"), Bits(4, 4, layers={"head": (8, 8)}))
