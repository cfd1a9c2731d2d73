"""Activation bits: which values lie on the grid of a quantiser, followed through the graph.

A value keeps its b bits only across operations that hand codes on unchanged. An add, an average pool or a batch
norm puts values between the grid's points, so they need a new quantiser; without one they are floats.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoring.graph.graph import KINDS, QUANTISER_KINDS, Charge, Graph, Node, bits_of

_AFFINE_KINDS = ("BatchNormalization", "Mul", "Add", "Sub", "Div")
_TOLERANCE = 1e-4
"""In units of one step: a constant this close to a grid point is on it."""


@dataclass(frozen=True)
class Grid:
    """Values (code - zero) * step for integer codes low..high, declared as `bits` bits. `step` None: one a channel.

    image: the 8-bit image, which a per-channel affine may move before the first layer.
    scale: names the step's tensor, so that equal per-channel steps can be told.
    """

    step: float | None
    zero: float
    low: int
    high: int
    bits: int
    scale: object = None
    image: bool = False
    moved: tuple[object, ...] = ()
    """The affine that an image went through."""
    apart: bool = False
    """Whether that differs along `axis`."""
    numbers: tuple[object, ...] = ()
    """The affine up to its last numbers, where it differs: which version of the image this is."""
    vector: str | None = None
    """The steps along an axis, where there is more than one."""
    axis: int | None = None
    """The axis of the value that they run along; of an image: of its channels, below 0 where they are along none."""
    zeros_are_codes: bool = False
    """Whether each of several zero points (`zero` is not a number then) is a code, so that 0 is on the grid."""
    zeros: object = None
    """Names several zero points, so that equal ones can be told: `zero` is nan for all of them."""

    def holds(self, value: float) -> bool:
        """Whether a constant is one of the grid's values."""
        if math.isnan(self.zero):
            return value == 0 and self.zeros_are_codes
        if value == 0 and self.step is None:
            return self.zero == round(self.zero) and self.low <= self.zero <= self.high
        if self.step is None or self.moved:
            return False
        code = value / self.step + self.zero
        return abs(code - round(code)) < _TOLERANCE and self.low <= round(code) <= self.high

    def lies_within(self, other: Grid) -> bool:
        """Whether a quantiser to the other grid would only copy: exporters write one behind every operator."""
        return self.same_points(other) and other.low <= self.low and self.high <= other.high

    def same_step(self, other: Grid) -> bool:
        """Whether codes of both may be added: they have one step, and it is the same."""
        return self.step is not None and self.step == other.step and self.moved == other.moved

    def same_points(self, other: Grid) -> bool:
        """Whether two grids have the same step, or steps, and zero point, or zero points."""
        own, others = (
            (
                grid.zeros if math.isnan(grid.zero) else grid.zero,
                grid.moved,
                grid.step if grid.step is not None else (grid.scale, grid.axis),
            )
            for grid in (self, other)
        )
        return own == others


IMAGE = Grid(step=1 / 255, zero=0, low=0, high=255, bits=8, image=True, axis=1)


def follow(graph: Graph) -> dict[str, Grid]:
    """The grid of each activation that has one."""
    grids: dict[str, Grid] = {graph.input: IMAGE}
    for node in graph.running:
        grid = _handed_on(graph, node, grids) if node.kind not in QUANTISER_KINDS else _quantiser(graph, node)
        if grid is not None:
            for output in node.outputs:
                grids[output] = grid
    return _of_one_version(graph, grids)


def _of_one_version(graph: Graph, grids: dict[str, Grid]) -> dict[str, Grid]:
    """The grids, but for all versions of the image save one: the version that most work reads.

    A normalisation is one multiplier and one shift for each channel of the image, which keeps its 8 bits. A version of
    it for each output of a layer, each with numbers of its own, would be the weights of that layer.
    """
    work: Counter[tuple[object, ...]] = Counter()
    for node in graph.running:
        for value in dict.fromkeys(node.inputs):
            grid, after = grids.get(value), grids.get(node.output)
            if grid is not None and grid.apart and not (after is not None and after.image):
                work[grid.numbers] += _work(graph, node)
    if len(work) < 2:
        return grids
    kept = max(work, key=work.__getitem__)

    def stays(grid: Grid) -> bool:
        on_the_way = grid.numbers not in work and kept[: len(grid.numbers)] == grid.numbers
        return not grid.apart or grid.numbers == kept or on_the_way

    return {value: grid for value, grid in grids.items() if stays(grid)}


def _work(graph: Graph, node: Node) -> int:
    """About what a node costs: its multiply-accumulates, or its elements."""
    is_layer = node.kind in KINDS and KINDS[node.kind].price is Charge.LAYER
    return math.prod(graph.shapes[node.output]) * (math.prod(graph.shapes[node.inputs[1]][1:]) if is_layer else 1)


