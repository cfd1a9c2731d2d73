"""Images with labels as two tensors, and the stratified split of a training set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from contest.errors import DataError


@dataclass(frozen=True, eq=False)
class Images:
    """`pixels` uint8 [N, C, H, W] (stored with channels last) and `labels` int64 [N].

    Raises DataError for other types or shapes.
    """

    pixels: Tensor
    labels: Tensor
    flips: bool = True
    """Whether a mirrored image still shows its class: true for a ship, false for a digit."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """(mean, standard deviation) of the pixels in [0, 1] by channel, with which networks normalise; None: unknown."""

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise DataError(
                f"pixels are {self.pixels.dtype} of shape {list(self.pixels.shape)}; "
                "they must be uint8 of shape [images, channels, height, width]"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise DataError(
                f"labels are {self.labels.dtype} of shape {list(self.labels.shape)} for {len(self.pixels)} "
                "images; they must be int64, one for each image"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> Images:
        """The same images on `device`."""
        return Images(self.pixels.to(device), self.labels.to(device), self.flips, self.statistics)

    def take(self, indices: Tensor) -> Images:
        """The images at `indices` int64 [K], in that order."""
        indices = indices.to(self.pixels.device)
        channels_last = self.pixels.permute(0, 2, 3, 1).index_select(0, indices)
        return Images(channels_last.permute(0, 3, 1, 2), self.labels[indices], self.flips, self.statistics)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A named task. `test` is None where a directory held no test images."""

    name: str
    classes: tuple[str, ...]
    train: Images
    test: Images | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.train.shape

    @property
    def flips(self) -> bool:
        """Whether mirroring keeps the class, see `Images.flips`."""
        return self.train.flips


ALL_IMAGES = "all images"
"""Stands in a network's provenance where the hash of the split would: it was trained on the validation images too."""


@dataclass(frozen=True, eq=False)
class Split:
    """A training set in two parts. The indices are sorted and refer to the images that were split."""

    train: Images
    validation: Images
    train_index: Tensor
    validation_index: Tensor
    seed: int
    sha256: str
    """Of both index lists (train, then validation) as little-endian int64: the provenance of a result."""


def split(images: Images, validation: int | None = None, seed: int = 0) -> Split:
    """Sets `validation` images aside, each class with its share of the whole (largest remainder).

    None is 5,000 images, the contest's split of CIFAR-10, or a fifth of a set that has fewer than 25,000.

    The same labels, number and seed give the same split on every machine: numpy's RandomState is a frozen
    stream (NEP 19). Raises DataError where not one image would be left on either side.
    """
    if validation is None:
        validation = min(5000, len(images) // 5)
    if not 0 < validation < len(images):
        raise DataError(f"a validation split of {validation} images does not fit in {len(images)} images")
    labels = images.labels.cpu().numpy()
    values, counts = np.unique(labels, return_counts=True)
    share = counts * (validation / len(labels))
    quota = np.floor(share).astype(np.int64)
    by_remainder = np.argsort(quota - share, kind="stable")
    quota[by_remainder[: validation - int(quota.sum())]] += 1

    random = np.random.RandomState(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for value, number in zip(values, quota, strict=True):
        chosen[random.permutation(np.flatnonzero(labels == value))[:number]] = True
    train_index, validation_index = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    digest = hashlib.sha256(train_index.astype("<i8").tobytes() + validation_index.astype("<i8").tobytes())
    train, held_out = torch.from_numpy(train_index), torch.from_numpy(validation_index)
    return Split(images.take(train), images.take(held_out), train, held_out, seed, digest.hexdigest())
