"""The operation graph that every reader fills and one analysis prices, and the one table of its kinds of operations.

Kinds are named after ONNX operators, because that is the vocabulary that both readers can speak; what ONNX gives
as a shape tensor (Reshape, Slice, Pad) is an attribute here. Readers may only write kinds of the table (and
`Unknown`); the interpreter, the analysis, the search for dead channels and the wiring all ask it. A new kind is one
row. Shapes are those of one image (batch 1).

Constant expressions (codes times a step, a transposed weight) stay in the graph as nodes, and the tensor they
come to stands in `constants`: bits are read from the expression, zeros and numbers from the value.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoring.costs import ParentCosts
from scoring.graph import operations as run
from scoring.graph.operations import Run


class Charge(Enum):
    """How a kind is priced; `docs/scoring.md` says what each costs."""

    LAYER = auto()
    """Multiply-accumulates; grants allowances."""
    ARITHMETIC = auto()
    """By its operands: an affine of a channel's own numbers, an addition of two maps, a gate or a table."""
    ACTIVATION = auto()
    """A function of a single value."""
    QUANTISER = auto()
    MOVE = auto()
    """Values go through unchanged, only elsewhere; free as work, charged as wiring."""
    FREE = auto()
    """Copies, signs, changes of type."""
    POOL = auto()
    """Free over the spatial axes of a map; over anything else each element that it reads is an operation."""
    READ = auto()
    """`work` operations for each element that it reads, whatever the axes."""
    ELEMENT = auto()
    """`work` operations for each element of the output."""
    EXPRESSION = auto()
    """Only in constant expressions."""


@dataclass(frozen=True)
class Kind:
    """A row. keeps_grid: hands codes on unchanged (a max-pool, a reshape). keeps_zero: zero stays zero.

    element_wise: the value at a place depends on the values at that place alone. defaults: the attributes that a named
    activation has by itself, which are no information.
    """

    run: Run
    price: Charge
    keeps_grid: bool = False
    keeps_zero: bool = False
    element_wise: bool = False
    commutes: bool = False
    work: int = 1
    defaults: tuple[float, ...] = ()


def _activation(function: Run, *defaults: float, zero: bool = False) -> Kind:
    return Kind(function, Charge.ACTIVATION, keeps_zero=zero, element_wise=True, defaults=defaults)


def _move(function: Run, zero: bool = False, element_wise: bool = False) -> Kind:
    return Kind(function, Charge.MOVE, keeps_grid=True, keeps_zero=zero, element_wise=element_wise)


def _pool(function: Run, grid: bool = False) -> Kind:
    return Kind(function, Charge.POOL, keeps_grid=grid, keeps_zero=True)


def _arithmetic(function: Run, commutes: bool) -> Kind:
    return Kind(function, Charge.ARITHMETIC, element_wise=True, commutes=commutes)


def _element(function: Run, commutes: bool = False) -> Kind:
    return Kind(function, Charge.ELEMENT, element_wise=True, commutes=commutes)


