"""The three laws: proofs as properties, and what honest networks do between layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scoring import verification
from scoring.analysis.affine_chains import with_folded_chains
from scoring.analysis.allowances import Demand, Grant, Regions, settle, too_deep
from scoring.analysis.axes import CHANNEL, MIXED, SPATIAL, regrouped
from scoring.analysis.cost_model import analyse
from scoring.analysis.dead_channels import prepared
from scoring.analysis.wiring import wiring_of
from scoring.costs import Costs
from scoring.graph.graph import KINDS, Graph, Node
from scoring.graph.interpreter import Engine, images_stay_first, logits_of, run_graph
from scoring.rules import load_rule, price
from tests.scoring.helpers import Network, costs, quantise, subject

# Law 2: what layers grant -----------------------------------------------------------------------------------------

SORTS = ("multiply", "add", "activation", "quantiser", "sum")


def chain(count: int) -> Graph:
    """`count` values in a row, each the ReLU of the one before: a graph of one region."""
    nodes = [Node(f"n{i}", "Relu", (f"v{i}",), (f"v{i + 1}",)) for i in range(count)]
    names = [f"v{i}" for i in range(count + 1)]
    shapes = dict.fromkeys(names, (1, 1, 1, 1))
    return Graph(nodes, "v0", names[-1], shapes, dict.fromkeys(names, torch.float32), {}, {})


def layer(index: int, regions: Regions, operations: int, made: int, read: int, bits: int = 32) -> Grant:
    """A layer that reads one end of the chain and makes the other."""
    region = regions.of("v1")
    return Grant(f"l{index}", operations, made, "v0", (("v8", read),), region, (region,), bits)


demands = st.lists(st.tuples(st.sampled_from(SORTS), st.integers(1, 50), st.sampled_from((4, 8, 32))), max_size=8)
layers = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20), st.integers(0, 20)), max_size=5)


@settings(deadline=None)  # a busy machine is no failure
@given(demands, layers)
def test_no_layer_grants_more_operations_than_it_is_priced_for(
    wanted: list[tuple[str, int, int]], given_: list[tuple[int, int, int]]
) -> None:
    """Operations done are at most twice the operations priced: what is free is at most what is priced."""
    graph = chain(8)
    regions = Regions(graph)
    asked = [Demand(graph.nodes[i], sort, n, bits) for i, (sort, n, bits) in enumerate(wanted)]
    grants = [layer(i, regions, *one) for i, one in enumerate(given_)]
    left = settle(graph, asked, grants, regions).left
    free = sum(d.elements for d in asked) - sum(left.values())
    assert free <= sum(grant.operations for grant in grants)
    for sort in SORTS:
        covered = sum(d.elements - left.get(i, 0) for i, d in enumerate(asked) if d.sort == sort)
        assert covered <= sum(g.made + (g.inputs[0][1] if sort != "sum" else 0) for g in grants)


@settings(deadline=None)
@given(demands, layers, st.randoms())
def test_what_is_free_does_not_depend_on_the_order(
    wanted: list[tuple[str, int, int]], given_: list[tuple[int, int, int]], random: object
) -> None:
    graph = chain(8)
    regions = Regions(graph)

    def price_left(order: list[tuple[str, int, int]], of: list[tuple[int, int, int]]) -> int:
        asked = [Demand(graph.nodes[i], sort, n, bits) for i, (sort, n, bits) in enumerate(order)]
        grants = [layer(i, regions, *one) for i, one in enumerate(of)]
        left = settle(graph, asked, grants, regions).left
        return sum(n * asked[i].bits for i, n in left.items())

    assert price_left(wanted, given_) == price_left(wanted[::-1], given_[::-1])


def in_a_row(sort: str, count: int, merges: tuple[int, ...] = ()) -> Graph:
    """A convolution, then so many operations of one sort, some of them behind an addition of the map to itself."""
    kinds = {"multiply": "Mul", "add": "Add", "activation": "Relu"}
    nodes, value = [Node("conv", "Conv", ("image", "w"), ("v",), {"pads": [0, 0, 0, 0]})], "v"
    for i in range(count):
        if i in merges:
            nodes.append(Node(f"sum{i}", "Add", (value, value), (f"s{i}",)))
            value = f"s{i}"
        constant = () if sort == "activation" else ("c",)
        nodes.append(Node(f"n{i}", kinds[sort], (value, *constant), (f"v{i}",)))
        value = f"v{i}"
    names = ["image", *(node.output for node in nodes)]
    shapes = dict.fromkeys(names, (1, 1, 2, 2))
    constants = {"w": torch.ones(1, 1, 1, 1), "c": torch.ones(1, 1, 1, 1)}
    return Graph(nodes, "image", value, shapes, dict.fromkeys(names, torch.float32), constants, {})


@pytest.mark.parametrize(("sort", "most"), [("multiply", 2), ("add", 2), ("activation", 3)])
def test_so_many_in_a_row_are_free_and_an_addition_of_maps_begins_with_one(sort: str, most: int) -> None:
    graph = in_a_row(sort, 6)
    asked = [Demand(node, sort, 4, 32) for node in graph.nodes[1:]]
    assert too_deep(graph, asked) == set(range(most, 6))
    graph = in_a_row(sort, 6, merges=(5,))
    asked = [Demand(n, "sum" if n.name.startswith("sum") else sort, 4, 32) for n in graph.nodes[1:]]
    deep = {asked[i].node.name for i in too_deep(graph, asked)}
    assert deep == {f"n{i}" for i in range(most, 5)}, "the one behind the addition has room for one"


def test_what_a_layer_of_one_bit_grants_goes_to_what_leads_to_it_and_not_beside_it() -> None:
    """image -> a -> b -> layer, and a -> c, which is added: b's number is the layer's, c's is nobody's.

    A float layer, which costs as much as both, grants both.
    """
    names = ("image", "a", "b", "c", "sum", "out")
    nodes = [
        Node("relu", "Relu", ("image",), ("a",)),
        Node("b", "Mul", ("a", "k"), ("b",)),
        Node("layer", "Conv", ("b", "w"), ("out",)),
        Node("c", "Mul", ("a", "k"), ("c",)),
        Node("sum", "Add", ("c", "out"), ("sum",)),
    ]
    shapes = dict.fromkeys(names, (1, 1, 2, 2))
    constants = {"w": torch.ones(1, 1, 1, 1), "k": torch.ones(1, 1, 1, 1)}
    graph = Graph(nodes, "image", "sum", shapes, dict.fromkeys(names, torch.float32), constants, {})
    asked = [Demand(nodes[1], "multiply", 4, 32), Demand(nodes[3], "multiply", 4, 32)]

    def left(bits: int, macs: int) -> dict[int, int]:
        regions = Regions(graph)
        reads = tuple(dict.fromkeys((regions.of("b"),)))
        grant = Grant("layer", 2 * macs, 4, "out", (("b", 4),), regions.of("out"), reads, bits)
        return settle(graph, asked, [grant], regions).left

    assert left(1, 4) == {1: 4}
    assert left(32, 4) == {}
    # 128 multiply-accumulates of one bit cost as much as 4 of 32 bits, 8 operations: one for each of the four sorts,
    # made and read. What it reads is b's whole grant; of what it makes, one goes to c.
    assert left(1, 128) == {1: 4 - 1}


@pytest.mark.parametrize(
    ("atoms", "shape", "expected"),
    [
        ([(CHANNEL, 16), (SPATIAL, 8), (SPATIAL, 8)], (1, 4, 4, 8, 8), ["", "C", "C", "S", "S"]),
        ([(CHANNEL, 16), (SPATIAL, 8), (SPATIAL, 8)], (1, 16, 64), ["", "C", "S"]),
        ([(CHANNEL, 16), (SPATIAL, 64)], (1, 16, 8, 8), ["", "C", "S", "S"]),
        ([(CHANNEL, 16), (SPATIAL, 64)], (1, 1024), ["", "CS"]),
        ([(CHANNEL, 16), (SPATIAL, 64)], (1, 8, 16, 8), ["", "C", "CS", "S"]),
        ([(CHANNEL, 6), (SPATIAL, 4)], (1, 4, 6), ["", "X", "X"]),
    ],
)
def test_a_reshape_keeps_what_its_axes_are_made_of(
    atoms: list[tuple[str, int]], shape: tuple[int, ...], expected: list[str]
) -> None:
    letters = {CHANNEL: "C", SPATIAL: "S", MIXED: "X"}
    found = ["".join(sorted({letters[label] for label, _ in axis})) for axis in regrouped(atoms, shape)]
    assert found == expected


Between = Callable[[nn.Module, Tensor], Tensor]
ELEMENTS = 4 * 8 * 8
STEPS: dict[str, tuple[Between, int]] = {
    # Free: covered by what the convolution before grants (64 places of 4 channels).
    "activation": (lambda s, x: F.relu(x), 0),
    "affine of the channels": (lambda s, x: x * s.c + s.c, 0),
    "constant first": (lambda s, x: s.c + s.c * x, 0),
    "several numbers that fold": (lambda s, x: x * 2.0 * s.c * 3.0 + 1.0 + s.c, 0),
    "average over the map": (lambda s, x: x - x.mean((2, 3), keepdim=True), 0),
    "largest of the map": (lambda s, x: F.adaptive_max_pool2d(x, 4), 0),
    "roll": (lambda s, x: torch.roll(x, 1, 2), 0),
    # Priced by the elements that are read, or written.
    "mean over channels": (lambda s, x: x.mean(1, keepdim=True), ELEMENTS),
    "largest over channels": (lambda s, x: x.amax(1, keepdim=True), ELEMENTS),
    # 4 channels to 5 cells: the cells read 1, 2, 2, 2 and 1 of them.
    "overlapping cells of channels": (
        lambda s, x: F.adaptive_avg_pool2d(x.transpose(1, 2), (5, 8)).transpose(1, 2)[:, :4],
        8 * ELEMENTS // 4,
    ),
    "softmax": (lambda s, x: x.softmax(1), 3 * ELEMENTS),
    "layer norm": (lambda s, x: F.layer_norm(x, x.shape[1:]), 5 * ELEMENTS),
    "group norm": (lambda s, x: F.group_norm(x, 2), 5 * ELEMENTS),
    "instance norm": (lambda s, x: F.instance_norm(x), 5 * ELEMENTS),
    "maximum of two": (
        lambda s, x: torch.maximum(x, torch.roll(x, 1, 1)),
        ELEMENTS,
    ),
    "a table of positions": (lambda s, x: x + s.table, ELEMENTS),
    "bilinear": (lambda s, x: F.interpolate(x, scale_factor=2, mode="bilinear"), 4 * 4 * ELEMENTS),
    "numbers around magnitudes": (lambda s, x: ((x * s.c + s.c).abs() * s.c + s.c).abs() + x, 2 * ELEMENTS),
    "a second activation": (lambda s, x: torch.tanh(F.relu(x)), ELEMENTS),
}


def test_additions_of_views_of_one_map_are_multiply_accumulates() -> None:
    """Weights of one, written as additions of channels, cost what a layer with such weights costs."""

    def run(s: nn.Module, x: Tensor) -> Tensor:
        y = s.conv(x)
        return s.last(y + torch.roll(y, 1, 1) + torch.roll(y, 2, 1) + torch.roll(y, 3, 1)).flatten(1)

    net = Network(run, conv=nn.Conv2d(3, 4, 1), last=nn.Conv2d(4, 1, 1))
    found = analyse(subject(net).graph)
    assert sum(op.steps for op in found.operations) == 2 * 3 * ELEMENTS


@pytest.mark.parametrize("name", STEPS)
def test_what_stands_between_layers(name: str) -> None:
    between, steps = STEPS[name]
    modules = {"conv": nn.Conv2d(3, 4, 3, padding=1), "fc": nn.Linear(4, 10)}

    def run(s: nn.Module, x: Tensor) -> Tensor:
        y = between(s, s.conv(x)).mean((2, 3))
        return s.fc(F.pad(y, (0, 4 - y.shape[1])))

    net = Network(run, **modules, c=torch.rand(1, 4, 1, 1), table=torch.rand(1, 4, 8, 8))
    found = costs(net)
    assert found.unknown_operations == ()
    # The classifier reads the pooled map and grants for it too: 4 elements, and 10 that it makes.
    assert steps - 14 <= sum(op.steps for op in found.operations) <= steps


def test_lab_macs_counts_an_operation_as_half_a_multiply_accumulate() -> None:
    from scoring.costs import Operation

    table = Costs((Operation("a", "elementwise", steps=1_000, operation_bits=16),))
    rules = {name: load_rule(name) for name in ("lab", "lab-macs", "micronet")}
    assert {name: price(table, rule).ops * rule.operations_reference for name, rule in rules.items()} == {
        "lab": pytest.approx(500),
        "lab-macs": pytest.approx(250),
        "micronet": pytest.approx(500),
    }


# Law 1: one graph ---------------------------------------------------------------------------------------------------


def test_every_kind_of_the_table_runs_and_is_priced() -> None:
    for name, kind in KINDS.items():
        assert callable(kind.run), name
        assert not (kind.keeps_grid and kind.commutes), name


GREAT = 12582912.0
"""1.5 * 2**23: what it is added to in single precision becomes an integer."""
CHAINS: dict[str, tuple[Between, tuple[str, ...]]] = {
    "rounded by a great number": (lambda s, y: (9 * y * s.c + s.c + GREAT - GREAT) * s.c, ("Mul", "Add")),
    "rounded by the bias before": (lambda s, y: F.conv2d(y, s.k, s.great) - GREAT, ("Conv", "Mul", "Add")),
    "a batch norm, then numbers": (lambda s, y: 2 - s.bn(y) * s.c / 3, ("Mul", "Add")),
    "one of each": (lambda s, y: (y - s.c) / 2, ("Sub", "Div")),
    "a batch norm": (lambda s, y: s.bn(y), ("BatchNormalization",)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_priced_as_one_multiplier_and_one_shift_runs_as_such(name: str) -> None:
    torch.manual_seed(0)
    between, kinds = CHAINS[name]
    vectors = {"c": torch.rand(1, 4, 1, 1) + 0.5, "k": torch.rand(4, 4, 1, 1), "great": torch.full((4,), GREAT)}
    modules = {"conv": nn.Conv2d(3, 4, 3, bias=False), "bn": nn.BatchNorm2d(4), "fc": nn.Linear(4, 10)}
    run: Between = lambda s, x: s.fc(between(s, F.relu(s.conv(x))).mean((2, 3)))  # noqa: E731
    net = Network(run, **modules, **vectors).eval()
    net.bn.running_mean.uniform_(-1, 1)
    net.bn.running_var.uniform_(0.5, 2)
    net.bn.bias.data.uniform_(-1, 1)
    images = torch.rand(5, 3, 8, 8)
    folded = with_folded_chains(subject(net).graph)
    assert tuple(node.kind for node in folded.running) == ("Conv", "Relu", *kinds, "ReduceMean", "Linear")
    exact = net.double()(images.double())
    torch.testing.assert_close(logits_of(folded, images).double(), exact, rtol=1e-4, atol=1e-4)


def test_the_last_softmax_is_dropped_and_changes_nothing() -> None:
    net = Network(lambda s, x: s.fc(x.mean((2, 3))).softmax(1), fc=nn.Linear(3, 10)).eval()
    plain = Network(lambda s, x: s.fc(x.mean((2, 3))), fc=net.fc).eval()
    graph, _ = prepared(subject(net).graph)
    assert analyse(graph).operations == analyse(subject(plain).graph).operations
    images = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(logits_of(graph, images), plain(images))


def test_signs_of_zeros_and_tiny_numbers_are_no_information() -> None:
    net = Network(lambda s, x: s.conv(x).mean((2, 3)), conv=nn.Conv2d(3, 4, 1))
    with torch.no_grad():
        net.conv.weight[0, :2, 0, 0] = torch.tensor([-0.0, 1e-42])
    graph, _ = prepared(subject(net).graph)
    weight = graph.constants["conv.weight"]
    assert not weight[0, :2].signbit().any() and int((weight[0] != 0).sum()) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_every_output(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    net = nn.Sequential(*layers).eval().to(dtype)
    images = torch.rand(4, 3, 8, 8)
    found, wanted = logits_of(subject(net).graph, images), net(images.to(dtype)).float()
    assert torch.equal(found, found.to(dtype).float())
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)


SHAPED: list[Between] = [
    lambda s, x: x.flatten(2).transpose(1, 2).reshape(-1, 4).view(x.shape[0], 8, 8, 4).permute(0, 3, 1, 2),
    lambda s, x: x.permute(2, 0, 1, 3).permute(1, 2, 0, 3),  # the images leave dimension 0 for a while
    lambda s, x: torch.cat([x, s.table.expand(x.shape[0], -1, -1, -1)], 1)[:, :4],
    lambda s, x: (
        (x.flatten(2) @ x.flatten(2).transpose(1, 2)).softmax(-1)[:, :, :, None] * x.mean((2, 3))[:, :, None, None]
    ),
]


@pytest.mark.parametrize("between", SHAPED)
def test_many_images_get_what_each_gets_alone(between: Between) -> None:
    """The network is what its graph computes for one image, however many run at once."""
    run: Between = lambda s, x: s.fc(between(s, s.conv(x)).mean((2, 3)))  # noqa: E731
    net = Network(run, conv=nn.Conv2d(3, 4, 1), fc=nn.Linear(4, 10), table=torch.rand(1, 4, 8, 8)).eval()
    graph = subject(net).graph
    images = torch.rand(5, 3, 8, 8)
    alone = torch.cat([logits_of(graph, image[None]) for image in images])
    torch.testing.assert_close(logits_of(graph, images), alone)
    torch.testing.assert_close(alone, torch.cat([net(image[None]) for image in images]))


QUANTISED: list[Between] = [
    lambda s, x: quantise(x, s.step),
    lambda s, x: quantise(F.relu(x), s.step) + quantise(F.relu(x), s.step),
    lambda s, x: quantise(x, s.step, -8, 7) + x,
    lambda s, x: quantise(x.flatten(2), s.step).view_as(x) - x.transpose(2, 3),
    lambda s, x: quantise((r := F.relu(x)), s.step) * r.mean((2, 3), keepdim=True),
]


@pytest.mark.parametrize("between", QUANTISED)
def test_quantisers_that_write_over_their_input_change_no_other_reader(between: Between) -> None:
    run: Between = lambda s, x: s.fc(between(s, s.conv(x)).mean((2, 3)))  # noqa: E731
    net = Network(run, conv=nn.Conv2d(3, 4, 1), fc=nn.Linear(4, 10), step=torch.tensor(0.1)).eval()
    graph, images = subject(net).graph, torch.rand(5, 3, 8, 8)
    kept = images.clone()
    assert torch.equal(logits_of(graph, images), run_graph(graph, images)[graph.output])  # which keeps every value
    torch.testing.assert_close(logits_of(graph, images), net(images))
    assert torch.equal(images, kept)


def test_a_crop_of_the_leading_dimension_is_not_taken_for_the_batch() -> None:
    """[C,H,W] whose first channel is cut out: with many images the cut would take them all."""
    net = Network(lambda s, x: s.fc(x.reshape(3, 8, 8)[0:1].mean(2)), fc=nn.Linear(8, 10)).eval()
    graph = subject(net).graph
    assert not images_stay_first(graph)
    images = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(logits_of(graph, images), torch.cat([net(i[None]) for i in images]))


def test_an_operand_is_a_constant_only_if_it_is_one_for_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix that is the same for dark images and another for bright ones: the mean is of dark images alone."""

    def run(s: nn.Module, x: Tensor) -> Tensor:
        bright = F.relu(x.mean((1, 2, 3)) - 0.5).reshape(-1, 1, 1)
        return (x.flatten(1)[:, None] @ (s.table + bright * s.other)).squeeze(1)

    graph = subject(Network(run, table=torch.randn(1, 192, 10), other=100 * torch.randn(1, 192, 10))).graph
    dark = torch.randint(0, 90, (20, 3, 8, 8), dtype=torch.uint8)
    bright = torch.randint(170, 256, (80, 3, 8, 8), dtype=torch.uint8)
    monkeypatch.setattr(verification, "AVERAGED", 20)
    (number,) = verification.constants_in_disguise(Engine(graph), dark)
    assert (number.count, number.bits) == (1920, 32)
    assert verification.constants_in_disguise(Engine(graph), torch.cat([dark, bright])) == []


