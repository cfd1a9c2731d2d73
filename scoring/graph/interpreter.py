"""The one engine that runs the operation graph: for shapes while a file is read, and for the accuracy.

Shapes in the graph are those of one image, and a network *is* what its graph computes for one image. Many images run
at once where dimension 0 provably counts images (times a constant) all the way, which changes nothing but the speed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from contest.errors import RefusedError
from scoring.graph.graph import KINDS, Charge, Graph, Node
from scoring.graph.operations import Inputs

_HALVES = (torch.float16, torch.bfloat16)
Replaced = Mapping[str, Tensor | Callable[[Tensor], Tensor]]
"""What is put in the place of values: the same for every image, or a function of what the graph makes of each."""


class Engine:
    """A graph that is ready to run: what can be known of it before the first image is found out once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._logits = _Run(self, (graph.output,), {})

    def __call__(self, images: Tensor) -> Tensor:
        """The network's output for images [N,C,H,W] (float in [0, 1]), in float32."""
        return self._logits.of_many(images)[self.graph.output].float()

    def values(
        self, images: Tensor, wanted: Collection[str] | None = None, replaced: Replaced | None = None
    ) -> dict[str, Tensor]:
        """Values of the graph for images [N,C,H,W] (float in [0, 1]).

        Args:
            wanted: names of the values to return; all of them, constants included, if it is None.
            replaced: values of one image that are put in the place of what the graph makes, or functions of it.
        """
        return _Run(self, wanted, replaced or {}).of_many(images)

    @cached_property
    def together(self) -> bool:
        """Whether many images can run at once."""
        return images_stay_first(self.graph)


def run_graph(graph: Graph, images: Tensor) -> dict[str, Tensor]:
    """All values of the graph for images, constants included."""
    return Engine(graph).values(images)


def logits_of(graph: Graph, images: Tensor) -> Tensor:
    """The network's output for images, in float32."""
    return Engine(graph)(images)


