"""Which layers make the channels that a layer reads: what shrinks together when a layer gets narrower."""

from __future__ import annotations

from scoring.graph.graph import Graph, Node

Parts = tuple[tuple[str, ...], ...]

MOST_PARTS = 64
"""A concatenation of more pieces counts as one part: a graph that splits and joins thousands of times stays linear."""


class Sources:
    """Value -> its parts (one, or one for each piece of a concatenation), each the layers that are coupled in it."""

    def __init__(self, graph: Graph) -> None:
        self._parts: dict[str, Parts] = {}
        for node in graph.running:
            parts = self._after(graph, node)
            for output in node.outputs:
                self._parts[output] = parts

    def of(self, value: str) -> Parts:
        """Parts of a value; empty for the image."""
        return self._parts.get(value, ())

    def _after(self, graph: Graph, node: Node) -> Parts:
        inputs = [self.of(i) for i in node.inputs if i and not graph.is_constant(i)]
        if node.kind in ("Conv", "ConvTranspose", "Linear"):
            if node.attributes.get("groups", 1) > 1 and len(inputs[0]) == 1:
                return (_merged((*inputs[0], (node.name,))),)  # its channels go with those that it reads
            return ((node.name,),)
        if node.kind == "Concat":
            pieces = tuple(part for parts in inputs for part in parts)
            return pieces if len(pieces) <= MOST_PARTS else (_merged(pieces),)
        if len(inputs) == 1:
            return inputs[0]
        if len({len(parts) for parts in inputs}) == 1:
            return tuple(_merged(coupled) for coupled in zip(*inputs, strict=True))
        return (_merged(tuple(part for parts in inputs for part in parts)),)


def _merged(parts: Parts) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in parts for name in part))
