"""Training batches from a set that lives on the device, augmented there in whole batches.

Images stay uint8 until a batch is finished. Everything random is drawn on the CPU, once an epoch, from
(seed, epoch): a resumed run and another device see the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contest.candidate import Recipe
from contest.datasets import augment
from contest.datasets.images import Images
from contest.errors import UsageError

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
        self.crop = augment.scaled(recipe.crop, height, width)
        self.cutout = augment.scaled(recipe.cutout, height, width)
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
                x = augment.crop(x, shifts[0, here], shifts[1, here], self.crop)
            if self.flip:
                x = augment.flip(x, mirrored[here])
            if self.mean is not None:
                x = augment.cutout(x, centres[0, here], centres[1, here], self.cutout, self.mean)
            if taught:
                batch = self._mixed(x, self.labels[chosen], None, random)
                yield batch if self.soft is None else replace(batch, soft=self.soft[number, here])
            else:
                soft = None if self.soft is None else self.soft[chosen]
                yield self._mixed(x, self.labels[chosen], soft, random)

    def _mixed(self, x: Tensor, labels: Tensor, soft: Tensor | None, random: np.random.RandomState) -> Batch:
        mixup, cutmix = self.recipe.mixup > 0, self.recipe.cutmix > 0
        if not (mixup or cutmix):
            return Batch(augment.to_float(x), labels, labels, soft)
        partner = self._draw(random.permutation(len(labels)))
        if mixup and cutmix:
            mixup = random.random_sample() < 0.5
        if mixup:
            share = float(random.beta(self.recipe.mixup, self.recipe.mixup))
            images = augment.to_float(x).lerp(augment.to_float(x.index_select(0, partner)), 1 - share)
        else:
            share = float(random.beta(self.recipe.cutmix, self.recipe.cutmix))
            box = augment.box(share, random.random_sample(), random.random_sample(), x.shape[1], x.shape[2])
            x, share = augment.cutmix(x, partner, box)
            images = augment.to_float(x)
        targets = F.one_hot(labels, self.classes).float()
        targets = targets.lerp(targets[partner], 1 - share)
        if soft is not None:
            soft = soft.lerp(soft[partner], 1 - share)
        return Batch(images, labels if share >= 0.5 else labels[partner], targets, soft)

    def _draw(self, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)
