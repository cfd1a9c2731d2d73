"""Work that hides in operations which are free by themselves.

A sum over products is a matmul, an average over scaled channels is a layer, and shifted copies of one value that are
scaled and added up are a convolution. So three things are followed through the graph: which values are products of
activations, along which dimensions values were scaled, and which priced operations they come from.
"""

from __future__ import annotations

import math

from scoring.analysis.weight_encoding import is_per_channel
from scoring.graph.graph import SHAPE_KINDS, Graph, Node

ANY = -1
"""Stands for any dimension: a reshape has mixed them."""
_LAYERS = ("Conv", "ConvTranspose", "Linear", "MatMul")


class Disguise:
    """What `_Analysis` asks about sums and additions."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._products: set[str] = set()
        self._scaled: dict[str, frozenset[int]] = {}
        self._origins: dict[str, frozenset[str]] = {graph.input: frozenset({graph.input})}
        for node in graph.running:
            self._follow(node)

    def sum_costs(self, node: Node) -> tuple[int, int]:
        """(MACs, single operations) of a reduction or a pooling; (0, 0) where it is a plain pooling."""
        x = node.inputs[0]
        shape = self._graph.shapes[x]
        if node.kind == "MaxPool":
            return 0, 0
        axes = {int(a) % len(shape) for a in node.attributes.get("axes", range(2, len(shape)))}
        scaled = self._scaled.get(x, frozenset())
        over_channels = len(shape) != 3 and 1 in axes
        if over_channels or ANY in scaled or scaled & axes:
            return math.prod(shape), 0
        return 0, math.prod(shape) if x in self._products else 0

    def is_work(self, node: Node) -> bool:
        """Whether an addition of two activations adds up versions of one value, and so is no residual add."""
        left, right = (self._origins.get(i, frozenset()) for i in node.inputs)
        return bool(left & right)

    def _follow(self, node: Node) -> None:
        graph, out = self._graph, node.output
        changing = [i for i in node.inputs if i and not graph.is_constant(i)]
        if node.kind in _LAYERS:
            self._origins[out] = frozenset({out})
            return
        self._origins[out] = frozenset().union(*(self._origins.get(i, frozenset()) for i in changing))
        if node.kind in ("Mul", "Div") and len(changing) == 2:
            self._products.add(out)
        if any(i in self._products for i in changing):
            self._products.add(out)
        axes: set[int] = set()
        for value in changing:
            axes |= {moved for axis in self._scaled.get(value, ()) for moved in (self._moved(node, axis),)}
        axes |= self._own_axes(node)
        if axes:
            self._scaled[out] = frozenset(axes)

    def _moved(self, node: Node, axis: int) -> int:
        """Where a dimension goes in an operation on shapes."""
        if axis == ANY or (node.kind not in SHAPE_KINDS and node.kind not in ("ReduceMean", "ReduceSum")):
            return axis
        if node.kind == "Transpose":
            return int(list(node.attributes["perm"]).index(axis))
        if node.kind in ("Slice", "Identity", "Expand", "ResizeNearest"):
            return axis
        before, after = self._graph.shapes[node.inputs[0]], self._graph.shapes[node.output]
        return axis if before[: axis + 1] == after[: axis + 1] else ANY

    def _own_axes(self, node: Node) -> set[int]:
        """The dimensions along which a node itself scales by constants."""
        graph, full = self._graph, self._graph.shapes[node.output]
        if node.kind == "BatchNormalization":
            return {1}
        if node.kind not in ("Mul", "Div", "PRelu"):
            return set()
        axes = set()
        for value in node.inputs:
            if value and graph.is_constant(value):
                shape = graph.shapes[value]
                if node.kind == "PRelu" and len(shape) == 1 and shape[0] > 1:
                    axes.add(1)
                elif is_per_channel(shape, full):
                    axes |= {i + len(full) - len(shape) for i, size in enumerate(shape) if size != 1}
                else:
                    axes.add(ANY)
        return axes
