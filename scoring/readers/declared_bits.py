"""Weights that lie on a grid although they are stored as floats: what a declaration would give, and declaring it.

Bits are never lowered by measurement: a network that was trained with a quantiser of its author's own has weights of
few values, and only the author says so (`--declare conv1=3`). What is declared is verified here, code by code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contest.errors import RefusedError, UsageError
from scoring.analysis.weight_encoding import check_codes, encoding
from scoring.graph.graph import Graph, Node
from scoring.graph.kinds import LAYER_KINDS

MOST_BITS = 8
_MOST_VALUES = 2**MOST_BITS + 1
_MULTIPLES = (1, 2, 3, 4)
"""The smallest distance between two values is one of these many steps."""
_ROUNDINGS = {torch.float64: 1e6, torch.float32: 32.0}
"""How many of the type's roundings a value may be off its code: some arithmetic lies between codes and weight."""


@dataclass(frozen=True)
class Coded:
    """A weight as integer codes and a step: one, or one for each output channel."""

    codes: Tensor
    step: Tensor
    bits: int


def with_declared_bits(graph: Graph, declared: Mapping[str, int]) -> Graph:
    """The graph with these layers' weights as codes times a step. `*` stands for every layer that no other entry names.

    Raises RefusedError where the weights do not lie on a grid of so few bits.
    """
    layers = {node.name: node for node in _layers(graph)}
    unknown = [name for name in declared if name != "*" and name not in layers]
    if unknown:
        raise UsageError(f"--declare names '{unknown[0]}'; the network has the layers {', '.join(layers)}")
    bits = {name: declared.get(name, declared.get("*")) for name in layers}
    nodes: list[Node] = []
    graph = replace(
        graph,
        constants=dict(graph.constants),
        stored=dict(graph.stored),
        shapes=dict(graph.shapes),
        types=dict(graph.types),
    )
    for node in graph.nodes:
        wanted = bits.get(node.name) if layers.get(node.name) is node else None
        if wanted is not None:
            made, weight = _expression(graph, node, _verified(graph, node, wanted))
            nodes += made
            node = replace(node, inputs=(node.inputs[0], weight, *node.inputs[2:]))
        nodes.append(node)
    return replace(graph, nodes=nodes)


def suggestions(graph: Graph) -> tuple[str, ...]:
    """Notes: which float weights lie on a grid, and what declaring it would give."""
    found: dict[str, int] = {}
    before = after = 0
    for node in _layers(graph):
        weight = graph.constants[node.inputs[1]]
        stored = encoding(graph, node.inputs[1])
        if stored.quantised or weight.device.type == "meta" or not weight.is_floating_point():
            continue
        coded = coded_weight(weight, MOST_BITS, _axis(node))
        if coded is not None:
            found[node.name] = coded.bits
            nonzeros = int(weight.count_nonzero())
            before, after = before + nonzeros * stored.bits, after + nonzeros * coded.bits
    if not found:
        return ()
    listed = ",".join(f"{name}={bits}" for name, bits in found.items())
    return (
        f"the weights of {len(found)} layers lie on grids of few bits, but are stored as floats and count so: "
        f"`--declare {listed}` counts {after:,} bits in place of {before:,}, and prices their operations by them",
    )


def _layers(graph: Graph) -> list[Node]:
    return [n for n in graph.running if n.kind in LAYER_KINDS and graph.is_constant(n.inputs[1])]


def _axis(node: Node) -> int:
    """The dimension of the weight that counts output channels."""
    return 1 if node.kind == "ConvTranspose" else 0


def _verified(graph: Graph, node: Node, bits: int) -> Coded:
    if not 1 <= bits <= MOST_BITS:
        raise UsageError(f"--declare {node.name}={bits}: bits are 1 to {MOST_BITS}")
    weight = graph.constants[node.inputs[1]]
    coded = coded_weight(weight, bits, _axis(node))
    if coded is None:
        values = len(torch.unique(weight))
        raise RefusedError(
            f"'{node.name}' is declared to have {bits} bits, but its {weight.numel():,} weights are not integer codes "
            f"of so few bits times a step, one or one a channel ({values:,} different values)"
        )
    return replace(coded, bits=bits)


def coded_weight(weight: Tensor, bits: int, axis: int = 0) -> Coded | None:
    """The weight as codes of at most `bits` bits, with the fewest that hold it; None if it is on no such grid."""
    rows = weight.detach().double().movedim(axis, 0).flatten(1)
    tolerance = torch.finfo(weight.dtype).eps * _ROUNDINGS.get(weight.dtype, 1.0)
    best: Coded | None = None
    for whole in (True, False):
        steps = [_step(row, tolerance) for row in ([rows.reshape(-1)] if whole else rows)]
        if any(step is None for step in steps):
            continue
        step = torch.tensor([s for s in steps if s is not None], dtype=torch.float64)
        codes = (rows / step[:, None]).round()
        fewest = next((b for b in range(1, bits + 1) if check_codes(codes, b, "") is None), None)
        if fewest is None or not -128 <= float(codes.min()) <= float(codes.max()) <= 127:
            continue
        shape = [-1 if d == axis else 1 for d in range(weight.dim())]
        if best is not None and best.bits <= fewest:
            continue  # one step does as well as one a channel
        shaped = codes.reshape(weight.movedim(axis, 0).shape).movedim(0, axis).to(torch.int8)
        best = Coded(shaped, step.to(weight.dtype).reshape(() if whole else shape), fewest)
    return best


def _step(values: Tensor, tolerance: float) -> float | None:
    """The step that all values are integer multiples of; None if there is none."""
    distinct = torch.unique(torch.cat([values, values.new_zeros(1)]))
    if len(distinct) > _MOST_VALUES:
        return None
    if len(distinct) == 1:
        return 1.0
    smallest = float(distinct.diff().min())
    for multiple in _MULTIPLES:
        step = smallest / multiple
        codes = (distinct / step).round()
        step = float((distinct * codes).sum() / codes.square().sum())
        if float((distinct / step - codes).abs().max()) <= tolerance * float(codes.abs().max()):
            return step
    return None


def _expression(graph: Graph, node: Node, coded: Coded) -> tuple[list[Node], str]:
    """Nodes of codes times step, and the name of what they come to; names are entered into the graph."""
    weight, dtype = node.inputs[1], graph.types[node.inputs[1]]
    codes, step, real, product = (f"{node.name}.{part}" for part in ("codes", "step", "codes^real", "codes^weight"))
    values = {codes: coded.codes, step: coded.step, real: coded.codes.to(dtype)}
    values[product] = values[real] * coded.step
    for name, tensor in values.items():
        graph.constants[name], graph.shapes[name], graph.types[name] = tensor, tuple(tensor.shape), tensor.dtype
    graph.stored.update({codes: coded.bits, step: None})
    graph.stored.pop(weight, None)
    made = [
        Node(f"{node.name}/Cast", "Cast", (codes,), (real,), {"to": dtype}),
        Node(f"{node.name}/Mul", "Mul", (real, step), (product,)),
    ]
    return made, product
