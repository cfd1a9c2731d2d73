"""How a constant is stored: its bits, its codes and scales, its zeros. Read from the expression that makes it.

Declared bits are verified and never lowered by measurement: nonzero codes must be integers within a window of
2^b consecutive ones, zero left out of the count (it is the bitmask's), so {-1, 1} with a mask is 1 bit.
"""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoring.analysis.affine_chains import AffineChain, is_per_channel
from scoring.graph.graph import Graph, Node, bits_of
from scoring.graph.operations import along

_SHAPING = ("Reshape", "Transpose", "Identity", "Cut")
"""The whole tensor in another form. Whatever is cut out, tiled, joined or computed has the bits of its type."""
_ELSEWHERE = -1


@dataclass(frozen=True)
class Scale:
    """A tensor of scales and the axis of the weight that it runs along; None: it is one number."""

    value: str
    axis: int | None


@dataclass(frozen=True)
class Encoding:
    """Storage of a constant tensor.

    bits: of one nonzero element. compute_bits: of the value that is multiplied. scales: of the codes. zeros: zero
    points that are not zero. table: the value of a code-book.
    """

    bits: int
    compute_bits: int
    quantised: bool = False
    scales: tuple[Scale, ...] = ()
    zeros: tuple[Scale, ...] = ()
    table: str | None = None
    problems: tuple[str, ...] = ()


def encoding(graph: Graph, value: str) -> Encoding:
    """The encoding of a constant value, from the expression that it is made by."""
    node = graph.producers.get(value)
    plain = Encoding(bits_of(graph.types[value]), bits_of(graph.types[value]))
    if node is None or not all(graph.is_constant(i) for i in node.inputs if i):
        return plain
    if node.kind in _SHAPING:
        inner = encoding(graph, node.inputs[0])
        scales, zeros = (
            tuple(Scale(s.value, _moved(graph, node, s.axis)) for s in several)
            for several in (inner.scales, inner.zeros)
        )
        return replace(inner, scales=scales, zeros=zeros)
    if node.kind == "Cast":
        inner = encoding(graph, node.inputs[0])
        if inner.quantised:
            return inner if _is_copy(graph, node) else plain
        return replace(
            inner, bits=max(inner.bits, plain.bits), compute_bits=max(inner.compute_bits, plain.compute_bits)
        )
    if node.kind == "Mul":
        return _product(graph, node) or plain
    if node.kind == "DequantizeLinear":
        return _dequantised(graph, node)
    if node.kind in ("Quant", "BipolarQuant"):
        return _fake_quantised(graph, node)
    if node.kind == "Gather":
        return _looked_up(graph, node)
    return plain


def _moved(graph: Graph, node: Node, axis: int | None) -> int | None:
    """Where an axis goes when a constant takes another form."""
    if axis is None or axis == _ELSEWHERE or node.kind in ("Identity", "Cut"):
        return axis
    if node.kind == "Transpose":
        return list(node.attributes["perm"]).index(axis)
    before, after = graph.shapes[node.inputs[0]], graph.shapes[node.output]
    for i in range(len(after)):
        if math.prod(after[:i]) == math.prod(before[:axis]) and after[i] == before[axis]:
            return i
    return _ELSEWHERE


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
            return _quantised(graph, codes, _scale(graph, node, right))
    return None


def _codes(graph: Graph, value: str) -> str | None:
    """The integer tensor that a value is, seen through type changes and shaping."""
    node = graph.producers.get(value)
    narrow = graph.types[value] in (torch.int8, torch.uint8) or graph.stored.get(value) is not None
    if narrow and (node is None or node.kind == "Clip"):
        return value
    if node is not None and node.kind in ("Cast", "Reshape", "Transpose", "Identity") and _is_copy(graph, node):
        return _codes(graph, node.inputs[0])
    return None


def _is_copy(graph: Graph, node: Node) -> bool:
    """Whether a constant goes on as it is: integers of a narrower type, or without a sign, would be other numbers."""
    if node.kind != "Cast" or graph.types[node.output].is_floating_point:
        return True
    before, after = graph.constants[node.inputs[0]], graph.constants[node.output]
    return before.device.type != "meta" and bool((before.double() == after.double()).all())


def _quantised(graph: Graph, codes: str, scale: Scale, zeros: tuple[Scale, ...] = ()) -> Encoding:
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
    zeros = tuple(_scale(graph, node, z) for z in nonzero_points(graph, zero))
    if not _are_scales(graph, node):
        return Encoding(bits_of(graph.types[node.output]), bits_of(graph.types[node.output]))
    found, of_codes = _codes(graph, codes), _scale(graph, node, scale)
    if found is None:
        return Encoding(bits_of(graph.types[codes]), bits_of(graph.types[codes]), True, (of_codes,), zeros)
    return _quantised(graph, found, of_codes, zeros)


def _fake_quantised(graph: Graph, node: Node) -> Encoding:
    """QONNX keeps float weights behind a quantiser: the codes are what the quantiser makes of them."""
    if not _are_scales(graph, node):
        return Encoding(bits_of(graph.types[node.output]), bits_of(graph.types[node.output]))
    if node.kind == "BipolarQuant":
        return Encoding(1, 1, True, (_scale(graph, node, node.inputs[1]),))
    x, scale, *zero = node.inputs
    of_codes = _scale(graph, node, scale)
    zeros = tuple(_scale(graph, node, z) for z in nonzero_points(graph, zero))
    low, high = int(node.attributes["low"]), int(node.attributes["high"])
    bits = int(node.attributes.get("bits", 0)) or max(1, math.ceil(math.log2(high - low + 1)))
    if graph.constants[node.output].device.type == "meta":
        return Encoding(bits, bits, True, (of_codes,), zeros)
    values = graph.constants[node.output].double()
    codes = (values / along(graph.constants[scale].double(), values, node.attributes.get("axis"))).round()
    problem = check_codes(codes, bits, x) if not zeros else None
    problems = (problem,) if problem else ()
    return Encoding(bits, bits, True, (of_codes,), zeros, problems=problems)


