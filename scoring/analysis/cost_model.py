"""From the operation graph to the costs table: one analysis for every reader.

What is priced, what is free and how stored numbers are charged is the section "How the tool applies the formula" of
the contest's rules; `docs/scoring.md` walks through it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import torch

from scoring.analysis.activation_bits import Grid, activation_bits, follow
from scoring.analysis.affine_folding import AffineChain, chain_from, chain_numbers
from scoring.analysis.channel_coupling import Sources
from scoring.analysis.disguised_layers import Disguise
from scoring.analysis.weight_encoding import Encoding, encoding, is_per_channel, nonzero_points
from scoring.costs import Costs, Number, Operation, Parent
from scoring.graph.graph import (
    ACTIVATION_KINDS,
    POOLING_KINDS,
    QUANTISER_KINDS,
    SHAPE_KINDS,
    UNKNOWN,
    Graph,
    Node,
    bits_of,
)

LAYER_KINDS = {"Conv": "conv", "ConvTranspose": "conv_transpose", "Linear": "linear"}
_FREE = ACTIVATION_KINDS | QUANTISER_KINDS | SHAPE_KINDS | {"Concat", "Pad", "Cast"}
_PASSED = _FREE | POOLING_KINDS | {"ReduceMean", "Add", "Mul"}
"""Behind these a quantiser's reader is looked for."""


def analyse(
    graph: Graph, *, layer_bits: Mapping[str, tuple[int, int]] | None = None, parent: Parent | None = None
) -> Costs:
    """The costs of one image.

    layer_bits: for an architecture without weights, (weight bits, activation bits) by layer name, taken instead of
    what the graph stores.
    """
    return _Analysis(graph, layer_bits or {}).costs(parent)


