"""Quantisers that a network writes out as arithmetic, called so again: `round(clamp(x / s, -8, 7)) * s` and its like.

Students write DoReFa, LSQ and their own so, mostly with a straight-through trick, `x + (q - x).detach()`, which without
gradients is q. The codes' range is what the network clamps them to, so bits are its author's; nothing is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contest.errors import RefusedError, UsageError
from scoring.analysis.weight_encoding import check_codes, encoding
from scoring.graph.graph import LAYER_KINDS, Graph, Node

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
    while (node := graph.only_readers.get(end.output)) is not None and node.inputs[0] == end.output:
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
