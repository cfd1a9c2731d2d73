"""Chains of per-channel multiplications and shifts: batch norms, and what folds into them.

In the folded form a layer and everything affine behind it keep one multiplier and one shift a channel: weight
scales and multipliers of batch norms fold into the multiplier, biases and their shifts into the shift.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from scoring.analysis.weight_encoding import encoding, is_per_channel
from scoring.graph.graph import Graph, Node, bits_of


@dataclass(frozen=True)
class AffineChain:
    """Nodes in a row, each the only reader of the one before, with their multipliers and shifts (value names)."""

    outputs: tuple[str, ...]
    multipliers: tuple[str, ...]
    shifts: tuple[str, ...]


def chain_from(graph: Graph, value: str, first: Node | None = None, axis: int | None = None) -> AffineChain:
    """The longest affine chain behind a value, along one dimension.

    first: starts it even if the value has other readers. axis: the dimension; None is that of the first vector.
    """
    outputs: list[str] = []
    multipliers: list[str] = []
    shifts: list[str] = []
    node = first or graph.only_reader(value)
    while node is not None:
        parts = _parts(graph, node)
        if parts is None:
            break
        own = _axis(graph, node, (*parts[0], *parts[1]))
        if own is not None and axis is not None and own != axis:
            break  # one number a row does not fold into one number a channel
        axis = own if axis is None else axis
        multipliers += parts[0]
        shifts += parts[1]
        outputs.append(node.output)
        node = graph.only_reader(node.output)
    return AffineChain(tuple(outputs), tuple(multipliers), tuple(shifts))


def _axis(graph: Graph, node: Node, constants: tuple[str, ...]) -> int | None:
    """The dimension along which an affine node's numbers vary; None for single numbers."""
    if node.kind == "BatchNormalization":
        return 1
    shape, rank = graph.shapes[constants[0]], len(graph.shapes[node.output])
    return next((i + rank - len(shape) for i, size in enumerate(shape) if size != 1), None)


def _parts(graph: Graph, node: Node) -> tuple[list[str], list[str]] | None:
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


def chain_numbers(
    graph: Graph, chain: AffineChain, scales: tuple[str, ...], bias: str, channels: int
) -> Iterator[tuple[str, Hashable, int, int]]:
    """(role, key, count, bits) of the multiplier and of the shift that a layer and its chain come to.

    channels: there are never more of each than that.
    """
    multipliers = (*scales, *chain.multipliers)
    shifts = (bias, *chain.shifts) if bias else chain.shifts
    for role, values in (("multiplier", multipliers), ("shift", shifts)):
        if values:
            count = min(channels, max(math.prod(graph.shapes[v]) for v in values))
            yield role, (role, tuple(graph.key(v) for v in values)), count, _folded_bits(graph, values)


def _folded_bits(graph: Graph, values: tuple[str, ...]) -> int:
    """Bits of what several vectors come to: two that are quantised come to one that is not."""
    vectors = [v for v in values if math.prod(graph.shapes[v]) > 1]
    quantised = {graph.key(v) for v in vectors if encoding(graph, v).quantised}
    widest = max(encoding(graph, v).bits for v in values)
    return max(widest, *(bits_of(graph.types[v]) for v in vectors)) if len(quantised) > 1 else widest
