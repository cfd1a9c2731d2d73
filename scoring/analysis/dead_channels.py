"""Channels that are masked to zero but still there: removed before the network is priced and run.

A channel is dead where everything that is coupled to it (by residual adds, batch norms, depthwise layers) is either
always zero or read by nothing but zero weights. The graph without them is the one that is priced and the one whose
accuracy counts, so the credit is never for another network.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scoring.graph.graph import KINDS, POOLING_KINDS, Charge, Graph, Node
from scoring.graph.interpreter import run_graph

_ELEMENTWISE = (
    POOLING_KINDS
    | {"Pad", "ResizeNearest", "Identity"}
    | {name for name, kind in KINDS.items() if kind.price in (Charge.ACTIVATION, Charge.QUANTISER, Charge.FREE)}
)
"""One value in, one out, each channel for itself."""


def without_dead_channels(graph: Graph) -> tuple[Graph, tuple[str, ...]]:
    """The graph without its dead channels, and a note on what was removed (none: the graph as it is)."""
    if any(t.device.type == "meta" for t in graph.constants.values()) or not _has_empty_channels(graph):
        return graph, ()
    channels = _Channels(graph)
    dead = channels.dead()
    if not dead:
        return graph, ()
    reduced = _Reduction(graph, channels, dead).graph()
    count = sum(int((~_kept(channels.groups[n.output], dead)).sum()) for n in _layers(graph))
    return reduced, (f"{count} channels are masked to zero; the network without them is what is priced and run",)


def _layers(graph: Graph) -> list[Node]:
    return [n for n in graph.running if n.kind in ("Conv", "Linear") and n.inputs[1] in graph.constants]


def _has_empty_channels(graph: Graph) -> bool:
    """A quick look: only whole rows or columns of zeros can make channels dead."""
    for node in _layers(graph):
        used = (
            (graph.constants[node.inputs[1]] != 0).flatten(2).any(2)
            if node.kind == "Conv"
            else (graph.constants[node.inputs[1]] != 0)
        )
        if not bool(used.any(1).all()) or not bool(used.any(0).all()):
            return True
    return False


def _kept(groups: Tensor, dead: set[int]) -> Tensor:
    """Mask over a value's channels."""
    return torch.tensor([int(g) not in dead for g in groups])


