"""Affine chains: multiplications and additions in a row by numbers of the channel, which fold into one of each.

They run as they are priced: one multiplication and one addition, in however many steps they are written.

Step by step every result is rounded, and a great number that is added and taken away again rounds to integers: that is
a function which one multiplier and one shift do not have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoring.graph.graph import LAYER_KINDS, Graph, Node

_LOST = 16
"""Biases of a layer that are (the middle one) so many times what the chain leaves of them were there to round."""


@dataclass(frozen=True)
class AffineChain:
    """Nodes in a row, each the only reader of the one before, with their multipliers and shifts (value names)."""

    outputs: tuple[str, ...]
    multipliers: tuple[str, ...]
    shifts: tuple[str, ...]


def chain_from(graph: Graph, value: str, first: Node | None = None, axis: int | None = None) -> AffineChain:
    """The longest affine chain of floats behind a value, along one dimension.

    first: starts it even if the value has other readers. axis: the dimension; None is that of the first vector.
    """
    outputs: list[str] = []
    multipliers: list[str] = []
    shifts: list[str] = []
    node = first or graph.only_readers.get(value)
    while node is not None:
        parts = affine_parts(graph, node)
        if parts is None or (node is not first and not is_like(graph, node.output, value)):
            break
        own = _axis(graph, node, (*parts[0], *parts[1]))
        if own is not None and axis is not None and own != axis:
            break  # one number a row does not fold into one number a channel
        axis = own if axis is None else axis
        multipliers += parts[0]
        shifts += parts[1]
        value = node.output
        outputs.append(value)
        node = graph.only_readers.get(value)
    return AffineChain(tuple(outputs), tuple(multipliers), tuple(shifts))


def is_like(graph: Graph, value: str, before: str) -> bool:
    """Whether a float is of the type and size of another: what makes more channels, or integers, folds into nothing."""
    same = graph.types[value] == graph.types[before] and graph.shapes[value] == graph.shapes[before]
    return same and graph.types[value].is_floating_point


def _axis(graph: Graph, node: Node, constants: tuple[str, ...]) -> int | None:
    """The dimension along which an affine node's numbers vary; None for single numbers."""
    if node.kind == "BatchNormalization":
        return 1
    shape, rank = graph.shapes[constants[0]], len(graph.shapes[node.output])
    return next((i + rank - len(shape) for i, size in enumerate(shape) if size != 1), None)


def affine_parts(graph: Graph, node: Node) -> tuple[list[str], list[str]] | None:
    """(multipliers, shifts) of an affine node; None for any other."""
    if node.kind == "BatchNormalization":
        _, gamma, beta, mean, variance = node.inputs
        if not all(graph.is_constant(i) for i in node.inputs[1:] if i):
            return None
        return _telling(graph, gamma, variance), _telling(graph, beta, mean)
    if node.kind not in ("Mul", "Div", "Add", "Sub"):
        return None
    constants = [i for i in node.inputs if graph.is_constant(i)]
    if len(constants) != 1 or (node.kind == "Div" and not graph.is_constant(node.inputs[1])):
        return None
    if not is_per_channel(graph.shapes[constants[0]], graph.shapes[node.output]):
        return None
    return (constants, []) if node.kind in ("Mul", "Div") else ([], constants)


def _telling(graph: Graph, first: str, second: str) -> list[str]:
    """Which of a batch norm's two vectors make its multiplier (or shift): those that are more than one number."""
    given = [i for i in (first, second) if i]
    return [i for i in given if not _is_one_number(graph, i)] or given[:1]


def _is_one_number(graph: Graph, value: str) -> bool:
    tensor = graph.constants[value]
    return tensor.device.type != "meta" and bool((tensor == tensor.reshape(-1)[0]).all())


def is_per_channel(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Whether a tensor that is broadcast to `full` holds one number, or one for each index of one dimension."""
    wide = [size for size in shape if size != 1]
    return len(wide) <= 1 and len(shape) <= len(full)


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
    if layer is None or layer.kind not in LAYER_KINDS or graph.only_readers.get(x) is not node:
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
