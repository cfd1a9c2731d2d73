"""From the operation graph to the costs table: one analysis for every reader.

Everything costs. Layers are priced by their multiply-accumulates, reductions by what they read, whatever works element
by element by its elements; what honest networks do between layers is covered by the allowances of these layers
(`allowances.py`), and every number, scale and wire is charged. `docs/scoring.md` has the laws and their proofs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from scoring.analysis.activation_bits import Grid
from scoring.analysis.affine_chains import affine_chains, chain_from, is_per_channel
from scoring.analysis.allowances import (
    ACTIVATION,
    ADD,
    MULTIPLY,
    QUANTISER,
    SUM,
    Demand,
    settle,
    too_deep,
)
from scoring.analysis.axes import CHANNEL, elements_read, is_channel_axis, is_spatial
from scoring.analysis.layer_costs import LayerCosts
from scoring.analysis.weight_encoding import chain_numbers, nonzero_points
from scoring.analysis.wiring import Wiring, wiring_of
from scoring.costs import Costs, Number, Operation, ParentCosts
from scoring.graph.graph import KINDS, UNKNOWN, Charge, Graph, Node, bits_of

_AFFINE_NAMES = {"BatchNormalization": "batch_norm", "Mul": "scale", "Div": "scale"}
_PASSED = (Charge.ACTIVATION, Charge.QUANTISER, Charge.MOVE, Charge.FREE, Charge.POOL, Charge.ARITHMETIC)
"""Behind these a quantiser's reader is looked for."""


def analyse(
    graph: Graph,
    *,
    layer_bits: Mapping[str, tuple[int, int]] | None = None,
    parent: ParentCosts | None = None,
    grids: Mapping[str, Grid] | None = None,
) -> Costs:
    """The costs of one image.

    grids: of its activations, where the caller has followed them already.
    layer_bits: for an architecture without weights, (weight bits, activation bits) by layer name, taken instead of
    what the graph stores.
    """
    analysis = _Analysis(graph, layer_bits or {}, grids)
    for node in graph.running:
        analysis.add(node)
    for node in graph.nodes:
        if not node.outputs and node.kind == UNKNOWN:  # a number read out of an activation: what runs depends on it
            analysis.add(node)
    return analysis.costs(parent)