@dataclass
class _Channels:
    """For each value: the group of each channel (coupled channels share one), and whether it is always zero."""

    graph: Graph
    groups: dict[str, Tensor] = field(default_factory=dict)
    zero: dict[str, Tensor] = field(default_factory=dict)
    needed: dict[str, Tensor] = field(default_factory=dict)
    parents: list[int] = field(default_factory=list)
    pinned: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._fresh(self.graph.input)
        self._pin(self.graph.input)
        for node in self.graph.running:
            self._forward(node)
        self._pin(self.graph.output)
        self.needed = {v: torch.zeros(len(g), dtype=torch.bool) for v, g in self.groups.items()}
        self.needed[self.graph.output] |= True
        for node in reversed(self.graph.running):
            self._backward(node)
        self.groups = {v: torch.tensor([self._find(int(g)) for g in ids]) for v, ids in self.groups.items()}

    def dead(self) -> set[int]:
        """Groups that can go. Each value keeps at least one channel."""
        alive = {self._find(g) for g in self.pinned}
        for value, ids in self.groups.items():
            alive.update(ids[~self.zero[value] & self.needed[value]].tolist())
        every = {int(g) for ids in self.groups.values() for g in ids}
        dead = every - alive
        for ids in self.groups.values():
            if len(ids) and not bool(_kept(ids, dead).any()):
                dead.discard(int(ids[0]))
        return dead

    def _find(self, group: int) -> int:
        while self.parents[group] != group:
            self.parents[group] = self.parents[self.parents[group]]
            group = self.parents[group]
        return group

    def _fresh(self, value: str) -> None:
        shape = self.graph.shapes[value]
        count = shape[1] if len(shape) > 1 else 0
        self.groups[value] = torch.arange(len(self.parents), len(self.parents) + count)
        self.parents.extend(range(len(self.parents), len(self.parents) + count))
        self.zero[value] = torch.zeros(count, dtype=torch.bool)

    def _pin(self, value: str) -> None:
        self.pinned.update(self.groups[value].tolist())

    def _join(self, a: str, b: str) -> None:
        for x, y in zip(self.groups[a].tolist(), self.groups[b].tolist(), strict=True):
            self.parents[self._find(x)] = self._find(y)

    def _forward(self, node: Node) -> None:
        graph, x, out = self.graph, node.inputs[0], node.output
        changing = [i for i in node.inputs if i and not graph.is_constant(i)]
        if _is_dense(graph, node):
            self._fresh(out)
            weight = (
                graph.constants[node.inputs[1]].flatten(2).ne(0).any(2)
                if node.kind == "Conv"
                else (graph.constants[node.inputs[1]] != 0)
            )
            self.zero[out] = ~(weight & ~self.zero[x]).any(1) & _bias_is_zero(graph, node)
        elif _is_depthwise(graph, node):
            self._like(x, out)
            weight = graph.constants[node.inputs[1]].flatten(1).ne(0).any(1)
            self.zero[out] = (~weight | self.zero[x]) & _bias_is_zero(graph, node)
        elif node.kind in _ELEMENTWISE and self._keeps_channels(node):
            self._like(x, out)
            keeps = KINDS[node.kind].keeps_zero and _zero_stays(graph, node)
            self.zero[out] = self.zero[x].clone() if keeps else torch.zeros_like(self.zero[x])
        elif node.kind == "BatchNormalization" and self._keeps_channels(node):
            self._like(x, out)
            multiplier, shift = _affine(graph, node)
            self.zero[out] = (self.zero[x] | (multiplier == 0)) & (shift == 0)
        elif node.kind in ("Add", "Sub", "Mul", "Div") and len(changing) == 1 and self._keeps_channels(node):
            self._like(changing[0], out)
            constant = _channel_vector(graph, node, len(self.zero[changing[0]]))
            if constant is None:
                self._fresh_pinned(node)
            elif node.kind in ("Add", "Sub"):
                self.zero[out] = self.zero[changing[0]] & (constant == 0)
            else:
                self.zero[out] = self.zero[changing[0]] | ((constant == 0) & (node.kind == "Mul"))
        elif node.kind in ("Add", "Sub", "Mul") and len(changing) == 2 and self._same_channels(node):
            a, b = changing
            self._join(a, b)
            self._like(a, out)
            both = self.zero[a] & self.zero[b] if node.kind != "Mul" else self.zero[a] | self.zero[b]
            self.zero[out] = both
        elif node.kind == "Concat" and node.attributes["axis"] == 1 and len(changing) == len(node.inputs):
            self.groups[out] = torch.cat([self.groups[i] for i in node.inputs])
            self.zero[out] = torch.cat([self.zero[i] for i in node.inputs])
        elif node.kind == "Reshape" and (repeats := _flattening(graph, node)):
            self.groups[out] = self.groups[x].repeat_interleave(repeats)
            self.zero[out] = self.zero[x].repeat_interleave(repeats)
        else:
            self._fresh_pinned(node)

    def _fresh_pinned(self, node: Node) -> None:
        for value in node.inputs:
            if value in self.groups:
                self._pin(value)
        for output in node.outputs:
            self._fresh(output)
            self._pin(output)

    def _like(self, x: str, out: str) -> None:
        self.groups[out] = self.groups[x]

    def _keeps_channels(self, node: Node) -> bool:
        """Whether dimension 1 goes through unchanged."""
        x = next(i for i in node.inputs if i and not self.graph.is_constant(i))
        before, after = self.graph.shapes[x], self.graph.shapes[node.output]
        if len(before) < 2 or len(after) < 2 or before[1] != after[1]:
            return False
        if node.kind.startswith("Reduce"):
            return 1 not in {a % len(before) for a in node.attributes["axes"]}
        return node.kind != "Pad" or not (node.attributes["pads"][1] or node.attributes["pads"][1 + len(before)])

    def _same_channels(self, node: Node) -> bool:
        a, b = (self.graph.shapes[i] for i in node.inputs)
        return len(a) == len(b) >= 2 and a[1] == b[1]

    def _backward(self, node: Node) -> None:
        graph, x = self.graph, node.inputs[0]
        out = self.needed[node.output]
        if _is_dense(graph, node):
            weight = (
                graph.constants[node.inputs[1]].flatten(2).ne(0).any(2)
                if node.kind == "Conv"
                else (graph.constants[node.inputs[1]] != 0)
            )
            self.needed[x] |= (weight & out[:, None]).any(0)
        elif _is_depthwise(graph, node):
            self.needed[x] |= out & graph.constants[node.inputs[1]].flatten(1).ne(0).any(1)
        elif node.kind == "Concat" and node.attributes["axis"] == 1:
            start = 0
            for value in node.inputs:
                size = graph.shapes[value][1]
                if value in self.needed:
                    self.needed[value] |= out[start : start + size]
                start += size
        elif node.kind == "Reshape" and (repeats := _flattening(graph, node)):
            self.needed[x] |= out.reshape(-1, repeats).any(1)
        else:
            for value in node.inputs:
                if value in self.needed:
                    same = len(self.needed[value]) == len(out)
                    self.needed[value] |= out if same else torch.ones_like(self.needed[value])