def activation_bits(graph: Graph, value: str, grid: Grid | None, padded: bool = False) -> int:
    """Bits of a layer's input: its grid's, or its type's. Padding with an absent zero adds a value to the grid."""
    if grid is None:
        return bits_of(graph.types[value])
    if padded and not grid.image and not grid.holds(0.0):
        return max(grid.bits, math.ceil(math.log2(grid.high - grid.low + 2)))
    return grid.bits


def _handed_on(graph: Graph, node: Node, grids: dict[str, Grid]) -> Grid | None:
    """The grid behind a node that is no quantiser; None where it puts values between the points."""
    kind, grid = node.kind, grids.get(node.inputs[0])
    if kind in ("Add", "Mul") and graph.is_constant(node.inputs[0]):
        grid = grids.get(node.inputs[1])
    if kind == "Concat":
        return _concatenated(graph, node, grids)
    if grid is None:
        return None
    if kind == "Pad":
        constant = node.attributes.get("mode", "constant") == "constant"
        return grid if not constant or grid.image or grid.holds(float(node.attributes.get("value", 0))) else None
    if kind == "Relu":
        return grid if not grid.moved and (grid.holds(0.0) or grid.low >= grid.zero) else None
    if kind == "Clip":
        return grid if all(_bound_fits(grid, node.attributes[side], side) for side in ("min", "max")) else None
    if kind in KINDS and KINDS[kind].keeps_grid:
        return _in_place(graph, node, grid) if graph.types[node.output].is_floating_point else None
    if kind in _AFFINE_KINDS and grid.image and _affine_constants(graph, node, grid):
        constants = [i for i in node.inputs if i and graph.is_constant(i)]
        most = max(math.prod(graph.shapes[c]) for c in constants)
        if most > graph.shapes[graph.input][1]:
            return None  # numbers for copies of the channels are a layer
        moved = (*grid.moved, kind, *(_content(graph, c) for c in constants))
        numbers = grid.numbers if grid.apart and most == 1 else moved  # one number folds into whatever reads it
        return replace(grid, moved=moved, apart=grid.apart or most > 1, numbers=numbers)
    return None


def _content(graph: Graph, constant: str) -> Hashable:
    """The numbers of an affine, so that two copies of one normalisation are the same."""
    tensor = graph.constants[constant]
    return graph.keys[constant] if tensor.device.type == "meta" else tuple(tensor.double().reshape(-1).tolist())


_SAME_PLACES = frozenset({"Identity", "Cast", "Slice", "Gather", "ResizeNearest"})
"""Kinds that leave each axis where it is, if the rank stays."""


def _chooses(graph: Graph, node: Node, axis: int) -> bool:
    """Whether a move takes other places of an axis, or in another order."""
    if node.kind == "Gather":
        return int(node.attributes["axis"]) % len(graph.shapes[node.output]) == axis
    same_size = graph.shapes[node.inputs[0]][axis] == graph.shapes[node.output][axis]
    return not same_size or (node.kind == "Slice" and node.attributes["steps"][axis] != 1)


def _of_other_channels(grid: Grid, node: Node) -> Grid:
    """The grid under another name: its numbers along the axis are not those of the value before."""
    if grid.image:
        return replace(grid, moved=(*grid.moved, node.output))
    return replace(grid, scale=(grid.scale, node.output))


def _in_place(graph: Graph, node: Node, grid: Grid) -> Grid | None:
    """The grid of codes that were moved: steps along an axis go with it. None where they end up along none."""
    before, after, axis = graph.shapes[node.inputs[0]], graph.shapes[node.output], grid.axis
    if grid.zeros is not None and node.kind not in ("Identity", "Cast"):
        grid = replace(grid, zeros=(grid.zeros, node.output))  # they may belong to other channels now
    if axis is None or (grid.image and not grid.apart and axis < 0):
        return grid
    if KINDS[node.kind].price is Charge.POOL:
        pooled = {int(i) % len(before) for i in node.attributes.get("axes", range(2, len(before)))}
        gone = sum(i < axis for i in pooled) if len(after) < len(before) else 0
        return replace(grid, axis=axis - gone) if axis >= 0 and axis not in pooled else None
    if axis >= 0 and node.kind in _SAME_PLACES and len(before) == len(after):
        return _of_other_channels(grid, node) if _chooses(graph, node, axis) else grid
    if axis >= 0 and node.kind == "Transpose":
        return replace(grid, axis=list(node.attributes["perm"]).index(axis))
    if axis >= 0 and node.kind == "Reshape":
        for i, size in enumerate(after):
            if size == before[axis] and math.prod(after[:i]) == math.prod(before[:axis]):
                return replace(grid, axis=i)
    return replace(grid, axis=-1) if grid.image else None


