"""Activations that a network writes out as element-wise arithmetic, called by their names again.

`x * 0.5 * (1 + erf(x / sqrt(2)))` is GELU, an activation and free; taken step by step it would be charged as a product
of two activations. The steps come in any order and grouping, so they are recognised by what they compute: a region of
element-wise steps that depends on one value alone is tried on a row of numbers and compared with the activations that
the contest knows. What compares with none of them stays as it is, step by step.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scoring.graph.graph import ACTIVATION_KINDS, Graph, Node
from scoring.graph.interpreter import run_node

_STEPS = frozenset(
    {"Add", "Sub", "Mul", "Div", "Neg", "Erf", "Tanh", "Sigmoid", "HardSigmoid", "Softplus", "Relu", "Clip", "Identity"}
)
_KNOWN: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("Silu", {}),
    ("HardSwish", {}),
    ("Gelu", {"approximate": "none"}),
    ("Gelu", {"approximate": "tanh"}),
    ("Mish", {}),
)
_JOINING = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min"})
_FUNCTION_STEPS = _JOINING | ACTIVATION_KINDS | {"Neg", "Abs", "Identity"}
_MOST_STEPS = 16
_MOST_NUMBERS = 4
_ROW = torch.linspace(-8, 8, 1601, dtype=torch.float64)
_CLOSE = 5e-4
"""Relative to 1 + |activation|: constants may be rounded to half precision. GELU's two forms are 5e-4 apart at most,
so the closest one is taken."""


def with_activations(graph: Graph) -> Graph:
    """The graph with written-out activations as one node each."""
    new: dict[int, Node] = {}
    gone: set[int] = set()
    order = {id(node): i for i, node in enumerate(graph.nodes)}
    for node in reversed(graph.nodes):
        if node.kind in ("Mul", "Div") and id(node) not in gone and not graph.is_constant(node.output):
            found = _activation(graph, node, order)
            if found is not None:
                new[id(node)], steps = found
                gone.update(id(step) for step in steps)
    if not new:
        return graph
    return replace(graph, nodes=_without_unread([new.get(id(n), n) for n in graph.nodes], gone, graph.output))


def _without_unread(nodes: list[Node], steps: set[int], output: str) -> list[Node]:
    """Steps whose values are read elsewhere stay."""
    read, kept = {output}, []
    for node in reversed(nodes):
        if id(node) not in steps or any(value in read for value in node.outputs):
            read.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def single_value_functions(graph: Graph) -> dict[str, bool]:
    """Activations that have no name: outputs of the steps of functions of one value, True for their ends.

    Such a function holds an activation and at most four numbers; a product of a value with itself stays a gate.
    """
    found: dict[str, bool] = {}
    order = {id(node): i for i, node in enumerate(graph.nodes)}
    for end in reversed(graph.running):
        if end.output in found or end.kind not in _JOINING or len(_changing(graph, end, _FUNCTION_STEPS) or ()) != 2:
            continue
        for steps, _ in _single_value(graph, end, order, _FUNCTION_STEPS):
            inner = {step.output for step in steps[1:]}
            closed = all(set(_outputs(graph.consumers[v])) <= {s.output for s in steps} for v in inner)
            numbers = {i for step in steps for i in step.inputs if graph.is_constant(i)}
            written = sum(isinstance(v, float) for step in steps for v in step.attributes.values())
            if closed and len(numbers) + written <= _MOST_NUMBERS and any(s.kind in ACTIVATION_KINDS for s in steps):
                found.update(dict.fromkeys(inner, False))
                found[end.output] = True
                break
    return found


def _outputs(nodes: list[Node]) -> list[str]:
    return [node.output for node in nodes]


def _activation(graph: Graph, end: Node, order: Mapping[int, int]) -> tuple[Node, list[Node]] | None:
    """The one node that `end` and the steps before it come to, and these steps."""
    for steps, x in _single_value(graph, end, order, _STEPS):
        joined = any(len(_changing(graph, s, _STEPS) or ()) == 2 for s in steps)
        kind = _recognised(graph, steps, x) if joined else None
        if kind is not None:
            return Node(end.name, kind[0], (x,), end.outputs, kind[1]), steps[1:]
    return None


def _single_value(
    graph: Graph, end: Node, order: Mapping[int, int], kinds: Container[str]
) -> Iterator[tuple[list[Node], str]]:
    """Growing sets of steps that lead from one value x to `end`, with x."""
    steps: list[Node] = [end]
    open_values = set(_changing(graph, end, kinds) or ())
    while open_values:
        if len(open_values) == 1:
            yield list(steps), next(iter(open_values))
        makers = [graph.producers[value] for value in open_values if value in graph.producers]
        step = max(makers, key=lambda node: order[id(node)], default=None)
        inputs = _changing(graph, step, kinds) if step is not None else None
        if (
            step is None
            or inputs is None
            or len(steps) == _MOST_STEPS
            or graph.shapes[step.output] != (graph.shapes[end.output])
        ):
            return
        open_values = (open_values - {step.output}) | set(inputs)
        steps.append(step)


def _changing(graph: Graph, node: Node, kinds: Container[str]) -> list[str] | None:
    """The inputs of a step that are no constants; None if it is no step, or its constants are not single numbers."""
    if node.kind not in kinds:
        return None
    constants = [graph.constants[i] for i in node.inputs if graph.is_constant(i)]
    if any(c.numel() != 1 or c.device.type == "meta" for c in constants):
        return None
    return [i for i in node.inputs if i and not graph.is_constant(i)]


def _recognised(graph: Graph, steps: list[Node], x: str) -> tuple[str, Mapping[str, Any]] | None:
    """The known activation that the steps compute from x."""
    values: dict[str, Tensor] = {x: _ROW}
    for step in reversed(steps):
        inputs = [
            graph.constants[i].double().reshape(()) if graph.is_constant(i) else values[i] for i in step.inputs if i
        ]
        values[step.output] = run_node(step, inputs)
    computed = values[steps[0].output]
    distances = []
    for kind, attributes in _KNOWN:
        wanted = run_node(Node("", kind, (x,), ("",), attributes), [_ROW])
        distances.append(float(((computed - wanted).abs() / (1 + wanted.abs())).max()))
    best = min(range(len(_KNOWN)), key=distances.__getitem__)
    return _KNOWN[best] if distances[best] < _CLOSE else None
