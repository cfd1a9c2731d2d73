"""What the axes of each value are: channels, the image's own spatial axes, copies, or a mixture.

Pooling is free over the spatial axes of a map, and an affine has numbers of its channel, so both have to be told from
what only looks like them: channels that were reshaped into the place of a spatial axis are still channels. Each axis
is a sequence of atoms, the pieces that it was put together from; a reshape regroups atoms and splits them again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scoring.graph.graph import KINDS, POOLING_KINDS, Graph, Node

CHANNEL, SPATIAL, COPIES, MIXED = "channel", "spatial", "copies", "mixed"
Axis = tuple[tuple[str, int], ...]
"""Atoms (label, size) of sizes above 1, outermost first. Empty: an axis of size 1."""
Axes = tuple[Axis, ...]


def follow_axes(graph: Graph) -> dict[str, Axes]:
    """The axes of every value that is made from the image."""
    _, _, *spatial = graph.shapes[graph.input]
    channels = graph.shapes[graph.input][1]
    found: dict[str, Axes] = {graph.input: ((), _axis(CHANNEL, channels), *(_axis(SPATIAL, n) for n in spatial))}
    for node in graph.running:
        axes = _after(graph, node, found)
        for output in node.outputs:
            found[output] = axes
    return found


def is_spatial(axis: Axis) -> bool:
    """Whether an axis is made of the image's own rows and columns alone."""
    return all(label == SPATIAL for label, _ in axis)


def is_channel_axis(axes: Axes, index: int) -> bool:
    """Whether numbers along an axis are "numbers of a channel": of the channels, or of all that was flattened to it."""
    if all(label == CHANNEL for label, _ in axes[index]):
        return True
    alone = all(not axis for i, axis in enumerate(axes) if i != index)
    return alone and all(label in (CHANNEL, SPATIAL) for label, _ in axes[index])


def _axis(label: str, size: int) -> Axis:
    return ((label, size),) if size > 1 else ()


def _one_label(axis: Axis) -> str:
    labels = {label for label, _ in axis}
    return labels.pop() if len(labels) == 1 else MIXED


def _resized(axis: Axis, size: int) -> Axis:
    """An axis of another size made of the same things: cropped, padded, strided."""
    if math.prod(n for _, n in axis) == size:
        return axis
    return _axis(_one_label(axis) if axis else MIXED, size)


