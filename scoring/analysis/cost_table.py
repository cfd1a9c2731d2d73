"""The costs table while it is collected: rows, numbers and demands, each number once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from scoring.analysis.activation_bits import Grid, activation_bits, follow
from scoring.analysis.activation_patterns import single_value_functions
from scoring.analysis.allowances import Demand, Grant, Regions
from scoring.analysis.axes import Axes, follow_axes
from scoring.analysis.pieces import numbers_of_pieces
from scoring.analysis.weight_encoding import encoding
from scoring.analysis.wiring import Sources
from scoring.analysis.written_convolutions import terms_of_convolutions
from scoring.costs import Number, Operation
from scoring.graph.graph import Graph, Node, bits_of


@dataclass
class CostTable:
    """What the analysis of a graph has found so far."""

    graph: Graph
    layer_bits: Mapping[str, tuple[int, int]]
    known_grids: Mapping[str, Grid] | None = None
    operations: list[Operation] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    charged: set[Hashable] = field(default_factory=set)
    handled: set[str] = field(default_factory=set)
    """Outputs of affine nodes that were charged with the chain they belong to."""
    layers: dict[str, int] = field(default_factory=dict)
    """Bits of the layers' products, by name."""
    demands: list[Demand] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    chains: dict[str, dict[str, int]] = field(default_factory=dict)
    """Value -> the demands of the affine chain that ends in it, by sort: what folds into one counts once."""

    def __post_init__(self) -> None:
        self.grids: Mapping[str, Grid] = follow(self.graph) if self.known_grids is None else self.known_grids
        self.axes: dict[str, Axes] = follow_axes(self.graph)
        self.sources, self.regions = Sources(self.graph), Regions(self.graph)
        self.functions = single_value_functions(self.graph)
        self.terms = terms_of_convolutions(self.graph, self.axes, self.functions)
        self.of_pieces = numbers_of_pieces(self.graph, self.axes)

    def _elements(self, value: str) -> int:
        return math.prod(self.graph.shapes[value])

    def _bits(self, value: str, padded: bool = False) -> int:
        """Of what is computed with: a constant's values, an activation's grid or type."""
        if self.graph.is_constant(value):
            return encoding(self.graph, value).compute_bits
        return activation_bits(self.graph, value, self.grids.get(value), padded)

    def _widest(self, node: Node) -> int:
        """Of the inputs of element-wise work. Codes of other steps are brought to one step first: floats are."""
        changing = [i for i in node.inputs if i and not self.graph.is_constant(i)]
        grids = [self.grids.get(i) for i in changing]
        known = [grid for grid in grids if grid is not None]
        if len(changing) > 1 and known and not all(known[0].same_step(grid) for grid in known):
            return max(bits_of(self.graph.types[i]) for i in changing)
        return max(self._bits(i) for i in node.inputs if i)

    def _row(self, node: Node, kind: str, bits: int, *, products: int = 0, steps: int = 0) -> None:
        self.operations.append(
            Operation(
                node.name,
                kind,
                products=products,
                steps=steps,
                outputs=self._elements(node.output),
                activation_bits=bits,
                operation_bits=bits,
            )
        )

    def _demand(self, node: Node, sort: str, bits: int | None = None, *, by_channel: bool = False) -> int:
        bits = self._bits(node.output) if bits is None else bits
        self.demands.append(Demand(node, sort, self._elements(node.output), bits, by_channel))
        return len(self.demands) - 1

    def _is_shared(self, weight: str) -> bool:
        """Whether a whole tensor was charged before, in this form or another."""
        key = whole_tensor(self.graph, weight)
        shared = key in self.charged
        self.charged.add(key)
        return shared

    def _nonzeros(self, weight: str) -> int:
        tensor = self.graph.constants[weight]
        return tensor.numel() if tensor.device.type == "meta" else int(tensor.count_nonzero())

    def _charge_numbers(self, name: str, layer: str, key: Hashable, count: int, bits: int) -> None:
        if key not in self.charged and count:
            self.charged.add(key)
            self.numbers.append(Number(name, layer, count, bits))

    def _charge(self, value: str, layer: str) -> None:
        """Charge a constant as numbers, at the bits it is stored and executed in."""
        stored = encoding(self.graph, value)
        name = value if value in self.graph.stored else f"{layer}.constant"
        self._charge_numbers(name, layer, whole_tensor(self.graph, value), self._elements(value), stored.bits)
        self._charge_parts(value, layer)

    def _charge_parts(self, value: str, layer: str) -> None:
        """What belongs to the codes of a constant: scales, zero points, a code-book; and what is wrong with it."""
        stored = encoding(self.graph, value)
        table = (stored.table,) if stored.table else ()
        for part in (*(s.value for s in (*stored.scales, *stored.zeros)), *table):
            self._charge(part, layer)
        self.problems.extend(stored.problems)

    def _charge_padding(self, node: Node) -> None:
        """A number other than zero at the border is stored, wherever in the file it stands."""
        value = float(node.attributes.get("value", 0.0))
        if value:
            bits = bits_of(self.graph.types[node.output])
            self._charge_numbers(f"{node.name}.value", node.name, ("padding", value, bits), 1, bits)


def whole_tensor(graph: Graph, value: str) -> Hashable:
    """What a constant is made of, whatever its form: a tensor that is used as it is, transposed or reshaped is one."""
    node = graph.producers.get(value)
    while node is not None and node.kind in ("Reshape", "Transpose", "Identity") and value not in graph.stored:
        value = node.inputs[0]
        node = graph.producers.get(value)
    return graph.keys[value]