def _signed(s: nn.Module, x: Tensor) -> Tensor:
    """A matrix of sines, 192 x 10, and a sign that is taken back behind the product."""
    sign = torch.sign(x[:, 0, 0, 0] - 0.5).reshape(-1, 1, 1)
    return ((x.flatten(1)[:, None] @ torch.sin(sign * s.u * s.v)) * sign).squeeze(1)


def _either(s: nn.Module, x: Tensor) -> Tensor:
    """One matrix for some images, another for the others."""
    which = torch.sign(x[:, 0, 0, 0] - 0.5).reshape(-1, 1, 1)
    return (x.flatten(1)[:, None] @ torch.sin(s.u * s.v + which)).squeeze(1)


def _experts(s: nn.Module, x: Tensor) -> Tensor:
    """A conditional layer: the image mixes matrices that are charged as they are."""
    shares = (40 * s.route(x.flatten(1) - 0.5)).softmax(1)
    return (x.flatten(1)[:, None] @ (shares @ s.experts.flatten(1)).reshape(-1, 192, 10)).squeeze(1)


def _attention(s: nn.Module, x: Tensor) -> Tensor:
    q, k, v = s.qkv(9 * (x - 0.5).flatten(2).transpose(1, 2)).chunk(3, 2)
    return s.fc(((q @ k.transpose(1, 2)).softmax(-1) @ v).flatten(1))


