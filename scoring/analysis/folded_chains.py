"""Affine chains run as they are priced: one multiplication and one addition, in however many steps they are written.

Step by step every result is rounded, and a great number that is added and taken away again rounds to integers: that is
a function which one multiplier and one shift do not have.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scoring.analysis.weight_encoding import affine_parts, chain_from, is_like
from scoring.graph.graph import LAYER_KINDS, Graph, Node

_LOST = 16
"""Biases of a layer that are (the middle one) so many times what the chain leaves of them were there to round."""


def with_folded_chains(graph: Graph) -> Graph:
    """The graph with one Mul and one Add in the place of each chain that has several of either."""
    graph = replace(graph, constants=dict(graph.constants), shapes=dict(graph.shapes), types=dict(graph.types))
    gone, made = set[str](), dict[str, list[Node]]()
    for chain in affine_chains(graph):
        node = chain[0]
        multiplier, shift = _folded(graph, chain)
        layer, rounds = _layer_with_bias(graph, node), False
        if layer is not None:
            bias = multiplier * _along_channels(graph, layer, layer.inputs[2])
            shift = shift + bias
            rounds = bool(bias.abs().median() > _LOST * shift.abs().median())
        if not rounds and not _has_several(graph, chain):
            continue
        gone.update(link.output for link in chain)
        if layer is not None:
            made[layer.output] = [replace(layer, inputs=layer.inputs[:2])]
        made[chain[-1].output] = _written(graph, _changing(graph, node), chain[-1], multiplier, shift)
    nodes: list[Node] = []
    for node in graph.nodes:
        output = node.outputs[0] if node.outputs else ""
        nodes += made.get(output, [] if output in gone else [node])
    return replace(graph, nodes=nodes) if made else graph


def affine_chains(graph: Graph) -> list[list[Node]]:
    """The affine nodes that can run as one, together: floats of one type and one size, numbers along one axis."""
    chains: list[list[Node]] = []
    seen = set[str]()
    for node in graph.running:
        if node.output in seen or affine_parts(graph, node) is None:
            continue
        x = _changing(graph, node)
        kept = chain_from(graph, x, first=node).outputs if is_like(graph, node.output, x) else ()
        seen.update(kept)
        if kept:
            chains.append([graph.producers[value] for value in kept])
    return chains


def _changing(graph: Graph, node: Node) -> str:
    return next((i for i in node.inputs if i and not graph.is_constant(i)), "")


def _has_several(graph: Graph, chain: list[Node]) -> bool:
    parts = [affine_parts(graph, node) or ([], []) for node in chain]
    return max(sum(bool(part[i]) for part in parts) for i in (0, 1)) > 1


def _layer_with_bias(graph: Graph, node: Node) -> Node | None:
    """The layer that a chain follows, if it has a bias and nobody else reads what it makes."""
    x = _changing(graph, node)
    layer = graph.producers.get(x)
    if layer is None or layer.kind not in LAYER_KINDS or graph.only_reader(x) is not node:
        return None
    return layer if len(layer.inputs) > 2 and graph.is_constant(layer.inputs[2]) else None


def _along_channels(graph: Graph, node: Node, vector: str) -> Tensor:
    """A vector in double precision, where it meets the channels that a node makes."""
    behind = 0 if node.kind == "Linear" else len(graph.shapes[node.output]) - 2
    return graph.constants[vector].double().reshape(-1, *[1] * behind)


def _of(graph: Graph, node: Node) -> tuple[Tensor, Tensor]:
    """(multiplier, shift) of one node, in double precision."""
    one, nothing = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    if node.kind == "BatchNormalization":
        gamma, beta, mean, variance = (
            _along_channels(graph, node, i) if i else default
            for i, default in zip(node.inputs[1:5], (one, nothing, nothing, one), strict=True)
        )
        multiplier = gamma / (variance + node.attributes["eps"]).sqrt()
        return multiplier, beta - mean * multiplier
    constant = next(graph.constants[i] for i in node.inputs if graph.is_constant(i)).double()
    if node.kind in ("Mul", "Div"):
        return (constant if node.kind == "Mul" else one / constant), nothing
    if node.kind == "Add":
        return one, constant
    return (-one, constant) if graph.is_constant(node.inputs[0]) else (one, -constant)


def _folded(graph: Graph, chain: list[Node]) -> tuple[Tensor, Tensor]:
    multiplier, shift = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for node in chain:
        times, plus = _of(graph, node)
        multiplier, shift = multiplier * times, shift * times + plus
    return multiplier, shift


def _written(graph: Graph, x: str, last: Node, multiplier: Tensor, shift: Tensor) -> list[Node]:
    """The nodes that compute `last`'s value from x; their constants and values get names of their own."""
    output, name = last.output, f"{last.output}:folded"
    while any(f"{name}{end}" in graph.shapes for end in ("", ".multiplier", ".shift")):
        name += "'"
    graph.shapes[name], graph.types[name] = graph.shapes[output], graph.types[output]
    for end, tensor in ((".multiplier", multiplier), (".shift", shift)):
        graph.constants[name + end] = tensor.to(graph.types[output])
        graph.shapes[name + end], graph.types[name + end] = tuple(tensor.shape), graph.types[output]
    return [
        Node(last.name, "Mul", (x, name + ".multiplier"), (name,)),
        Node(last.name, "Add", (name, name + ".shift"), (output,)),
    ]
