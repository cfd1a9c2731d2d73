"""Data sets on the device, their split, and augmented batches; `registry` says what is known of them by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contest.datasets.images import ALL_IMAGES, Batch, Batches, DataSet, Images, Split, split
    from contest.datasets.sources import load

_HOMES = {
    "Batch": "contest.datasets.images",
    "Batches": "contest.datasets.images",
    "ALL_IMAGES": "contest.datasets.images",
    "DataSet": "contest.datasets.images",
    "Images": "contest.datasets.images",
    "Split": "contest.datasets.images",
    "split": "contest.datasets.images",
    "load": "contest.datasets.sources",
}

__all__ = ["ALL_IMAGES", "Batch", "Batches", "DataSet", "Images", "Split", "load", "split"]


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: the registry is read where torch is not at hand, or not yet."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'contest.datasets' has no attribute '{name}'")
