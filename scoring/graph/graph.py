"""The operation graph that every reader fills and one analysis prices.

Kinds are named after ONNX operators, because that is the vocabulary that both readers can speak; what ONNX gives
as a shape tensor (Reshape, Slice, Pad) is an attribute here. Shapes are those of one image (batch 1).

Constant expressions (codes times a step, a transposed weight) stay in the graph as nodes, and the tensor they
come to stands in `constants`: bits are read from the expression, zeros and numbers from the value.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

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


class Recording(Protocol):
    """The torch reader, as `scoring.readers.torch_operators` sees it: tensors that are there already get names."""

    constants: dict[str, Tensor]

    producers: dict[str, Node]

    def value(self, item: Any) -> str:
        """The name of a tensor's value."""

    def layer(self) -> str:
        """The name of the module that runs."""

    def store(self, tensor: Tensor, name: str) -> str:
        """Name a tensor that a module stores where `state_dict` does not show it."""

    def real(self, tensor: Tensor) -> bool:
        """From now on this integer tensor stands for the real value of its codes. Returns True."""

    def number(self, number: float, like: Tensor) -> str:
        """The name of a number written in the code, of the type that it is computed in."""

    def node(self, kind: str, inputs: list[str], outputs: list[Tensor], **attributes: Any) -> bool:
        """Record an operation with these output tensors."""

    def hidden(self, kind: str, inputs: list[str], size: tuple[int, ...], dtype: Any, /, **attributes: Any) -> str:
        """Record an operation inside of a fused one, whose value nobody sees."""


TorchTranslation = Callable[[Recording, Sequence[Any], dict[str, Any], list[Tensor]], bool]
"""(recorder, arguments, keyword arguments, output tensors) -> whether this use of the operation is known."""


@dataclass(frozen=True)
class Codes:
    """What the integer codes of a value are: step and zero point (names; no zero point is ""), and their range."""

    scale: str
    zero: str
    low: int
    high: int


class Building(Protocol):
    """The ONNX reader, as `scoring.readers.onnx_operators` sees it: values are computed as they come."""

    values: dict[str, Tensor]
    constants: dict[str, Tensor]
    stored: dict[str, int | None]
    producers: dict[str, Node]
    codes: dict[str, Codes]
    """Quantised activations, kept as the values that their codes stand for."""
    current: Any
    """The ONNX node that is translated."""

    def store(self, name: str, proto: Any) -> None:
        """A stored tensor."""

    def emit(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> str:
        """Record a node and run it on the example image. Returns the output's name."""

    def fold(self, output: str, value: Tensor) -> None:
        """A constant that no stored tensor holds."""

    def constant(self, name: str) -> Tensor:
        """The value of an input that must be constant."""

    def integer_range(self, name: str) -> tuple[int, int]:
        """The smallest and the largest number of a stored tensor's integer type."""

    def number(self, number: float, like: str) -> str:
        """The name of a number written in an attribute, of the type of a value."""

    def narrow(self, x: str, output: str, low: float | None, high: float | None) -> None:
        """Clip of a quantised activation's codes: the quantiser has fewer."""

    def ints(self, name: str) -> tuple[int, ...]:
        """A constant vector of integers."""


OnnxTranslation = Callable[[Building, Any, dict[str, Any]], None]
"""(builder, node, attributes); raises `Unsupported` for a use that the contest does not know."""
