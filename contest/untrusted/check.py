"""From a path to a description: regular file, size, format by content, then the format's own gate.

An ONNX model whose weights lie in a file beside it becomes one file first (`whole_file`).
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from contest.errors import RefusedError
from contest.untrusted.description import (
    CONVERT,
    FROM_KERAS,
    MAX_FILE_BYTES,
    MAX_NAME,
    Description,
    Kind,
    from_export,
    shown,
)
from contest.untrusted.onnx_reader import LENGTH, Span, Value, damaged, describe_onnx, fields, message, text_of, varint
from contest.untrusted.safetensors_reader import describe_safetensors
from contest.untrusted.zip_reader import describe_torch

ENDINGS: dict[str, Kind] = {".pt": "torch", ".safetensors": "safetensors", ".onnx": "onnx"}

# First bytes of what people send by mistake, and what it is.
FOREIGN = (
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive"),
    (b"7z\xbc\xaf", "a 7-zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"GGUF", "a GGUF file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#!", "a script"),
    (b"\x89PNG", "a picture"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"<", "a web page or XML"),
    (b"PK\x05\x06", "an empty zip archive"),
)


def check_file(path: Path) -> Description:
    """Look at a model file without deserialising it.

    Raises RefusedError, saying what is wrong and how to convert it, for whatever is not a well-formed `.pt`,
    `.safetensors` or `.onnx` file within the caps of `contest.untrusted.description`.
    """
    return check_bytes(read_regular(path), path.name)


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file within the size cap; never waits on a FIFO or a device."""
    name = shown(path.name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise RefusedError(f"'{name}' cannot be opened: {reason}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"'{name}' is not a regular file but {_kind_of(status.st_mode)}")
        if status.st_size > MAX_FILE_BYTES:
            raise RefusedError(f"'{name}' has {status.st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}")
        content = bytearray()
        while chunk := os.read(descriptor, min(1 << 24, MAX_FILE_BYTES + 1 - len(content))):
            content += chunk
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE_BYTES:
        raise RefusedError(f"'{name}' grew while it was read; the limit is {MAX_FILE_BYTES:,} bytes")
    return bytes(content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The file, or, for an ONNX model whose weights lie in a file beside it, one of the same name that holds both.

    Looks at the bytes alone, as all of this package does. Only files of the same folder are taken in.
    """
    if path.suffix.lower() != ".onnx" or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        yield path
        return
    content = read_regular(path)
    try:
        names = _other_files(content)
    except RefusedError:
        names = []  # no ONNX file: what reads it says so
    beside = {name: path.parent / name for name in names}
    if not names or any(name != Path(name).name or not file.is_file() for name, file in beside.items()):
        yield path
        return
    if path.stat().st_size + sum(file.stat().st_size for file in beside.values()) > MAX_FILE_BYTES:
        raise RefusedError(f"'{shown(path.name)}' and its weights have more than {MAX_FILE_BYTES:,} bytes")
    with tempfile.TemporaryDirectory(prefix="contest-") as folder:
        one = Path(folder) / path.name
        one.write_bytes(_with_weights_inside(content, {name: read_regular(file) for name, file in beside.items()}))
        yield one


def _other_files(content: bytes) -> list[str]:
    """Names of the files that an ONNX model's tensors lie in; none where it is whole."""
    found: dict[str, None] = {}
    for number, value in fields(content, (0, len(content))):
        if number != 7 or isinstance(value, int):
            continue
        for field, inner in fields(content, value):
            if field == 5 and not isinstance(inner, int):
                spans_ = [v for n, v in fields(content, inner) if n == 13 and not isinstance(v, int)]
                if spans_:
                    found[_places(content, spans_).get("location", "")] = None
    return list(found)


def _with_weights_inside(content: bytes, beside: Mapping[str, bytes]) -> bytes:
    """An ONNX model whose tensors lie in other files, with all of them in itself.

    beside: the other files' bytes by name. Raises RefusedError for places that they do not hold.
    """
    parts = []
    for number, value, raw in _raw_fields(content, (0, len(content))):
        if number == 7 and not isinstance(value, int):
            graph = [
                _field(5, _inside(content, inner, beside)) if field == 5 and not isinstance(inner, int) else bytes_
                for field, inner, bytes_ in _raw_fields(content, value)
            ]
            raw = _field(7, b"".join(graph))
        parts.append(raw)
    return b"".join(parts)


def _inside(content: bytes, span: Span, beside: Mapping[str, bytes]) -> bytes:
    """A stored tensor with its numbers in itself."""
    fields_ = list(_raw_fields(content, span))
    if not any(number == 13 for number, _, _ in fields_):
        return content[span[0] : span[1]]
    where = _places(content, [value for number, value, _ in fields_ if number == 13 and not isinstance(value, int)])
    data = beside.get(where.get("location", ""), b"")
    try:
        start = int(where.get("offset", "0"))
        size = int(where.get("length", str(len(data) - start)))
    except ValueError as error:
        raise damaged() from error
    if start < 0 or size < 0 or start + size > len(data):
        raise RefusedError(
            f"a tensor lies at {start:,} to {start + size:,} of '{shown(where.get('location', ''))}', which has "
            f"{len(data):,} bytes: the two files are not of one export"
        )
    kept = b"".join(raw for number, _, raw in fields_ if number not in (13, 14, 9))
    return kept + _field(9, data[start : start + size])


def _places(content: bytes, entries: Sequence[Span]) -> dict[str, str]:
    """`location`, `offset` and `length` of external data."""
    found = {}
    for entry in entries:
        pair = message(content, entry, 4, "a place of external data")
        key = text_of(content, pair.get(1), MAX_NAME, "a key of external data")
        found[key] = text_of(content, pair.get(2), MAX_NAME, "a place of external data")
    return found


def _raw_fields(content: bytes, span: Span) -> Iterator[tuple[int, Value, bytes]]:
    """The fields of a message, each with its bytes and its tag, so that one can be written with a few changed."""
    place = span[0]
    for number, value in fields(content, span):
        end = _behind(content, place, span[1]) if isinstance(value, int) else value[1]
        yield number, value, content[place:end]
        place = end


def _behind(content: bytes, place: int, end: int) -> int:
    """The place behind a tag and a varint."""
    for _ in range(2):
        _, place = varint(content, place, end)
    return place


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes: a text, a block of numbers or a nested message."""
    return _varint_bytes(number << 3 | LENGTH) + _varint_bytes(len(value)) + value


def _varint_bytes(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*parts, value))


def check_bytes(content: bytes, name: str) -> Description:
    """The same for bytes that are already in memory; `name` gives the ending and stands in messages."""
    kind = sniff(content, name)
    ending = Path(name).suffix.lower()
    if ending == ".pt2":
        raise RefusedError(f"'{shown(name)}' is a program of torch.export; {from_export(shown(name))}")
    if ending not in ENDINGS:
        raise RefusedError(f"'{shown(name)}': '{shown(ending)}' is none of {', '.join(ENDINGS)}; {CONVERT}")
    if ENDINGS[ending] != kind:
        right = next(e for e, k in ENDINGS.items() if k == kind)
        raise RefusedError(f"'{shown(name)}' holds {kind} and not what its ending says; rename it to {right}")
    try:
        if kind == "torch":
            return describe_torch(content)
        return describe_safetensors(content) if kind == "safetensors" else describe_onnx(content)
    except RefusedError as error:
        raise RefusedError(f"{shown(name)}: {error}") from error


def sniff(content: bytes, name: str = "the file") -> Kind:
    """The format by content. Raises RefusedError for everything else, with the way to convert it."""
    name = shown(name)
    if not content:
        raise RefusedError(f"'{name}' is empty (0 bytes)")
    if content.startswith(b"PK\x03\x04"):
        return "torch"
    if content.startswith(b"\x89HDF"):
        raise RefusedError(f"'{name}' is a Keras or HDF5 file; {FROM_KERAS}")
    for magic, what in FOREIGN:
        if content.startswith(magic):
            raise RefusedError(f"'{name}' is {what}; the contest reads .pt, .safetensors and .onnx; {CONVERT}")
    if content[257:262] == b"ustar":
        raise RefusedError(f"'{name}' is a tar archive (or torch's oldest format), which needs unpickling; {CONVERT}")
    if content[4:8] == b"TFL3":
        raise RefusedError(f"'{name}' is a TensorFlow Lite model; {FROM_KERAS}")
    if len(content) >= 9 and content[8:9] == b"{":
        return "safetensors"
    if content[:1] == b"\x80" or content[:1] in (b"(", b"c", b"]", b"}"):
        raise RefusedError(
            f"'{name}' is a pickle, and not a model file that opens without running code; save it with this project, "
            f"or {CONVERT}"
        )
    if content[0] in (0x08, 0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A, 0x42):  # fields 1 to 8 of ModelProto
        return "onnx"
    raise RefusedError(f"'{name}' is none of .pt, .safetensors and .onnx by its content; {CONVERT}")


def _kind_of(mode: int) -> str:
    names = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")
