"""What an examination finds: the costs table, operation by operation, before any rule prices it; and the logits.

Readers and the analysis fill the table, rules price it, reports show it. Plain data, no torch: it crosses the border
of the isolated child.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contest.errors import RefusedError

MAX_CLASSES = 10_000
MAX_FACTS = 64
MAX_TEXT = 2_000
"""Entries of the provenance, and characters of one that a report shows."""
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


@dataclass(frozen=True)
class Examination:
    """Costs, and what the network says about the images (all None without images).

    logits: float32 [N, classes]. reordered: predictions int64 [N] of a run with another batch size and order, back
    in the order of the images. repeatable: whether a second run of some batches gave the same logits bit for bit.
    """

    costs: Costs
    claims: Mapping[str, float] = field(default_factory=dict)
    image_shape: tuple[int, int, int] = (3, 32, 32)
    logits: NDArray[np.float32] | None = None
    reordered: NDArray[np.int64] | None = None
    repeatable: bool | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What the file says of its making, each text cut to MAX_TEXT characters."""

    @property
    def predictions(self) -> NDArray[np.int64] | None:
        """The class of each image: the largest logit, the first of equals."""
        return None if self.logits is None else self.logits.argmax(1).astype(np.int64)


def check_logits(logits: NDArray[np.float32], reordered: NDArray[np.int64], images: int) -> None:
    """Raise RefusedError unless there are finite logits and a second prediction for each image."""
    if logits.ndim != 2 or len(logits) != images or reordered.shape != (images,):
        raise RefusedError(f"the network gave {logits.shape} logits for {images} images; it must give [N, classes]")
    if logits.dtype != np.float32 or reordered.dtype != np.int64 or not 2 <= logits.shape[1] <= MAX_CLASSES:
        raise RefusedError(f"the network gave {logits.shape[1]} logits of {logits.dtype} for an image")
    if not np.isfinite(logits).all():
        raise RefusedError("the network gives logits that are NaN or infinite")