KINDS: dict[str, Kind] = {
    "Conv": Kind(run.conv, Charge.LAYER),
    "ConvTranspose": Kind(run.conv_transpose, Charge.LAYER),
    "Linear": Kind(run.linear, Charge.LAYER),
    "MatMul": Kind(run.binary(torch.matmul), Charge.LAYER),
    "BatchNormalization": Kind(run.batch_norm, Charge.ARITHMETIC),
    "Add": _arithmetic(run.binary(torch.add), commutes=True),
    "Sub": _arithmetic(run.binary(torch.sub), commutes=False),
    "Mul": _arithmetic(run.binary(torch.mul), commutes=True),
    "Div": _arithmetic(run.binary(torch.div), commutes=False),
    # Over the spatial axes of a map
    "MaxPool": _pool(run.max_pool, grid=True),
    "AveragePool": _pool(run.average_pool),
    "AdaptiveAveragePool": _pool(run.adaptive_pool(average=True)),
    "AdaptiveMaxPool": _pool(run.adaptive_pool(average=False), grid=True),
    "ReduceMean": _pool(run.reduce(torch.mean)),
    "ReduceSum": _pool(run.reduce(torch.sum)),
    "ReduceMax": _pool(run.reduce(torch.amax), grid=True),
    "ReduceMin": _pool(run.reduce(torch.amin), grid=True),
    # Moves
    "Reshape": _move(run.unary(torch.reshape, "shape")),
    "Transpose": _move(run.unary(torch.permute, "perm")),
    "Expand": _move(run.unary(torch.broadcast_to, "shape")),
    "Slice": _move(run.slice_),
    "Concat": _move(run.concat),
    "Gather": _move(run.gather),
    "Cut": _move(run.gather),  # rows of a constant without those of dead channels; only `dead_channels` writes it
    "Pad": _move(run.pad, zero=True),
    "DepthToSpace": _move(run.unary(F.pixel_shuffle, "block")),
    "SpaceToDepth": _move(run.space_to_depth),
    "ResizeNearest": _move(run.resize_nearest, zero=True),
    "Identity": _move(run.unary(torch.Tensor.clone), zero=True, element_wise=True),
    "Cast": Kind(run.unary(torch.Tensor.to, "to"), Charge.FREE, keeps_grid=True, keeps_zero=True, element_wise=True),
    "Neg": Kind(run.unary(torch.neg), Charge.FREE, keeps_zero=True, element_wise=True),
    "Abs": Kind(run.unary(torch.abs), Charge.FREE, keeps_zero=True, element_wise=True),
    # Quantisers
    "Quant": Kind(run.quantise, Charge.QUANTISER, keeps_zero=True, element_wise=True),
    "BipolarQuant": Kind(run.bipolar, Charge.QUANTISER, element_wise=True),
    "QuantizeLinear": Kind(run.quantise_linear, Charge.QUANTISER, element_wise=True),
    "DequantizeLinear": Kind(run.dequantise_linear, Charge.QUANTISER, element_wise=True),
    # Functions of a single value
    "Relu": _activation(run.unary(torch.relu), zero=True),
    "Clip": _activation(run.unary(torch.clamp, "min", "max")),
    "PRelu": _activation(run.prelu, zero=True),
    "Sigmoid": _activation(run.unary(torch.sigmoid)),
    "Tanh": _activation(run.unary(torch.tanh), zero=True),
    "Erf": _activation(run.unary(torch.erf), zero=True),
    "Silu": _activation(run.unary(F.silu), zero=True),
    "Gelu": _activation(lambda i, a: F.gelu(run.one(i), approximate=a["approximate"]), zero=True),
    "Mish": _activation(run.unary(F.mish), zero=True),
    "HardSwish": _activation(run.unary(F.hardswish), zero=True),
    "HardSigmoid": _activation(run.hard_sigmoid, 1 / 6, 0.2, 0.5),
    "Elu": _activation(run.unary(F.elu, "alpha"), 1.0, zero=True),
    "Selu": _activation(run.unary(F.selu), zero=True),
    "Celu": _activation(run.unary(F.celu, "alpha"), 1.0, zero=True),
    "LeakyRelu": _activation(run.unary(F.leaky_relu, "negative_slope"), 0.01, zero=True),
    "Softplus": _activation(run.unary(F.softplus, "beta", "threshold"), 1.0, 20.0),
    "Softsign": _activation(run.unary(F.softsign), zero=True),
    "Softshrink": _activation(run.unary(F.softshrink, "lambd"), 0.5, zero=True),
    "Hardshrink": _activation(run.unary(F.hardshrink, "lambd"), 0.5, zero=True),
    "ThresholdedRelu": _activation(run.thresholded_relu, 1.0, zero=True),
    "Sign": _activation(run.unary(torch.sign), zero=True),
    "Exp": _activation(run.unary(torch.exp)),
    "Log": _activation(run.unary(torch.log)),
    "Sqrt": _activation(run.unary(torch.sqrt), zero=True),
    "Reciprocal": _activation(run.unary(torch.reciprocal)),
    "Pow": _activation(run.power, 2.0, 3.0, 0.5, -1.0, -0.5),
    "Sin": _activation(run.unary(torch.sin), zero=True),
    "Cos": _activation(run.unary(torch.cos)),
    "Floor": _activation(run.unary(torch.floor), zero=True),
    "Ceil": _activation(run.unary(torch.ceil), zero=True),
    "Round": _activation(run.unary(torch.round), zero=True),
    "Not": _activation(run.unary(torch.logical_not)),
    # Priced by what they read or write
    "Normalise": Kind(run.normalise, Charge.READ, work=5),  # mean, difference, square, mean, quotient
    "RmsNormalise": Kind(run.rms_normalise, Charge.READ, work=3),  # square, mean, quotient
    "Softmax": Kind(run.unary(torch.softmax, "axis"), Charge.READ, work=3),
    "LogSoftmax": Kind(run.unary(torch.log_softmax, "axis"), Charge.READ, work=3),
    "ArgMax": Kind(run.place(torch.argmax), Charge.READ),
    "ArgMin": Kind(run.place(torch.argmin), Charge.READ),
    "Max": _element(run.binary(torch.maximum), commutes=True),
    "Min": _element(run.binary(torch.minimum), commutes=True),
    "Where": _element(run.where),
    "Equal": _element(run.binary(torch.eq), commutes=True),
    "Greater": _element(run.binary(torch.gt)),
    "GreaterOrEqual": _element(run.binary(torch.ge)),
    "Less": _element(run.binary(torch.lt)),
    "LessOrEqual": _element(run.binary(torch.le)),
    "And": _element(run.binary(torch.logical_and), commutes=True),
    "Or": _element(run.binary(torch.logical_or), commutes=True),
    "ResizeLinear": Kind(run.resize(cubic=False), Charge.ELEMENT, keeps_zero=True, work=4),
    "ResizeCubic": Kind(run.resize(cubic=True), Charge.ELEMENT, keeps_zero=True, work=16),
}


