"""What the wiring of a network holds: the canonical graph in a fixed compact encoding, against an allowance.

Information can hide in which values an operation reads, in attributes and in the number of nodes, as well as in
weights. So the graph without names and order is written down: for each operation its kind, its attributes, and where
its inputs come from. A value that one operation reads needs no name; every further reader names it. Each priced layer
adds `PER_LAYER` bits to the allowance of the network, but no more than the bits charged for its own numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from scoring.graph.graph import KINDS, Charge, Graph, Node

Parts = tuple[tuple[str, ...], ...]

MOST_PARTS = 64
"""A concatenation of more pieces counts as one part: a graph that splits and joins thousands of times stays linear."""


class Sources:
    """Value -> its parts (one, or one for each piece of a concatenation), each the layers that are coupled in it."""

    def __init__(self, graph: Graph) -> None:
        self._parts: dict[str, Parts] = {}
        for node in graph.running:
            parts = self._after(graph, node)
            for output in node.outputs:
                self._parts[output] = parts

    def of(self, value: str) -> Parts:
        """Parts of a value; empty for the image."""
        return self._parts.get(value, ())

    def _after(self, graph: Graph, node: Node) -> Parts:
        inputs = [self.of(i) for i in node.inputs if i and not graph.is_constant(i)]
        if node.kind in ("Conv", "ConvTranspose", "Linear"):
            if node.attributes.get("groups", 1) > 1 and len(inputs[0]) == 1:
                return (_merged((*inputs[0], (node.name,))),)  # its channels go with those that it reads
            return ((node.name,),)
        if node.kind == "Concat":
            pieces = tuple(part for parts in inputs for part in parts)
            return pieces if len(pieces) <= MOST_PARTS else (_merged(pieces),)
        if len(inputs) == 1:
            return inputs[0]
        if len({len(parts) for parts in inputs}) == 1:
            return tuple(_merged(coupled) for coupled in zip(*inputs, strict=True))
        return (_merged(tuple(part for parts in inputs for part in parts)),)


def _merged(parts: Parts) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in parts for name in part))


PER_LAYER = 96
"""Bits; `docs/scoring.md` has what the honest zoo needs of it."""
NUMBER = 32
"""Bits of a number in an attribute."""
_KIND = math.ceil(math.log2(len(KINDS) + 1))
_EPSILONS = (*(10.0**-n for n in range(1, 13)), 1e-18, 1.001e-5, 2**-23)
"""Of normalisations: powers of ten, also that of MeanVarianceNormalization; Keras's, and PyTorch's for RMS norms."""
_PLAIN = (0.0, 1.0, -1.0, 6.0, math.inf, -math.inf)
"""Numbers that every network uses, which tell nothing."""


@dataclass(frozen=True)
class Wiring:
    """Bits of the encoding, and bits that the layers allow."""

    bits: int
    allowance: int

    @property
    def excess(self) -> int:
        return max(0, self.bits - self.allowance)


def wiring_of(graph: Graph, layer_bits: Mapping[str, int]) -> Wiring:
    """layer_bits: what is charged for each priced layer's own weights and numbers, by name."""
    nodes = [n for n in graph.running if n.kind != "Identity"]
    reference = math.ceil(math.log2(max(2, len(nodes))))
    reads: Counter[str] = Counter()
    numbers: list[float] = []
    bits = 0
    for node, inputs in _with_short_concats(nodes):
        small, used = _attributes(graph, node)
        numbers += used
        bits += _KIND + small + len(inputs)
        reads.update(i for i in inputs if i)
    bits += sum((count - 1) * reference for count in reads.values())
    distinct = len(set(numbers))
    bits += distinct * NUMBER + len(numbers) * math.ceil(math.log2(distinct + 1))
    return Wiring(bits, _allowance(graph, layer_bits))


def _with_short_concats(nodes: list[Node]) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """Nodes with their inputs; a concatenation that lengthens an earlier one reads that one and what is new."""
    joined: dict[tuple[object, ...], str] = {}
    for node in nodes:
        inputs = node.inputs
        if node.kind == "Concat":
            longer = (node.attributes["axis"], *inputs[:-1])
            joined[node.attributes["axis"], *inputs] = node.output
            inputs = (joined[longer], inputs[-1]) if longer in joined and len(inputs) > 2 else inputs
        yield node, inputs


def _allowance(graph: Graph, layer_bits: Mapping[str, int]) -> int:
    """A product of two activations has the bits of the layers that made its operands."""
    behind: dict[str, frozenset[str]] = {}
    total = 0
    for node in graph.running:
        sources = frozenset().union(*(behind.get(i, frozenset()) for i in node.inputs if i))
        own = node.kind in KINDS and KINDS[node.kind].price is Charge.LAYER
        if own:
            charged = layer_bits.get(node.name, 0) or sum(layer_bits.get(name, 0) for name in sources)
            total += min(PER_LAYER, charged)
        made = frozenset({node.name}) if own and layer_bits.get(node.name, 0) else sources
        for output in node.outputs:
            behind[output] = made
    return total


# Attributes -----------------------------------------------------------------------------------------------------


Attributes = tuple[int, list[float]]
"""Bits of marks, and numbers. A number that stands in several places is written once."""


