"""Training batches from a set that lives on the device, augmented there in whole batches.

Images stay uint8 until a batch is finished. Everything random is drawn on the CPU, once an epoch, from
(seed, epoch): a resumed run and another device see the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contest.candidate import Recipe
from contest.data import augment
from contest.data.images import Images
from contest.errors import UsageError


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


def taught_offsets(images: int, crops: int, padding: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.int64]]:
    """The offsets (down, right) in 0 .. 2 * padding of the crops that a teacher answers for: [2, crops, images].

    Crop k of n is the same whatever n is, so that a teacher asked for more answers the first ones alike.
    """
    draws = [np.random.RandomState([2106, number]).randint(0, 2 * padding + 1, (2, images)) for number in range(crops)]
    return np.stack(draws, 1) if draws else np.empty((2, 0, images), np.int64)


class Batches:
    """One epoch after another of (images, targets), as `Batch` says; an epoch drops the last short batch.

    `soft_labels` are the teacher's logits for each image [N, classes], or for `recipe.taught_crops` crops of each
    image [N, crops, classes], those of `taught_offsets`: then only these crops are drawn. Pixels of crop and cutout
    are those of an image of 32 pixels and grow and shrink with the image. Images that must not be mirrored never are.

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
        if soft_labels is not None:
            rows = [len(images), recipe.taught_crops] if recipe.taught_crops else [len(images)]
            if list(soft_labels.shape[:-1]) != rows:
                raise UsageError(
                    f"soft labels have shape {list(soft_labels.shape)}; they must be [{', '.join(map(str, rows))}, "
                    f"classes]: {len(images)} training images, taught_crops = {recipe.taught_crops}"
                )
        self.recipe, self.seed, self.device = recipe, seed, torch.device(device)
        self.flip = recipe.flip and images.flips
        height, width = images.shape[1:]
        self.crop = augment.scaled(recipe.crop, height, width)
        self.cutout = augment.scaled(recipe.cutout, height, width)
        self.batch_size = min(recipe.batch_size, len(images))
        self.labels = images.labels.to(device)
        self.pixels = images.pixels.to(device).permute(0, 2, 3, 1).contiguous()  # [N, H, W, C]
        self.soft = None if soft_labels is None else (soft_labels.to(device).float() / recipe.temperature).softmax(-1)
        self.crops = 0 if soft_labels is None else recipe.taught_crops
        self.offsets = taught_offsets(len(images), self.crops, self.crop)
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
        random = np.random.RandomState([self.seed & 0xFFFFFFFF, number])
        order = self._draw(random.permutation(len(self.labels)))
        if self.crops:
            taught = random.randint(0, self.crops, len(order))
            shifts = self._draw(self.offsets[:, taught, order.cpu().numpy()])
        else:
            shifts = self._draw(random.randint(0, 2 * self.crop + 1, (2, len(order))))
        mirrored = self._draw(random.randint(0, 2, len(order)).astype(bool))
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
            soft = None if self.soft is None else self.soft[chosen]
            if soft is not None and self.crops:
                soft = soft[torch.arange(len(soft)), torch.from_numpy(taught[here])]
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
