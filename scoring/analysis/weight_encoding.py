"""How a constant is stored: its bits, its codes and scales, its zeros. Read from the expression that makes it.

Declared bits are verified and never lowered by measurement: nonzero codes must be integers within a window of
2^b consecutive ones, zero left out of the count (it is the bitmask's), so {-1, 1} with a mask is 1 bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoring.graph.graph import Graph, Node, bits_of

_SHAPING = ("Reshape", "Transpose", "Slice", "Expand", "Identity", "Concat")


@dataclass(frozen=True)
class Encoding:
    """Storage of a constant tensor.

    bits: of one nonzero element. compute_bits: of the value that is multiplied. scales, zeros: the values (names) of
    scale tensors and of zero points that are not zero. table: the value of a code-book.
    """

    bits: int
    compute_bits: int
    quantised: bool = False
    scales: tuple[str, ...] = ()
    zeros: tuple[str, ...] = ()
    table: str | None = None
    problems: tuple[str, ...] = ()


def encoding(graph: Graph, value: str) -> Encoding:
    """The encoding of a constant value, from the expression that it is made by."""
    node = graph.producers.get(value)
    plain = Encoding(bits_of(graph.types[value]), bits_of(graph.types[value]))
    if node is None or not all(graph.is_constant(i) for i in node.inputs if i):
        return plain
    if node.kind in _SHAPING:
        return _wider([encoding(graph, i) for i in node.inputs if i])
    if node.kind == "Cast":
        inner = encoding(graph, node.inputs[0])
        return inner if inner.quantised else replace(inner, bits=max(inner.bits, plain.bits), compute_bits=max(
            inner.compute_bits, plain.compute_bits))  # fmt: skip
    if node.kind == "Mul":
        return _product(graph, node) or plain
    if node.kind == "DequantizeLinear":
        return _dequantised(graph, node)
    if node.kind in ("Quant", "BipolarQuant"):
        return _fake_quantised(graph, node)
    if node.kind == "Gather":
        return _looked_up(graph, node)
    return plain


def _wider(parts: list[Encoding]) -> Encoding:
    first = parts[0]
    if len(parts) == 1:
        return first
    return Encoding(
        bits=max(p.bits for p in parts),
        compute_bits=max(p.compute_bits for p in parts),
        quantised=all(p.quantised for p in parts),
        scales=tuple(dict.fromkeys(s for p in parts for s in p.scales)),
        zeros=tuple(dict.fromkeys(z for p in parts for z in p.zeros)),
        table=first.table,
        problems=tuple(m for p in parts for m in p.problems),
    )


def _product(graph: Graph, node: Node) -> Encoding | None:
    """A weight times a mask of zeros and ones, or integer codes times their scale."""
    for left, right in (node.inputs, node.inputs[::-1]):
        factor = graph.constants[right]
        same = graph.shapes[left] == graph.shapes[right]
        if same and factor.device.type != "meta" and bool(((factor == 0) | (factor == 1)).all()):
            return encoding(graph, left)
    for left, right in (node.inputs, node.inputs[::-1]):
        codes = _codes(graph, left)
        if codes is not None and is_per_channel(graph.shapes[right], graph.shapes[node.output]):
            return _quantised(graph, codes, right)
    return None


def _codes(graph: Graph, value: str) -> str | None:
    """The integer tensor that a value is, seen through type changes and shaping."""
    node = graph.producers.get(value)
    narrow = graph.types[value] in (torch.int8, torch.uint8) or graph.stored.get(value) is not None
    if narrow and (node is None or node.kind == "Clip"):
        return value
    if node is not None and node.kind in ("Cast", "Reshape", "Transpose", "Identity"):
        return _codes(graph, node.inputs[0])
    return None


def _quantised(graph: Graph, codes: str, scale: str, zeros: tuple[str, ...] = ()) -> Encoding:
    declared = graph.stored.get(codes) or _clipped_bits(graph, codes) or bits_of(graph.types[codes])
    problem = check_codes(graph.constants[codes], declared, codes, zero_is_free=not zeros)
    return Encoding(declared, declared, True, (scale,), zeros, problems=(problem,) if problem else ())


def _clipped_bits(graph: Graph, codes: str) -> int | None:
    """Codes of few bits lie in int8 tensors; exporters say so by a Clip behind them."""
    node = graph.producers.get(codes)
    if node is None or node.kind != "Clip":
        return None
    low, high = node.attributes["min"], node.attributes["max"]
    return max(1, math.ceil(math.log2(high - low + 1))) if low is not None and high is not None else None


def check_codes(codes: Tensor, bits: int, name: str, zero_is_free: bool = True) -> str | None:
    """None, or why the nonzero codes do not fit the bits that the file declares.

    zero_is_free: code 0 is the value 0, which the bitmask stores. With a zero point it is a value like any other.
    """
    if codes.device.type == "meta":
        return None
    if codes.is_floating_point() and not bool((codes == codes.round()).all()):
        return f"'{name}': its codes are not integers"
    low, high = int(codes.min()), int(codes.max())
    if zero_is_free and (low == 0 or high == 0):
        nonzero = codes[codes != 0]
        if not nonzero.numel():
            return None
        low, high = int(nonzero.min()), int(nonzero.max())
    window = high - low + 1 - (1 if zero_is_free and low < 0 < high else 0)
    if window > 2**bits:
        return (
            f"'{name}' declares {bits} bits, but its codes lie between {low} and {high}: "
            f"{window} values, and {bits} bits are {2**bits}"
        )
    return None


def nonzero_points(graph: Graph, zeros: Sequence[str]) -> tuple[str, ...]:
    """The zero points that must be stored: those that are not zero."""
    return tuple(z for z in zeros if z and _any_nonzero(graph.constants[z]))


def _any_nonzero(tensor: Tensor) -> bool:
    return tensor.device.type == "meta" or bool((tensor != 0).any())


def _dequantised(graph: Graph, node: Node) -> Encoding:
    codes, scale, *zero = node.inputs
    zeros = nonzero_points(graph, zero)
    if not _are_scales(graph, node):
        return Encoding(bits_of(graph.types[node.output]), bits_of(graph.types[node.output]))
    found = _codes(graph, codes)
    if found is None:
        return Encoding(bits_of(graph.types[codes]), bits_of(graph.types[codes]), True, (scale,), zeros)
    return _quantised(graph, found, scale, zeros)


def _fake_quantised(graph: Graph, node: Node) -> Encoding:
    """QONNX keeps float weights behind a quantiser: the codes are what the quantiser makes of them."""
    if not _are_scales(graph, node):
        return Encoding(bits_of(graph.types[node.output]), bits_of(graph.types[node.output]))
    if node.kind == "BipolarQuant":
        return Encoding(1, 1, True, (node.inputs[1],))
    x, scale, *zero = node.inputs
    zeros = nonzero_points(graph, zero)
    low, high = int(node.attributes["low"]), int(node.attributes["high"])
    bits = int(node.attributes.get("bits", 0)) or max(1, math.ceil(math.log2(high - low + 1)))
    if graph.constants[node.output].device.type == "meta":
        return Encoding(bits, bits, True, (scale,), zeros)
    codes = (graph.constants[node.output].double() / graph.constants[scale].double()).round()
    problem = check_codes(codes, bits, x) if not zeros else None
    return Encoding(bits, bits, True, (scale,), zeros, problems=(problem,) if problem else ())


def _are_scales(graph: Graph, node: Node) -> bool:
    """Whether scales and zero points are one number, or one a channel: more would be a table of floats."""
    full = graph.shapes[node.output]
    return all(is_per_channel(graph.shapes[i], full) for i in node.inputs[1:3] if i)


def _looked_up(graph: Graph, node: Node) -> Encoding:
    """A code-book: the index is what is stored for each weight, the multiplication sees the table's type."""
    table, index = node.inputs
    size = graph.shapes[table][int(node.attributes.get("axis", 0))]
    plain = encoding(graph, table)
    if graph.constants[index].numel() <= graph.constants[table].numel():
        return plain  # a selection of stored values, not a code-book
    return Encoding(max(1, math.ceil(math.log2(max(size, 2)))), plain.compute_bits, table=table)


def is_per_channel(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Whether a tensor that is broadcast to `full` holds one number, or one for each index of one dimension."""
    wide = [size for size in shape if size != 1]
    return len(wide) <= 1 and len(shape) <= len(full)
