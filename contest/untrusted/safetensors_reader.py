"""The header of a `.safetensors` file: lengths, types, shapes and offsets, checked before the library sees it."""

from __future__ import annotations

import json
import re
from typing import Any

from contest.errors import RefusedError
from contest.untrusted.description import (
    CONVERT,
    MAX_HEADER_BYTES,
    MAX_JSON_DEPTH,
    MAX_TENSORS,
    Description,
    TensorInfo,
    check_name,
    check_shape,
    check_totals,
    shown,
)

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(b for b in range(256) if b not in b"{}[]")
TYPES = {"F32": ("float32", 4), "F16": ("float16", 2), "I8": ("int8", 1)}


def describe_safetensors(content: bytes) -> Description:
    """Manifest and tensors of a `.safetensors` file. Raises RefusedError, naming what is wrong."""
    length = int.from_bytes(content[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise RefusedError(f"the header says that it has {length:,} bytes; the limit is {MAX_HEADER_BYTES:,}")
    if len(content) < 8 + length:
        raise RefusedError(f"the header says that it has {length:,} bytes; the file has {len(content):,} in all")
    header = _parse(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise RefusedError("the metadata in the header must be text by name")
    if len(header) > MAX_TENSORS:
        raise RefusedError(f"the file holds {len(header):,} tensors; the limit is {MAX_TENSORS:,}")
    if "manifest" not in metadata:
        raise RefusedError(f"there is no manifest in its metadata; it is no model file of this project; {CONVERT}")
    tensors, places = {}, []
    for name, entry in header.items():
        check_name(name)
        tensors[name], place = _tensor(name, entry)
        places.append((*place, name))
    _check_places(sorted(places), len(content) - 8 - length)
    check_totals(tensors)
    return Description("safetensors", len(content), tensors, metadata["manifest"])


def _parse(text: bytes) -> dict[str, Any]:
    depth = deepest(text)
    if depth > MAX_JSON_DEPTH:
        raise RefusedError(f"the header is nested {depth:,} deep; the limit is {MAX_JSON_DEPTH}")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the header is not valid JSON: {shown(str(error))}") from error
    if not isinstance(header, dict):
        raise RefusedError("the header is not a JSON object")
    return header


def deepest(text: bytes) -> int:
    """How deeply brackets are nested in JSON text, strings left out. Linear, and without recursion."""
    depth = most = 0
    for byte in _STRINGS.sub(b"", text).translate(None, _NOT_BRACKETS):
        depth += 1 if byte in b"{[" else -1
        most = max(most, depth)
    return most


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands in it twice")
    return result


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _tensor(name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    label = shown(name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise RefusedError(f"tensor '{label}' is not described by dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise RefusedError(f"tensor '{label}' is {shown(str(kind))}; a model file holds I8, F32 and F16")
    dtype, width = TYPES[kind]
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise RefusedError(f"tensor '{label}' has a shape or offsets that are not lists")
    info = TensorInfo(dtype, check_shape(name, shape))
    begin, end = offsets
    if type(begin) is not int or type(end) is not int or begin < 0 or end - begin != info.elements * width:
        raise RefusedError(
            f"tensor '{label}' of shape {info.shape} needs {info.elements * width:,} bytes; its offsets say otherwise"
        )
    return info, (begin, end)


def _check_places(places: list[tuple[int, int, str]], size: int) -> None:
    """Tensors follow each other without overlap or gap, up to the end of the file."""
    at = 0
    for begin, end, name in places:
        if begin != at:
            how = "overlaps another one" if begin < at else f"leaves a gap of {begin - at:,} bytes before it"
            raise RefusedError(f"tensor '{shown(name)}' {how}")
        at = end
    if at != size:
        raise RefusedError(f"the tensors have {at:,} bytes and the file {size:,}")
