"""Accuracy of a network on images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contest.datasets import Images
from contest.datasets.augment import to_float
from contest.errors import UsageError
from contest.memory import keep_memory
from contest.training.device import autocast


@dataclass(frozen=True, eq=False)
class Evaluation:
    correct: int
    total: int
    loss: float
    """Mean cross-entropy."""
    predictions: Tensor
    """int64 [N] on the CPU: the class of the largest logit, the first of equal ones."""

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


def evaluate(
    model: nn.Module,
    images: Images,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
    bf16: bool = False,
) -> Evaluation:
    """Predictions for all images in order, in float32 unless `bf16`; leaves the model as it was.

    Raises UsageError for no images.
    """
    if not len(images):
        raise UsageError("there are no images to evaluate on")
    labels = images.labels.cpu()
    logits = forward(model, images, device=device, batch_size=batch_size, bf16=bf16)
    predictions = logits.argmax(1)
    correct = int((predictions == labels).sum())
    return Evaluation(correct, len(labels), float(F.cross_entropy(logits, labels)), predictions)


def forward(
    model: nn.Module,
    images: Images,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
    bf16: bool = False,
    views: int = 1,
) -> Tensor:
    """The logits of all images, the mean over `views` (see there), in order, float32 [N, classes] on the CPU."""
    keep_memory()
    device = torch.device(device)
    model.to(device)
    parts = []
    with torch.no_grad(), evaluating(model), autocast(device, bf16):
        for start in range(0, len(images), batch_size):
            pixels = images.pixels[start : start + batch_size].to(device).permute(0, 2, 3, 1).contiguous()
            parts.append(over_views(model, to_float(pixels), views, mirror=images.flips).cpu())
    return torch.cat(parts)


VIEWS = (1, 2, 6)


def over_views(model: nn.Module, x: Tensor, views: int, mirror: bool = True) -> Tensor:
    """The mean of the logits for `views` of the images [N, C, H, W], float32: 1 is the image as it is; 2 it and its
    mirror image, where images may be mirrored; 6 also both moved by one pixel up and left and down and right, with
    half the weight together (Jordan 2024, arXiv 2404.00498, section 3.5)."""
    if views not in VIEWS:
        raise UsageError(f"views are {views}; they must be {', '.join(map(str, VIEWS))}")

    def both(x: Tensor) -> Tensor:
        logits: Tensor = model(x).float()
        return (logits + model(x.flip(3)).float()) / 2 if views > 1 and mirror else logits

    logits = both(x)
    if views < 6:
        return logits
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), "reflect")
    moved = both(padded[:, :, :height, :width]) + both(padded[:, :, 2:, 2:])
    return logits / 2 + moved / 4


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; every module gets back the mode of its own that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
