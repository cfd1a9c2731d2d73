"""Several operators that exporters write for one: put back together, so that both readers say the same."""

from __future__ import annotations

from dataclasses import replace

from scoring.analysis.activation_patterns import with_activations
from scoring.graph.graph import Graph, Node
from scoring.readers.quantiser_patterns import with_quantisers


def fused(graph: Graph) -> Graph:
    """The graph with biases, quantisers and activations in one piece, and without what nothing needs."""
    for fuse in (_biases, with_quantisers, with_activations):
        graph = _without_dead_nodes(fuse(graph))
    return graph


def _replaced(graph: Graph, new: dict[int, Node]) -> Graph:
    return replace(graph, nodes=[new.get(id(node), node) for node in graph.nodes])


def _biases(graph: Graph) -> Graph:
    """A linear layer without bias and a constant added to each of its outputs."""
    new: dict[int, Node] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        if node.kind != "Add":
            continue
        for x, bias in (node.inputs, node.inputs[::-1]):
            layer = graph.producers.get(x)
            if layer is None or layer.kind != "Linear" or len(layer.inputs) > 2 or not graph.is_constant(bias):
                continue
            if graph.only_reader(x) is node and graph.shapes[bias] == (graph.shapes[x][-1],):
                new[id(node)] = Node(layer.name, "Linear", (*layer.inputs, bias), node.outputs, layer.attributes)
                gone.add(id(layer))
    return replace(graph, nodes=[new.get(id(node), node) for node in graph.nodes if id(node) not in gone])


def _without_dead_nodes(graph: Graph) -> Graph:
    """Only the nodes that lead to the output, constant expressions included."""
    needed, nodes = {graph.output}, []
    for node in reversed(graph.nodes):
        if any(output in needed for output in node.outputs):
            needed.update(node.inputs)
            nodes.append(node)
    return replace(graph, nodes=nodes[::-1])
