"""Layers and their prices: multiply-accumulates at the widest bits, weights once, and what folds into a layer."""

from __future__ import annotations

import math

from scoring.analysis.affine_chains import chain_from
from scoring.analysis.allowances import grant_of
from scoring.analysis.cost_table import CostTable
from scoring.analysis.weight_encoding import Encoding, chain_numbers, encoding, folded_bits, summed_bits
from scoring.costs import Operation
from scoring.graph.graph import KINDS, Charge, Graph, Node, bits_of

_NAMES = {"Conv": "conv", "ConvTranspose": "conv_transpose", "Linear": "linear", "MatMul": "matmul"}


class LayerCosts(CostTable):
    """Prices what has weights, or a kernel made from the image."""

    def _layer(self, node: Node) -> None:
        x, weight = node.inputs[:2]
        constants = [i for i in (x, weight) if self.graph.is_constant(i)]
        if node.kind == "MatMul" or not constants or constants == [x]:
            self._product(node)
            return
        graph = self.graph
        stored = encoding(graph, weight)
        padded = node.kind == "ConvTranspose" or any(node.attributes.get("pads", ()))
        bits, compute_bits, activations = stored.bits, stored.compute_bits, self._bits(x, padded)
        if node.name in self.layer_bits:
            bits, activations = self.layer_bits[node.name]
            compute_bits = bits
        elif x in self.grids:
            folded = folded_bits(graph, node, self.grids[x].vector, self.grids[x].axis)
            bits, compute_bits = max(bits, folded), max(compute_bits, folded)
        if node.name not in self.layer_bits:
            compute_bits = max(compute_bits, summed_bits(graph, weight, stored, _summed_axes(node, graph)))
        self.problems.extend(stored.problems)
        shared = self._is_shared(weight)
        self._append_layer(
            node,
            _macs(graph, node),
            groups=int(node.attributes.get("groups", 1)),
            bias=len(node.inputs) > 2 and bool(node.inputs[2]),
            weights=0 if shared else self._elements(weight),
            nonzeros=0 if shared else self._nonzeros(weight),
            weight_bits=bits,
            activation_bits=activations,
            operation_bits=max(compute_bits, activations),
            shared=shared,
            sources=self.sources.of(x),
        )
        self._charge_layer(node, stored)

    def _append_layer(self, node: Node, macs: int, **columns: object) -> None:
        row = Operation(node.name, _NAMES[node.kind], macs=macs, outputs=self._elements(node.output), **columns)  # type: ignore[arg-type]
        self.operations.append(row)
        self.layers[row.name] = min(row.operation_bits, self.layers.get(row.name, row.operation_bits))
        self.grants.append(grant_of(self.graph, node, macs, row.operation_bits, self.regions))
        if not self.graph.types[node.output].is_floating_point:
            self.unknown.append(f"{node.kind} in {self.graph.types[node.output]} at '{node.name}'")

    def _charge_layer(self, node: Node, stored: Encoding) -> None:
        """Weight scales, bias and the affine behind the layer come to one multiplier and one shift a channel."""
        graph = self.graph
        outputs = _channel_axis(node, graph)
        axis = len(graph.shapes[node.output]) - 1 if node.kind == "Linear" else 1
        chain = chain_from(graph, node.output, axis=axis)
        self.handled.update(chain.outputs)
        folding = tuple(s.value for s in stored.scales if s.axis is None or s.axis == outputs)
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        for value in (*(z.value for z in stored.zeros), *((stored.table,) if stored.table else ())):
            self._charge(value, node.name)
        for scale in stored.scales:
            if scale.value not in folding:
                self._charge(scale.value, node.name)
        if bias and not graph.is_constant(bias):
            self._row(node, "elementwise", self._bits(node.output), steps=self._elements(node.output))
            bias = ""
        for role, key, count, bits in chain_numbers(graph, chain, folding, bias, graph.shapes[node.output][axis]):
            self._charge_numbers(f"{node.name}.{role}", node.name, key, count, bits)
        # Multipliers and shifts that are themselves integers and a scale: the scale is one more number.
        for value in (*folding, *chain.multipliers, *((bias,) if bias else ()), *chain.shifts):
            self._charge_parts(value, node.name)

    def _product(self, node: Node) -> None:
        """A matrix product, or a convolution whose kernel is made from the image."""
        graph, (a, b) = self.graph, node.inputs[:2]
        weights = nonzeros = weight_bits = 0
        bits = compute_bits = max(self._factor_bits(node, i) for i in (a, b) if not graph.is_constant(i))
        shared = False
        for value in (a, b):
            if graph.is_constant(value):
                stored = encoding(graph, value)
                shared = self._is_shared(value)
                self.problems.extend(stored.problems)
                summed = {len(graph.shapes[value]) - (1 if value == a else 2)}
                beside = summed_bits(graph, value, stored, summed) if node.kind == "MatMul" else 0
                weight_bits, compute_bits = stored.bits, max(stored.compute_bits, bits, beside)
                if not shared:
                    weights, nonzeros = self._elements(value), self._nonzeros(value)
                table = (stored.table,) if stored.table else ()
                for number in (*(s.value for s in (*stored.scales, *stored.zeros)), *table):
                    self._charge(number, node.name)
        for value in node.inputs[2:]:
            if value and graph.is_constant(value):
                self._charge(value, node.name)
        self._append_layer(
            node,
            _macs(graph, node),
            weights=weights,
            nonzeros=nonzeros,
            weight_bits=weight_bits,
            activation_bits=bits,
            operation_bits=compute_bits,
            shared=shared,
        )

    def _factor_bits(self, node: Node, value: str) -> int:
        """Bits of a factor of a product. Steps along what is summed over do not fold out of the sum."""
        grid, shape = self.grids.get(value), self.graph.shapes[value]
        if grid is not None and grid.vector is not None:
            summed = len(shape) - (1 if value == node.inputs[0] else 2) if node.kind == "MatMul" else None
            if summed is None or grid.axis == summed:
                return bits_of(self.graph.types[value])
        return self._bits(value)


def total_macs(graph: Graph) -> int:
    """Multiply-accumulates of all layers for one image."""
    layers = [n for n in graph.running if n.kind in KINDS and KINDS[n.kind].price is Charge.LAYER]
    return sum(_macs(graph, node) for node in layers)


def _macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of a layer for one image."""
    made, (x, weight) = math.prod(graph.shapes[node.output]), node.inputs[:2]
    if node.kind == "MatMul":
        return made * graph.shapes[x][-1]
    if node.kind == "ConvTranspose":
        made = math.prod(graph.shapes[x])
    return made * math.prod(graph.shapes[weight][1:])


def _channel_axis(node: Node, graph: Graph) -> int:
    """The axis of a layer's weight that its output channels run along; -2 where they run along none alone."""
    if node.kind != "ConvTranspose":
        return 0
    return 1 if node.attributes.get("groups", 1) == 1 else -2


def _summed_axes(node: Node, graph: Graph) -> set[int]:
    """The axes of a layer's weight that its sums run over: scales along them do not fold into a multiplier."""
    shape = graph.shapes[node.inputs[1]]
    if node.kind != "ConvTranspose":
        return set(range(1, len(shape)))
    depthwise = node.attributes.get("groups", 1) == shape[0]
    return {*range(2, len(shape))} | (set() if depthwise else {0})
