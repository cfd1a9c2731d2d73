"""Folds of a training set, for teachers that answer only for images that they have not learned from."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from contest.datasets.images import Images
from contest.errors import UsageError


@dataclass(frozen=True)
class Fold:
    """The `number`th of `count` parts of a data set, counted from 1; as text `2/5`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @staticmethod
    def parse(text: str) -> Fold:
        """Raises UsageError for anything but `2/5`."""
        found = re.fullmatch(r"([1-9]\d?)/([1-9]\d?)", text)
        fold = Fold(int(found[1]), int(found[2])) if found else None
        if fold is None or fold.count < 2 or fold.number > fold.count:
            raise UsageError(f"fold is '{text[:20]}'; it must be one of at least two parts, like 2/5")
        return fold


def folds(images: Images, count: int) -> Tensor:
    """The fold of each image, int64 [N], 1 to `count`: by its content, so that an image has the same in every split."""
    rows = images.pixels.cpu().contiguous().view(len(images), -1).numpy()
    parts = [int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "big") % count for row in rows]
    return torch.tensor(parts) + 1


def without(images: Images, fold: Fold) -> Images:
    """The images that are in another fold."""
    return images.take((folds(images, fold.count) != fold.number).nonzero().flatten().to(images.labels.device))
