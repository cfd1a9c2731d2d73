"""Constants in disguise: operands made from the image that are a few tables, each times a number from the image.

A sign that is taken back behind the product, a scale, or one table for some images and another for the rest: the mean
of such an operand says nothing, but over all images it has no more dimensions than it has tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from scoring.graph.graph import KINDS, Charge, Graph

MOST_TABLES = 4
FAR = 0.05
"""Part of an operand (its length, over all images) that may lie beside so many tables."""
NOISE = 1e-4
"""Part of an operand that is no table, but what sums of floats leave."""
SHORT = 8
"""Rows of fewer elements may be alike by chance."""
SAME = 1 - 1e-6
"""Cosine of rows that are the same."""
MOST_KNOWN = 0.99
_LINEAR = {"Add", "Sub", "Mul", "MatMul", "Linear", "Conv", "ReduceSum", "ReduceMean", "Neg", "Cast"}
_BITS = 32
"""Of a factor; a constant that it is multiplied by has one at least."""


def tables_of(operands: Iterable[Tensor]) -> list[Tensor]:
    """The tables [r, elements], r <= MOST_TABLES, that the rows of some matrices [images, elements] nearly lie in.

    The smallest first; none if they lie in no so few, or have no more elements than that. Tables are orthonormal.
    """
    kept, lost, total = torch.zeros(0), 0.0, 0.0
    for rows in operands:
        total += float(rows.double().square().sum())
        rows = torch.cat([kept, rows]) if len(kept) else rows
        if rows.shape[1] <= MOST_TABLES:
            return []
        energies, ways = torch.linalg.eigh((rows @ rows.T).double())
        kept = ways[:, -MOST_TABLES:].T.to(rows.dtype) @ rows
        lost += float(energies[:-MOST_TABLES].clamp(min=0).sum())
        if lost > FAR**2 * total:
            return []
    sizes, order = kept.double().square().sum(1).sort(descending=True)
    beside = [lost + float(sizes[r:].sum()) for r in range(len(sizes) + 1)]
    tables = torch.nn.functional.normalize(kept[order])
    many = int((sizes > NOISE**2 * total).sum())
    return [tables[:r] for r in range(1, many + 1) if beside[r] <= FAR**2 * total]


def projection(tables: Tensor) -> Callable[[Tensor], Tensor]:
    """Puts what the tables make of it in the place of a value, image by image."""

    def project(value: Tensor) -> Tensor:
        rows = value.reshape(-1, tables.shape[1])
        return ((rows.to(tables.dtype) @ tables.T) @ tables).reshape(value.shape).to(value.dtype)

    return project


def known_rows(operand: Tensor) -> int:
    """The numbers of the rows that an operand [images, rows, elements] takes in all images, times a number each.

    0 if it takes others than in the first images, in whatever order and with whatever signs: it says something then.
    """
    if operand.shape[2] < SHORT or len(operand) <= MOST_TABLES:
        return 0
    operand = operand.double()
    lengths = operand.norm(dim=2, keepdim=True)
    rows, filled = operand / lengths.clamp(min=torch.finfo(operand.dtype).tiny), lengths[:, :, 0] > 0
    known = rows[:MOST_TABLES][filled[:MOST_TABLES]]
    if not len(known):
        return 0
    for own, are in zip(rows[MOST_TABLES:], filled[MOST_TABLES:], strict=True):
        nearest = (own[are] @ known.T).abs().amax(1)
        if float((nearest > SAME).float().mean()) < MOST_KNOWN:
            return 0
    alike = ((known @ known.T).abs() > SAME).sum(1)
    return round(float((known.count_nonzero(1) / alike).sum()))


def is_paid(graph: Graph, value: str, elements: int) -> bool:
    """Whether a value of so many elements is a sum of constants that are charged, each times a few factors.

    So are the experts of a conditional convolution, and a kernel with a scale for each channel.
    """
    if graph.is_constant(value) or math.prod(graph.shapes[value]) * _BITS <= elements:
        return True
    node = graph.producers.get(value)
    if node is None or node.kind not in KINDS:
        return False
    inputs = [i for i in dict.fromkeys(node.inputs) if i]
    moves = KINDS[node.kind].price is Charge.MOVE
    if moves and math.prod(graph.shapes[value]) > sum(math.prod(graph.shapes[i]) for i in inputs):
        return False
    divides = node.kind == "Div" and graph.is_constant(node.inputs[1])
    return (moves or divides or node.kind in _LINEAR) and all(is_paid(graph, i, elements) for i in inputs)
