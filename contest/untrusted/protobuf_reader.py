"""The wire format of protocol buffers, just enough to look into a message without building it."""

from __future__ import annotations

from collections.abc import Iterator

from contest.errors import RefusedError

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
