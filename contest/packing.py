"""Bit-packed networks: the parameter term of the score as bytes that exist.

A tensor with zeros is a bitmask (1 bit an element) followed by its nonzero elements alone, each at its own
bits; one without zeros has no bitmask. Integer codes take b bits (1 for binary), floats 16 or 32.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]


def pack_bits(codes: NDArray[np.integer], bits: int) -> bytes:
    """The low `bits` (1 to 8) of each code, most significant first, without gaps; zeros fill the last byte."""
    low = (codes.astype(np.int64) & (2**bits - 1)).astype(np.uint8)
    return np.packbits(np.unpackbits(low[:, None], axis=1)[:, 8 - bits :]).tobytes()


def unpack_bits(data: bytes, count: int, bits: int) -> Bytes:
    """The inverse of `pack_bits`: `count` codes as unsigned numbers."""
    flat = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(count, bits)
    full = np.zeros((count, 8), np.uint8)
    full[:, 8 - bits :] = flat
    return np.packbits(full, axis=1).reshape(count)


def packed_tensor(tensor: Tensor, bits: int | None = None) -> bytes:
    """One tensor as bitmask (if it has zeros) and nonzero elements; `bits` for integer codes, none for floats."""
    flat = tensor.detach().cpu().contiguous().flatten()
    alive = flat != 0
    if bool(alive.all()):
        return _elements(flat, bits)
    return np.packbits(alive.numpy()).tobytes() + _elements(flat[alive], bits)


def _elements(flat: Tensor, bits: int | None) -> bytes:
    if bits is None:
        return flat.numpy().tobytes()
    codes: NDArray[np.integer] = flat.numpy()
    if bits == 1:
        codes = (codes > 0).astype(np.uint8)  # -1 and +1
    return pack_bits(codes, bits)


def unpacked_tensor(data: bytes, like: Tensor, *, masked: bool, bits: int | None = None) -> Tensor:
    """The inverse of `packed_tensor`: a tensor of `like`'s shape and type."""
    total = like.numel()
    alive = torch.ones(total, dtype=torch.bool)
    if masked:
        length = -(-total // 8)
        alive = torch.from_numpy(np.unpackbits(np.frombuffer(data[:length], np.uint8), count=total).astype(bool))
        data = data[length:]
    count = int(alive.sum())
    flat = torch.zeros(total, dtype=like.dtype)
    if bits is None:
        flat[alive] = torch.frombuffer(bytearray(data), dtype=like.dtype)[:count] if count else flat[alive]
    else:
        codes = unpack_bits(data, count, bits).astype(np.int16)
        signed = codes * 2 - 1 if bits == 1 else np.where(codes >= 2 ** (bits - 1), codes - 2**bits, codes)
        flat[alive] = torch.from_numpy(signed).to(like.dtype)
    return flat.view(like.shape)