def _is_dense(graph: Graph, node: Node) -> bool:
    if node.kind == "Linear":
        return node.inputs[1] in graph.constants and len(graph.shapes[node.inputs[0]]) == 2
    return node.kind == "Conv" and node.attributes["groups"] == 1 and node.inputs[1] in graph.constants


def _is_depthwise(graph: Graph, node: Node) -> bool:
    if node.kind != "Conv" or node.inputs[1] not in graph.constants:
        return False
    shape = graph.shapes[node.inputs[1]]
    return bool(node.attributes["groups"] == shape[0] == graph.shapes[node.inputs[0]][1])


def _bias_is_zero(graph: Graph, node: Node) -> Tensor:
    if len(node.inputs) < 3 or not node.inputs[2]:
        return torch.tensor(True)
    return graph.constants[node.inputs[2]] == 0


def _zero_stays(graph: Graph, node: Node) -> bool:
    if node.kind == "Quant":
        zero = node.inputs[2] if len(node.inputs) > 2 else ""
        return not zero or bool((graph.constants[zero] == 0).all())
    return node.kind != "Pad" or node.attributes.get("value", 0.0) == 0


def _affine(graph: Graph, node: Node) -> tuple[Tensor, Tensor]:
    mean, variance = (graph.constants[i] for i in node.inputs[3:5])
    gamma = graph.constants[node.inputs[1]] if node.inputs[1] else torch.ones_like(mean)
    beta = graph.constants[node.inputs[2]] if node.inputs[2] else torch.zeros_like(mean)
    multiplier = gamma / (variance + node.attributes["eps"]).sqrt()
    return multiplier, beta - mean * multiplier


def _channel_vector(graph: Graph, node: Node, channels: int) -> Tensor | None:
    """The constant of an affine node as one number a channel of dimension 1; None if it is anything else."""
    constant = next(graph.constants[i] for i in node.inputs if graph.is_constant(i))
    if node.kind == "Div" and not graph.is_constant(node.inputs[1]):
        return None
    if constant.numel() == 1:
        return constant.reshape(1).expand(channels)
    rank = len(graph.shapes[node.output])
    shape = (1,) * (rank - constant.dim()) + tuple(constant.shape)
    return constant.reshape(-1) if shape[1] == channels == constant.numel() else None


def _axis_of_channels(node: Node, dims: int, rank: int) -> int:
    """The axis of a constant that meets dimension 1 of what it is combined with; below 0: none does."""
    if dims == 1 and node.attributes.get("axis") is not None:
        return 0 if int(node.attributes["axis"]) % rank == 1 else -1
    if node.kind == "BatchNormalization" or (node.kind == "PRelu" and dims == 1):
        return 0
    return 1 - (rank - dims)


def _flattening(graph: Graph, node: Node) -> int:
    """Elements of each channel that a reshape puts behind one another in dimension 1; 0 for other reshapes."""
    before, after = graph.shapes[node.inputs[0]], graph.shapes[node.output]
    if graph.is_constant(node.inputs[0]) or len(before) < 2 or len(after) < 2 or before[0] != after[0]:
        return 0
    inner = all(n == 1 for n in after[2:])
    return after[1] // before[1] if inner and before[1] and after[1] % before[1] == 0 else 0