def kinds_with(price: Charge) -> frozenset[str]:
    """The kinds that are priced in one way."""
    return frozenset(name for name, kind in KINDS.items() if kind.price is price)


LAYER_KINDS = frozenset({"Conv", "ConvTranspose", "Linear"})
"""Layers with weights, as an honest network has them."""
ACTIVATION_KINDS = kinds_with(Charge.ACTIVATION)
QUANTISER_KINDS = frozenset({"Quant", "BipolarQuant"})
SHAPE_KINDS = kinds_with(Charge.MOVE)
POOLING_KINDS = kinds_with(Charge.POOL)


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
    def only_readers(self) -> dict[str, Node]:
        """Value name -> the one node that reads it; without values of several readers, and the network's output."""
        return {v: nodes[0] for v, nodes in self.consumers.items() if len(nodes) == 1 and v != self.output}

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
    def keys(self) -> dict[str, Hashable]:
        """What each constant is made of: equal keys mean the same numbers, stored once however often they are used."""
        keys: dict[str, Hashable] = {}
        for value in (*self.constants, *(output for node in self.nodes for output in node.outputs)):
            node = self.producers.get(value)
            if value not in self.constants or value in keys:
                continue
            if value in self.stored or node is None:
                tensor = self.constants[value]
                literal = value not in self.stored and tensor.numel() == 1 and tensor.device.type != "meta"
                keys[value] = (tensor.item(), str(tensor.dtype)) if literal else value
            elif all(i in keys for i in node.inputs if i):
                made_of = tuple(keys[i] for i in node.inputs if i)
                keys[value] = (node.kind, made_of, repr(sorted(node.attributes.items())), node.outputs.index(value))
        return keys


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
