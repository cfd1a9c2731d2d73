"""Bit-packed networks: the parameter term of the score as bytes that exist.

A weight with zeros is a bitmask (1 bit an element) followed by its nonzero elements alone, each at its own bits; one
without zeros has no bitmask. Floats take 16 or 32 bits, integer codes b: the place of a code among the nonzero
integers from the tensor's lowest code on. So any 2^b consecutive nonzero codes fit, as the contest's rules allow
(-2, -1, 1, 2 are 2 bits), which two's complement cannot hold. All other numbers (steps, biases, affines) lie as they
are stored. A packed file is a header in JSON (manifest, tensors, what the model file was) and this payload.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contest.errors import RefusedError, UsageError
from contest.files import beside
from contest.model_file.manifest import code_bits

if TYPE_CHECKING:
    from contest.model_file import Network

MAGIC = b"CONTESTPACK1"
MAX_HEADER_BYTES = 8_000_000
TYPES = {"int8": torch.int8, "float16": torch.float16, "float32": torch.float32}


def pack_bits(codes: NDArray[np.integer], bits: int) -> bytes:
    """The low `bits` (1 to 8) of each code, most significant first, without gaps; zeros fill the last byte."""
    low = (codes.astype(np.int64) & (2**bits - 1)).astype(np.uint8)
    return np.packbits(np.unpackbits(low[:, None], axis=1)[:, 8 - bits :]).tobytes()


def unpack_bits(data: bytes, count: int, bits: int) -> NDArray[np.uint8]:
    """The inverse of `pack_bits`: `count` codes as unsigned numbers."""
    flat = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(count, bits)
    full = np.zeros((count, 8), np.uint8)
    full[:, 8 - bits :] = flat
    return np.packbits(full, axis=1).reshape(count)


def packed_tensor(tensor: Tensor, bits: int | None = None) -> bytes:
    """One tensor as bitmask (if it has zeros) and nonzero elements; `bits` for integer codes, none for floats.

    Raises UsageError for codes that so many bits cannot tell apart.
    """
    flat = tensor.detach().cpu().contiguous().flatten()
    alive = _alive(flat)
    elements = flat[alive]
    data = elements.numpy().tobytes() if bits is None else pack_bits(_places(elements, bits), bits)
    return data if bool(alive.all()) else np.packbits(alive.numpy()).tobytes() + data


def lowest_code(tensor: Tensor) -> int:
    """The least nonzero code of a tensor, from which on its codes are numbered; 0 for a tensor of zeros."""
    alive = tensor[tensor != 0]
    return int(alive.min()) if alive.numel() else 0


def _alive(flat: Tensor) -> Tensor:
    """Everything but +0: a negative zero is kept, so that the file comes back bit for bit."""
    return (flat != 0) | (torch.signbit(flat) if flat.is_floating_point() else torch.zeros_like(flat, dtype=torch.bool))


def _places(codes: Tensor, bits: int) -> NDArray[np.int64]:
    """Nonzero codes as their places 0, 1, 2, ... among the nonzero integers from the lowest code on."""
    lowest = lowest_code(codes)
    numbers: NDArray[np.int64] = codes.numpy().astype(np.int64)
    places = numbers - lowest - ((numbers > 0) & (lowest < 0))
    if codes.numel() and int(places.max()) >= 2**bits:
        raise UsageError(
            f"codes from {lowest} to {int(numbers.max())} are {int(places.max()) + 1} nonzero values, and {bits} bits "
            f"hold {2**bits}: give the layer more bits, or codes closer together"
        )
    return places


def _codes(places: NDArray[np.int64], lowest: int) -> NDArray[np.int64]:
    """The inverse of `_places`."""
    numbers = places + lowest
    return numbers + ((lowest < 0) & (numbers >= 0))


def unpacked_tensor(
    data: bytes,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    *,
    masked: bool,
    bits: int | None = None,
    lowest: int | None = None,
) -> Tensor:
    """The inverse of `packed_tensor`. `lowest` is the lowest code; None is two's complement, as in older files.

    Raises:
        RefusedError: the bytes are more or fewer than the shape, the mask and the bits ask for.
    """
    total = int(np.prod(shape, dtype=np.int64))
    alive = np.ones(total, dtype=bool)
    if masked:
        length = -(-total // 8)
        if len(data) < length:
            raise RefusedError(f"a packed tensor has {len(data)} bytes; its bitmask alone needs {length}")
        alive = np.unpackbits(np.frombuffer(data[:length], np.uint8), count=total).astype(bool)
        data = data[length:]
    count = int(alive.sum())
    needed = count * dtype.itemsize if bits is None else -(-count * bits // 8)
    if len(data) != needed:
        raise RefusedError(f"a packed tensor has {len(data)} bytes of elements; {needed} are needed")
    flat = torch.zeros(total, dtype=dtype)
    if count:
        flat[torch.from_numpy(alive)] = _decoded(data, count, dtype, bits, lowest)
    return flat.view(shape)


def _decoded(data: bytes, count: int, dtype: torch.dtype, bits: int | None, lowest: int | None) -> Tensor:
    if bits is None:
        return torch.frombuffer(bytearray(data), dtype=dtype)
    places = unpack_bits(data, count, bits).astype(np.int64)
    if lowest is not None:
        codes = _codes(places, lowest)
        if int(codes.max()) > 127:
            raise RefusedError(f"a packed tensor holds the code {int(codes.max())}; codes lie between -128 and 127")
    elif bits == 1:
        codes = places * 2 - 1
    else:
        codes = np.where(places >= 2 ** (bits - 1), places - 2**bits, places)
    return torch.from_numpy(codes).to(dtype)


@dataclass(frozen=True)
class PackedSize:
    """Bytes of a packed file."""

    header_bytes: int
    payload_bytes: int
    """What the parameter term of the score, with its bitmask, stands for."""


def pack(network: Network, path: Path, *, model: Path | None = None) -> PackedSize:
    """Write a network of `contest.model_file` packed, atomically. `unpack` gives the identical network back.

    model: the file that it was read from; its ending and its hash are noted, so that `unpack_file` can say whether it
        wrote the same bytes.

    Raises UsageError for a layer whose codes do not fit its bits.
    """
    from contest.model_file.file import stored_state

    bits = _code_bits(network)
    tensors, parts = [], []
    for name, tensor in stored_state(network.body).items():
        try:
            data = packed_tensor(tensor, bits.get(name))
        except UsageError as error:
            raise UsageError(f"layer '{name.removesuffix('.codes')}' cannot be packed: {error}") from error
        entry: dict[str, Any] = {
            "name": name,
            "type": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "bits": bits.get(name),
            "masked": not bool(_alive(tensor.flatten()).all()),
            "bytes": len(data),
        }
        if name in bits:
            entry["lowest"] = lowest_code(tensor)
        tensors.append(entry)
        parts.append(data)
    origin = None if model is None else {"suffix": model.suffix, "sha256": _sha256(model)}
    header = json.dumps({"manifest": network.manifest.text(), "tensors": tensors, "file": origin}).encode()
    payload = b"".join(parts)
    with beside(path) as part:
        part.write_bytes(MAGIC + struct.pack("<Q", len(header)) + header + payload)
    return PackedSize(len(MAGIC) + 8 + len(header), len(payload))


def unpack(path: Path) -> Network:
    """The network of a packed file, checked like a model file.

    Raises:
        RefusedError: it is no packed file, is damaged, or its manifest and tensors do not fit together.
    """
    return _unpacked(path, *_read(path))


def unpack_file(path: Path, out: Path | None = None) -> tuple[Path, bool]:
    """Write the model file of a packed one: (its path, whether its bytes are those of the file that was packed).

    The bytes are the same unless another version of torch (or of this program) wrote the first one; the network is
    the same in any case. out: default is the packed file's name with the ending that the model file had.

    Raises UsageError where the default is another file that exists.
    """
    from contest.model_file.file import save

    header, payload = _read(path)
    origin = header.get("file") or {}
    target = out or path.with_suffix(_suffix(origin))
    if out is None and target.exists() and _sha256(target) != origin.get("sha256"):
        raise UsageError(f"{target} exists and is not the file that was packed: name the file to write with --out")
    written = save(_unpacked(path, header, payload), target)
    return written, _sha256(written) == origin.get("sha256")


def _suffix(origin: Mapping[str, Any]) -> str:
    return ".safetensors" if origin.get("suffix") == ".safetensors" else ".pt"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpacked(path: Path, header: Mapping[str, Any], payload: bytes) -> Network:
    from contest.model_file.file import assemble
    from contest.model_file.manifest import parse_manifest

    state: dict[str, Tensor] = {}
    offset = 0
    for entry in header["tensors"]:
        name, shape, dtype, bits, masked, length, lowest = _checked(entry)
        state[name] = unpacked_tensor(
            payload[offset : offset + length], shape, dtype, masked=masked, bits=bits, lowest=lowest
        )
        offset += length
    if offset != len(payload):
        raise RefusedError(f"{path.name} has {len(payload) - offset} bytes after its last tensor")
    network = assemble(parse_manifest(header["manifest"]), state)
    wrong = {name: bits for name, bits in _code_bits(network).items() if _bits_of(header, name) != bits}
    if wrong:
        raise RefusedError(f"{path.name}: tensor '{next(iter(wrong))}' is packed at other bits than its layer has")
    return network


def _code_bits(network: Network) -> dict[str, int]:
    """Bits of each tensor that is packed as codes, by its name in the stored state; 8-bit numbers are as they are."""
    return {name: bits for name, bits in code_bits(network.body).items() if name.endswith(".codes") or bits < 8}


def _bits_of(header: Mapping[str, Any], name: str) -> int | None:
    return next((entry["bits"] for entry in header["tensors"] if entry["name"] == name), None)


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    content = path.read_bytes()
    start = len(MAGIC) + 8
    if not content.startswith(MAGIC) or len(content) < start:
        raise RefusedError(f"{path.name} is not a packed network; `contest pack model.pt` writes one")
    (length,) = struct.unpack("<Q", content[len(MAGIC) : start])
    if length > min(MAX_HEADER_BYTES, len(content) - start):
        raise RefusedError(f"{path.name} says that its header has {length:,} bytes; the limit is {MAX_HEADER_BYTES:,}")
    try:
        header = json.loads(content[start : start + length])
        fits = isinstance(header["manifest"], str) and isinstance(header["tensors"], list)
        fits = fits and isinstance(header.get("file") or {}, dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RefusedError(f"{path.name} has a damaged header: {error}") from error
    if not fits:
        raise RefusedError(f"{path.name} has a header without manifest and tensors")
    return header, content[start + length :]


def _checked(entry: Any) -> tuple[str, tuple[int, ...], torch.dtype, int | None, bool, int, int | None]:
    from contest.model_file.manifest import MAX_ELEMENTS

    try:
        name, shape, bits = entry["name"], tuple(entry["shape"]), entry["bits"]
        dtype, masked, length = TYPES[entry["type"]], entry["masked"], entry["bytes"]
        lowest = entry.get("lowest")
    except (AttributeError, KeyError, TypeError) as error:
        raise RefusedError(f"a packed tensor's description is damaged: {error}") from error
    sane = isinstance(name, str) and len(shape) <= 8 and all(type(s) is int and 0 < s <= MAX_ELEMENTS for s in shape)
    sane = sane and type(masked) is bool and type(length) is int and length >= 0
    sane = sane and (bits is None or (type(bits) is int and 1 <= bits <= 8 and dtype is torch.int8))
    sane = sane and (lowest is None or (type(lowest) is int and -128 <= lowest <= 127))
    if not sane or np.prod(np.array(shape, dtype=float)) > MAX_ELEMENTS:
        raise RefusedError(f"packed tensor {str(name)[:100]!r} has an impossible shape, type or number of bits")
    return name, shape, dtype, bits, masked, length, lowest
