"""Quantisers that a network writes out as arithmetic, called so again: `round(clamp(x / s, -8, 7)) * s` and its like.

Students write DoReFa, LSQ and their own so, mostly with a straight-through trick, `x + (q - x).detach()`, which without
gradients is q. The codes' range is what the network clamps them to, so bits are its author's; nothing is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoring.graph.graph import Graph, Node

_CLOSE = 1e-5
"""How far the step before rounding and the one behind it may differ, relatively: they are computed in two ways."""
_MOST_CODES = 2**16


def with_quantisers(graph: Graph) -> Graph:
    """The graph with written-out quantisers as one node each."""
    if not any(node.kind == "Round" for node in graph.nodes):
        return graph
    graph = _without_straight_through(graph)
    new: dict[int, Node] = {}
    extra: dict[str, Tensor] = {}
    for node in graph.nodes:
        if node.kind == "Round":
            found = _quantiser(graph, node, extra)
            if found is not None:
                end, quantiser = found
                new[id(end)] = quantiser
    graph = replace(
        graph,
        nodes=[new.get(id(node), node) for node in graph.nodes],
        constants={**graph.constants, **extra},
        shapes={**graph.shapes, **{name: tuple(t.shape) for name, t in extra.items()}},
        types={**graph.types, **{name: t.dtype for name, t in extra.items()}},
    )
    return replace(graph, nodes=_read(graph))


def _read(graph: Graph) -> list[Node]:
    """Nodes that lead to the output, and unknown ones that read a number out of an activation."""
    needed, kept = {graph.output}, []
    for node in reversed(graph.nodes):
        if not node.outputs or any(value in needed for value in node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _source(graph: Graph, value: str) -> str:
    """A value seen through copies."""
    node = graph.producers.get(value)
    while node is not None and node.kind == "Identity":
        value = node.inputs[0]
        node = graph.producers.get(value)
    return value


def _without_straight_through(graph: Graph) -> Graph:
    """(q - x) + x is q."""
    new: dict[int, Node] = {}
    for node in graph.nodes:
        if node.kind != "Add":
            continue
        for left, right in (node.inputs, node.inputs[::-1]):
            difference = graph.producers.get(_source(graph, left))
            if difference is None or difference.kind != "Sub":
                continue
            q, x = difference.inputs
            if _source(graph, x) == _source(graph, right) and graph.shapes[q] == graph.shapes[node.output]:
                new[id(node)] = Node(node.name, "Identity", (q,), node.outputs)
    graph = replace(graph, nodes=[new.get(id(node), node) for node in graph.nodes])
    return replace(graph, nodes=_read(graph))  # what only led to a difference is read by nothing


@dataclass(frozen=True)
class _Scaled:
    """What a chain of steps does to a value: value * factor, clamped (in units of what is rounded)."""

    value: str
    factor: Tensor
    low: float
    high: float


def _quantiser(graph: Graph, rounding: Node, extra: dict[str, Tensor]) -> tuple[Node, Node] | None:
    """The last node of a written-out quantiser, and the one node in its place."""
    before = _before(graph, rounding)
    end, factor, low, high = _behind(graph, rounding, before.low, before.high)
    if not (torch.isfinite(torch.tensor([low, high])).all() and 0 < high - low < _MOST_CODES):
        return None
    step = 1 / before.factor
    shape = torch.broadcast_shapes(step.shape, factor.shape)
    if not torch.allclose(step.expand(shape), factor.expand(shape), rtol=_CLOSE, atol=0.0):
        return None
    name = f"{end.output}^step"
    dtype = graph.types[before.value]
    extra[name] = factor.to(dtype if dtype.is_floating_point else torch.float32)
    attributes = {"low": round(low), "high": round(high), "axis": None}
    return end, Node(rounding.name, "Quant", (before.value, name), end.outputs, attributes)


def _before(graph: Graph, rounding: Node) -> _Scaled:
    """Back from a rounding over clamps and multiplications by constants."""
    value, factor = rounding.inputs[0], torch.ones((), dtype=torch.float64)
    low, high = float("-inf"), float("inf")
    while (node := graph.producers.get(value)) is not None:
        if node.kind == "Identity":
            value = node.inputs[0]
            continue
        if node.kind == "Clip" and factor.numel() == 1:
            low, high = _tighter(node, float(factor), low, high)
            value = node.inputs[0]
            continue
        constant = _constant(graph, node)
        if constant is None or graph.is_constant(node.inputs[0]) != graph.is_constant(value):
            break
        factor = factor * constant if node.kind == "Mul" else factor / constant
        value = node.inputs[0]
    return _Scaled(value, factor, low, high)


def _behind(graph: Graph, rounding: Node, low: float, high: float) -> tuple[Node, Tensor, float, float]:
    """On from a rounding to the multiplication that gives codes their step."""
    end, factor = rounding, torch.ones((), dtype=torch.float64)
    while (node := graph.only_reader(end.output)) is not None and node.inputs[0] == end.output:
        if node.kind == "Clip" and factor.numel() == 1 and float(factor) == 1:
            low, high = _tighter(node, 1.0, low, high)
        elif node.kind != "Identity":
            constant = _constant(graph, node)
            if constant is None or float(factor.reshape(-1)[0]) != 1:
                break
            factor = constant if node.kind == "Mul" else 1 / constant
        end = node
    return end, factor, low, high


def _tighter(node: Node, factor: float, low: float, high: float) -> tuple[float, float]:
    bounds = (node.attributes["min"], node.attributes["max"])
    smallest, largest = (None if b is None else float(b) * factor for b in bounds)
    return max(low, low if smallest is None else smallest), min(high, high if largest is None else largest)


def _constant(graph: Graph, node: Node) -> Tensor | None:
    """The constant of a multiplication or division, one number or one a channel; None for any other node."""
    if node.kind not in ("Mul", "Div") or not _is_second(graph, node.inputs):
        return None
    tensor = graph.constants[node.inputs[1]]
    many = sum(size > 1 for size in tensor.shape)
    if many > 1 or tensor.device.type == "meta" or not tensor.is_floating_point() or not bool((tensor > 0).all()):
        return None
    return tensor.double()


def _is_second(graph: Graph, inputs: Sequence[str]) -> bool:
    return len(inputs) == 2 and graph.is_constant(inputs[1])
