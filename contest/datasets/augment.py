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
    wide = width + 2 * padding
    padded = x.new_empty(batch, height, wide, channels)
    padded[:, :, padding : padding + width] = x
    padded[:, :, :padding] = x[:, :, 1 : padding + 1].flip(2)
    padded[:, :, padding + width :] = x[:, :, width - 1 - padding : width - 1].flip(2)
    rows = torch.arange(-padding, height - padding, device=x.device) + down[:, None]
    rows = (height - 1) - ((height - 1) - rows.abs()).abs()  # reflected, the edge not repeated: 2 1 0 1 2
    rows = rows + torch.arange(batch, device=x.device)[:, None] * height
    # Every row of every window is one run of width * channels bytes: a strided view over all pixels makes
    # each run a row that index_select copies whole, five times faster than indexing pixels.
    runs = padded.as_strided((batch * height * wide - width + 1, width * channels), (channels, 1))
    return runs.index_select(0, (rows * wide + right[:, None]).flatten()).view(x.shape)


def flip(x: Tensor, mirrored: Tensor) -> Tensor:
    """The images where `mirrored` bool [B] is set from right to left."""
    pick = torch.arange(len(x), device=x.device) + len(x) * mirrored
    return torch.cat([x, x.flip(2)]).index_select(0, pick)


def cutout(x: Tensor, down: Tensor, right: Tensor, side: int, fill: Tensor) -> Tensor:
    """A square of `side` pixels around a centre, `down`, `right` in [0, 1) of the image, becomes `fill` [C].

    The square may reach over the edge (DeVries & Taylor 2017, arXiv 1708.04552); `fill` is the mean pixel,
    which normalisation takes to zero.
    """
    batch, height, width, channels = x.shape
    offset = torch.arange(side, device=x.device) - side // 2
    # The centre lies inside, so what is clamped to the edge is inside the square too.
    rows = ((down * height).long()[:, None] + offset).clamp(0, height - 1)
    columns = ((right * width).long()[:, None] + offset).clamp(0, width - 1)
    rows = rows + torch.arange(batch, device=x.device)[:, None] * height
    cut = x.clone()
    cut.view(-1, channels)[(rows[:, :, None] * width + columns[:, None, :]).flatten()] = fill
    return cut


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
    mixed[:, top:bottom, left:right] = x.index_select(0, partner)[:, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (x.shape[1] * x.shape[2])


def to_float(x: Tensor) -> Tensor:
    """uint8 [B, H, W, C] to float32 [B, C, H, W] in [0, 1], channels last in memory."""
    return x.permute(0, 3, 1, 2).float().div_(255)