@dataclass
class _Analysis:
    graph: Graph
    layer_bits: Mapping[str, tuple[int, int]]
    operations: list[Operation] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    charged: set[Hashable] = field(default_factory=set)
    handled: set[str] = field(default_factory=set)
    """Outputs of affine nodes that were charged with the chain they belong to."""
    additions: int = 0

    def costs(self, parent: Parent | None) -> Costs:
        self.grids: dict[str, Grid] = follow(self.graph)
        self.sources = Sources(self.graph)
        self.disguise = Disguise(self.graph)
        for node in self.graph.running:
            self._node(node)
        for node in self.graph.nodes:
            if not node.outputs and node.kind == UNKNOWN:  # a number read out of an activation: what runs depends on it
                self._node(node)
        macs = sum(op.macs for op in self.operations)
        if self.additions > max(macs, 1):
            self.problems.append(
                f"additions outside of layers: {self.additions:,}, more than the {macs:,} multiply-accumulates that "
                "are priced; residual adds are free only as long as they are not the network's work"
            )
        return Costs(
            operations=tuple(self.operations),
            numbers=tuple(self.numbers),
            unknown_operations=tuple(dict.fromkeys(self.unknown)),
            problems=tuple(dict.fromkeys((*self.graph.problems, *self.problems))),
            parent=parent,
        )

    def _node(self, node: Node) -> None:
        kind = node.kind
        if kind in LAYER_KINDS:
            self._layer(node)
        elif kind == "MatMul":
            self._matmul(node)
        elif kind == "BatchNormalization":
            self._affine(node)
        elif kind in ("Add", "Sub", "Mul", "Div"):
            self._arithmetic(node)
        elif kind in ("ReduceMean", "ReduceSum", *POOLING_KINDS):
            self._reduction(node)
        elif kind in _FREE:
            self._free(node)
        else:
            operation = str(node.attributes.get("operation", kind)) if kind == UNKNOWN else kind
            self.unknown.append(f"{operation} at '{node.name}'" if node.name else operation)

    def _elements(self, value: str) -> int:
        return math.prod(self.graph.shapes[value])

    def _channels(self, node: Node) -> int:
        """The most numbers of a kind that "one a channel" can mean at a node."""
        return max(self.graph.shapes[node.output][1:], default=1) if node.kind not in LAYER_KINDS else (
            self.graph.shapes[node.output][-1 if node.kind == "Linear" else 1]
        )  # fmt: skip

    def _bits(self, value: str, padded: bool = False) -> int:
        return activation_bits(self.graph, value, self.grids.get(value), padded)

    # Layers -----------------------------------------------------------------------------------------------------

    def _layer(self, node: Node) -> None:
        graph, (x, weight) = self.graph, node.inputs[:2]
        if not graph.is_constant(weight):
            self.unknown.append(f"{node.kind} with computed weights at '{node.name}'")
            return
        shape, groups = graph.shapes[weight], int(node.attributes.get("groups", 1))
        if node.kind == "Conv":
            macs = self._elements(node.output) * math.prod(shape[1:])
        elif node.kind == "ConvTranspose":
            macs = self._elements(x) * math.prod(shape[1:])
        else:
            macs = self._elements(node.output) * shape[1]
        padded = node.kind == "ConvTranspose" or any(node.attributes.get("pads", ()))
        stored, activations = encoding(graph, weight), self._bits(x, padded)
        bits, compute_bits = stored.bits, stored.compute_bits
        if node.name in self.layer_bits:
            bits, activations = self.layer_bits[node.name]
            compute_bits = bits
        self.problems.extend(stored.problems)
        key = graph.key(weight)
        shared = key in self.charged
        self.charged.add(key)
        count = math.prod(shape)
        bias = len(node.inputs) > 2 and bool(node.inputs[2])
        chain = chain_from(graph, node.output, axis=len(graph.shapes[node.output]) - 1 if node.kind == "Linear" else 1)
        self.operations.append(
            Operation(
                name=node.name,
                kind=LAYER_KINDS[node.kind],
                macs=macs,
                outputs=self._elements(node.output),
                groups=groups,
                bias=bias,
                weights=0 if shared else count,
                nonzeros=0 if shared else self._nonzeros(weight),
                weight_bits=bits,
                activation_bits=activations,
                operation_bits=max(compute_bits, activations),
                shared=shared,
                sources=self.sources.of(x),
            )
        )
        if not graph.types[node.output].is_floating_point:
            self.unknown.append(f"{node.kind} in {graph.types[node.output]} at '{node.name}'")
        for value in (*stored.zeros, *((stored.table,) if stored.table else ())):
            self._charge(value, node.name)
        self._charge_chain(node, chain, stored, node.inputs[2] if bias else "")

    def _nonzeros(self, weight: str) -> int:
        tensor = self.graph.constants[weight]
        return tensor.numel() if tensor.device.type == "meta" else int(tensor.count_nonzero())

    def _charge_chain(self, node: Node, chain: AffineChain, stored: Encoding, bias: str) -> None:
        """Weight scales, bias and the affine behind the layer come to one multiplier and one shift a channel."""
        self.handled.update(chain.outputs)
        for role, key, count, bits in chain_numbers(self.graph, chain, stored.scales, bias, self._channels(node)):
            self._charge_numbers(f"{node.name}.{role}", node.name, key, count, bits)
        # Multipliers and shifts that are themselves integers and a scale: the scale is one more number.
        for value in (*stored.scales, *chain.multipliers, *((bias,) if bias else ()), *chain.shifts):
            for scale in encoding(self.graph, value).scales:
                self._charge(scale, node.name)

    def _charge_numbers(self, name: str, layer: str, key: Hashable, count: int, bits: int) -> None:
        if key not in self.charged and count:
            self.charged.add(key)
            self.numbers.append(Number(name, layer, count, bits))

    def _charge(self, value: str, layer: str) -> None:
        """Charge a constant as numbers, at the bits it is stored and executed in."""
        stored = encoding(self.graph, value)
        name = value if value in self.graph.stored else f"{layer}.constant"
        self._charge_numbers(name, layer, self.graph.key(value), self._elements(value), stored.bits)
        for value in (*stored.scales, *stored.zeros):
            self._charge(value, layer)
        self.problems.extend(stored.problems)

    def _matmul(self, node: Node) -> None:
        graph = self.graph
        a, b = node.inputs
        bits = max(self._bits(a), self._bits(b))
        weights = nonzeros = weight_bits = 0
        compute_bits, shared = bits, False
        for value in (a, b):
            if graph.is_constant(value):
                stored = encoding(graph, value)
                shared = graph.key(value) in self.charged
                self.charged.add(graph.key(value))
                self.problems.extend(stored.problems)
                other = b if value == a else a
                bits, weight_bits = self._bits(other), stored.bits
                compute_bits = max(stored.compute_bits, bits)
                if not shared:
                    weights, nonzeros = self._elements(value), self._nonzeros(value)
                for number in (*stored.scales, *stored.zeros):
                    self._charge(number, node.name)
        macs = self._elements(node.output) * graph.shapes[a][-1]
        self.operations.append(
            Operation(
                node.name, "matmul", macs=macs, outputs=self._elements(node.output), weights=weights,
                nonzeros=nonzeros, weight_bits=weight_bits, activation_bits=bits, operation_bits=compute_bits,
                shared=shared,
            )
        )  # fmt: skip

    # Element by element ------------------------------------------------------------------------------------------

    def _affine(self, node: Node) -> None:
        """A batch norm, or the first multiplication or addition of a chain that no layer stands before."""
        if not all(self.graph.is_constant(i) for i in node.inputs[1:] if i):
            self.unknown.append(f"batch norm with computed parameters at '{node.name}'")
            return
        self._row(node, {"BatchNormalization": "batch_norm", "Mul": "scale", "Div": "scale"}.get(node.kind, "shift"))
        if node.output not in self.handled:
            chain = chain_from(self.graph, node.inputs[0] if not self.graph.is_constant(node.inputs[0]) else
                               node.inputs[1], first=node)  # fmt: skip
            self.handled.update(chain.outputs)
            for role, key, count, bits in chain_numbers(self.graph, chain, (), "", self._channels(node)):
                self._charge_numbers(f"{node.name}.{role}", node.name, key, count, bits)

    def _row(self, node: Node, kind: str) -> None:
        bits = self._bits(node.output)
        self.operations.append(
            Operation(node.name, kind, outputs=self._elements(node.output), activation_bits=bits, operation_bits=bits)
        )

    def _arithmetic(self, node: Node) -> None:
        graph = self.graph
        constants = [i for i in node.inputs if graph.is_constant(i)]
        affine = bool(constants) and (node.kind != "Div" or graph.is_constant(node.inputs[1]))
        if affine and is_per_channel(graph.shapes[constants[0]], graph.shapes[node.output]):
            self._affine(node)
            return
        for value in constants:
            self._charge(value, node.name)
        if node.kind in ("Mul", "Div"):
            self._elementwise(node, "multiply")
        elif not constants and self.disguise.is_work(node):
            self._elementwise(node, "sum")
        else:
            self.additions += self._elements(node.output)

    def _elementwise(self, node: Node, kind: str) -> None:
        """One operation an element, at the wider input's bits."""
        graph, elements = self.graph, self._elements(node.output)
        bits = max(
            encoding(graph, i).compute_bits if graph.is_constant(i) else self._bits(i) for i in node.inputs
        )  # fmt: skip
        self.operations.append(
            Operation(node.name, kind, products=elements, outputs=elements, activation_bits=bits, operation_bits=bits)
        )

    def _reduction(self, node: Node) -> None:
        """Pooling is free. A sum over products or over scaled channels is a layer in disguise, and priced as one."""
        macs, products = self.disguise.sum_costs(node)
        if macs or products:
            bits, outputs = self._bits(node.inputs[0]), self._elements(node.output)
            self.operations.append(
                Operation(node.name, "sum", macs=macs, products=products, outputs=outputs, activation_bits=bits,
                          operation_bits=bits)
            )  # fmt: skip

    def _free(self, node: Node) -> None:
        if node.kind in QUANTISER_KINDS:
            if not all(self.graph.is_constant(i) for i in node.inputs[1:] if i):
                self.unknown.append(f"quantiser with a computed step at '{node.name}'")
                return
            layer = self._layer_behind(node)
            for value in (node.inputs[1], *nonzero_points(self.graph, node.inputs[2:])):
                self._charge(value, layer)
            return
        constants = [i for i in node.inputs if i and self.graph.is_constant(i)]
        if node.kind == "Gather" and node.inputs[0] in constants:
            self.unknown.append(f"look-up in a table at '{node.name}'")
        if node.kind == "Gather" and node.inputs[0] not in constants and not self._is_slice(node.inputs[1]):
            self._charge(node.inputs[1], node.name)  # which inputs a layer sees is stored like its weights
        if node.kind == "Pad" and node.attributes.get("mode", "constant") == "constant":
            self._charge_padding(node)
        for value in constants if node.kind in ("Concat", "PRelu") else ():
            tensor = self.graph.constants[value]
            if node.kind == "PRelu" or (tensor.device.type != "meta" and bool((tensor != 0).any())):
                self._charge(value, node.name)

    def _is_slice(self, index: str) -> bool:
        """Whether indices follow each other at one distance, so that they need not be stored."""
        steps = self.graph.constants[index].reshape(-1).diff() if self.graph.is_constant(index) else None
        return steps is not None and (steps.device.type == "meta" or len(torch.unique(steps)) <= 1)

    def _charge_padding(self, node: Node) -> None:
        """A number other than zero at the border is stored, wherever in the file it stands."""
        value = float(node.attributes.get("value", 0.0))
        if value:
            bits = bits_of(self.graph.types[node.output])
            self._charge_numbers(f"{node.name}.value", node.name, ("padding", value, bits), 1, bits)

    def _layer_behind(self, node: Node) -> str:
        """The priced operation that reads a quantiser's output, to whose bill its scale goes."""
        queue, seen = [node], {node.output}
        while queue:
            for reader in self.graph.consumers.get(queue.pop(0).output, []):
                if reader.kind in LAYER_KINDS or reader.kind == "MatMul":
                    return reader.name
                if reader.kind in _PASSED and reader.output not in seen:
                    seen.add(reader.output)
                    queue.append(reader)
        return node.name
