"""A teacher's soft labels, computed once and kept in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from contest.candidate import Recipe, plain
from contest.datasets import Batches, Images
from contest.errors import UsageError
from contest.model_file.freeze import Network
from contest.training import checkpoint
from contest.training.device import autocast, keep_memory
from contest.training.evaluation import ProgressBar, evaluating, forward, over_views


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
    UsageError for a network that takes other images or classes, and for one that was trained on another split or does
    not say on which: it may have seen the validation images, and what it teaches of them would count as the student's
    own.
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
        if split is not None and learned != split:
            known = f"was trained on another split ({learned[:16]})" if learned else "does not say which images it saw"
            raise UsageError(
                f"teacher {path} {known}; this split is {split[:16]}: what it knows of images that validation is "
                "measured on would count as the student's own, so give a teacher of this split"
            )
        networks.append(network)
    return Ensemble(networks)


def soft_labels(
    teacher: nn.Module,
    images: Images,
    *,
    device: torch.device | str = "cpu",
    views: int | None = None,
    recipe: Recipe | None = None,
    batch_size: int = 500,
    cache: Path | None = None,
    progress: bool = False,
) -> Tensor:
    """The teacher's logits for each image, float32 [N, classes] on the CPU; where a recipe has `taught_epochs`, those
    for the images of these epochs as `Batches` makes them [epochs, images of an epoch, classes].

    They are the mean over so many `views` of the image (`contest.training.evaluation`); by default it and its mirror
    image, but only the image itself where whole epochs are answered, which hold mirror images anyway. `cache` is a
    folder, of one training or shared by many: an answer lies there under the name of its question (the teacher, the
    images, what the recipe makes of them), and is given again.
    """
    taught = recipe if recipe and recipe.taught_epochs else None
    views = (1 if taught else 2) if views is None else views
    file = answers_file(teacher, images, recipe, cache, views) if cache else None
    known = _read(file) if file and file.exists() else None
    if known is not None:
        return known
    if taught:
        logits = _taught(teacher, Batches(images, taught, device=device), views, images.flips, progress)
    else:
        logits = forward(teacher, images, device=device, batch_size=batch_size, bf16=True, views=views)
    if file:
        checkpoint.write({"logits": logits}, file)
    return logits


def answers_file(
    teacher: nn.Module, images: Images, recipe: Recipe | None, cache: Path, views: int | None = None
) -> Path:
    """Where `soft_labels` keeps the answers to this question in the folder `cache`."""
    recipe = recipe or Recipe()
    views = (1 if recipe.taught_epochs else 2) if views is None else views
    return cache / f"answers-{_key(teacher, images, views, recipe)[:32]}.pt"


TRAINING_ONLY = {
    "epochs",
    "optimiser",
    "learning_rate",
    "momentum",
    "weight_decay",
    "schedule",
    "warmup_epochs",
    "label_smoothing",
    "ema_decay",
    "lookahead",
    "norm_bias_rate",
    "dampening",
    "number_epochs",
    "branches",
    "clip_norm",
    "distillation",
    "temperature",
}
"""Fields of a recipe that leave its images as they are. A field that is missing here asks for answers of its own."""


def question(recipe: Recipe) -> str:
    """What of a recipe decides for which images its teacher answers."""
    fields = {name: value for name, value in sorted(plain(recipe).items()) if name not in TRAINING_ONLY}
    return json.dumps(fields) if recipe.taught_epochs else "plain images"


def _taught(teacher: nn.Module, batches: Batches, views: int, mirror: bool, progress: bool) -> Tensor:
    epochs = range(batches.recipe.taught_epochs)
    teacher.to(batches.device)
    keep_memory()
    answers: list[list[Tensor]] = []
    bar = ProgressBar("the teacher answers", len(epochs) * len(batches), 0, shown=progress)
    with torch.no_grad(), evaluating(teacher), autocast(batches.device), bar:
        for epoch in epochs:
            answers.append([])
            for number, batch in enumerate(batches.epoch(epoch), start=1):
                answers[-1].append(over_views(teacher, batch.images, views, mirror).cpu())
                if bar.due:
                    bar.show((len(answers) - 1) * len(batches) + number)
        bar.show(len(epochs) * len(batches))
    return torch.stack([torch.cat(parts) for parts in answers])


def _read(file: Path) -> Tensor | None:
    try:
        logits: Tensor = torch.load(file, map_location="cpu", weights_only=True)["logits"]
        return logits
    except checkpoint.UNREADABLE:
        return None  # a damaged cache is no reason to stop: the labels are computed again


def _key(teacher: nn.Module, images: Images, views: int, recipe: Recipe) -> str:
    digest = hashlib.sha256(f"views={views} flips={images.flips} {question(recipe)} {teacher!r}".encode())
    for network in teacher.modules():  # strides and activations are in no tensor
        if isinstance(network, Network):
            digest.update(network.manifest.architecture.model_dump_json().encode())
    for name, tensor in (*teacher.state_dict().items(), ("pixels", images.pixels.permute(0, 2, 3, 1))):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
