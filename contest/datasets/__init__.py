"""Data sets as tensors on the device, their split, and augmented batches."""

from contest.datasets.batches import Batch, Batches
from contest.datasets.images import ALL_IMAGES, DataSet, Images, Split, split
from contest.datasets.sources import load

__all__ = ["ALL_IMAGES", "Batch", "Batches", "DataSet", "Images", "Split", "load", "split"]
