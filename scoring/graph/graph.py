"""The operation graph that every reader fills and one analysis prices.

Kinds are named after ONNX operators, because that is the vocabulary that both readers can speak; what ONNX gives
as a shape tensor (Reshape, Slice, Pad) is an attribute here. Shapes are those of one image (batch 1).

Constant expressions (codes times a step, a transposed weight) stay in the graph as nodes, and the tensor they
come to stands in `constants`: bits are read from the expression, zeros and numbers from the value.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from scoring.costs import ParentCosts

UNKNOWN = "Unknown"

NAMED_AFTER_WEIGHTS = ("Conv", "ConvTranspose", "Linear", "BatchNormalization")
_ENDINGS = (".weight_quant.", ".codes", ".weight", ".multiplier", ".in_proj_")
"""What follows a layer's name in the names of its tensors: in our files, in torch's and in Brevitas's."""


@dataclass(frozen=True)
class Node:
    """One operation: values in, values out, by name. An absent optional input is the empty string."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> str:
        return self.outputs[0]


@dataclass
class Graph:
    """A network for one image: nodes in the order in which they run.

    stored: names of the tensors that the file stores, with the bits that it declares for their codes (None: those
    of their type). constants: the values of stored tensors and of all constant expressions.
    """

    nodes: list[Node]
    input: str
    output: str
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, torch.dtype]
    constants: dict[str, Tensor]
    stored: dict[str, int | None]
    unused: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @cached_property
    def producers(self) -> dict[str, Node]:
        """Value name -> the node that makes it."""
        return {output: node for node in self.nodes for output in node.outputs}

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """Value name -> the nodes that read it."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                readers.setdefault(value, []).append(node)
        return readers

    @cached_property
    def running(self) -> list[Node]:
        """The nodes that compute something from the image and lead to the output."""
        needed, nodes = {self.output}, []
        for node in reversed(self.nodes):
            if any(output in needed for output in node.outputs) and node.output not in self.constants:
                needed.update(node.inputs)
                nodes.append(node)
        return nodes[::-1]

    def is_constant(self, value: str) -> bool:
        return value in self.constants

    def only_reader(self, value: str) -> Node | None:
        """The one node that reads a value; None if there are several, or if it is the network's output."""
        readers = self.consumers.get(value, [])
        return readers[0] if len(readers) == 1 and value != self.output else None

    def before_the_choice(self) -> Graph:
        """Without an argmax over the logits: they say more, and choose the same class."""
        node = self.producers.get(self.output)
        while node is not None and node.kind in ("Identity", "Cast", "Reshape"):
            node = self.producers.get(node.inputs[0])
        if node is None or node.kind != "ArgMax":
            return self
        shape, axes = self.shapes[node.inputs[0]], node.attributes["axes"]
        return replace(self, output=node.inputs[0]) if len(shape) == 2 and axes == (1,) else self

    @cached_property
    def _keys(self) -> dict[str, Hashable]:
        return {}

    def key(self, value: str) -> Hashable:
        """What a constant is made of: equal keys mean the same numbers, stored once however often they are used."""
        if value not in self._keys:
            tensor, node = self.constants[value], self.producers.get(value)
            if value in self.stored:
                key: Hashable = value
            elif node is None and tensor.numel() == 1 and tensor.device.type != "meta":
                key = (tensor.item(), str(tensor.dtype))  # a literal in the code
            elif node is None:
                key = value
            else:
                made_of = tuple(self.key(i) for i in node.inputs if i)
                key = (node.kind, made_of, repr(sorted(node.attributes.items())), node.outputs.index(value))
            self._keys[value] = key
        return self._keys[value]


def bits_of(dtype: torch.dtype) -> int:
    """Bits of one number of this type; a truth value is one bit."""
    return 1 if dtype == torch.bool else dtype.itemsize * 8


def weight_name(value: str, stored: Container[str], producers: Mapping[str, Node]) -> str:
    """A layer's name, from the stored tensors that its weight is made of; empty if they do not tell."""
    queue: list[str] = [value]
    seen: set[str] = set()
    while queue and len(seen) < 100:
        name = queue.pop(0)
        seen.add(name)
        if name in stored:
            for ending in _ENDINGS:
                if name.partition(ending)[1] and name.partition(ending)[0]:
                    return name.partition(ending)[0]
        elif name in producers:
            queue += [i for i in producers[name].inputs if i and i not in seen]
    return ""


@dataclass(frozen=True)
class Subject:
    """What a reader hands over, a network under examination: the graph is priced and run.

    engine: float images [N,C,H,W] in [0, 1] -> what the file's own engine gives, for a second opinion.
    """

    graph: Graph
    engine: Callable[[Tensor], Tensor]
    image_shape: tuple[int, int, int]
    parent: ParentCosts | None = None
    claims: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What the file says of its making; free text by key, believed as little as the claims."""
    notes: tuple[str, ...] = ()
    max_batch: int | None = None
    """Largest batch that the network takes; None: any."""
    module: nn.Module | None = None
    """The torch module that runs, where there is one: fvcore counts it too."""
    example: Tensor | None = None
    """An image as the module takes it."""

    def run(self, images: Tensor) -> Tensor:
        """Logits [N, classes] by the file's own engine; where that gives classes, one for each, zero for the others."""
        output, classes = self.engine(images), (self.graph.shapes[self.graph.output] or (0,))[-1]
        if output.is_floating_point() or output.numel() != len(output):
            return output
        return nn.functional.one_hot(output.reshape(-1).long(), classes).float()
