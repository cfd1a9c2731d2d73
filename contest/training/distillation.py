"""A teacher's soft labels, computed once and kept in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn

from contest.candidate import Recipe
from contest.datasets import Batches, Images
from contest.errors import UsageError
from contest.memory import keep_memory
from contest.training import checkpoint
from contest.training.device import autocast
from contest.training.evaluation import evaluating, forward


class Ensemble(nn.Module):
    """Several networks as one teacher: the mean of their logits. It teaches and is never submitted."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, C, H, W]."""
        return torch.stack([network(x).float() for network in self.networks]).mean(0)


def load_teachers(paths: Sequence[Path], images: Images, classes: int, split: str | None) -> Ensemble:
    """The networks in the files as one teacher for `images`.

    `split` is the hash of the split whose validation images will judge the student; None where none will. Raises
    UsageError for a network that takes other images or classes, and for one that says that it was trained on another
    split: it has seen the validation images, and what it teaches of them would count as the student's own.
    """
    from contest.model_file import load

    networks = []
    for path in paths:
        network = load(path)
        manifest = network.manifest
        if tuple(manifest.image_shape) != tuple(images.shape) or manifest.classes != classes:
            takes = "x".join(map(str, manifest.image_shape))
            raise UsageError(
                f"teacher {path} takes {takes} images of {manifest.classes} classes; "
                f"these are {'x'.join(map(str, images.shape))} images of {classes} classes"
            )
        learned = manifest.provenance.get("split_sha256")
        if split is not None and learned is not None and learned != split:
            raise UsageError(
                f"teacher {path} was trained on another split ({learned[:16]}; this one is {split[:16]}), so it knows "
                "images that validation is measured on: give a teacher of this split"
            )
        networks.append(network)
    return Ensemble(networks)


def soft_labels(
    teacher: nn.Module,
    images: Images,
    *,
    device: torch.device | str = "cpu",
    flip: bool | None = None,
    recipe: Recipe | None = None,
    batch_size: int = 500,
    cache: Path | None = None,
    progress: bool = False,
) -> Tensor:
    """The teacher's logits for each image, float32 [N, classes] on the CPU; where a recipe has `taught_epochs`, those
    for the images of these epochs as `Batches` makes them [epochs, images of an epoch, classes].

    With `flip` (default: where the images may be flipped and the epochs do not hold mirror images anyway) they are the
    mean of the image's and its mirror image's. `cache` is a file that answers the same question again; one about
    another teacher or other images is replaced.
    """
    taught = recipe if recipe and recipe.taught_epochs else None
    flip = images.flips and not taught if flip is None else flip
    key = _key(teacher, images, flip, recipe)
    if cache and cache.exists():
        known = _read(cache, key)
        if known is not None:
            return known

    def answer(**how: bool) -> Tensor:
        if taught:
            return _taught(teacher, Batches(images, taught, device=device), progress, **how)
        return forward(teacher, images, device=device, batch_size=batch_size, bf16=True, **how)

    logits = (answer() + answer(mirrored=True)) / 2 if flip else answer()
    if cache:
        checkpoint.write({"key": key, "logits": logits}, cache)
    return logits


def question(recipe: Recipe) -> str:
    """What of a recipe decides for which images its teacher answers."""
    fields = ("taught_epochs", "batch_size", "crop", "flip", "cutout", "mixup", "cutmix")
    return " ".join(f"{name}={getattr(recipe, name)}" for name in fields) if recipe.taught_epochs else "plain images"


def labels_name(recipe: Recipe) -> str:
    """File name of the cache of a teacher's answers to this recipe's question."""
    return f"labels-{hashlib.sha256(question(recipe).encode()).hexdigest()[:8]}.pt"


def _taught(teacher: nn.Module, batches: Batches, progress: bool, mirrored: bool = False) -> Tensor:
    epochs = range(batches.recipe.taught_epochs)
    teacher.to(batches.device)
    keep_memory()
    with torch.no_grad(), evaluating(teacher), autocast(batches.device):
        answers = [
            torch.cat([teacher(b.images.flip(3) if mirrored else b.images).float().cpu() for b in batches.epoch(epoch)])
            for epoch in track(epochs, "the teacher answers", disable=not progress)
        ]
    return torch.stack(answers)


def _read(cache: Path, key: str) -> Tensor | None:
    try:
        state = torch.load(cache, map_location="cpu", weights_only=True)
        return state["logits"] if state["key"] == key else None
    except checkpoint.UNREADABLE:
        return None  # a damaged cache is no reason to stop: the labels are computed again


def _key(teacher: nn.Module, images: Images, flip: bool, recipe: Recipe | None) -> str:
    digest = hashlib.sha256(f"flip={flip} {question(recipe or Recipe())}".encode())
    for name, tensor in (*teacher.state_dict().items(), ("pixels", images.pixels.permute(0, 2, 3, 1))):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
