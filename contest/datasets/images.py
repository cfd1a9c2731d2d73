"""Images with labels as two tensors, the stratified split of a training set, and its augmented batches.

Everything lives on the device. Images stay uint8 until a batch is finished. Everything random is drawn on the CPU, once
an epoch, from (seed, epoch): a resumed run and another device see the same batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contest.candidate import Recipe
from contest.errors import DataError, UsageError


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


TAUGHT_SEED = 2106
"""Draws the epochs that a teacher answers for: one set of answers serves students of every seed."""


@dataclass(frozen=True, eq=False)
class Batch:
    """`images` float32 [B, C, H, W] in [0, 1], channels last in memory."""

    images: Tensor
    labels: Tensor
    """int64 [B]; of a mixed image the label of its larger part."""
    targets: Tensor
    """`labels` themselves or, mixed, the shares of the classes: float32 [B, classes]."""
    soft: Tensor | None
    """The teacher's probabilities at the recipe's temperature, mixed like the targets: float32 [B, classes]."""
    places: Tensor | None = None
    """Where the images are in the set, int64 [B]; of mixed ones None."""


class Batches:
    """One epoch after another of (images, targets), as `Batch` says; an epoch drops the last short batch.

    `soft_labels` are the teacher's logits for each image [N, classes]. With `recipe.taught_epochs` they are those for
    the images of so many epochs as they come [epochs, images of an epoch, classes]; then there are only these epochs,
    the same for every seed, and after the last the first comes again.

    Pixels of crop and cutout are those of an image of 32 pixels and grow and shrink with the image. Images that must
    not be mirrored never are.

        for epoch in range(10):
            for x, targets in batches: ...      # each loop is the next epoch

    `epoch(k)` gives any epoch directly, for exact resume.
    """

    def __init__(
        self,
        images: Images,
        recipe: Recipe,
        seed: int = 0,
        device: torch.device | str = "cpu",
        soft_labels: Tensor | None = None,
    ) -> None:
        if not len(images):
            raise UsageError("there are no images to train on")
        if recipe.batch_size < 1:
            raise UsageError(f"batch_size is {recipe.batch_size}; it must be at least 1")
        self.recipe, self.seed, self.device = recipe, seed, torch.device(device)
        self.flip = recipe.flip and images.flips
        height, width = images.shape[1:]
        self.crop = scaled(recipe.crop, height, width)
        self.cutout = scaled(recipe.cutout, height, width)
        self.batch_size = min(recipe.batch_size, len(images))
        self.labels = images.labels.to(device)
        if soft_labels is not None:
            rows = [recipe.taught_epochs, len(self) * self.batch_size] if recipe.taught_epochs else [len(images)]
            if list(soft_labels.shape[:-1]) != rows:
                raise UsageError(
                    f"soft labels have shape {list(soft_labels.shape)}; they must be [{', '.join(map(str, rows))}, "
                    f"classes] for {len(images)} training images and taught_epochs = {recipe.taught_epochs}"
                )
        self.pixels = images.pixels.to(device).permute(0, 2, 3, 1).contiguous()  # [N, H, W, C]
        self.soft = None if soft_labels is None else (soft_labels.to(device).float() / recipe.temperature).softmax(-1)
        self.classes = int(images.labels.max()) + 1 if soft_labels is None else soft_labels.shape[-1]
        self.mean = self.pixels.float().mean((0, 1, 2)).round().to(torch.uint8) if self.cutout else None
        self._next = 0

    def __len__(self) -> int:
        """Batches in one epoch."""
        return len(self.labels) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._next += 1
        return ((batch.images, batch.targets) for batch in self.epoch(self._next - 1))

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number` (from 0), the same at each call."""
        taught = self.recipe.taught_epochs
        seed, number = (TAUGHT_SEED, number % taught) if taught else (self.seed, number)
        random = np.random.RandomState([seed & 0xFFFFFFFF, number])
        order = self._draw(random.permutation(len(self.labels)))
        shifts = self._draw(random.randint(0, 2 * self.crop + 1, (2, len(order))))
        mirrored = self._draw(random.randint(0, 2, len(order)).astype(bool))
        if self.recipe.alternate_flips:
            first = np.random.RandomState(seed & 0xFFFFFFFF).randint(0, 2, len(order))
            mirrored = self._draw((first + number) % 2 == 1)[order]
        centres = self._draw(random.random_sample((2, len(order))).astype(np.float32))
        for index in range(len(self)):
            here = slice(index * self.batch_size, (index + 1) * self.batch_size)
            chosen = order[here]
            x = self.pixels.index_select(0, chosen)
            if self.crop:
                x = crop(x, shifts[0, here], shifts[1, here], self.crop)
            if self.flip:
                x = flip(x, mirrored[here])
            if self.mean is not None:
                x = cutout(x, centres[0, here], centres[1, here], self.cutout, self.mean)
            soft = None if self.soft is None else self.soft[number, here] if taught else self.soft[chosen]
            if not (self.recipe.mixup or self.recipe.cutmix):
                yield Batch(to_float(x), self.labels[chosen], self.labels[chosen], soft, chosen)
            elif taught:
                yield replace(self._mixed(x, self.labels[chosen], None, random), soft=soft)
            else:
                yield self._mixed(x, self.labels[chosen], soft, random)

    def _mixed(self, x: Tensor, labels: Tensor, soft: Tensor | None, random: np.random.RandomState) -> Batch:
        mix, cut = self.recipe.mixup > 0, self.recipe.cutmix > 0
        partner = self._draw(random.permutation(len(labels)))
        if mix and cut:
            mix = random.random_sample() < 0.5
        if mix:
            share = float(random.beta(self.recipe.mixup, self.recipe.mixup))
            images = to_float(x).lerp(to_float(x.index_select(0, partner)), 1 - share)
        else:
            share = float(random.beta(self.recipe.cutmix, self.recipe.cutmix))
            frame = box(share, random.random_sample(), random.random_sample(), x.shape[1], x.shape[2])
            x, share = cutmix(x, partner, frame)
            images = to_float(x)
        targets = F.one_hot(labels, self.classes).float()
        targets = targets.lerp(targets[partner], 1 - share)
        if soft is not None:
            soft = soft.lerp(soft[partner], 1 - share)
        return Batch(images, labels if share >= 0.5 else labels[partner], targets, soft)

    def _draw(self, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)


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
