"""Numbers of pieces: a map that is cut along its rows or columns, and joined again behind numbers of each piece.

Numbers of the channel fold into a layer, and so what layers grant covers them. Bands of rows, each with numbers of its
own, hold a table of the channels and bands, which folds into no layer, whoever makes or reads the bands together.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from scoring.analysis.axes import CHANNEL, SPATIAL, Axes
from scoring.graph.graph import KINDS, Charge, Graph, Node

_MOST_NUMBERS = 256
"""Between two layers on one piece; more are taken for numbers of pieces."""


@dataclass(frozen=True)
class _Piece:
    """What a value is since the last layer. stacked: pieces lie beside each other as channels.

    numbers: the operations by numbers on the way, and what tells their numbers from those of others.
    """

    cut: bool = False
    stacked: bool = False
    numbers: Mapping[str, Hashable] = field(default_factory=dict)


def numbers_of_pieces(graph: Graph, axes: dict[str, Axes]) -> set[str]:
    """Outputs of the operations whose numbers, together, are a table of the map that is joined behind them."""
    pieces: dict[str, _Piece] = {}
    found: set[str] = set()
    for node in graph.running:
        inputs = [pieces.get(i, _Piece()) for i in node.inputs if i and not graph.is_constant(i)]
        if node.kind not in KINDS or KINDS[node.kind].price is Charge.LAYER or not inputs:
            continue
        after = _merged(inputs)
        along_channels = node.kind == "Concat" and _along_channels(node, axes)
        if along_channels:
            after = replace(after, stacked=after.cut)
        elif node.kind == "Concat" and after.cut:
            told = {tuple(piece.numbers.values()) for piece in inputs}
            if len(told) > 1 or after.stacked:
                found.update(after.numbers)
            after = replace(after, stacked=False, numbers={})
        elif after.stacked and _unstacks(node, axes):
            found.update(after.numbers)
            after = replace(after, stacked=False, numbers={})
        elif _cuts(graph, node, axes):
            after = replace(after, cut=True)
        elif after.cut and _has_numbers(graph, node):
            after = replace(after, numbers={**after.numbers, node.output: _told_by(graph, node)})
        if len(after.numbers) > _MOST_NUMBERS:
            found.update(after.numbers)
            after = replace(after, numbers={})
        pieces.update(dict.fromkeys(node.outputs, after))
    return found


def _merged(inputs: Sequence[_Piece]) -> _Piece:
    numbers = {output: told for piece in inputs for output, told in piece.numbers.items()}
    return _Piece(any(piece.cut for piece in inputs), any(piece.stacked for piece in inputs), numbers)


def _along_channels(node: Node, axes: dict[str, Axes]) -> bool:
    """Whether a concatenation puts channels beside channels."""
    joined = [axes[i][node.attributes["axis"]] for i in node.inputs if i in axes]
    return all(axis and all(label == CHANNEL for label, _ in axis) for axis in joined)


def _unstacks(node: Node, axes: dict[str, Axes]) -> bool:
    """Whether channels go to where rows or columns are."""
    made = [{label for label, _ in axis} for axis in axes[node.output] if axis]
    return node.kind == "DepthToSpace" or (len(made) > 1 and any({CHANNEL, SPATIAL} <= labels for labels in made))


def _cuts(graph: Graph, node: Node, axes: dict[str, Axes]) -> bool:
    """Whether a node takes some of the rows or columns of a map, as a pooling of windows of one place does too."""
    is_move = KINDS[node.kind].price is Charge.MOVE
    if not is_move and any(k != 1 for k in node.attributes.get("kernel", (0,))):
        return False
    before, after, of_input = graph.shapes[node.inputs[0]], graph.shapes[node.output], axes.get(node.inputs[0])
    if of_input is None:
        return False
    if node.kind == "Gather":
        axis = int(node.attributes["axis"])
        taken = graph.shapes[node.inputs[1]]
        smaller = {axis} if len(taken) != 1 or taken[0] < before[axis] else set()
    elif len(before) == len(after) and node.kind not in ("Reshape", "Transpose"):
        smaller = {i for i, (n, m) in enumerate(zip(before, after, strict=True)) if m < n}
    else:
        return False
    return any(label != CHANNEL for i in smaller for label, _ in of_input[i])


def _has_numbers(graph: Graph, node: Node) -> bool:
    """Whether a node multiplies by numbers, adds them, or has some in its function or its steps."""
    price = KINDS[node.kind].price
    constants = any(graph.is_constant(i) for i in node.inputs if i)
    written = price is Charge.ACTIVATION and any(isinstance(v, float) for v in node.attributes.values())
    return written or (constants and price in (Charge.ARITHMETIC, Charge.ACTIVATION, Charge.QUANTISER))


def _told_by(graph: Graph, node: Node) -> Hashable:
    constants = tuple(graph.keys[i] for i in node.inputs if i and graph.is_constant(i))
    return node.kind, constants, repr(sorted(node.attributes.items()))