def _after(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    shape = graph.shapes[node.output]
    changing = [i for i in node.inputs if i in found]
    rule = _RULES.get(node.kind)
    if rule is not None and changing:
        return rule(graph, node, found)
    if node.kind in KINDS and KINDS[node.kind].element_wise:
        return _broadcast(shape, [found[i] for i in changing])
    if changing and node.kind in KINDS and len(found[changing[0]]) == len(shape):
        return tuple(_resized(axis, size) for axis, size in zip(found[changing[0]], shape, strict=True))
    return tuple(_axis(MIXED, size) for size in shape)


def _broadcast(shape: tuple[int, ...], operands: Sequence[Axes]) -> Axes:
    """Element by element. An axis that only a constant has is one of numbers, so it counts as channels."""
    result = []
    for i, size in enumerate(shape):
        from_end = len(shape) - i
        here = {axes[-from_end] for axes in operands if len(axes) >= from_end} - {()}
        here = {a for a in here if _one_label(a) != COPIES} or here
        if not here:
            result.append(_axis(CHANNEL, size))
        elif len(here) == 1:
            result.append(here.pop())
        else:
            labels = {label for axis in here for label, _ in axis}
            result.append(_axis(labels.pop() if len(labels) == 1 else MIXED, size))
    return tuple(result)


def _layer(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    """New channels; the axes that a kernel slides over stay what they were."""
    shape, x = graph.shapes[node.output], node.inputs[0]
    before = found.get(x)
    if before is None or len(before) != len(shape):
        return tuple(_axis(MIXED, size) for size in shape)
    if node.kind == "Linear":
        return (*before[:-1], _axis(CHANNEL, shape[-1]))
    spatial = [_resized(axis, n) if axis else _axis(CHANNEL, n) for axis, n in zip(before[2:], shape[2:], strict=True)]
    if node.kind == "ConvTranspose":  # places between and beyond its input's have weights of their own: channels
        a, sizes = node.attributes, zip(graph.shapes[x][2:], shape[2:], strict=True)
        apart = [s > 1 or d > 1 or n > m for s, d, (m, n) in zip(a["stride"], a["dilation"], sizes, strict=True)]
        spatial = [_axis(MIXED, n) if own else axis for axis, n, own in zip(spatial, shape[2:], apart, strict=True)]
    return (before[0], _axis(CHANNEL, shape[1]), *spatial)


def _product(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    shape = graph.shapes[node.output]
    left, right = (found.get(i) for i in node.inputs)
    leading = _broadcast(shape[:-2], [axes[:-2] for axes in (left, right) if axes is not None])
    row = left[-2] if left is not None else _axis(CHANNEL, shape[-2])
    column = right[-1] if right is not None else _axis(CHANNEL, shape[-1])
    return (*leading, row, column)


def _reshaped(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    return regrouped(tuple(atom for axis in found[node.inputs[0]] for atom in axis), graph.shapes[node.output])


def regrouped(atoms: Sequence[tuple[str, int]], shape: tuple[int, ...]) -> Axes:
    """The atoms in these sizes, split where a size ends inside of one; what cannot be split is a mixture."""
    queue, result = list(atoms), []
    for size in shape:
        taken: list[tuple[str, int]] = []
        left = size
        while left > 1 and queue:
            label, n = queue.pop(0)
            if left % n == 0:
                taken.append((label, n))
                left //= n
            elif n % left == 0:
                taken.append((label, left))
                queue.insert(0, (label, n // left))
                left = 1
            else:
                return tuple(_axis(MIXED, n) for n in shape)
        result.append(tuple(taken))
    return tuple(result)


def _transposed(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    return tuple(found[node.inputs[0]][i] for i in node.attributes["perm"])


def _expanded(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    before, shape = found[node.inputs[0]], graph.shapes[node.output]
    padded = ((),) * (len(shape) - len(before)) + before
    return tuple(axis or _axis(COPIES, size) for axis, size in zip(padded, shape, strict=True))


def _concatenated(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    axis, shape = node.attributes["axis"], graph.shapes[node.output]
    inputs = [found[i] for i in node.inputs if i in found]
    result = list(_broadcast(shape, inputs))
    labels = {_one_label(axes[axis]) for axes in inputs if axes[axis]} or {CHANNEL}
    if labels == {SPATIAL} and not _pieces_of_one(graph, node, axis):
        labels = {MIXED}  # rows of several maps behind one another
    result[axis] = _axis(labels.pop() if len(labels) == 1 else MIXED, shape[axis])
    return tuple(result)


def _whole(graph: Graph, node: Node) -> list[str]:
    """What the parts of a concatenation were cut from."""
    makers = [(value, graph.producers.get(value)) for value in node.inputs]
    return [maker.inputs[0] if maker is not None and maker.kind == "Slice" else value for value, maker in makers]


def _pieces_of_one(graph: Graph, node: Node, axis: int) -> bool:
    """Whether all parts were cut along this axis out of one value: a roll, or circular padding."""
    sources = set()
    if graph.shapes[node.output][axis] > 2 * max(graph.shapes[i][axis] for i in _whole(graph, node)):
        return False  # rows that stand there several times: an average would weigh them
    for value in node.inputs:
        maker = graph.producers.get(value)
        if maker is None or maker.kind != "Slice":
            sources.add(value)
            continue
        before, after = graph.shapes[maker.inputs[0]], graph.shapes[value]
        if any(n != m for i, (n, m) in enumerate(zip(before, after, strict=True)) if i != axis):
            return False
        sources.add(maker.inputs[0])
    return len(sources) == 1


def _gathered(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    data, index = node.inputs
    axis, shape = node.attributes["axis"], graph.shapes[node.output]
    if data not in found:  # a table looked up by what the image says
        own = found[index]
        return (*own, *(_axis(CHANNEL, n) for n in shape[len(own) :]))
    before, count = found[data], len(graph.shapes[index])
    label = _one_label(before[axis]) if before[axis] else CHANNEL
    steps = graph.constants[index].reshape(-1).diff() if graph.is_constant(index) else None
    if label != CHANNEL and not (steps is not None and bool((steps == steps[:1]).all()) and bool((steps > 0).all())):
        label = MIXED  # rows in any order and number: pooling over them would be a weighted sum
    new = tuple(_axis(label, n) for n in shape[axis : axis + count])
    return (*before[:axis], *new, *before[axis + 1 :])


def _reduced(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    axes, keep = node.attributes["axes"], node.attributes["keepdims"]
    before = found[node.inputs[0]]
    return tuple(() if i in axes else axis for i, axis in enumerate(before) if keep or i not in axes)


def _to_space(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    shape = graph.shapes[node.output]
    return (found[node.inputs[0]][0], _axis(CHANNEL, shape[1]), *(_axis(MIXED, n) for n in shape[2:]))


def _to_depth(graph: Graph, node: Node, found: dict[str, Axes]) -> Axes:
    before, shape = found[node.inputs[0]], graph.shapes[node.output]
    return (before[0], _axis(MIXED, shape[1]), *(_resized(a, n) for a, n in zip(before[2:], shape[2:], strict=True)))


_RULES: dict[str, Callable[[Graph, Node, dict[str, Axes]], Axes]] = {
    "Conv": _layer,
    "ConvTranspose": _layer,
    "Linear": _layer,
    "MatMul": _product,
    "Reshape": _reshaped,
    "Transpose": _transposed,
    "Expand": _expanded,
    "Concat": _concatenated,
    "Gather": _gathered,
    "DepthToSpace": _to_space,
    "SpaceToDepth": _to_depth,
    **{kind: _reduced for kind in POOLING_KINDS if kind.startswith("Reduce")},
    "ArgMax": _reduced,
    "ArgMin": _reduced,
}


def elements_read(graph: Graph, node: Node, axes: dict[str, Axes]) -> int:
    """Elements that a reduction or a pooling reads over anything but spatial axes; 0 where it is free."""
    x = node.inputs[0]
    before, shape, a = axes[x], graph.shapes[x], node.attributes
    if "axes" in a:
        pooled = [int(i) % len(shape) for i in a["axes"]]
        return 0 if all(is_spatial(before[i]) for i in pooled) else math.prod(shape)
    dims = len(a.get("kernel", a.get("size", ())))
    last = range(len(shape) - dims, len(shape))
    if "kernel" in a:
        over = [i for i, k in zip(last, a["kernel"], strict=True) if k > 1]
        read = math.prod(graph.shapes[node.output]) * math.prod(a["kernel"])
    else:  # cells that overlap where their number does not divide the size
        over = [i for i, m in zip(last, a["size"], strict=True) if shape[i] != m]
        read = math.prod(shape[:-dims])
        for n, m in zip(shape[-dims:], a["size"], strict=True):
            read *= sum(-(-(i + 1) * n // m) - i * n // m for i in range(m))
    return 0 if all(is_spatial(before[i]) for i in over) else read
