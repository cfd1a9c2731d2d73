"""Torch's zip files, read as strictly as torch writes them: stored entries one after another, known names, no tricks.

Readers of zip files disagree on damaged ones, and an attacker lives on that; so this accepts only files on which all
readers agree. Compressed entries are refused: torch never compresses, so there is no bomb to measure.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from contest.errors import RefusedError
from contest.untrusted.description import (
    CONVERT,
    FROM_KERAS,
    MAX_NAME,
    MAX_PICKLE_BYTES,
    MAX_TENSORS,
    Description,
    TensorInfo,
    check_totals,
    from_export,
    from_torchscript,
    shown,
)
from contest.untrusted.pickle_reader import Storage, interpret

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_KNOWN = re.compile(
    r"data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id|data/(0|[1-9]\d{0,4})"
)
_SMALL = 4096
_FLAGS = 0x0808  # sizes behind the data, names in UTF-8: what torch sets


@dataclass(frozen=True)
class ZipEntry:
    """One file of an archive: its name below the top folder and where its bytes stand."""

    name: str
    start: int
    size: int
    header: int


def describe_torch(content: bytes) -> Description:
    """Manifest and tensors of a `model.pt`. Raises RefusedError for any other zip file."""
    entries = read_entries(content)
    small = {n: content[e.start : e.start + e.size] for n, e in entries.items() if not n.startswith("data")}
    if any(len(data) > _SMALL for data in small.values()):
        raise RefusedError("the archive's own records are larger than torch writes them")
    if small.get("byteorder", b"little") != b"little":
        raise RefusedError("the file's numbers are not little-endian")
    pickle = entries.get("data.pkl")
    if pickle is None:
        raise RefusedError("the archive has no data.pkl; it is not a torch file")
    if pickle.size > MAX_PICKLE_BYTES:
        raise RefusedError(f"data.pkl has {pickle.size:,} bytes; the limit is {MAX_PICKLE_BYTES:,}")
    found = interpret(content[pickle.start : pickle.start + pickle.size])
    root = found.content
    if not isinstance(root, dict) or set(root) != {"format", "version", "manifest", "state"}:
        raise RefusedError(f"it is a torch file but not a model file of this project; {CONVERT}")
    manifest, state = root["manifest"], root["state"]
    if not isinstance(manifest, str) or not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
        raise RefusedError("the manifest must be text and the state tensors by name")
    tensors = {}
    for name, info in state.items():
        if not isinstance(info, TensorInfo):
            raise RefusedError(f"'{shown(name)}' is not a dense tensor but {shown(type(info).__name__)}")
        tensors[name] = info
    _check_storages(found.storages, entries)
    if len(tensors) != len(found.storages):
        raise RefusedError("two tensors share one storage; tensors must stand alone")
    check_totals(tensors)
    return Description("torch", len(content), tensors, manifest)


def _check_storages(storages: Mapping[str, Storage], entries: Mapping[str, ZipEntry]) -> None:
    data = {n.removeprefix("data/"): e for n, e in entries.items() if n.startswith("data/")}
    for key, storage in storages.items():
        if key not in data:
            raise RefusedError(f"storage '{shown(key)}' is named but not in the archive")
        if data[key].size != storage.size_bytes:
            raise RefusedError(
                f"storage '{shown(key)}' should have {storage.size_bytes:,} bytes and has {data[key].size:,}"
            )
    if unused := sorted(data.keys() - storages.keys()):
        raise RefusedError(f"the archive hides data that no tensor uses: 'data/{unused[0]}' ({len(unused)} in all)")


def read_entries(content: bytes) -> dict[str, ZipEntry]:
    """The entries by name below the top folder, each checked against its local header."""
    start, size, count = _end_of_archive(content)
    if count > MAX_TENSORS + 16:
        raise RefusedError(f"the archive has {count:,} entries; the limit is {MAX_TENSORS:,}")
    found: list[tuple[str, ZipEntry]] = []
    place = start
    for _ in range(count):
        full_name, entry, place = _central_entry(content, place, start + size)
        found.append((full_name, entry))
    if place != start + size:
        raise RefusedError("the archive's directory has bytes that belong to no entry")
    names = [name for name, _ in found]
    if len(set(names)) != len(names):
        double = next(n for n in names if names.count(n) > 1)
        raise RefusedError(f"the archive holds '{shown(double)}' twice")
    _check_names(names)
    _check_layout(sorted((e for _, e in found), key=lambda e: e.header), start)
    return {entry.name: entry for _, entry in found}


def _end_of_archive(content: bytes) -> tuple[int, int, int]:
    """(start, size, entries) of the central directory, which must end where the file ends."""
    end = len(content) - _END.size
    if end < 0 or content[end : end + 4] != b"PK\x05\x06":
        raise RefusedError("the zip archive is cut off, or something follows it")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(content, end)
    if disk or first_disk or here != count or comment:
        raise RefusedError("the zip archive is in several parts or has a comment; torch writes neither")
    stop = end
    locator = end - _LOCATOR.size
    if locator >= 0 and content[locator : locator + 4] == b"PK\x06\x07":
        _, disk, stop, disks = _LOCATOR.unpack_from(content, locator)
        if disk or disks != 1 or stop + _END64.size != locator or content[stop : stop + 4] != b"PK\x06\x06":
            raise RefusedError("the zip archive's end records do not fit together")
        _, _, _, _, disk, first_disk, here, count64, size64, start64 = _END64.unpack_from(content, stop)
        small = (min(count64, 0xFFFF), min(size64, 0xFFFFFFFF), min(start64, 0xFFFFFFFF))
        if disk or first_disk or here != count64 or small != (count, size, start):
            raise RefusedError("the zip archive has two directories that differ")
        count, size, start = count64, size64, start64
    if start + size != stop:
        raise RefusedError("the zip archive's directory is not where its end record says")
    return start, size, count


def _central_entry(content: bytes, place: int, stop: int) -> tuple[str, ZipEntry, int]:
    if place + _CENTRAL.size > stop or content[place : place + 4] != b"PK\x01\x02":
        raise RefusedError("the zip archive's directory is damaged")
    (_, _, _, flags, method, _, _, _, packed, size, name_size, extra, comment, disk, _, attributes, header) = (
        _CENTRAL.unpack_from(content, place)
    )
    raw = content[place + _CENTRAL.size : place + _CENTRAL.size + name_size]
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise RefusedError("the archive has an entry whose name is not UTF-8") from error
    label, below = shown(name), name.partition("/")[2]
    if below == "constants.pkl" or below.startswith("code/"):
        raise RefusedError(f"it is a TorchScript archive, which is code; {from_torchscript('FILE')}")
    if below == "archive_format" or below.startswith(("models/", "data/weights/")):
        raise RefusedError(f"it is a program of torch.export; {from_export('FILE')}")
    if flags & 1:
        raise RefusedError(f"entry '{label}' is encrypted")
    if method != 0 or packed != size:
        raise RefusedError(
            f"entry '{label}' is compressed ({packed:,} bytes for {size:,}); torch stores, so save again"
        )
    if (attributes >> 16) & 0o170000 not in (0, 0o100000):
        raise RefusedError(f"entry '{label}' is a link or a folder, not a file")
    if flags & ~_FLAGS or extra or comment or disk or not 0 < name_size <= MAX_NAME:
        raise RefusedError(f"entry '{label}' has fields that torch does not write")
    if header + _LOCAL.size > place or content[header : header + 4] != b"PK\x03\x04":
        raise RefusedError(f"entry '{label}' is not where the directory says")
    _, _, flags2, method2, _, _, _, packed2, size2, name_size2, extra2 = _LOCAL.unpack_from(content, header)
    begin = header + _LOCAL.size
    same = content[begin : begin + name_size2] == raw and (flags2, method2) == (flags, method)
    if not same or (packed2, size2) not in ((size, size), (0, 0), (0xFFFFFFFF, 0xFFFFFFFF)):
        raise RefusedError(f"entry '{label}' is described in two ways that differ")
    next_place = place + _CENTRAL.size + name_size
    return name, ZipEntry(below, begin + name_size2 + extra2, size, header), next_place


def _check_names(names: list[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    below = [name.partition("/")[2] for name in names]
    if any(n.startswith("code/") or n == "constants.pkl" for n in below):
        raise RefusedError(f"it is a TorchScript archive, which is code; {CONVERT}")
    if any("exported_program" in n or n == "archive_format" or n.startswith("models/") for n in (*below, *names)):
        raise RefusedError(f"it is a torch.export archive (.pt2), which is code; {CONVERT}")
    if any(n.endswith((".h5", ".keras", "config.json")) for n in names):
        raise RefusedError(f"it is a Keras archive; {FROM_KERAS}")
    if names and all(n.endswith(".npy") for n in names):
        raise RefusedError(f"it is a NumPy archive (.npz); {CONVERT}")
    for name in names:
        parts = name.split("/")
        if name.startswith("/") or "\\" in name or ".." in parts or not name.isprintable():
            raise RefusedError(f"the archive has an entry named '{shown(name)}', which leads elsewhere")
    odd = next((n for n, b in zip(names, below, strict=True) if not _KNOWN.fullmatch(b)), None)
    if odd is not None or len(tops) != 1:
        raise RefusedError(
            f"the archive has an entry '{shown(odd or names[-1] if names else '')}' that no torch file has"
        )


def _check_layout(entries: list[ZipEntry], directory: int) -> None:
    """Entries follow each other from the first byte on: no overlap, and nothing hidden between them."""
    place = 0
    for entry in entries:
        gap = entry.header - place
        if gap < 0:
            raise RefusedError(f"entry '{shown(entry.name)}' overlaps the one before")
        if gap > 24 or (place == 0 and gap):  # a data descriptor has at most 24 bytes
            raise RefusedError(f"{gap:,} bytes before entry '{shown(entry.name)}' belong to nothing")
        place = entry.start + entry.size
    if not place <= directory <= place + 24:
        raise RefusedError("the archive's entries and its directory overlap or leave a gap")
