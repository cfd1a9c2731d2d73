"""Bits of weights and activations: declared, verified, followed through the graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoring.analysis.activation_bits import follow
from scoring.analysis.weight_encoding import check_codes
from scoring.examine import examine
from scoring.graph.graph import Graph, Node
from tests.scoring.helpers import Network, costs, operation, quantise, subject

STEP = torch.tensor([0.1])


@pytest.mark.parametrize(
    ("codes", "bits", "fits"),
    [
        ([-1, 1], 1, True),
        ([-1, 0, 1], 1, True),  # binary with a mask
        ([0, 1], 1, True),
        ([-2, -1, 1, 2], 2, True),  # four values around a zero that the bitmask holds
        ([-2, -1, 0, 1, 2], 2, True),
        ([1, 2, 3, 4], 2, True),
        ([1, 5], 2, False),  # few values, but not of consecutive integers: a code-book
        ([-4, 3], 3, True),
        ([-4, 4], 3, True),
        ([-5, 4], 3, False),
        ([0, 0], 1, True),
        ([127, -128], 8, True),
    ],
)
def test_codes_fit_their_bits(codes: list[int], bits: int, fits: bool) -> None:
    problem = check_codes(torch.tensor(codes, dtype=torch.int8), bits, "w")
    assert (problem is None) is fits
    if problem:
        assert f"'w' declares {bits} bits" in problem


def test_codes_must_be_integers() -> None:
    assert check_codes(torch.tensor([0.5, 1.0]), 8, "w") == "'w': its codes are not integers"


def quantised(codes: Tensor, step: Tensor, **more: nn.Module | Tensor) -> Network:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        weight = s.codes.to(torch.float32) * s.step
        return F.conv2d(quantise(x, s.scale), weight).mean((2, 3))

    return Network(run, codes=codes, step=step, scale=STEP.clone(), **more)


def test_codes_times_step() -> None:
    codes = torch.randint(-4, 4, (8, 3, 3, 3), dtype=torch.int8)
    net = quantised(codes, torch.rand(8, 1, 1, 1))
    row = operation(costs(net, declared_bits={"codes": 3}), "")
    assert (row.weight_bits, row.activation_bits, row.operation_bits) == (3, 4, 4)
    assert row.nonzeros == int(codes.count_nonzero())
    found = costs(net, declared_bits={"codes": 3})
    assert found.problems == ()
    assert sorted(n.count for n in found.numbers) == [1, 8]  # one step of the input, one of each output channel
    assert operation(costs(net), "").weight_bits == 8  # undeclared: the bits of the type


def test_declared_too_few_bits() -> None:
    net = quantised(torch.tensor([-4, 3, 1] * 9, dtype=torch.int8).reshape(1, 3, 3, 3), torch.rand(1))
    (problem,) = costs(net, declared_bits={"codes": 2}).problems
    assert "'codes' declares 2 bits, but its codes lie between -4 and 3" in problem


def test_step_per_weight_is_no_scale() -> None:
    """A step for each weight is a float weight in disguise."""
    net = quantised(torch.ones(2, 3, 3, 3, dtype=torch.int8), torch.rand(2, 3, 3, 3))
    assert operation(costs(net, declared_bits={"codes": 1}), "").weight_bits == 32


def test_code_book_costs_index_table_and_its_type() -> None:
    table, index = torch.rand(16), torch.randint(0, 16, (8, 3, 3, 3))
    net = Network(
        lambda s, x: F.conv2d(x, s.table[s.index.long()]).mean((2, 3)), table=table, index=index.to(torch.uint8)
    )
    found = costs(net)
    row = operation(found, "")
    assert (row.weight_bits, row.operation_bits) == (4, 32)
    assert [n.count for n in found.numbers] == [16]


def test_prune_masks_are_zeros_not_numbers() -> None:
    from torch.nn.utils import prune

    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten())
    prune.l1_unstructured(net[0], "weight", 0.75)
    found = costs(net)
    assert (found.weights, found.nonzeros, found.parameters) == (216, 54, 216)
    assert subject(net).graph.unused == ()


def test_half_counts_only_where_it_runs() -> None:
    half = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten()).half()
    found = costs(half)
    row = operation(found, "0")
    assert (row.weight_bits, row.operation_bits) == (16, 16)
    assert {n.bits for n in found.numbers} == {16}
    stored_only = Network(
        lambda s, x: F.conv2d(x, s.weight.float()).flatten(1), weight=torch.rand(4, 3, 3, 3, dtype=torch.float16)
    )
    stored_only.double_check = nn.Parameter(torch.zeros(0))  # a float32 parameter: images stay float32
    assert operation(costs(stored_only), "").weight_bits == 32


# Activations ----------------------------------------------------------------------------------------------------


def bits_behind(run: Callable[[Network, Tensor], Tensor], **modules: nn.Module | Tensor) -> int:
    """Activation bits of a layer that reads `run(quantised image)`."""
    net = Network(
        lambda s, x: s.last(run(s, quantise(x, s.scale))).mean((2, 3)),
        scale=STEP.clone(),
        last=nn.LazyConv2d(2, 1),
        **modules,
    )
    net(torch.rand(1, 4, 8, 8))
    return operation(costs(net, (4, 8, 8)), "last").activation_bits


@pytest.mark.parametrize(
    "run",
    [
        lambda s, x: x,
        lambda s, x: F.max_pool2d(x, 2),
        lambda s, x: F.relu(x),
        lambda s, x: F.pad(x, (1, 1, 1, 1)),
        lambda s, x: F.pad(x, (1, 1, 1, 1), value=0.3),  # 3 steps of 0.1
        lambda s, x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda s, x: x[:, :2, 1:5],
        lambda s, x: F.channel_shuffle(x, 2),
        lambda s, x: torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1),
        lambda s, x: torch.cat(torch.chunk(x, 2, 1)[::-1], 1),
        lambda s, x: F.interpolate(x, scale_factor=2),
        lambda s, x: F.hardtanh(x, 0.0, 0.5),
        lambda s, x: quantise(F.avg_pool2d(x, 2), s.scale),
        lambda s, x: F.dropout(x, 0.5, False),
    ],
)
def test_code_preserving_operations_keep_the_bits(run: Callable[[Network, Tensor], Tensor]) -> None:
    assert bits_behind(run) == 4


@pytest.mark.parametrize(
    "run",
    [
        lambda s, x: x + F.max_pool2d(x, 3, 1, 1),
        lambda s, x: F.avg_pool2d(x, 2),
        lambda s, x: F.adaptive_avg_pool2d(x, 1),
        lambda s, x: s.norm(x),
        lambda s, x: x * 2,
        lambda s, x: F.silu(x),
        lambda s, x: F.pad(x, (1, 1, 1, 1), value=0.33),  # between the grid's points
        lambda s, x: F.hardtanh(x, 0.05, 0.5),
        lambda s, x: torch.cat([x, x + 1], 1),
        lambda s, x: torch.cat([x, quantise(x, s.other)], 1),
    ],
)
def test_what_widens_needs_a_new_quantiser(run: Callable[[Network, Tensor], Tensor]) -> None:
    assert bits_behind(run, norm=nn.BatchNorm2d(4), other=torch.tensor([0.07])) == 32


def test_wider_union_of_two_quantisers_on_one_scale() -> None:
    assert bits_behind(lambda s, x: torch.cat([x, quantise(x - 1, s.scale, -16, -1)], 1)) == 5


def test_image_keeps_eight_bits_through_an_affine_before_the_first_layer() -> None:
    mean, std = torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 1

    def run(s: nn.Module, x: Tensor) -> Tensor:
        return s.second(s.first((x - s.mean) / s.std)).mean((2, 3))

    found = costs(Network(run, mean=mean, std=std, first=nn.Conv2d(3, 4, 3, padding=1), second=nn.Conv2d(4, 2, 1)))
    assert [op.activation_bits for op in found.operations if op.macs] == [8, 32]


def test_image_through_an_affine_for_each_pixel_is_float() -> None:
    net = Network(lambda s, x: s.conv(x * s.table).mean((2, 3)), table=torch.rand(1, 3, 8, 8), conv=nn.Conv2d(3, 4, 1))
    assert operation(costs(net), "conv").activation_bits == 32


def test_padding_of_a_grid_without_zero_adds_a_value() -> None:
    net = Network(
        lambda s, x: s.conv(quantise(x, s.scale, 1, 2)).mean((2, 3)),
        scale=STEP.clone(),
        conv=nn.Conv2d(3, 4, 3, padding=1),
    )
    assert operation(costs(net), "conv").activation_bits == 2


def test_values_at_run_time_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quantiser whose declared bits are fewer than its codes need is found out by counting."""
    import dataclasses

    net = Network(lambda s, x: s.conv(quantise(x, s.scale)).mean((2, 3)), scale=STEP.clone(), conv=nn.Conv2d(3, 4, 1))
    honest = subject(net)
    nodes = [
        dataclasses.replace(n, attributes={"low": 0, "high": 15, "bits": 2}) if n.kind == "Quant" else n
        for n in honest.graph.nodes
    ]
    liar = dataclasses.replace(honest, graph=dataclasses.replace(honest.graph, nodes=nodes))
    (problem,) = examine(liar).costs.problems
    assert "the input of 'conv' is credited with 2 bits (4 values)" in problem
    assert examine(honest).costs.problems == ()


