"""An ONNX file, looked through on the wire before `onnx` builds, checks or runs anything.

Refused here: external data, functions, control flow and subgraphs, sparse and string tensors, operators of unknown
domains, cycles, and whatever exceeds the caps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contest.errors import RefusedError
from contest.untrusted.description import (
    MAX_ATTRIBUTES,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_NAME,
    MAX_NODES,
    MAX_TENSORS,
    Description,
    TensorInfo,
    check_name,
    check_shape,
    check_totals,
    shown,
)

Span = tuple[int, int]
"""Where a nested message, a text or a block of numbers stands in the file: [start, end)."""
Value = int | Span

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def fields(content: bytes, span: Span) -> Iterator[tuple[int, Value]]:
    """(field number, number or span) of each field in a message. Raises RefusedError where it is damaged."""
    place, end = span
    while place < end:
        tag, place = varint(content, place, end)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise damaged()
        if kind == VARINT:
            value, place = varint(content, place, end)
            yield number, value
            continue
        if kind == LENGTH:
            size, place = varint(content, place, end)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise damaged()
        if place + size > end:
            raise damaged()
        yield number, (place, place + size)
        place += size


def message(content: bytes, span: Span, limit: int, what: str) -> dict[int, list[Value]]:
    """All fields of a message by number, at most `limit` of them."""
    found: dict[int, list[Value]] = {}
    for count, (number, value) in enumerate(fields(content, span)):
        if count >= limit:
            raise RefusedError(f"{what} has more than {limit:,} fields")
        found.setdefault(number, []).append(value)
    return found


def varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    """(number, place behind it)."""
    result = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise damaged()
        byte = content[place]
        place += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFF_FFFF_FFFF_FFFF, place
    raise damaged()


def signed(value: int) -> int:
    """A varint as int64."""
    return value - (1 << 64) if value >> 63 else value


def span_of(values: list[Value] | None) -> Span | None:
    """The one span of a field that stands at most once; protobuf would merge several, which hides things."""
    if not values:
        return None
    if len(values) > 1 or isinstance(values[0], int):
        raise damaged()
    return values[0]


def spans(values: list[Value] | None) -> list[Span]:
    """The spans of a repeated field."""
    found = [v for v in values or () if not isinstance(v, int)]
    if len(found) != len(values or ()):
        raise damaged()
    return found


def number_of(values: list[Value] | None, default: int = 0) -> int:
    """The one number of a field."""
    if not values:
        return default
    if len(values) > 1 or not isinstance(values[0], int):
        raise damaged()
    return values[0]


def numbers(content: bytes, values: list[Value] | None, limit: int) -> list[int]:
    """A repeated integer field, packed or not, as int64; at most `limit` of them."""
    found: list[int] = []
    for value in values or ():
        if isinstance(value, int):
            found.append(signed(value))
        else:
            place, end = value
            while place < end and len(found) <= limit:
                item, place = varint(content, place, end)
                found.append(signed(item))
        if len(found) > limit:
            raise RefusedError(f"a list has more than {limit:,} numbers")
    return found


def text_of(content: bytes, values: list[Value] | None, limit: int, what: str) -> str:
    """A text field of at most `limit` bytes; empty if it is absent."""
    span = span_of(values)
    return "" if span is None else text(content, span, limit, what)


def text(content: bytes, span: Span, limit: int, what: str) -> str:
    """UTF-8 text of at most `limit` bytes."""
    if span[1] - span[0] > limit:
        raise RefusedError(f"{what} has {span[1] - span[0]:,} bytes; the limit is {limit:,}")
    try:
        return content[span[0] : span[1]].decode()
    except UnicodeDecodeError as error:
        raise RefusedError(f"{what} is not UTF-8 text") from error


def damaged() -> RefusedError:
    return RefusedError("it is not a protocol buffer of ONNX, or it is cut off or damaged")


WHOLE = (
    "put both files into one folder and score the .onnx file there, or write one file: `torch.onnx.export(..., "
    "external_data=False)`, or python -c \"import onnx; onnx.save(onnx.load('FILE.onnx'), 'whole.onnx')\""
)
DOMAINS = ("", "ai.onnx", "qonnx.custom_op.general", "onnx.brevitas", "com.microsoft")
"""The last one has operators that ONNX Runtime writes; the reader refuses those that it does not know."""
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
MAX_VALUES = 64
"""Inputs or outputs of one node."""

# TensorProto.DataType -> (name, bits of one number)
TYPES = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    16: ("bfloat16", 16),
    17: ("float8_e4m3fn", 8),
    18: ("float8_e4m3fnuz", 8),
    19: ("float8_e5m2", 8),
    20: ("float8_e5m2fnuz", 8),
    21: ("uint4", 4),
    22: ("int4", 4),
    25: ("uint2", 2),
    26: ("int2", 2),
}


def describe_onnx(content: bytes) -> Description:
    """Stored tensors and number of nodes of an ONNX file. Raises RefusedError, naming what is wrong."""
    model = message(content, (0, len(content)), 4_096, "the model")
    if 25 in model:
        raise RefusedError("the model has functions; inline them before submitting")
    if 20 in model:
        raise RefusedError("the model has training information; export it for inference")
    graph_span = span_of(model.get(7))
    if graph_span is None:
        raise RefusedError("the file has no graph; it is not an ONNX model")
    limit = MAX_NODES + MAX_TENSORS + 100_000  # value infos and annotations, one or two for each value
    graph = message(content, graph_span, limit, "the graph")
    if 15 in graph:
        raise RefusedError("the graph has sparse tensors; store them dense")
    nodes = spans(graph.get(1))
    if len(nodes) > MAX_NODES:
        raise RefusedError(f"the graph has {len(nodes):,} nodes; the limit is {MAX_NODES:,}")
    if len(graph.get(5, ())) > MAX_TENSORS:
        raise RefusedError(f"the graph has {len(graph[5]):,} stored tensors; the limit is {MAX_TENSORS:,}")
    tensors: dict[str, TensorInfo] = {}
    for span in spans(graph.get(5)):
        name, info = _tensor(content, span, "a stored tensor")
        if name in tensors:
            raise RefusedError(f"tensor '{shown(name)}' is stored twice")
        check_name(name)
        tensors[name] = info
    known = {"", *tensors}
    known.update(_value_info(content, span) for span in spans(graph.get(11)))
    for span in (*spans(graph.get(12)), *spans(graph.get(13))):
        _value_info(content, span)
    links = []
    for index, span in enumerate(nodes):
        found, link = _node(content, span, index)
        tensors.update(found)
        links.append(link)
    _check_order(links, known)
    check_totals(tensors)
    return Description("onnx", len(content), tensors, nodes=len(nodes))


@dataclass(frozen=True)
class Link:
    """What a node reads and makes; label: its name for people."""

    label: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]


def _check_order(links: Sequence[Link], known: set[str]) -> None:
    """Nodes can be carried out in some order, as ONNX Runtime does, and no value is made twice."""
    made = set(known)
    for link in links:
        for name in link.makes:
            if name and name in made:
                raise RefusedError(f"'{link.label}' makes '{shown(name)}', which exists already")
            made.add(name)
    waiting: dict[str, list[int]] = {}
    missing = [len(set(link.reads) - known) for link in links]
    for i, link in enumerate(links):
        for name in set(link.reads) - known:
            if name not in made:
                raise RefusedError(f"'{link.label}' reads '{shown(name)}', which nothing makes")
            waiting.setdefault(name, []).append(i)
    ready = [i for i, count in enumerate(missing) if not count]
    for i in ready:
        for name in links[i].makes:
            for reader in waiting.get(name, ()):
                missing[reader] -= 1
                if not missing[reader]:
                    ready.append(reader)
    if len(ready) < len(links):
        stuck = next(link for link, count in zip(links, missing, strict=True) if count)
        raise RefusedError(f"'{stuck.label}' needs what it makes itself: the graph has a cycle")


def _node(content: bytes, span: Span, index: int) -> tuple[dict[str, TensorInfo], Link]:
    """Check one node. Returns the tensors in its attributes, and what it reads and makes."""
    node = message(content, span, 4 * MAX_VALUES + MAX_ATTRIBUTES, f"node {index}")
    name = text_of(content, node.get(3), MAX_NAME, "the name of a node") or f"node {index}"
    label = shown(name)
    operator = text_of(content, node.get(4), MAX_NAME, "the operator of a node")
    domain = text_of(content, node.get(7), MAX_NAME, "the domain of a node")
    if domain.startswith("com.microsoft.nchwc") or domain.startswith("com.ms.internal"):
        raise RefusedError(
            f"'{label}' is operator '{shown(operator)}' in the layout of one machine: ONNX Runtime wrote this file "
            "with all optimisations; write it with graph_optimization_level ORT_ENABLE_BASIC, or submit the file before"
        )
    if domain not in DOMAINS:
        raise RefusedError(f"'{label}' is operator '{shown(operator)}' of the unknown domain '{shown(domain)}'")
    if operator in CONTROL_FLOW:
        raise RefusedError(f"'{label}' is control flow ({operator}); export a graph without it")
    if max(len(node.get(1, ())), len(node.get(2, ()))) > MAX_VALUES:
        raise RefusedError(f"'{label}' has more than {MAX_VALUES} inputs or outputs")
    reads = tuple(text(content, value, MAX_NAME, f"an input of '{label}'") for value in spans(node.get(1)))
    makes = tuple(text(content, value, MAX_NAME, f"an output of '{label}'") for value in spans(node.get(2)))
    attributes = spans(node.get(5))
    if len(attributes) > MAX_ATTRIBUTES:
        raise RefusedError(f"'{label}' has {len(attributes)} attributes; the limit is {MAX_ATTRIBUTES}")
    found = {
        f"{name}/{i}": info for i, a in enumerate(attributes) if (info := _attribute(content, a, label)) is not None
    }
    return found, Link(label, reads, makes)


def _attribute(content: bytes, span: Span, label: str) -> TensorInfo | None:
    attribute = message(content, span, 100_000, f"an attribute of '{label}'")
    if attribute.keys() & {6, 11}:
        raise RefusedError(f"'{label}' carries a graph of its own; export a graph without control flow")
    if attribute.keys() & {10, 22, 23}:
        raise RefusedError(f"'{label}' carries sparse tensors or a list of tensors; store them dense, one by one")
    if 21 in attribute:
        raise RefusedError(f"'{label}' refers to the attribute of a function")
    tensor = span_of(attribute.get(5))
    return None if tensor is None else _tensor(content, tensor, f"the constant of '{label}'")[1]


def _tensor(content: bytes, span: Span, what: str) -> tuple[str, TensorInfo]:
    tensor = message(content, span, 100_000, what)
    name = text_of(content, tensor.get(8), MAX_NAME, f"the name of {what}")
    label = name or what
    if 13 in tensor or number_of(tensor.get(14)):
        raise RefusedError(f"tensor '{shown(label)}' lies in another file (external data); {WHOLE}")
    if 3 in tensor:
        raise RefusedError(f"tensor '{shown(label)}' is a segment of a larger one")
    shape = (
        check_shape(label, numbers(content, tensor.get(1), MAX_DIMENSIONS + 1)) if not _empty(content, tensor) else ()
    )
    code = number_of(tensor.get(2))
    if code not in TYPES:
        raise RefusedError(f"tensor '{shown(label)}' is of type {code}, which is not a plain number")
    dtype, bits = TYPES[code]
    info = TensorInfo(dtype, (0,) if _empty(content, tensor) else shape)
    raw = span_of(tensor.get(9))
    if raw is not None:
        expected = (info.elements * bits + 7) // 8
        if raw[1] - raw[0] != expected:
            raise RefusedError(
                f"tensor '{shown(label)}' of shape {info.shape} needs {expected:,} bytes and has {raw[1] - raw[0]:,}"
            )
        return name, info
    stored = sum(_size(value) for number in (4, 5, 7, 10, 11) for value in tensor.get(number, ()))
    if info.elements > 2 * stored:  # the narrowest numbers: two in a byte
        raise RefusedError(f"tensor '{shown(label)}' of shape {info.shape} has only {stored:,} bytes of numbers")
    return name, info


def _empty(content: bytes, tensor: dict[int, list[Value]]) -> bool:
    """The one empty tensor that exporters write: a list of no numbers (`roi` of Resize, axes). It stores nothing."""
    return numbers(content, tensor.get(1), MAX_DIMENSIONS + 1) == [0] and not any(
        _size(value) for number in (4, 5, 7, 9, 10, 11) for value in tensor.get(number, ())
    )


def _size(value: Value) -> int:
    return 1 if isinstance(value, int) else value[1] - value[0]


def _value_info(content: bytes, span: Span) -> str:
    """The name of a graph's input, output or value; its declared shape must be within the caps."""
    info = message(content, span, 16, "the description of a value")
    name = text_of(content, info.get(1), MAX_NAME, "the name of a value")
    kind_span = span_of(info.get(2))
    if kind_span is None:
        return name
    kind = message(content, kind_span, 16, f"the type of '{shown(name)}'")
    if kind.keys() - {1, 6}:
        raise RefusedError(f"'{shown(name)}' is not a dense tensor (a sequence, map, optional or sparse tensor)")
    tensor_span = span_of(kind.get(1))
    if tensor_span is None:
        return name
    tensor = message(content, tensor_span, 16, f"the type of '{shown(name)}'")
    shape_span = span_of(tensor.get(2))
    if shape_span is None:
        return name
    elements = 1
    dims = spans(message(content, shape_span, MAX_DIMENSIONS + 1, f"the shape of '{shown(name)}'").get(1))
    for dim in dims:
        size = number_of(message(content, dim, 4, "a dimension").get(1), 1)
        elements *= max(size, 1)
    if elements > MAX_ELEMENTS or len(dims) > MAX_DIMENSIONS:
        raise RefusedError(f"'{shown(name)}' has a declared shape of more than {MAX_ELEMENTS:,} numbers")
    return name