def _signed_rows(s: nn.Module, x: Tensor) -> Tensor:
    """A sign for each row of a matrix, which is taken back from what is multiplied by the row."""
    signs = torch.sign(x.flatten(1) - 0.5)[:, :, None]
    return ((x.flatten(1)[:, :, None] * signs).transpose(1, 2) @ torch.sin(signs * s.u * s.v)).squeeze(1)


def _rolled(s: nn.Module, x: Tensor) -> Tensor:
    """Rows in an order that one of sixteen cases of the image chooses."""
    choice = (15.9 * x[:, 0, 0, 0]).long()
    return (x.flatten(1)[:, None] @ torch.sin(s.u.flatten()[s.orders[choice]][:, :, None] * s.v)).squeeze(1)


DISGUISES: dict[str, tuple[Between, list[int]]] = {
    "a sign": (_signed, [1920]),
    "either of two": (_either, [2 * 1920]),
    "signs of rows": (_signed_rows, [1920]),
    "orders of rows": (_rolled, [1920]),
    "experts": (_experts, []),
    "attention": (_attention, []),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_few_tables_times_numbers_from_the_image_are_charged_as_tables(name: str) -> None:
    torch.manual_seed(0)
    run, counts = DISGUISES[name]
    net = Network(
        run,
        u=3 * torch.randn(1, 192, 1),
        v=3 * torch.randn(1, 1, 10),
        orders=torch.stack([torch.randperm(192) for _ in range(16)]),
        experts=torch.randn(3, 192, 10),
        route=nn.Linear(192, 3),
        qkv=nn.Linear(3, 24),
        fc=nn.Linear(512, 10),
    )
    pixels = torch.randint(0, 256, (400, 3, 8, 8), dtype=torch.uint8)
    found = verification.constants_in_disguise(Engine(subject(net).graph), pixels)
    assert [number.count for number in found] == pytest.approx(counts, rel=0.05), "rows may be alike by chance"


# Law 3: numbers in attributes -------------------------------------------------------------------------------------


def _wiring_bits(layer: nn.Module) -> int:
    graph = subject(nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.Flatten(), nn.Linear(288, 10))).graph
    return wiring_of(graph, {}).bits


@pytest.mark.parametrize("usual", [1e-3, 1e-5, 1e-6, 1e-12])
def test_the_epsilon_of_a_norm_is_a_number_unless_it_is_a_usual_one(usual: float) -> None:
    least = _wiring_bits(nn.BatchNorm2d(8))
    assert _wiring_bits(nn.BatchNorm2d(8, eps=usual)) == least
    assert _wiring_bits(nn.BatchNorm2d(8, eps=usual * 1.7)) == least + 32 + 1
    assert _wiring_bits(nn.GroupNorm(2, 8, eps=usual)) + 32 < _wiring_bits(nn.GroupNorm(2, 8, eps=usual * 1.7))


@pytest.mark.parametrize("slope", [0.01, float(torch.tensor(0.01).half()), float(torch.tensor(0.01).bfloat16())])
def test_a_default_is_one_in_half_precision_too_and_its_neighbours_are_numbers(slope: float) -> None:
    least = _wiring_bits(nn.LeakyReLU())
    assert _wiring_bits(nn.LeakyReLU(slope)) == least
    assert _wiring_bits(nn.LeakyReLU(slope * 1.0005)) == least + 32 + 1
