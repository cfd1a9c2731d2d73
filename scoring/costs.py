"""The costs table: what one image costs, operation by operation, before any rule prices it.

Readers and the analysis fill it, rules price it, reports show it. Plain data, no torch: it crosses the border of
the isolated child as JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PRICED = ("conv", "conv_transpose", "linear", "matmul", "multiply", "sum")


@dataclass(frozen=True)
class Operation:
    """One operation of the network for one image.

    A layer that is used twice has two rows; its weights stand in the first, and the second has `shared` set.
    """

    name: str
    kind: str
    """conv, conv_transpose, linear, matmul (of two activations), multiply (a gate, element by element), sum (over what
    is no spatial axis), softmax, elementwise (beyond the allowances), batch_norm, scale, shift."""
    macs: int = 0
    products: int = 0
    """Gates: products of two activations, element by element."""
    steps: int = 0
    """Other single operations on elements that no allowance covers."""
    outputs: int = 0
    """Elements of the output."""
    groups: int = 1
    bias: bool = False
    weights: int = 0
    nonzeros: int = 0
    weight_bits: int = 0
    """Bits that a nonzero weight is stored in; 0 where there are none."""
    activation_bits: int = 32
    operation_bits: int = 32
    """Bits of the multiplications: the wider of weight (in a table: of the table's values) and activation."""
    shared: bool = False
    sources: tuple[tuple[str, ...], ...] = ()
    """Layers whose channels this one reads: a part for each piece of a concatenation, coupled layers in one part."""


@dataclass(frozen=True)
class Number:
    """Stored numbers that are not weights: multipliers, shifts, scales, tables. `layer` is the operation's name."""

    name: str
    layer: str
    count: int
    bits: int


@dataclass(frozen=True)
class ParentCosts:
    """The network before compression: p_s and p_u are fractions of it."""

    weights: float
    macs: float


@dataclass(frozen=True)
class Costs:
    """Everything that a rule needs. `problems` block ranking, in words; so do `unknown_operations`, by name."""

    operations: tuple[Operation, ...]
    numbers: tuple[Number, ...] = ()
    unknown_operations: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    parent: ParentCosts | None = None
    notes: tuple[str, ...] = ()
    allowances: Mapping[str, float] = field(default_factory=dict)
    """How much of what layers grant was used: the fullest grant of element-wise work, and the wiring."""

    @property
    def weights(self) -> int:
        return sum(op.weights for op in self.operations)

    @property
    def nonzeros(self) -> int:
        return sum(op.nonzeros for op in self.operations)

    @property
    def parameters(self) -> int:
        """All stored numbers, folded: weights, multipliers, shifts, scales."""
        return self.weights + sum(number.count for number in self.numbers)

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.operations)

    @property
    def bitmask_bits(self) -> int:
        """One bit for each weight of a layer that has zeros."""
        return sum(op.weights for op in self.operations if op.nonzeros < op.weights)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` is the inverse."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Costs:
        parent = data.get("parent")
        return Costs(
            operations=tuple(_operation(row) for row in data["operations"]),
            numbers=tuple(Number(**row) for row in data["numbers"]),
            unknown_operations=tuple(data["unknown_operations"]),
            problems=tuple(data["problems"]),
            parent=ParentCosts(**parent) if parent else None,
            notes=tuple(data.get("notes", ())),
            allowances=dict(data.get("allowances", {})),
        )


def _operation(row: Mapping[str, Any]) -> Operation:
    sources = tuple(tuple(part) for part in row.get("sources", ()))
    return Operation(**{**row, "sources": sources})