@pytest.mark.parametrize(
    ("shape", "bits"), [((1,), 8), ((1, 3, 1, 1), 8), ((1, 1, 8, 1), 32), ((1, 1, 1, 8), 32), ((8, 8), 32)]
)
def test_an_image_keeps_its_bits_times_numbers_of_its_channels(shape: tuple[int, ...], bits: int) -> None:
    """Rows, columns and places have no weight of the first layer that could take their numbers up."""

    def run(s: nn.Module, x: Tensor) -> Tensor:
        return F.conv2d(x * s.numbers, s.weight).mean((2, 3))

    net = Network(run, numbers=torch.rand(shape) + 0.5, weight=torch.randn(4, 3, 3, 3))
    assert max(op.activation_bits for op in costs(net).operations if op.kind == "conv" and op.weights) == bits


def test_an_image_whose_channels_are_last_keeps_its_bits() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        return F.conv2d((x.permute(0, 2, 3, 1) * s.numbers).permute(0, 3, 1, 2), s.weight).mean((2, 3))

    net = Network(run, numbers=torch.rand(3) + 0.5, weight=torch.randn(4, 3, 3, 3))
    assert max(op.activation_bits for op in costs(net).operations if op.weights) == 8


def test_numbers_from_a_code_book_cost_their_table() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        return (F.conv2d(x, s.weight) * s.table[s.index].reshape(1, -1, 1, 1)).mean((2, 3))

    index = torch.randint(0, 6, (8,))
    net = Network(run, weight=torch.randn(8, 3, 1, 1), table=torch.randn(6), index=index)
    assert sum(number.count * number.bits for number in costs(net).numbers) >= 6 * 32 + 8 * 3


