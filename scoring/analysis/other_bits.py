"""The costs of an architecture with other bits in its layers, from one analysis: a search asks for hundreds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scoring.costs import Costs

FEWEST_BITS = 2
"""Layers of one bit are priced for less than all that they grant."""

_LAYERS = ("conv", "conv_transpose", "linear")


def with_layer_bits(fewest: Costs, layer_bits: Mapping[str, tuple[int, int]]) -> Costs | None:
    """What `analyse(graph, layer_bits=...)` gives, but for the allowances, in a tenth of its time; None where only that
    knows.

    fewest: the costs where every layer has two bits. If nothing but layers is priced there, then nothing else is where
    they have more: what a layer grants does not shrink with its bits.
    """
    wanted = min((bits for pair in layer_bits.values() for bits in pair), default=FEWEST_BITS)
    priced = [op for op in fewest.operations if op.macs or op.products or op.steps]
    alone = all(op.name in layer_bits and op.weight_bits and op.kind in _LAYERS for op in priced)
    charged = {number.layer for number in fewest.numbers}
    if wanted < FEWEST_BITS or not alone or "wiring" in charged or fewest.problems or fewest.unknown_operations:
        return None
    bits = {op.name: layer_bits[op.name] for op in priced}
    operations = [
        replace(op, weight_bits=w, activation_bits=a, operation_bits=max(w, a)) if op.macs else op
        for op in fewest.operations
        for w, a in [bits.get(op.name, (op.weight_bits, op.activation_bits))]
    ]
    return replace(fewest, operations=tuple(operations), allowances={})