def _attributes(graph: Graph, node: Node) -> Attributes:
    rule = _RULES.get(node.kind)
    if rule is not None:
        return rule(graph, node)
    defaults = KINDS[node.kind].defaults if node.kind in KINDS else ()
    given = [v for v in node.attributes.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    return len(given) + 1, [float(v) for v in given if _tells(float(v), defaults)]


def _tells(value: float, defaults: tuple[float, ...]) -> bool:
    return value not in _PLAIN and not any(_is_written(value, default) for default in defaults)


def _is_written(value: float, default: float) -> bool:
    """Whether a number is a default, of six digits or in half precision. A wider bound would leave room for others."""
    halves = (torch.tensor(default).to(dtype).item() for dtype in (torch.float16, torch.bfloat16))
    return math.isclose(value, default, rel_tol=1e-5) or value in halves


def _small(values: Any) -> int:
    """Kernels, strides, pads, dilations: a few bits each, once where all are the same."""
    values = [int(v) for v in values]
    if len(set(values)) == 1:
        values = values[:1]
    return 1 + sum(2 * int(abs(v) + 1).bit_length() - 1 for v in values)


def _window(graph: Graph, node: Node) -> Attributes:
    names = ("kernel", "stride", "pads", "dilation", "output_padding", "size", "factors")
    bits = sum(_small(node.attributes[name]) for name in names if name in node.attributes)
    return bits + (2 * int(node.attributes.get("groups", 1)).bit_length() - 1), []


def _reshape(graph: Graph, node: Node) -> Attributes:
    """A merge tells nothing; a split tells its factors."""
    before = [n for n in graph.shapes[node.inputs[0]] if n > 1]
    after = [n for n in graph.shapes[node.output] if n > 1]
    factors: list[float] = []
    while before and after:
        old, new = [before.pop(0)], [after.pop(0)]
        while math.prod(old) != math.prod(new):
            if math.prod(old) < math.prod(new):
                old.append(before.pop(0))
            else:
                new.append(after.pop(0))
        factors += new[:-1]
    return len(graph.shapes[node.output]), factors


def _slice(graph: Graph, node: Node) -> Attributes:
    a, shape = node.attributes, graph.shapes[node.inputs[0]]
    bits, numbers = 3, list[float]()
    for start, end, step, size in zip(a["starts"], a["ends"], a["steps"], shape, strict=True):
        numbers += [start] * (start != 0) + [end] * (end < size and step == 1)
        bits += _small((step,)) if step != 1 else 0
    return bits, numbers


def _gather(graph: Graph, node: Node) -> Attributes:
    index = node.inputs[1]
    if not graph.is_constant(index):
        return 3, []
    return 3 + index_bits(graph.constants[index], graph.shapes[node.inputs[0]][node.attributes["axis"]]), []


def index_bits(index: torch.Tensor, size: int) -> int:
    """A list of indices: three numbers if it counts in rows and columns (a slice, a channel shuffle), else each."""
    flat = index.reshape(-1)
    if flat.device.type == "meta" or len(flat) < 2:
        return NUMBER
    if any(_counts(flat, inner) for inner in range(1, len(flat) + 1) if len(flat) % inner == 0):
        return 3 * NUMBER
    return len(flat) * max(1, math.ceil(math.log2(max(2, size))))


def _counts(flat: torch.Tensor, inner: int) -> bool:
    """Whether the list is a grid of `inner` columns with one step along rows and one along columns."""
    grid = flat.reshape(-1, inner)
    steps, rows = grid.diff(dim=1), grid[:, 0].diff()
    return bool((steps == steps[:1, :1]).all()) and bool((rows == rows[:1]).all())


def _quantiser(graph: Graph, node: Node) -> Attributes:
    low, high = node.attributes.get("low"), node.attributes.get("high")
    if low is None or high is None:
        return 2, []
    bits = math.ceil(math.log2(high - low + 1)) if high > low else 0
    half = 2 ** (bits - 1) if bits else 0
    usual = (low, high) in ((0, 2**bits - 1), (-half, half - 1), (1 - half, half - 1))
    return 8, [] if bits and usual else [low, high]


def _transpose(graph: Graph, node: Node) -> Attributes:
    return math.ceil(math.log2(math.factorial(len(node.attributes["perm"])))), []


def _expand(graph: Graph, node: Node) -> Attributes:
    before, after = graph.shapes[node.inputs[0]], graph.shapes[node.output]
    padded = (1,) * (len(after) - len(before)) + before
    return 2, [float(m) for n, m in zip(padded, after, strict=True) if n != m]


def _nothing(graph: Graph, node: Node) -> Attributes:
    """An axis, a type, or numbers that fold away."""
    return 4, []


def _normalisation(graph: Graph, node: Node) -> Attributes:
    """Which of the usual numbers is added to the variance; any other one is a number of the author's."""
    epsilon = float(node.attributes.get("eps", 0.0))
    return 4, [epsilon] if _tells(epsilon, _EPSILONS) else []


_WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "AdaptiveAveragePool", "AdaptiveMaxPool")
_RESIZES = ("ResizeNearest", "ResizeLinear", "ResizeCubic")
_MARKED = (
    "Softmax",
    "LogSoftmax",
    "Concat",
    "Cast",
    "Linear",
    "MatMul",
    "DepthToSpace",
    "SpaceToDepth",
    "Gelu",
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ArgMax",
    "ArgMin",
)
_RULES: dict[str, Callable[[Graph, Node], Attributes]] = {
    **dict.fromkeys((*_WINDOWS, *_RESIZES), _window),
    **dict.fromkeys(_MARKED, _nothing),
    **dict.fromkeys(("BatchNormalization", "Normalise", "RmsNormalise"), _normalisation),
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Expand": _expand,
    "Gather": _gather,
    "Pad": lambda graph, node: (2 + _small(node.attributes["pads"]), []),
    **dict.fromkeys(("Quant", "QuantizeLinear", "DequantizeLinear"), _quantiser),
}