def _scale(graph: Graph, node: Node, value: str) -> Scale:
    """Scales, or zero points, with the axis of the node's output that they run along."""
    shape, rank = graph.shapes[value], len(graph.shapes[node.output])
    if node.attributes.get("axis") is not None and len(shape) == 1 and shape[0] > 1:
        return Scale(value, int(node.attributes["axis"]) % rank)
    return Scale(value, next((i + rank - len(shape) for i, n in enumerate(shape) if n != 1), None))


def _are_scales(graph: Graph, node: Node) -> bool:
    """Whether scales and zero points are one number, or one a channel: more would be a table of floats."""
    full = graph.shapes[node.output]
    return all(is_per_channel(graph.shapes[i], full) for i in node.inputs[1:3] if i)


def _looked_up(graph: Graph, node: Node) -> Encoding:
    """A code-book: the index is what is stored for each weight, the multiplication sees the table's type."""
    table, index = node.inputs
    size = graph.shapes[table][int(node.attributes.get("axis", 0))]
    plain = encoding(graph, table)
    of_type = bits_of(graph.types[node.output])
    if graph.constants[index].numel() <= graph.constants[table].numel():
        return Encoding(of_type, of_type)  # a selection of stored values, not a code-book
    own = [_bits_times(graph, table, plain, s.value) for s in plain.scales if s.axis is not None]
    own += [_bits_less(graph, table, plain, z.value) for z in plain.zeros if z.axis is not None]
    return Encoding(max(1, math.ceil(math.log2(max(size, 2)))), max((plain.compute_bits, *own)), table=table)


def folded_bits(graph: Graph, node: Node, vector: str | None, axis: int | None) -> int:
    """Bits of a layer's weights times the steps of its input along an axis, where these differ.

    Only a depthwise layer can take steps of its channels up behind its sums. Elsewhere they have to be folded into the
    weights; steps along rows and columns, or tokens, have no weight to be folded into, and are numbers of the type.
    """
    if vector is None:
        return 0
    weight, x = node.inputs[1], node.inputs[0]
    groups, shape, of_input = int(node.attributes.get("groups", 1)), graph.shapes[weight], graph.shapes[x]
    if axis != (len(of_input) - 1 if node.kind == "Linear" else 1):
        return bits_of(graph.types[weight])
    if node.kind == "Conv" and groups == of_input[1] and shape[1] == 1:
        return 0
    return _bits_times(graph, weight, encoding(graph, weight), vector)


def summed_bits(graph: Graph, weight: str, stored: Encoding, summed: Container[int]) -> int:
    """Bits of the products when the scales of a weight differ along axes that are summed over: codes times scales.

    Zero points along such axes do not fold out either: the products are with codes less the zero points.
    """
    scales, zeros = (
        [s.value for s in several if s.axis is not None and (s.axis in summed or s.axis < 0)]
        for several in (stored.scales, stored.zeros)
    )
    bits = [_bits_times(graph, weight, stored, vector) for vector in scales]
    return max((*bits, *(_bits_less(graph, weight, stored, vector) for vector in zeros)), default=0)


def _bits_less(graph: Graph, weight: str, stored: Encoding, vector: str) -> int:
    """Codes less zero points: integers of more bits where all zero points are integers, numbers of the type else."""
    of_type, points = bits_of(graph.types[weight]), graph.constants[vector].double()
    if points.device.type == "meta" or not bool((points == points.round()).all()):
        return of_type
    return min(of_type, max(stored.bits, math.ceil(math.log2(float(points.max() - points.min()) + 2**stored.bits))))


def _bits_times(graph: Graph, weight: str, stored: Encoding, vector: str) -> int:
    """Codes times numbers: short ones where all are multiples of the smallest, numbers of the type else."""
    of_type, steps = bits_of(graph.types[weight]), graph.constants[vector].double().reshape(-1).abs()
    if steps.device.type == "meta":
        return of_type
    ratios = steps / steps.min()
    if not stored.quantised or not bool(((ratios - ratios.round()).abs() < 1e-4).all()):
        return of_type
    return min(of_type, stored.bits + math.ceil(math.log2(float(ratios.max()))))


def chain_numbers(
    graph: Graph, chain: AffineChain, scales: tuple[str, ...], bias: str, channels: int
) -> Iterator[tuple[str, Hashable, int, int]]:
    """(role, key, count, bits) of the multiplier and of the shift that a layer and its chain come to.

    channels: there are never more of each than that.
    """
    multipliers = (*scales, *chain.multipliers)
    shifts = (bias, *chain.shifts) if bias else chain.shifts
    for role, values in (("multiplier", multipliers), ("shift", shifts)):
        if values:
            count = min(channels, max(math.prod(graph.shapes[v]) for v in values))
            yield role, (role, tuple(graph.keys[v] for v in values)), count, _folded_bits(graph, values)


def _folded_bits(graph: Graph, values: tuple[str, ...]) -> int:
    """Bits of what several vectors come to: two that are quantised come to one that is not."""
    vectors = [v for v in values if math.prod(graph.shapes[v]) > 1]
    quantised = {graph.keys[v] for v in vectors if encoding(graph, v).quantised}
    widest = max(encoding(graph, v).bits for v in values)
    return max(widest, *(bits_of(graph.types[v]) for v in vectors)) if len(quantised) > 1 else widest
