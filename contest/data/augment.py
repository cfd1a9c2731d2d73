"""Augmentation of whole batches: uint8 [B, H, W, C] in, the same out, no loop over images.

Randomness comes in as arguments, so every function is exact and can be tested.
"""

from __future__ import annotations

import torch
from torch import Tensor

Box = tuple[int, int, int, int]


def scaled(pixels: int, height: int, width: int) -> int:
    """Pixels of a 32-pixel image in an image of this size; never so many that a reflection is impossible."""
    side = min(height, width)
    return min(round(pixels * side / 32), side - 1)


def crop(x: Tensor, down: Tensor, right: Tensor, padding: int) -> Tensor:
    """Windows of the reflected-padded images at offsets `down`, `right` int64 [B] in 0 .. 2 * padding."""
    batch, height, width, channels = x.shape
    x = x[:, _reflected(height, padding, x.device)][:, :, _reflected(width, padding, x.device)]
    tall, wide = height + 2 * padding, width + 2 * padding
    # Every row of every window is one run of width * channels bytes: a strided view over all pixels makes
    # each run a row that index_select copies whole.
    runs = x.as_strided((batch * tall * wide - width + 1, width * channels), (channels, 1))
    rows = torch.arange(batch, device=x.device)[:, None] * tall + down[:, None]
    rows = rows + torch.arange(height, device=x.device)
    return runs.index_select(0, (rows * wide + right[:, None]).flatten()).view(batch, height, width, channels)


def _reflected(size: int, padding: int, device: torch.device) -> Tensor:
    """Indices of an axis with its reflection about both edges, the edge not repeated: 2 1 0 1 2 ... ."""
    index = torch.arange(-padding, size + padding, device=device).abs()
    return (size - 1) - ((size - 1) - index).abs()


def flip(x: Tensor, mirrored: Tensor) -> Tensor:
    """The images where `mirrored` bool [B] is set from right to left."""
    return torch.where(mirrored[:, None, None, None], x.flip(2), x)


def cutout(x: Tensor, down: Tensor, right: Tensor, side: int, fill: Tensor) -> Tensor:
    """A square of `side` pixels around a centre, `down`, `right` in [0, 1) of the image, becomes `fill` [C].

    The square may reach over the edge (DeVries & Taylor 2017, arXiv 1708.04552); `fill` is the mean pixel,
    which normalisation takes to zero.
    """
    rows = _inside(down, side, x.shape[1])[:, :, None]
    columns = _inside(right, side, x.shape[2])[:, None, :]
    return torch.where((rows & columns)[..., None], fill, x)


def _inside(centre: Tensor, side: int, size: int) -> Tensor:
    """bool [B, size]: the positions that a square around `centre` covers."""
    start = (centre * size).long() - side // 2
    distance = torch.arange(size, device=centre.device) - start[:, None]
    return (distance >= 0) & (distance < side)


def box(share: float, down: float, right: float, height: int, width: int) -> Box:
    """(top, bottom, left, right) of the part that CutMix takes from the partner: `1 - share` of the area
    before it is clipped at the edges (Yun 2019, arXiv 1905.04899, algorithm 1)."""
    ratio = (1 - share) ** 0.5
    half_height, half_width = int(height * ratio) // 2, int(width * ratio) // 2
    y, x = int(down * height), int(right * width)
    return (
        max(y - half_height, 0),
        min(y + half_height, height),
        max(x - half_width, 0),
        min(x + half_width, width),
    )


def cutmix(x: Tensor, partner: Tensor, box: Box) -> tuple[Tensor, float]:
    """The images with `box` from their partners, and the share of the area that is still their own."""
    top, bottom, left, right = box
    mixed = x.clone()
    mixed[:, top:bottom, left:right] = x[partner, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (x.shape[1] * x.shape[2])


def to_float(x: Tensor) -> Tensor:
    """uint8 [B, H, W, C] to float32 [B, C, H, W] in [0, 1], channels last in memory."""
    return x.permute(0, 3, 1, 2).float().div_(255)