class _Analysis(LayerCosts):
    """Prices node by node; `costs` settles the demands and adds the wiring."""

    def add(self, node: Node) -> None:
        """Price one node."""
        if node.kind not in KINDS or KINDS[node.kind].price is Charge.EXPRESSION:
            operation = str(node.attributes.get("operation", node.kind))
            self.unknown.append(f"{operation} at '{node.name}'" if node.name else operation)
        elif node.output in self.functions and node.output not in (
            self.terms.macs | self.terms.products | self.of_pieces
        ):
            if self.functions[node.output]:  # the end of a function of one value; its steps are part of it
                self._demand(node, ACTIVATION)
            for value in node.inputs:
                if self.graph.is_constant(value):
                    self._charge(value, node.name)
        else:
            _PRICED[KINDS[node.kind].price](self, node)

    def costs(self, parent: ParentCosts | None) -> Costs:
        """The table of what was added."""
        deep = too_deep(self.graph, self.demands)
        sums = {node.output for node in self.graph.running if self._reduces(node)}
        settled = settle(self.graph, self.demands, self.grants, self.regions, deep, sums)
        fewest: dict[int, int] = {}  # bits of the layers that make or read a region
        for grant in self.grants:
            for region in (grant.made_region, *grant.read_regions):
                fewest[region] = min(fewest.get(region, grant.bits), grant.bits)
        for index, left in settled.left.items():
            demand = self.demands[index]
            # Maps of layers of few bits carry multipliers that were granted: added up they are products and additions.
            cheap = fewest.get(self.regions.of(demand.node.output), demand.bits) < demand.bits
            cheap = cheap or demand.node.output in self.terms.often
            steps = 2 * left if demand.sort == SUM and cheap else left
            self._row(demand.node, "elementwise", demand.bits, steps=steps)
        wiring = self._wiring()
        return Costs(
            operations=tuple(self.operations),
            numbers=tuple(self.numbers),
            unknown_operations=tuple(dict.fromkeys(self.unknown)),
            problems=tuple(dict.fromkeys((*self.graph.problems, *self.problems))),
            parent=parent,
            allowances={"work": settled.used, "wiring": wiring.bits / max(1, wiring.allowance)},
        )

    def _reduces(self, node: Node) -> bool:
        """Whether values of several channels, or of places that are no rows and columns, become one."""
        price = KINDS[node.kind].price if node.kind in KINDS else Charge.EXPRESSION
        if price is Charge.POOL:
            return bool(elements_read(self.graph, node, self.axes))
        return price in (Charge.READ, Charge.ELEMENT)

    def _wiring(self) -> Wiring:
        """What the wiring holds beyond its allowance is charged like parameters."""
        bits = {op.name: op.nonzeros * op.weight_bits for op in self.operations if op.macs}
        for number in self.numbers:
            if number.layer in bits:
                bits[number.layer] += number.count * number.bits
        wiring = wiring_of(self.graph, bits)
        if wiring.excess:
            self.numbers.append(Number("wiring", "wiring", math.ceil(wiring.excess / 32), 32))
        return wiring

    def _arithmetic(self, node: Node) -> None:
        graph = self.graph
        constants = [i for i in node.inputs if i and graph.is_constant(i)]
        if node.kind == "BatchNormalization":
            if len(constants) == len([i for i in node.inputs if i]) - 1 and self._is_affine(node, node.inputs[4]):
                self._affine(node)
            else:
                self._elementwise(node, steps=2)
        elif not constants and node.kind in ("Add", "Sub"):
            if node.output in self.terms.added or self._term(node):
                return
            if any(i in self.terms.tables for i in node.inputs):
                self._elementwise(node, steps=1)
            elif (
                node.output in self.terms.ones
            ):  # a term of a convolution of ones: a multiply-accumulate, never granted
                self._row(node, "elementwise", self._widest(node), steps=2 * self._elements(node.output))
            else:
                self._demand(node, SUM, self._widest(node))
        elif (
            constants
            and (node.kind != "Div" or graph.is_constant(node.inputs[1]))
            and (self._is_affine(node, constants[0]))
        ):
            self._affine(node)
        elif node.kind in ("Mul", "Div") and constants and self._is_table(node, constants[0]):
            self._charge(constants[0], node.name)
            self._table(node, self._widest(node))
        elif node.kind in ("Mul", "Div"):
            self._elementwise(node, products=1)
        else:
            self._elementwise(node, steps=1)

    def _is_table(self, node: Node, constant: str) -> bool:
        """Whether a constant makes channels out of one, or meets places and channels that are one axis for a while."""
        if self._is_spread(node):
            return True
        wide = [size for size in self.graph.shapes[constant] if size != 1]
        axes = [axis for axis in self.axes[node.output] if axis]
        return len(wide) == len(axes) == 1 and len(axes[0]) > 1

    def _is_spread(self, node: Node) -> bool:
        """Whether numbers make more channels than there were, as a layer of one input does."""
        changing = [i for i in node.inputs if i and not self.graph.is_constant(i)]
        return len(changing) == 1 and self._elements(changing[0]) < self._elements(node.output)

    def _is_affine(self, node: Node, constant: str) -> bool:
        """Whether a constant is one number, or one number a channel of the value that it meets."""
        if self._is_spread(node):
            return False
        shape, full = self.graph.shapes[constant], self.graph.shapes[node.output]
        if node.kind == "BatchNormalization":
            return is_channel_axis(self.axes[node.output], 1)
        if not is_per_channel(shape, full):
            return False
        wide = [i + len(full) - len(shape) for i, size in enumerate(shape) if size != 1]
        return not wide or self._is_channels(node.output, wide[0])

    def _is_channels(self, value: str, axis: int) -> bool:
        """Whether an axis is one of channels; one that was flattened is if it stays so until the next layer."""
        axes = self.axes[value]
        if not is_channel_axis(axes, axis):
            return False
        return all(label == CHANNEL for label, _ in axes[axis]) or value not in self._maps_again

    @cached_property
    def _maps_again(self) -> set[str]:
        """Values that have rows or columns of their own somewhere before the next layer."""
        found: set[str] = set()
        for node in reversed(self.graph.running):
            if node.kind in KINDS and KINDS[node.kind].price is not Charge.LAYER:
                spatial = any(axis and is_spatial(axis) for axis in self.axes[node.output])
                if spatial or node.output in found:
                    found.update(node.inputs)
        return found

    @cached_property
    def _folding(self) -> set[str]:
        """Outputs of affine nodes that run as one with the node before."""
        return {node.output for chain in affine_chains(self.graph) for node in chain[1:]}

    def _affine(self, node: Node) -> None:
        """A batch norm, a multiplication or an addition by numbers of the channel."""
        graph = self.graph
        kind = _AFFINE_NAMES.get(node.kind, "shift")
        is_term = self._term(node)
        if not is_term:
            self._row(node, kind, self._bits(node.output))
        x = next(i for i in node.inputs if i and not graph.is_constant(i))
        if node.output not in self.handled:
            chain = chain_from(graph, x, first=node)
            self.handled.update(chain.outputs)
            channels = max(graph.shapes[node.output][1:], default=1)
            for role, key, count, bits in chain_numbers(graph, chain, (), "", channels):
                self._charge_numbers(f"{node.name}.{role}", node.name, key, count, bits)
            for value in (*chain.multipliers, *chain.shifts):
                self._charge_parts(value, node.name)
        chain_demands = dict(self.chains.get(x, {})) if node.output in self._folding else {}
        sorts = {"batch_norm": (MULTIPLY, ADD), "scale": (MULTIPLY,), "shift": (ADD,)}[kind]
        for sort in sorts:
            if is_term and sort == sorts[0]:
                continue
            if node.output in self.of_pieces:
                self._of_piece(node, sort)
                continue
            known = chain_demands.get(sort)
            if known is None:
                chain_demands[sort] = self._demand(node, sort)
            elif self.demands[known].elements < self._elements(node.output):
                self.demands[known] = Demand(node, sort, self._elements(node.output), self._bits(node.output))
        self.chains[node.output] = chain_demands

    def _of_piece(self, node: Node, sort: str) -> None:
        """Numbers of one piece of a map: with those of the other pieces they are a table, which no layer grants."""
        elements = self._elements(node.output)
        if sort == MULTIPLY:
            self._row(node, "multiply", self._widest(node), products=elements)
        else:
            self._row(node, "elementwise", self._widest(node), steps=elements)

    def _term(self, node: Node) -> bool:
        """Price a product of a convolution that is written out; False for any other."""
        terms, bits, elements = self.terms, self._widest(node), self._elements(node.output)
        if node.output in terms.macs:
            self.operations.append(
                Operation(node.name, "conv", macs=elements, activation_bits=bits, operation_bits=bits)
            )
        elif node.output in terms.products:
            self._row(node, "elementwise", bits, steps=elements)
        return node.output in terms.macs | terms.products

    def _elementwise(self, node: Node, *, products: int = 0, steps: int = 0) -> None:
        """Priced operations for each element, at the widest input's bits; a table's numbers are charged."""
        elements = self._elements(node.output)
        for value in node.inputs:
            if value and self.graph.is_constant(value):
                self._charge(value, node.name)
        if self._term(node):
            return
        kind = "multiply" if products else "elementwise"
        self._row(node, kind, self._widest(node), products=products * elements, steps=steps * elements)

    def _element(self, node: Node) -> None:
        work = KINDS[node.kind].work
        if node.kind in ("ResizeLinear", "ResizeCubic"):
            before, after = self.graph.shapes[node.inputs[0]], self.graph.shapes[node.output]
            resized = [i for i, (n, m) in enumerate(zip(before, after, strict=True)) if n != m]
            taps = (2 if node.kind == "ResizeLinear" else 4) ** len(resized)
            spatial = all(is_spatial(self.axes[node.inputs[0]][i]) for i in resized)
            work = max(work, taps) if spatial else 2 * taps  # over channels it is a layer
        self._elementwise(node, steps=work)

    def _activation(self, node: Node) -> None:
        constants = [i for i in node.inputs if i and self.graph.is_constant(i)]
        if len(constants) < len([i for i in node.inputs if i]) - 1:
            self._elementwise(node, steps=2)  # a slope that is made from the image
            return
        for value in constants:
            self._charge(value, node.name)
        if not self._term(node):
            self._of_channel(node, constants, ACTIVATION)

    def _of_channel(self, node: Node, constants: Sequence[str], sort: str) -> None:
        """Granted if its numbers are those of the channel; a table of them is a layer of one tap a place."""
        bits = bits_of(self.graph.types[node.output])
        along_channels = all(self._runs_along_channels(node, value) for value in constants if value)
        if along_channels and node.output not in self.of_pieces:
            several = any(math.prod(self.graph.shapes[value]) > 1 for value in constants if value)
            self._demand(node, sort, bits if sort == QUANTISER else None, by_channel=several)
        else:
            self._table(node, bits, 2 if sort == QUANTISER else 1)  # steps divide and multiply

    def _table(self, node: Node, bits: int, times: int = 1) -> None:
        """Products with a number for each place: with the average that may follow they are a layer's."""
        row = Operation(
            node.name, "conv", macs=times * self._elements(node.output), activation_bits=bits, operation_bits=bits
        )
        self.operations.append(row)

    def _runs_along_channels(self, node: Node, constant: str) -> bool:
        shape, rank = self.graph.shapes[constant], len(self.graph.shapes[node.output])
        if math.prod(shape) == 1:
            return True
        axis = node.attributes.get("axis", 1 if node.kind == "PRelu" else None)
        if len(shape) == 1 and axis is not None:
            return self._is_channels(node.output, int(axis) % rank)
        return self._is_affine(node, constant)

    def _free(self, node: Node) -> None:
        types = (self.graph.types[node.inputs[0]], self.graph.types[node.output])
        if node.kind == "Cast" and not all(t.is_floating_point for t in types):
            self._demand(node, ACTIVATION, max(bits_of(t) for t in types))  # it cuts off what lies behind the point

    def _pool(self, node: Node) -> None:
        """Free over spatial axes. A sum adds to an accumulator as wide as its type."""
        read = elements_read(self.graph, node, self.axes)
        if read:
            exact = KINDS[node.kind].keeps_grid
            bits = self._bits(node.inputs[0]) if exact else bits_of(self.graph.types[node.output])
            makers = self.terms.summed.get(node.output, frozenset())
            cheap = any(self.layers[name] < bits for name in makers if name in self.layers)
            ones = node.output in self.terms.ones or node.output in self.terms.often
            self._row(node, "sum", bits, steps=2 * read if cheap or ones else read)

    def _read(self, node: Node) -> None:
        """Exponentials, squares and quotients of codes are no codes: the bits are the type's."""
        steps = KINDS[node.kind].work * self._elements(node.inputs[0])
        places = node.kind in ("ArgMax", "ArgMin")
        bits = self._bits(node.inputs[0]) if places else bits_of(self.graph.types[node.output])
        self._row(node, node.kind.lower(), bits, steps=steps)

    def _quantiser(self, node: Node) -> None:
        graph = self.graph
        if not all(graph.is_constant(i) for i in node.inputs[1:] if i):
            self.unknown.append(f"quantiser with a computed step at '{node.name}'")
            return
        layer = self._layer_behind(node)
        for value in (node.inputs[1], *nonzero_points(graph, node.inputs[2:])):
            self._charge(value, layer)
        before, after = self.grids.get(node.inputs[0]), self.grids.get(node.output)
        if before is not None and after is not None and before.lies_within(after):
            return
        if not self._term(node):
            self._of_channel(node, node.inputs[1:], QUANTISER)

    def _move(self, node: Node) -> None:
        graph = self.graph
        if node.kind == "Gather" and not graph.is_constant(node.inputs[1]):
            self._elementwise(node, steps=1)
        elif node.kind == "Pad" and node.attributes.get("mode", "constant") == "constant":
            self._charge_padding(node)
        elif node.kind == "Concat":
            for value in node.inputs:
                if graph.is_constant(value) and self._nonzeros(value):
                    self._charge(value, node.name)

    def _layer_behind(self, node: Node) -> str:
        """The priced operation that reads a quantiser's output, to whose bill its scale goes."""
        queue, seen = [node], {node.output}
        while queue:
            for reader in self.graph.consumers.get(queue.pop(0).output, []):
                if reader.kind not in KINDS or reader.output in seen:
                    continue
                if KINDS[reader.kind].price is Charge.LAYER:
                    return reader.name
                if KINDS[reader.kind].price in _PASSED:
                    seen.add(reader.output)
                    queue.append(reader)
        return node.name


_PRICED: dict[Charge, Callable[[_Analysis, Node], None]] = {
    Charge.LAYER: _Analysis._layer,
    Charge.ARITHMETIC: _Analysis._arithmetic,
    Charge.ACTIVATION: _Analysis._activation,
    Charge.QUANTISER: _Analysis._quantiser,
    Charge.MOVE: _Analysis._move,
    Charge.FREE: _Analysis._free,
    Charge.POOL: _Analysis._pool,
    Charge.READ: _Analysis._read,
    Charge.ELEMENT: _Analysis._element,
}