@dataclass
class _Reduction:
    """Builds the graph that is left when the channels of dead groups are gone."""

    whole: Graph
    channels: _Channels
    dead: set[int]
    constants: dict[str, Tensor] = field(default_factory=dict)
    extra: list[Node] = field(default_factory=list)

    def graph(self) -> Graph:
        whole = self.whole
        self.constants = dict(whole.constants)
        nodes: list[Node] = []
        for node in whole.nodes:
            if node.output in whole.constants or node.output not in self.channels.groups:
                nodes.append(node)
                continue
            changed = self._node(node)
            nodes += [*self.extra, changed]
            self.extra.clear()
        graph = replace(whole, nodes=nodes, constants=self.constants, shapes=dict(whole.shapes))
        for name, tensor in self.constants.items():
            graph.shapes[name] = tuple(tensor.shape)
            graph.types[name] = tensor.dtype
        for name, tensor in run_graph(graph, torch.zeros(whole.shapes[whole.input])).items():
            graph.shapes[name] = tuple(tensor.shape)
        return graph

    def _kept(self, value: str) -> Tensor:
        return _kept(self.channels.groups[value], self.dead).nonzero().reshape(-1)

    def _node(self, node: Node) -> Node:
        whole, inputs, attributes = self.whole, list(node.inputs), dict(node.attributes)
        rows = self._kept(node.output)
        if _is_dense(whole, node):
            inputs[1] = self._cut(self._cut(inputs[1], 0, rows), 1, self._kept(inputs[0]))
            inputs[2:] = [self._cut(i, 0, rows) for i in inputs[2:]]
        elif _is_depthwise(whole, node):
            inputs[1:] = [self._cut(i, 0, rows) for i in inputs[1:]]
            attributes["groups"] = len(rows)
        elif node.kind == "Reshape":
            shape = list(attributes["shape"])
            if _flattening(whole, node):
                shape[1] = len(rows)
            attributes["shape"] = tuple(shape)
        else:
            rank = len(whole.shapes[node.output])
            for i, name in enumerate(inputs):
                if not name or not whole.is_constant(name) or whole.constants[name].numel() == 1:
                    continue
                axis = _axis_of_channels(node, whole.constants[name].dim(), rank)
                if axis >= 0 and whole.shapes[name][axis] == len(self.channels.groups[node.output]):
                    inputs[i] = self._cut(name, axis, rows)
        return Node(node.name, node.kind, tuple(inputs), node.outputs, attributes)

    def _cut(self, name: str, axis: int, kept: Tensor) -> str:
        """A selection of a constant, as an expression, so that its encoding can still be read."""
        tensor = self.constants[name]
        if not name or len(kept) == tensor.shape[axis]:
            return name
        index = f"kept:{name}:{axis}:{hash(tuple(kept.tolist())) & 0xFFFFFFFF:x}"
        output = f"{index}:cut"
        if output not in self.constants:
            self.constants[index] = kept
            self.constants[output] = tensor.index_select(axis, kept)
            self.extra.append(Node(output, "Cut", (name, index), (output,), {"axis": axis}))
        return output


def prepared(graph: Graph) -> tuple[Graph, tuple[str, ...]]:
    """(the graph that is priced and run, notes on what is not in it)."""
    plain = _without_final_softmax(graph)
    plain = replace(plain, constants={name: _canonical(value) for name, value in plain.constants.items()})
    reduced, notes = without_dead_channels(plain)
    if graph.unused:
        listed = ", ".join(f"'{name}'" for name in graph.unused[:3])
        more = f" and {len(graph.unused) - 3} more" if len(graph.unused) > 3 else ""
        notes = (*notes, f"nothing uses {listed}{more}: left out, and not charged")
    return reduced, notes


def _without_final_softmax(graph: Graph) -> Graph:
    """Without a softmax over the logits: it keeps their order."""
    output = graph.output
    while (node := graph.producers.get(output)) is not None:
        last = node.attributes.get("axis") in (1, -1) and len(graph.shapes[output]) == 2
        if node.kind in ("Softmax", "LogSoftmax") and last:
            return replace(graph, output=node.inputs[0])
        if node.kind != "Identity":
            break
        output = node.inputs[0]
    return graph


def _canonical(value: Tensor) -> Tensor:
    """Without signs of zeros and numbers too small to be normal, which could carry what nobody counts.

    Normal in float32, in which they are multiplied: a half below 6e-5 is a number like any other, and charged as one.
    """
    if not value.is_floating_point() or value.device.type == "meta":
        return value
    tiny = torch.finfo(torch.float32).tiny
    odd = (value.abs() < tiny) & ((value != 0) | value.signbit())
    return torch.where(odd, torch.zeros_like(value), value) if bool(odd.any()) else value