def _of_branches(*normalise: Callable[[nn.Module, Tensor], Tensor]) -> list[int]:
    """Activation bits of a layer behind each way to normalise the image; the first layer is the largest."""

    def run(s: nn.Module, x: Tensor) -> Tensor:
        layers = [F.conv2d(one(s, x), getattr(s, f"w{i}")) for i, one in enumerate(normalise)]
        return torch.cat(layers, 1).mean((2, 3))

    inputs = [1 if one is red else 3 for one in normalise]
    weights = {f"w{i}": torch.randn(6 - i, n, 3, 3) for i, n in enumerate(inputs)}
    numbers = {"mean": torch.rand(1, 3, 1, 1), "std": torch.rand(1, 3, 1, 1) + 0.5, "other": torch.rand(1, 3, 1, 1) + 1}
    found = costs(Network(run, **weights, **numbers, mean2=numbers["mean"].clone(), std2=numbers["std"].clone()))
    return [op.activation_bits for op in found.operations if op.weights]


def first(s: nn.Module, x: Tensor) -> Tensor:
    return (x - s.mean) / s.std


def copied(s: nn.Module, x: Tensor) -> Tensor:
    return (x - s.mean2) / s.std2


def doubled(s: nn.Module, x: Tensor) -> Tensor:
    return first(s, x) * 2


def plain(s: nn.Module, x: Tensor) -> Tensor:
    return x


def red(s: nn.Module, x: Tensor) -> Tensor:
    return first(s, x)[:, :1]


def second(s: nn.Module, x: Tensor) -> Tensor:
    return x * s.other


def further(s: nn.Module, x: Tensor) -> Tensor:
    return first(s, x) * s.other


@pytest.mark.parametrize("branch", [first, copied, doubled, plain, red])
def test_branches_of_one_normalisation_keep_the_bits_of_the_image(branch: Callable[..., Tensor]) -> None:
    assert _of_branches(first, branch) == [8, 8]
    assert _of_branches(branch, first) == [8, 8]


@pytest.mark.parametrize("branch", [second, further])
def test_another_version_of_the_image_is_one_of_floats(branch: Callable[..., Tensor]) -> None:
    """Numbers of its own for each output of a layer are that layer's weights."""
    assert _of_branches(first, branch) == [8, 32]
    assert _of_branches(branch, first) == [8, 32]
    assert _of_branches(first, branch, branch) == [32, 8, 8]  # what most work reads


def _quantised_twice(first: list[int], second: list[int]) -> bool:
    """Whether the second of two quantisers with these zero points, of the channels, would only copy."""
    nodes = [Node(f"q{i}", "Quant", (f"v{i}", "step", f"z{i}"), (f"v{i + 1}",), {"low": 0, "high": 7}) for i in (0, 1)]
    values = {f"v{i}": (1, 3, 8, 8) for i in range(3)}
    points = {f"z{i}": torch.tensor(z).float().reshape(1, 3, 1, 1) for i, z in enumerate((first, second))}
    constants = {"step": torch.tensor(0.5), **points}
    shapes = {**values, **{name: tuple(tensor.shape) for name, tensor in constants.items()}}
    graph = Graph(nodes, "v0", "v2", shapes, dict.fromkeys(shapes, torch.float32), constants, {})
    found = follow(graph)
    return found["v1"].lies_within(found["v2"])


def test_several_zero_points_are_the_same_only_where_they_are_equal() -> None:
    assert not _quantised_twice([0, 1, 2], [2, 1, 0])
    assert not _quantised_twice([0, 1, 2], [1, 1, 1])
    assert _quantised_twice([1, 1, 1], [1, 1, 1])