def example_images(image_shape: tuple[int, int, int], count: int, seed: int = 0) -> Tensor:
    """Random 8-bit images [count,C,H,W] as floats in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *image_shape), generator=generator, dtype=torch.uint8)
    return pixels.float() / 255


class _Run:
    """One pass. A value is let go of when nobody reads it any more."""

    def __init__(self, engine: Engine, wanted: Collection[str] | None, replaced: Replaced) -> None:
        graph = engine.graph
        self._engine, self._graph, self._wanted = engine, graph, wanted
        self._replaced = {name: new for name, new in replaced.items() if isinstance(new, Tensor)}
        self._changed = {name: new for name, new in replaced.items() if not isinstance(new, Tensor)}
        self._nodes = [n for n in graph.running if n.output not in self._replaced]
        self._halves = {d for d in graph.types.values() if d in _HALVES and not is_native(d)}
        self._skipped = {node.output for node in self._nodes if self._is_done_by_quantisers(node)}
        self._nodes = [self._in_place(node) for node in self._nodes]
        last = {value: i for i, node in enumerate(self._nodes) for value in node.inputs}
        self._ends: dict[int, list[str]] = {}
        for value, i in last.items():
            if wanted is not None and value not in wanted:
                self._ends.setdefault(i, []).append(value)
        read = {i for node in self._nodes for i in node.inputs}
        self._constants = {n: self._widened(t) for n, t in graph.constants.items() if wanted is None or n in read}

    @torch.inference_mode()
    def of_many(self, images: Tensor) -> dict[str, Tensor]:
        """Values for images [N,C,H,W], many at once where they stay first, else each for itself."""
        if len(images) == 1 or self._engine.together:
            return self(images)
        first = self(images[:1])
        fixed = {name: value for name, value in first.items() if name in self._graph.constants}
        names = [name for name in first if name not in fixed]
        try:  # each image for itself, and the arithmetic of many together
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an operation without a rule for many is looped over
                values = torch.vmap(lambda image: list(map(self(image[None]).__getitem__, names)))(images)
            joined = {name: value.flatten(0, 1) for name, value in zip(names, values, strict=True)}
        except RuntimeError:  # an operation that cannot be told of many
            runs = [first, *(self(image[None]) for image in images[1:])]
            joined = {name: torch.cat([one[name] for one in runs]) for name in names}
        return {**fixed, **joined}

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        graph, count = self._graph, len(images)
        values = dict(self._constants)
        if images.dim() == 4 and count > 1:  # channels last: convolutions reorder nothing, and take two thirds
            images = images.contiguous(memory_format=torch.channels_last)
        values[graph.input] = self._rounded(graph.input, images.to(graph.types[graph.input]))
        for name, value in self._replaced.items():
            values[name] = self._widened(value).repeat(count, *[1] * (value.dim() - 1))
        for i, node in enumerate(self._nodes):
            inputs = [values[name] if name else None for name in node.inputs]
            if node.output in self._skipped:
                values[node.output] = values[node.inputs[0]]
            else:
                values[node.output] = self._rounded(node.output, run_node(node, inputs, images=count))
            if node.output in self._changed:
                values[node.output] = self._changed[node.output](values[node.output])
            del inputs
            for name in self._ends.get(i, ()):
                del values[name]
        return values if self._wanted is None else {name: values[name] for name in self._wanted}

    def _is_done_by_quantisers(self, node: Node) -> bool:
        """Whether a ReLU goes to quantisers alone that have no code below zero: they cut off what it cuts off."""
        readers = self._graph.consumers.get(node.output, [])
        if node.kind != "Relu" or self._wanted is None or node.output in {*self._wanted, self._graph.output}:
            return False
        return bool(readers) and all(
            reader.kind == "Quant" and reader.attributes["low"] >= 0 and len(reader.inputs) == 2 for reader in readers
        )

    def _in_place(self, node: Node) -> Node:
        """A quantiser may write over a tensor that was made for it alone: that is a fifth of its time."""
        graph, reader, value = self._graph, node, node.inputs[0]
        if node.kind != "Quant" or self._wanted is None or graph.types[value] != graph.types[node.inputs[1]]:
            return node
        if value in self._skipped and graph.only_readers.get(value) is reader:
            reader, value = graph.producers[value], graph.producers[value].inputs[0]
        maker = KINDS.get(graph.producers[value].kind) if value in graph.producers else None
        own = maker is not None and maker.price in (Charge.LAYER, Charge.ARITHMETIC)
        taken = value in self._replaced or value in self._wanted or graph.only_readers.get(value) is not reader
        if taken or not own or graph.shapes[value] != graph.shapes[node.output]:
            return node
        return replace(node, attributes={**node.attributes, "in_place": True})

    def _widened(self, value: Tensor) -> Tensor:
        return value.float() if value.dtype in self._halves else value

    def _rounded(self, name: str, value: Tensor) -> Tensor:
        """Half precision where the processor has none: float32 arithmetic, and every output rounded."""
        dtype = self._graph.types[name]
        return value.to(dtype).float() if dtype in self._halves else value


@cache
def is_native(dtype: torch.dtype) -> bool:
    """Whether the processor multiplies in this type, so that running in it is not many times slower."""
    name = "_is_mkldnn_fp16_supported" if dtype == torch.float16 else "_is_mkldnn_bf16_supported"
    asked: Callable[[], bool] | None = getattr(torch.ops.mkldnn, name, None)
    return asked is not None and bool(asked())


def run_node(node: Node, inputs: Inputs, images: int = 1) -> Tensor:
    """The output of one node. images: how many there are in dimension 0, times a constant."""
    if node.kind not in KINDS:
        raise RefusedError(f"operation '{node.attributes.get('operation', node.kind)}' cannot be run")
    if images == 1:
        return KINDS[node.kind].run(inputs, node.attributes)
    return KINDS[node.kind].run(*_for_many(node, inputs, images))


def _for_many(node: Node, inputs: Inputs, images: int) -> tuple[Inputs, Mapping[str, Any]]:
    a = node.attributes
    if node.kind in ("Reshape", "Expand"):
        return inputs, {**a, "shape": (-1, *a["shape"][1:])}
    if node.kind == "Slice":
        return inputs, {**a, "ends": (a["ends"][0] * images, *a["ends"][1:])}
    if node.kind == "Concat":
        most = max(len(x) for x in inputs if x is not None)
        return [x if x is None or len(x) == most else x.repeat(most // len(x), *[1] * (x.dim() - 1)) for x in inputs], a
    return inputs, a


def images_stay_first(graph: Graph) -> bool:
    """Whether dimension 0 counts images (times a constant) all the way, so that many can run at once."""
    return next(_moved(graph), None) is None


def batch_coupling(graph: Graph) -> Node | None:
    """The first node that works over the images of a batch: it sums or compares along their dimension."""
    node = next(_moved(graph), None)
    if node is None or node.kind not in _ALONG_AXES:
        return None
    return node if graph.shapes[node.inputs[0]][0] == 1 and graph.types[node.inputs[0]].is_floating_point else None


def _moved(graph: Graph) -> Iterator[Node]:
    """Nodes behind which dimension 0 is no longer that of the images; right up to the first of them."""
    for node in graph.running:
        changing = [i for i in node.inputs if i and not graph.is_constant(i)]
        shape = graph.shapes[node.output]
        stays = bool(shape) and all(graph.shapes[i] for i in changing) and _stays(graph, node, changing)
        if not stays:
            yield node


_ALONG_AXES = {
    **{kind: (lambda a, rank: a["axes"]) for kind in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")},
    **{kind: (lambda a, rank: a["axes"]) for kind in ("ArgMax", "ArgMin")},
    **{kind: (lambda a, rank: a["axes"]) for kind in ("Normalise", "RmsNormalise")},
    **{kind: (lambda a, rank: (a["axis"] % rank,)) for kind in ("Softmax", "LogSoftmax")},
}


def _stays(graph: Graph, node: Node, changing: list[str]) -> bool:
    a, shape, kind = node.attributes, graph.shapes[node.output], node.kind
    first = graph.shapes[changing[0]]
    if kind in ("Conv", "ConvTranspose", "Linear"):
        rank = 2 if kind == "Linear" else len(graph.shapes[node.inputs[1]])
        return changing == [node.inputs[0]] and (len(first) == rank or (kind == "Linear" and len(first) > rank))
    if kind == "MatMul":
        return _product_stays(graph, node, changing)
    if kind in _ALONG_AXES:
        return 0 not in _ALONG_AXES[kind](a, len(first))
    if kind == "Gather":
        data, _ = node.inputs
        return a["axis"] == 0 if graph.is_constant(data) else a["axis"] != 0 and len(changing) == 1
    simple: Mapping[str, Callable[[], bool]] = {
        "Reshape": lambda: True,
        "Transpose": lambda: a["perm"][0] == 0,
        "Slice": lambda: (a["starts"][0], a["ends"][0], a["steps"][0]) == (0, first[0], 1),
        "Pad": lambda: not a["pads"][0] and not a["pads"][len(shape)],
        "Expand": lambda: len(first) == len(shape) and first[0] == shape[0],
        "Concat": lambda: a["axis"] != 0,
        "BatchNormalization": lambda: changing == [node.inputs[0]] and len(first) > 1,
        "PRelu": lambda: changing == [node.inputs[0]] and len(first) > 1,
    }
    if kind in simple:
        return simple[kind]()
    if KINDS[kind].element_wise if kind in KINDS else False:
        return a.get("axis") != 0 and all(_aligned(graph, i, shape, i in changing) for i in node.inputs if i)
    return kind in KINDS and len(first) > 2  # pooling, resizing: over the last dimensions


def _aligned(graph: Graph, value: str, shape: tuple[int, ...], changing: bool) -> bool:
    """Whether an operand of an element-wise operation meets the output's images where they stand."""
    own = graph.shapes[value]
    if changing:
        return len(own) == len(shape) and own[0] == shape[0]
    return len(own) < len(shape) or own[0] == 1


def _product_stays(graph: Graph, node: Node, changing: list[str]) -> bool:
    left, right = (graph.shapes[i] for i in node.inputs)
    if len(changing) == 2:
        return len(left) == len(right) >= 3 and left[0] == right[0]
    if changing == [node.inputs[0]]:
        return len(left) >= len(right) == 2 or (len(left) >= 3 and (len(right) < len(left) or right[0] == 1))
    return len(right) >= 3 and (len(left) < len(right) or left[0] == 1)