def _bound_fits(grid: Grid, bound: float | None, side: str) -> bool:
    """A clip at a grid point, or outside of the grid, makes no new values."""
    if bound is None:
        return True
    if grid.step is None or grid.moved:
        return False
    code = bound / grid.step + grid.zero
    outside = code <= grid.low if side == "min" else code >= grid.high
    return outside or grid.holds(bound)


def _affine_constants(graph: Graph, node: Node, grid: Grid) -> bool:
    """Whether a node multiplies an image by, or adds to it, one number, or numbers of its channels."""
    constants, full = [i for i in node.inputs if i and graph.is_constant(i)], graph.shapes[node.output]
    if node.kind == "BatchNormalization":
        return grid.axis == 1 or all(math.prod(graph.shapes[c]) == 1 for c in constants)
    if not constants or (node.kind == "Div" and not graph.is_constant(node.inputs[1])):
        return False
    shapes = [graph.shapes[c] for c in constants]
    return {i - len(shape) + len(full) for shape in shapes for i, n in enumerate(shape) if n != 1} <= {grid.axis}


def _quantiser(graph: Graph, node: Node) -> Grid | None:
    scale = node.inputs[1]
    if not all(graph.is_constant(i) for i in node.inputs[1:] if i):
        return None  # a step computed from the image: not a recognised quantiser
    if graph.constants[scale].device.type != "meta" and not bool((graph.constants[scale] > 0).all()):
        return None
    step, axis = _number(graph.constants[scale]), None
    if step is None:
        axis = _axis_of_steps(graph, node)
        if axis is None:
            return None  # a table of steps
    if node.kind == "BipolarQuant":
        # -1 and 1 times the scale: two points of a grid whose step is twice the scale and that lacks zero.
        vector = None if step is not None else scale
        return Grid(None if step is None else 2 * step, 0.5, 0, 1, 1, graph.keys[scale], vector=vector, axis=axis)
    points = graph.constants[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else torch.zeros(())
    zero = _number(points)
    low, high = int(node.attributes["low"]), int(node.attributes["high"])
    bits = int(node.attributes.get("bits", 0)) or max(1, math.ceil(math.log2(high - low + 1)))
    vector = scale if step is None and graph.constants[scale].device.type != "meta" else None
    codes = zero is None and points.device.type != "meta" and bool(((points >= low) & (points <= high)).all())
    return Grid(
        step,
        math.nan if zero is None else zero,
        low,
        high,
        bits,
        graph.keys[scale],
        vector=vector,
        axis=axis,
        zeros_are_codes=codes and bool((points == points.round()).all()),
        zeros=graph.keys[node.inputs[2]] if zero is None else None,
    )


def _axis_of_steps(graph: Graph, node: Node) -> int | None:
    """The axis that a quantiser's steps run along; None where there is more than one such axis."""
    shape, rank = graph.shapes[node.inputs[1]], len(graph.shapes[node.output])
    if len(shape) == 1 and node.attributes.get("axis") is not None:
        return int(node.attributes["axis"]) % rank
    wide = [i + rank - len(shape) for i, size in enumerate(shape) if size != 1]
    return wide[0] if len(wide) == 1 else None


def _number(tensor: Tensor) -> float | None:
    """The one number that a tensor holds (also many times over); None if it holds several."""
    if tensor.device.type == "meta":
        return 1.0 if tensor.numel() == 1 else None
    values = torch.unique(tensor.double())
    return float(values) if values.numel() == 1 else None


def _concatenated(graph: Graph, node: Node, grids: dict[str, Grid]) -> Grid | None:
    found: Grid | None = None
    few = (
        graph.shapes[node.output][1] <= graph.shapes[graph.input][1]
    )  # copies of the channels with numbers are a layer
    for value in node.inputs:
        if graph.is_constant(value):
            continue
        grid = grids.get(value)
        if grid is None:
            return None
        if found is None or found.same_points(grid):
            found = grid if found is None else _union(found, grid)
        elif found.image and grid.image and found.axis == grid.axis == node.attributes["axis"] and few:
            found = replace(found, moved=(node.output,), apart=True, numbers=(node.output,))  # channels beside others
        else:
            return None
    if found is None:
        return None
    for value in node.inputs:
        if graph.is_constant(value):
            points = torch.unique(graph.constants[value].double()).tolist()
            if len(points) > 256 or not all(found.holds(point) for point in points):
                return None
    return found


def _union(a: Grid, b: Grid) -> Grid:
    low, high = min(a.low, b.low), max(a.high, b.high)
    return replace(a, low=low, high=high, bits=max(a.bits, b.bits, math.ceil(math.log2(high - low + 1))))
