"""What priced layers grant for free, and which element-wise work is left over to be priced.

A layer grants, for each element that it makes and each that it reads, one multiplication and one addition by numbers
of the channel, one activation and one quantiser; and for as many elements as it makes one addition of two maps, of
these no more than its own additions come to (a layer of one bit is cheap, an addition has 32 bits). It never grants
more operations than it is priced for, so that operations done are at most twice the operations priced.
Which operation uses which grant is a flow: the most that can be free is free, whatever the order of a file.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from scoring.graph.graph import Graph, Node
from scoring.graph.kinds import KINDS, Charge

MULTIPLY, ADD, ACTIVATION, QUANTISER, SUM = "multiply", "add", "activation", "quantiser", "sum"
GRANTED = (MULTIPLY, ADD, ACTIVATION, QUANTISER)
"""For each element made and read; `SUM` is granted for each element made."""


@dataclass(frozen=True)
class Demand:
    """Element-wise work of a node: `elements` operations of one sort, at `bits`, on one map."""

    node: Node
    sort: str
    elements: int
    bits: int


@dataclass(frozen=True)
class Grant:
    """What a layer may give: operations that it is priced for, and elements made and read, with the maps' regions."""

    layer: str
    operations: int
    made: int
    read: int
    made_region: int
    read_regions: tuple[int, ...]
    bits: int = 32
    """Of the layer's products."""

    @property
    def sums(self) -> int:
        """Additions of two maps: one an element made, and no more than its own come to in additions of 32 bits."""
        return min(self.made, self.operations // 2 * self.bits // 32)


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
            if node.kind in KINDS and KINDS[node.kind].price is Charge.LAYER:
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


def grant_of(graph: Graph, node: Node, macs: int, bits: int, regions: Regions) -> Grant:
    """What one layer gives that multiplies at `bits`. A product of two activations reads both."""
    changing = [i for i in node.inputs[:2] if not graph.is_constant(i)]
    return Grant(
        layer=node.name,
        operations=2 * macs,
        made=math.prod(graph.shapes[node.output]),
        read=sum(_elements_read(graph, node, i) for i in changing),
        made_region=regions.of(node.output),
        read_regions=tuple(dict.fromkeys(regions.of(i) for i in changing)),
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


def settle(demands: list[Demand], grants: Iterable[Grant], regions: Regions) -> Settled:
    """Cover the demands by the grants as far as they reach, the widest bits first."""
    wanted: dict[tuple[int, str], dict[int, list[int]]] = {}
    for i, demand in enumerate(demands):
        bucket = wanted.setdefault((regions.of(demand.node.output), demand.sort), {})
        bucket.setdefault(demand.bits, []).append(i)
    flow = _Flow()
    supply: dict[tuple[int, str], int] = {}
    for n, grant in enumerate(grants):
        flow.edge("source", n, grant.operations)
        for place, name, amount in _supplies(n, grant):
            if place in wanted:
                flow.edge(n, name, amount)
                flow.edge(name, place, amount)
                supply[place] = supply.get(place, 0) + amount
    settled = Settled()
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
    for key, bucket in wanted.items():
        total = sum(demands[i].elements for group in bucket.values() for i in group)
        settled.used = max(settled.used, total / supply[key] if supply.get(key) else math.inf if total else 0.0)
    return settled


def _supplies(n: int, grant: Grant) -> Iterable[tuple[tuple[int, str], Hashable, int]]:
    """(bucket, name of the supply, elements): where each of a layer's grants may go."""
    for sort in GRANTED:
        yield (grant.made_region, sort), (n, "made", sort), grant.made
        for region in grant.read_regions:
            yield (region, sort), (n, "read", sort), grant.read
    for region in dict.fromkeys((grant.made_region, *grant.read_regions)):
        yield (region, SUM), (n, "made", SUM), grant.sums


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
