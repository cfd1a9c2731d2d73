"""Activation bits: which values lie on the grid of a quantiser, followed through the graph.

A value keeps its b bits only across operations that hand codes on unchanged. An add, an average pool or a batch
norm puts values between the grid's points, so they need a new quantiser; without one they are floats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoring.analysis.weight_encoding import is_per_channel
from scoring.graph.graph import Graph, Node, bits_of
from scoring.graph.kinds import KINDS

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
    moved: bool = False
    vector: str | None = None
    """The steps of the channels, where there is more than one."""

    def holds(self, value: float) -> bool:
        """Whether a constant is one of the grid's values."""
        if value == 0 and self.step is None:
            return self.zero == round(self.zero) and self.low <= self.zero <= self.high
        if self.step is None or self.moved:
            return False
        code = value / self.step + self.zero
        return abs(code - round(code)) < _TOLERANCE and self.low <= round(code) <= self.high

    def lies_within(self, other: Grid) -> bool:
        """Whether a quantiser to the other grid would only copy: exporters write one behind every operator."""
        return self.same_points(other) and other.low <= self.low and self.high <= other.high

    def same_points(self, other: Grid) -> bool:
        return (self.step, self.zero, self.moved) == (other.step, other.zero, other.moved) and (
            self.step is not None or self.scale == other.scale
        )


IMAGE = Grid(step=1 / 255, zero=0, low=0, high=255, bits=8, image=True)


def follow(graph: Graph) -> dict[str, Grid]:
    """The grid of each activation that has one."""
    grids: dict[str, Grid] = {graph.input: IMAGE}
    for node in graph.running:
        grid = _after(graph, node, grids)
        if grid is not None:
            for output in node.outputs:
                grids[output] = grid
    return grids


def activation_bits(graph: Graph, value: str, grid: Grid | None, padded: bool = False) -> int:
    """Bits of a layer's input: its grid's, or its type's. Padding with an absent zero adds a value to the grid."""
    if grid is None:
        return bits_of(graph.types[value])
    if padded and not grid.image and not grid.holds(0.0):
        return max(grid.bits, math.ceil(math.log2(grid.high - grid.low + 2)))
    return grid.bits


def _after(graph: Graph, node: Node, grids: dict[str, Grid]) -> Grid | None:
    kind, grid = node.kind, grids.get(node.inputs[0])
    if kind in ("Quant", "BipolarQuant"):
        return _quantiser(graph, node)
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
        return grid if graph.types[node.output].is_floating_point else None
    if kind in _AFFINE_KINDS and grid.image and _affine_constants(graph, node):
        return replace(grid, moved=True)
    return None


def _bound_fits(grid: Grid, bound: float | None, side: str) -> bool:
    """A clip at a grid point, or outside of the grid, makes no new values."""
    if bound is None:
        return True
    if grid.step is None or grid.moved:
        return False
    code = bound / grid.step + grid.zero
    outside = code <= grid.low if side == "min" else code >= grid.high
    return outside or grid.holds(bound)


def _affine_constants(graph: Graph, node: Node) -> bool:
    constants = [i for i in node.inputs if i and graph.is_constant(i)]
    whole = node.kind != "Div" or graph.is_constant(node.inputs[1])
    return (
        whole and bool(constants) and all(is_per_channel(graph.shapes[c], graph.shapes[node.output]) for c in constants)
    )


def _quantiser(graph: Graph, node: Node) -> Grid | None:
    scale = node.inputs[1]
    if not all(graph.is_constant(i) for i in node.inputs[1:] if i):
        return None  # a step computed from the image: not a recognised quantiser
    if graph.constants[scale].device.type != "meta" and not bool((graph.constants[scale] > 0).all()):
        return None
    step = _number(graph.constants[scale])
    if node.kind == "BipolarQuant":
        # -1 and 1 times the scale: two points of a grid whose step is twice the scale and that lacks zero.
        vector = None if step is not None else scale
        return Grid(None if step is None else 2 * step, 0.5, 0, 1, 1, graph.key(scale), vector=vector)
    zero = _number(graph.constants[node.inputs[2]]) if len(node.inputs) > 2 and node.inputs[2] else 0.0
    low, high = int(node.attributes["low"]), int(node.attributes["high"])
    bits = int(node.attributes.get("bits", 0)) or max(1, math.ceil(math.log2(high - low + 1)))
    vector = scale if step is None and graph.constants[scale].device.type != "meta" else None
    return Grid(step, math.nan if zero is None else zero, low, high, bits, graph.key(scale), vector=vector)


def _number(tensor: Tensor) -> float | None:
    """The one number that a tensor holds (also many times over); None if it holds several."""
    if tensor.device.type == "meta":
        return 1.0 if tensor.numel() == 1 else None
    values = torch.unique(tensor.double())
    return float(values) if values.numel() == 1 else None


def _concatenated(graph: Graph, node: Node, grids: dict[str, Grid]) -> Grid | None:
    found: Grid | None = None
    for value in node.inputs:
        if graph.is_constant(value):
            continue
        grid = grids.get(value)
        if grid is None or (found is not None and not found.same_points(grid)):
            return None
        found = grid if found is None else _union(found, grid)
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
