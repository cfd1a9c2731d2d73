"""MACs, weights and numbers of each kind of operation, against arithmetic written out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoring.costs import Costs
from tests.scoring.helpers import Network, costs, operation


def counts(found: Costs, name: str) -> tuple[int, int]:
    row = operation(found, name)
    return row.macs, row.weights


@pytest.mark.parametrize(
    ("layer", "macs", "weights"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 8 * 8 * 8 * 27, 8 * 27),
        (nn.Conv2d(3, 8, 3, padding="same"), 8 * 8 * 8 * 27, 8 * 27),
        (nn.Conv2d(3, 8, (3, 1), stride=2), 8 * 3 * 4 * 9, 8 * 9),
        (nn.Conv2d(3, 6, 3, groups=3), 6 * 6 * 6 * 9, 6 * 9),
        (nn.Conv2d(3, 8, 3, dilation=2), 8 * 4 * 4 * 27, 8 * 27),
        (nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), 8 * 8 * 8 * 27, 8 * 27),
        # Transposed: each of the 3 * 64 inputs meets 5 * 16 weights.
        (nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1), 3 * 64 * 5 * 16, 3 * 5 * 16),
    ],
)
def test_convolutions(layer: nn.Module, macs: int, weights: int) -> None:
    net = Network(lambda s, x: s.layer(x).mean((2, 3)), layer=layer)
    assert counts(costs(net), "layer") == (macs, weights)
    assert costs(net).unknown_operations == ()


def test_depthwise_and_pointwise() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Flatten(), nn.Linear(6 * 64, 2))
    found = costs(net)
    assert counts(found, "0") == (6 * 64 * 3, 18)
    assert counts(found, "1") == (6 * 64 * 9, 54)
    assert counts(found, "3") == (768, 768)


def test_one_dimensional_convolution() -> None:
    net = Network(lambda s, x: s.conv(x.flatten(2)).mean(2), conv=nn.Conv1d(3, 4, 5))
    assert counts(costs(net), "conv") == (4 * 60 * 15, 60)


def test_linear_on_a_sequence() -> None:
    net = Network(lambda s, x: s.fc(x.flatten(2).transpose(1, 2)).mean(1), fc=nn.Linear(3, 7))
    found = costs(net)
    assert counts(found, "fc") == (64 * 3 * 7, 21)
    assert [(n.name, n.count) for n in found.numbers] == [("fc.shift", 7)]


def test_shared_layer_has_its_weights_once() -> None:
    net = Network(lambda s, x: s.conv(s.conv(x)).mean((2, 3)), conv=nn.Conv2d(3, 3, 3, padding=1))
    found = costs(net)
    assert found.macs == 2 * 3 * 64 * 27
    assert found.weights == 81
    assert [(op.name, op.shared) for op in found.operations] == [("conv", False), ("conv:2", True)]
    assert sum(n.count for n in found.numbers) == 3


def test_tied_weights_of_two_modules() -> None:
    a, b = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
    b.weight = a.weight
    found = costs(Network(lambda s, x: s.b(s.a(x)).mean((2, 3)), a=a, b=b))
    assert (found.weights, found.macs) == (9, 2 * 64 * 9)


def test_matmul_of_activations() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        rows = x.flatten(2)  # [1, 3, 64]
        return torch.einsum("nij,nkj->nik", rows, rows).flatten(1)

    found = costs(Network(run))
    assert found.macs == 3 * 3 * 64
    assert found.weights == 0


def test_attention() -> None:
    """Embedding 8, 2 heads, 64 tokens: projections 64*8*24 and 64*8*8, products 2 * (64*64*4) * 2."""
    attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def run(s: nn.Module, x: Tensor) -> Tensor:
        x = s.embed(x).flatten(2).transpose(1, 2)
        mixed: Tensor = s.attention(x, x, x, need_weights=False)[0]
        return mixed.mean(1)

    found = costs(Network(run, embed=nn.Conv2d(3, 8, 1), attention=attention))
    assert sum(op.macs for op in found.operations if op.kind == "matmul") == 2 * 2 * 64 * 64 * 4
    assert sum(op.macs for op in found.operations if op.kind == "linear") == 64 * 8 * 24 + 64 * 8 * 8
    assert found.unknown_operations == ()


def test_squeeze_and_excite() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        x = s.conv(x)
        gate = torch.sigmoid(s.up(F.relu(s.down(F.adaptive_avg_pool2d(x, 1)))))
        return s.last(x * gate).mean((2, 3))

    modules = {"conv": nn.Conv2d(3, 8, 1), "down": nn.Conv2d(8, 2, 1), "up": nn.Conv2d(2, 8, 1)}
    found = costs(Network(run, **modules, last=nn.Conv2d(8, 2, 1)))
    (gate,) = [op for op in found.operations if op.kind == "multiply"]
    assert (gate.products, gate.macs) == (8 * 64, 0)
    assert counts(found, "down") == (16, 16)


def test_batch_norm_is_two_numbers_a_channel_and_takes_up_the_bias() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=True), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    found = costs(net)
    assert {n.name: n.count for n in found.numbers} == {"0.multiplier": 8, "0.shift": 8, "4.shift": 2}
    assert found.parameters == 8 * 27 + 16 + 576 + 2


def test_batch_norm_before_a_layer_stands_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1), nn.Flatten())
    assert sum(n.count for n in costs(net).numbers) == 8 + 16 + 2


def test_normalisation_is_charged_once() -> None:
    mean, std = torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.5
    net = Network(lambda s, x: s.conv((x - s.mean) / s.std).mean((2, 3)), mean=mean, std=std, conv=nn.Conv2d(3, 4, 1))
    assert sorted(n.count for n in costs(net).numbers) == [3, 3, 4]


def test_residual_add_and_pooling_are_free() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        x = s.a(x)
        return F.avg_pool2d(F.max_pool2d(x + s.b(x), 2), 4).flatten(1)

    found = costs(Network(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 3, padding=1)))
    assert {op.name for op in found.operations if op.macs or op.products} == {"a", "b"}


def test_python_control_flow_and_functional_layers() -> None:
    weight = torch.rand(3, 3, 1, 1)

    def run(s: nn.Module, x: Tensor) -> Tensor:
        for _ in range(4):
            if x.shape[1] == 3:
                x = F.conv2d(x, s.kernel)
        return x.mean((2, 3))

    found = costs(Network(run, kernel=weight))
    assert (found.macs, found.weights) == (4 * 64 * 9, 9)


# What must not be hidden ----------------------------------------------------------------------------------------


def test_matmul_as_products_and_a_sum_costs_as_much() -> None:
    """[1,1,192] * [10,192] element by element, then a sum over the last dimension: 1920 MACs by any name."""

    def run(s: nn.Module, x: Tensor) -> Tensor:
        product: Tensor = (x.flatten(1)[:, None, :] * s.table).sum(2)
        return product

    found = costs(Network(run, table=torch.rand(10, 192)))
    assert sum(2 * op.macs + op.products + op.steps for op in found.operations) >= 2 * 1920
    assert found.parameters >= 1920


def test_scaled_channels_and_a_sum_are_a_layer() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([(x * s.a).sum(1), (x * s.b).sum(1)], 1).flatten(1)

    found = costs(Network(run, a=torch.rand(3, 1, 1), b=torch.rand(3, 1, 1)))
    assert sum(2 * op.macs + op.products + op.steps for op in found.operations) == 2 * (2 * 3 * 64)


def test_convolution_out_of_additions_is_priced() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        for shift in range(1, 8):
            x = x + torch.cat([x[..., shift:], x[..., :shift]], 3)
        return s.fc(x.mean((2, 3)))

    found = costs(Network(run, fc=nn.Linear(3, 10)))
    assert sum(op.steps for op in found.operations) == 2 * 7 * 192  # multiply-accumulates, which no layer grants


def test_additions_of_tables_are_priced() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        table = s.table
        for _ in range(20):
            x = x + table
        return s.fc(x.mean((2, 3)))

    found = costs(Network(run, table=torch.rand(1, 3, 8, 8), fc=nn.Linear(3, 10)))
    assert sum(op.steps for op in found.operations) == 20 * 192


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda s, x: torch.cumsum(x, 1).mean((2, 3)), "cumsum"),
        (lambda s, x: torch.sort(x.flatten(1), 1)[0][:, :10], "sort"),
        (lambda s, x: x.flatten(1) @ s.w if x.sum() > 0 else x.flatten(1), "_local_scalar_dense"),
        (lambda s, x: torch.special.i0(x).mean((2, 3)), "i0"),
        (lambda s, x: F.batch_norm(x, None, None, training=True).mean((2, 3)), "batch_norm"),
        (lambda s, x: F.dropout(x, 0.5, True).mean((2, 3)), "dropout"),
        (lambda s, x: (x + torch.rand_like(x)).mean((2, 3)), "rand_like"),
        (lambda s, x: torch.fft.fft(x).real.mean((2, 3)), "fft"),
    ],
)
def test_unknown_operations_are_named(run: object, name: str) -> None:
    found = costs(Network(run, w=torch.rand(192, 10)))  # type: ignore[arg-type]
    assert found.unknown_operations
    assert any(part in text for part in name.split("|") for text in found.unknown_operations)


def test_fake_integer_tricks_cost_their_width() -> None:
    """float64 is priced as 64 bits."""
    net = Network(lambda s, x: s.conv(x.double()).float().mean((2, 3)), conv=nn.Conv2d(3, 4, 1).double())
    row = operation(costs(net), "conv")
    assert (row.weight_bits, row.operation_bits) == (64, 64)


def test_change_in_place_behind_a_view_is_not_followed_blindly() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        y = s.conv(x)
        y[:, :2].mul_(s.gate)
        return y.mean((2, 3))

    found = costs(Network(run, conv=nn.Conv2d(3, 4, 1), gate=torch.rand(1)))
    assert found.unknown_operations


def test_unused_tensors_are_listed() -> None:
    from tests.scoring.helpers import subject

    net = Network(lambda s, x: s.conv(x).mean((2, 3)), conv=nn.Conv2d(3, 4, 1), spare=torch.rand(7))
    assert subject(net).graph.unused == ("spare",)


def test_costs_are_those_of_one_image_whatever_the_batch() -> None:
    from scoring.analysis.cost_model import analyse
    from scoring.readers.torch_trace import trace

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    assert analyse(trace(net, torch.rand(1, 3, 8, 8))) == costs(net)
