"""A teacher's soft labels, computed once and kept in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from contest.candidate import Recipe, plain
from contest.datasets import Batches, Images
from contest.datasets.folds import Fold, folds
from contest.errors import UsageError
from contest.model_file.freeze import Network
from contest.training import checkpoint
from contest.training.device import autocast, keep_memory
from contest.training.evaluation import ProgressBar, evaluating, forward, over_views


class Ensemble(nn.Module):
    """Several networks as one teacher: the mean of their logits. It teaches and is never submitted.

    crossed: the networks, in order, are those of all folds, each of which has left out its own. Then each image is
        answered by the one that has never seen it (`contest.datasets.folds`).
    """

    def __init__(self, networks: Sequence[nn.Module], crossed: bool = False) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.crossed = crossed

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, C, H, W]."""
        return torch.stack([network(x).float() for network in self.networks]).mean(0)

    def extra_repr(self) -> str:
        return "crossed" if self.crossed else ""


def load_teachers(paths: Sequence[Path], images: Images, classes: int, split: str | None) -> Ensemble:
    """The networks in the files as one teacher for `images`; those of all folds answer each for its own.

    `split` is the hash of the split whose validation images will judge the student; None where none will. Raises
    UsageError for a network that takes other images or classes, and for one that was trained on another split or does
    not say on which: it may have seen the validation images, and what it teaches of them would count as the student's
    own. Some folds without the others are an error too.
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
    return _together(networks, [network.manifest.provenance.get("fold") for network in networks])


def _together(networks: Sequence[nn.Module], left_out: Sequence[str | None]) -> Ensemble:
    """One teacher of networks that left out these folds, or none. Raises UsageError where folds are missing."""
    if len(networks) == 1 or not any(left_out):
        return Ensemble(networks)
    known = [None if fold is None else Fold.parse(fold) for fold in left_out]
    count = next(fold.count for fold in known if fold is not None)
    order = {fold: place for place, fold in enumerate(known)}
    wanted = [Fold(number, count) for number in range(1, count + 1)]
    if len(known) != count or order.keys() != set(wanted):
        said = ", ".join(sorted(str(fold or "none") for fold in known))
        raise UsageError(
            f"the teachers left out the folds {said}: each image is to be answered by the one that has not seen it, so "
            f"give all {count} of 1/{count} to {count}/{count} and no other"
        )
    return Ensemble([networks[order[fold]] for fold in wanted], crossed=True)


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

    Of teachers of folds each answers for the images of its own. An answer is the mean over so many `views` of the image
    (`contest.training.evaluation`); by default it and its mirror image, but only the image itself where whole epochs
    are answered, which hold mirror images anyway. `cache` is a folder, of one training or shared by many: an answer
    lies there under the name of its question (the teacher, the images, what the recipe makes of them), and is given
    again. Raises UsageError for teachers of folds and images that are mixed.
    """
    taught = recipe if recipe and recipe.taught_epochs else None
    views = (1 if taught else 2) if views is None else views
    file = answers_file(teacher, images, recipe, cache, views) if cache else None
    known = _read(file) if file and file.exists() else None
    if known is not None:
        return known
    by_fold = list(teacher.networks) if isinstance(teacher, Ensemble) and teacher.crossed else None
    own = folds(images, len(by_fold)) if by_fold else torch.ones(len(images), dtype=torch.int64)
    if taught and by_fold and (taught.mixup or taught.cutmix):
        raise UsageError(
            "teachers of folds answer for images that they have not seen, and a mixed image is of two folds: set mixup "
            "and cutmix to 0, or taught_epochs to 0"
        )
    if taught:
        batches = Batches(images, taught, device=device)
        logits = _taught(by_fold or [teacher], batches, own, views, images.flips, progress)
    else:

        def answer(network: nn.Module, rows: Tensor | None) -> Tensor:
            these = images if rows is None else images.take(rows)
            return forward(network, these, device=device, batch_size=batch_size, bf16=True, views=views)

        logits = _by_fold(by_fold or [teacher], own, answer)
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


def _taught(
    teachers: Sequence[nn.Module], batches: Batches, own: Tensor, views: int, mirror: bool, progress: bool
) -> Tensor:
    epochs = range(batches.recipe.taught_epochs)
    keep_memory()
    answers: list[list[Tensor]] = []
    bar = ProgressBar("the teacher answers", len(epochs) * len(batches), 0, shown=progress)
    with torch.no_grad(), ExitStack() as context:
        for teacher in teachers:
            context.enter_context(evaluating(teacher.to(batches.device)))
        context.enter_context(autocast(batches.device))
        context.enter_context(bar)
        for epoch in epochs:
            answers.append([])
            for number, batch in enumerate(batches.epoch(epoch), start=1):

                def answer(teacher: nn.Module, rows: Tensor | None, x: Tensor = batch.images) -> Tensor:
                    these = x if rows is None else x[rows.to(x.device)].contiguous(memory_format=torch.channels_last)
                    return over_views(teacher, these, views, mirror).cpu()

                wanted = own if batch.places is None else own[batch.places.cpu()]
                answers[-1].append(_by_fold(teachers, wanted, answer))
                if bar.due:
                    bar.show((len(answers) - 1) * len(batches) + number)
        bar.show(len(epochs) * len(batches))
    return torch.stack([torch.cat(parts) for parts in answers])


def _by_fold(
    teachers: Sequence[nn.Module], own: Tensor, answer: Callable[[nn.Module, Tensor | None], Tensor]
) -> Tensor:
    """The answers [N, classes] for images of the folds `own` [N], each by the teacher of its fold; `answer` takes a
    teacher and the rows that it answers for, None for all."""
    if len(teachers) == 1:
        return answer(teachers[0], None)
    rows = [(own == fold).nonzero().flatten() for fold in range(1, len(teachers) + 1)]
    parts = [answer(teacher, mine) for teacher, mine in zip(teachers, rows, strict=True) if len(mine)]
    return torch.cat(parts)[torch.cat(rows).argsort()]


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
