"""From a path to a description: regular file, size, format by content, then the format's own gate."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contest.errors import RefusedError
from contest.untrusted.description import CONVERT, FROM_KERAS, MAX_FILE_BYTES, Description, Kind, from_export, shown
from contest.untrusted.onnx_reader import describe_onnx, other_files, with_weights_inside
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
        names = other_files(content)
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
        one.write_bytes(with_weights_inside(content, {name: read_regular(file) for name, file in beside.items()}))
        yield one


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
