"""What priced layers grant for free, and which element-wise work is left over to be priced.

A layer grants, for each element that it makes and each that it reads, one multiplication and one addition by numbers
of the channel, one activation and one quantiser; and for as many elements as it makes one addition of two maps, of
these no more than its own additions come to (a layer of one bit is cheap, an addition has 32 bits). It never grants
more operations than it is priced for, so that operations done are at most twice the operations priced.
Which operation uses which grant is a flow: the most that can be free is free, whatever the order of a file. What
stands one behind the other between two layers is bounded besides (`MOST_IN_A_ROW`): however many cheap layers read a
map beside its way, they do not make a network of it.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from scoring.graph.graph import KINDS, Charge, Graph, Node

MULTIPLY, ADD, ACTIVATION, QUANTISER, SUM = "multiply", "add", "activation", "quantiser", "sum"
GRANTED = (MULTIPLY, ADD, ACTIVATION, QUANTISER)
"""For each element made and read; `SUM` is granted for each element made."""

MOST_IN_A_ROW: Mapping[str, int] = {MULTIPLY: 2, ADD: 2, ACTIVATION: 3, QUANTISER: 4}
"""Operations of one sort on one way from layer to layer: one of the layer before, one of the layer behind. Functions of
a value may be written in several steps, so there is room for one or two more. An addition of two maps takes the place
of the layer before. (The deepest in the honest zoo: 2, 2, 3 and 3.)"""


@dataclass(frozen=True)
class Demand:
    """Element-wise work of a node: `elements` operations of one sort, at `bits`, on one map."""

    node: Node
    sort: str
    elements: int
    bits: int
    by_channel: bool = False
    """Whether it is an activation or a quantiser with a number for each channel."""

    @property
    def has_numbers(self) -> bool:
        """Whether a network could be made of it."""
        return self.sort in (MULTIPLY, ADD) or self.by_channel


@dataclass(frozen=True)
class Grant:
    """What a layer may give: operations that it is priced for, and elements made and read, with the maps' regions."""

    layer: str
    operations: int
    made: int
    output: str
    inputs: tuple[tuple[str, int], ...]
    """The values that it reads, each with the elements that it reads of it."""
    made_region: int
    read_regions: tuple[int, ...]
    bits: int = 32
    """Of the layer's products."""

    @property
    def paid(self) -> int:
        """What its own multiplications come to in multiplications of 32 bits."""
        return self.operations // 2 * self.bits // 32

    def anywhere(self, elements: int) -> int:
        """Of a grant of so many elements, what may be used all over the region: all together, in operations of 32 bits,
        come to no more than the layer costs."""
        all_grants = len(GRANTED) * (self.made + sum(read for _, read in self.inputs))
        if self.bits >= 32 or 2 * self.paid >= all_grants:
            return elements
        return min(elements, 2 * self.paid // (2 * len(GRANTED)))


@dataclass
class Settled:
    """The elements of each demand that no grant covers, and how much of all grants was used."""

    left: dict[int, int] = field(default_factory=dict)
    """Index of the demand -> elements to be priced."""
    used: float = 0.0
    """Largest part of a region's grants of one sort that was used."""


class Regions:
    """Which values are the same map: made and read by the same layers, with only element-wise work and moves between.

    A region is what lies between layers: a residual stream is one region, made and read by many.
    """

    def __init__(self, graph: Graph) -> None:
        self._parents: dict[str, str] = {}
        for node in graph.running:
            if _is_layer(node):
                continue
            for value in node.inputs:
                if value and not graph.is_constant(value):
                    self._parents[self._root(value)] = self._root(node.output)
        self._ids: dict[str, int] = {}

    def of(self, value: str) -> int:
        """The number of a value's region."""
        return self._ids.setdefault(self._root(value), len(self._ids))

    def _root(self, value: str) -> str:
        while (parent := self._parents.setdefault(value, value)) != value:
            self._parents[value] = value = self._parents[parent]
        return value


def too_deep(graph: Graph, demands: Iterable[Demand]) -> set[int]:
    """The demands, by index, behind as many of their sort as may stand one behind the other (`MOST_IN_A_ROW`)."""
    own: dict[str, list[tuple[str, int]]] = {}
    for index, demand in enumerate(demands):
        own.setdefault(demand.node.output, []).append((demand.sort, index))
    found: set[int] = set()
    passed: dict[str, dict[str, int]] = {}  # value -> how many of each sort lie behind it
    for node in graph.running:
        row = dict.fromkeys(GRANTED, 0)
        if not _is_layer(node):
            before = [passed[i] for i in node.inputs if i in passed]
            row = {sort: max((one[sort] for one in before), default=0) for sort in GRANTED}
        for sort, index in own.get(node.output, ()):
            if sort == SUM:
                row = {one: min(count, 1) for one, count in row.items()}
            elif row[sort] == MOST_IN_A_ROW[sort]:
                found.add(index)
            else:
                row[sort] += 1
        passed[node.output] = row
    return found


def grant_of(graph: Graph, node: Node, macs: int, bits: int, regions: Regions) -> Grant:
    """What one layer gives that multiplies at `bits`. A product of two activations reads both."""
    changing = [i for i in node.inputs[:2] if not graph.is_constant(i)]
    return Grant(
        layer=node.name,
        operations=2 * macs,
        made=math.prod(graph.shapes[node.output]),
        output=node.output,
        inputs=tuple((i, changing.count(i) * _elements_read(graph, node, i)) for i in dict.fromkeys(changing)),
        made_region=regions.of(node.output),
        read_regions=tuple(regions.of(i) for i in dict.fromkeys(changing)),
        bits=bits,
    )


def _elements_read(graph: Graph, node: Node, value: str) -> int:
    """Elements of a layer's input that its kernel meets: a stride leaves some out."""
    shape, a = graph.shapes[value], node.attributes
    if node.kind != "Conv" or value != node.inputs[0]:
        return math.prod(shape)
    total = shape[0] * shape[1]
    kernel, made = graph.shapes[node.inputs[1]][2:], graph.shapes[node.output][2:]
    for i, size in enumerate(shape[2:]):
        stride, dilation, pad = a["stride"][i], a["dilation"][i], a["pads"][i]
        if kernel[i] >= stride and dilation == 1:
            first, last = max(0, -pad), min(size, (made[i] - 1) * stride + kernel[i] - pad)
            total *= max(0, last - first)
        else:
            places = {o * stride + k * dilation - pad for o in range(made[i]) for k in range(kernel[i])}
            total *= sum(0 <= p < size for p in places)
    return total


def settle(
    graph: Graph,
    demands: Sequence[Demand],
    grants: Iterable[Grant],
    regions: Regions,
    deep: Collection[int] = frozenset(),
    sums: Collection[str] = frozenset(),
) -> Settled:
    """Cover the demands, but those of `deep`, by the grants as far as they reach, the widest bits first.

    Grants are for the region of what a layer makes or reads. But many layers of few bits cost little and grant many
    numbers of the channel, of which a network could be made beside them: as far as such a grant exceeds what the layer
    costs, it flows from what the layer makes only with the map, and from what it reads only against it, to what leads
    to nothing but layers; through a value flows no more than its elements. `sums`: what reductions over anything but
    places make.
    """
    settled = Settled(left={i: demands[i].elements for i in sorted(deep)})
    wanted: dict[tuple[str, str], dict[int, list[int]]] = {}
    for i, demand in enumerate(demands):
        if i not in deep:
            bucket = wanted.setdefault((demand.node.output, demand.sort), {})
            bucket.setdefault(demand.bits, []).append(i)
    flow = _Flow()
    places = {(regions.of(value), sort) for value, sort in wanted}
    supply: dict[tuple[int, str], int] = {}
    for n, grant in enumerate(grants):
        flow.edge("source", n, grant.operations)
        for supplied in _supplies(n, grant):
            place = supplied.region, supplied.sort
            if place in places:
                flow.edge(n, supplied.name, supplied.elements)
                flow.edge(supplied.name, place, supplied.anywhere)
                flow.edge(supplied.name, (supplied.value, supplied.sort, supplied.way), math.inf)
                supply[place] = supply.get(place, 0) + supplied.elements
    _ways(graph, flow, {sort for _, sort in wanted} - {SUM})
    beside = _beside_layers(graph, sums)
    numbers = {(demand.node.output, demand.sort) for demand in demands if demand.has_numbers}
    for value, sort in wanted:
        flow.edge((regions.of(value), sort), (value, sort), math.inf)
        if sort != SUM:
            flow.edge((value, sort, "down"), (value, sort), math.inf)
            if (value, sort) not in numbers or value not in beside:
                flow.edge((value, sort, "up"), (value, sort), math.inf)
    for bits in sorted({bits for bucket in wanted.values() for bits in bucket}, reverse=True):
        for key, bucket in wanted.items():
            if bits in bucket:
                flow.edge(key, (key, bits), math.inf)
                flow.edge((key, bits), "sink", sum(demands[i].elements for i in bucket[bits]))
        flow.push()
        for key, bucket in wanted.items():
            covered = flow.through((key, bits), "sink")
            for i in bucket.get(bits, ()):
                taken = min(covered, demands[i].elements)
                covered -= taken
                if taken < demands[i].elements:
                    settled.left[i] = demands[i].elements - taken
    settled.used = _used(demands, supply, regions)
    return settled


def _used(demands: Sequence[Demand], supply: Mapping[tuple[int, str], int], regions: Regions) -> float:
    """The largest part of a region's grants of one sort that is asked for."""
    totals: dict[tuple[int, str], int] = {}
    for demand in demands:
        place = regions.of(demand.node.output), demand.sort
        totals[place] = totals.get(place, 0) + demand.elements
    return max((n / supply[place] if supply.get(place) else math.inf for place, n in totals.items() if n), default=0.0)


@dataclass(frozen=True)
class _Supply:
    """What a layer grants of one sort at one value: `elements`, of which `anywhere` may be used all over the region."""

    name: Hashable
    sort: str
    region: int
    value: str
    way: str
    elements: int
    anywhere: int


def _supplies(n: int, grant: Grant) -> Iterator[_Supply]:
    for sort in GRANTED:
        anywhere = grant.anywhere(grant.made)
        yield _Supply((n, "made", sort), sort, grant.made_region, grant.output, "down", grant.made, anywhere)
        for (value, read), region in zip(grant.inputs, grant.read_regions, strict=True):
            yield _Supply((n, value, sort), sort, region, value, "up", read, grant.anywhere(read))
    sums = min(grant.made, grant.paid)
    for region in dict.fromkeys((grant.made_region, *grant.read_regions)):
        yield _Supply((n, "made", SUM), SUM, region, grant.output, "down", sums, sums)


def _ways(graph: Graph, flow: _Flow, sorts: Collection[str]) -> None:
    """The edges along which grants flow: down with the values, up against them, through all that is no layer."""
    for node in graph.running:
        if _is_layer(node):
            continue
        for value in dict.fromkeys(node.inputs):
            if value and not graph.is_constant(value):
                most = min(math.prod(graph.shapes[value]), math.prod(graph.shapes[node.output]))
                for sort in sorts:
                    flow.edge((value, sort, "down"), (node.output, sort, "down"), most)
                    flow.edge((node.output, sort, "up"), (value, sort, "up"), most)


def _beside_layers(graph: Graph, sums: Collection[str]) -> set[str]:
    """Values that also lead to something else than layers: to a sum or product of maps, or to the end."""
    found = {node.output for node in graph.running if not graph.consumers.get(node.output)}
    for node in reversed(graph.running):
        if _is_layer(node):
            continue
        changing = [i for i in node.inputs if i and not graph.is_constant(i)]
        merges = len(changing) > 1 and (node.kind not in KINDS or KINDS[node.kind].price is not Charge.MOVE)
        if merges or node.output in sums or node.output in found:
            found.update(changing)
    return found


def _is_layer(node: Node) -> bool:
    return node.kind in KINDS and KINDS[node.kind].price is Charge.LAYER


class _Flow:
    """The largest flow from "source" to "sink" (Dinic's algorithm); edges may be added between pushes."""

    def __init__(self) -> None:
        self._left: dict[Hashable, dict[Hashable, float]] = {}
        self._size: dict[tuple[Hashable, Hashable], float] = {}

    def edge(self, a: Hashable, b: Hashable, capacity: float) -> None:
        if (a, b) in self._size:
            return
        self._size[a, b] = capacity
        self._left.setdefault(a, {})[b] = capacity
        self._left.setdefault(b, {}).setdefault(a, 0)

    def through(self, a: Hashable, b: Hashable) -> int:
        return int(self._size[a, b] - self._left[a][b]) if (a, b) in self._size else 0

    def push(self) -> None:
        while (levels := self._levels()) is not None:
            exits = {node: list(edges) for node, edges in self._left.items()}
            while self._augment(levels, exits):
                pass

    def _levels(self) -> Mapping[Hashable, int] | None:
        levels: dict[Hashable, int] = {"source": 0}
        queue: deque[Hashable] = deque(["source"])
        while queue:
            node = queue.popleft()
            for after, left in self._left.get(node, {}).items():
                if left > 0 and after not in levels:
                    levels[after] = levels[node] + 1
                    queue.append(after)
        return levels if "sink" in levels else None

    def _augment(self, levels: Mapping[Hashable, int], exits: dict[Hashable, list[Hashable]]) -> bool:
        """One path along the levels; dead ends are taken out of `exits`."""
        path: list[Hashable] = ["source"]
        while path[-1] != "sink":
            node = path[-1]
            while exits.get(node) and not (
                self._left[node][exits[node][-1]] > 0 and levels.get(exits[node][-1], -1) == levels[node] + 1
            ):
                exits[node].pop()
            if exits.get(node):
                path.append(exits[node][-1])
                continue
            path.pop()
            if not path:
                return False
            exits[path[-1]].pop()
        amount = min(self._left[a][b] for a, b in itertools.pairwise(path))
        for a, b in itertools.pairwise(path):
            self._left[a][b] -= amount
            self._left[b][a] += amount
        return True
