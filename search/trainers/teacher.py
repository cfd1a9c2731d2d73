"""The study's teacher: given or trained once, its answers kept for everybody who refines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from contest.candidate import Architecture, Candidate, Option, Recipe
from contest.errors import UsageError
from search.study.settings import StudySettings

if TYPE_CHECKING:
    from torch import Tensor

    from contest.datasets import Images
    from contest.training import Ensemble


def teacher_candidate(settings: StudySettings, *, device: str) -> Candidate:
    """A float network several times larger than what is searched, as large as the machine can train.

    On a CPU a wide net that leaves the full resolution at once: 122M MACs in few large convolutions, which one core
    trains in 91 s an epoch (363 GFLOP/s); a ResNet-20 of width 32 has 163M MACs and is slower by more than that.
    """
    small = settings.dataset in ("digits", "mnist")
    if small:
        architecture = Architecture("resnet", {"depth": 20, "width": 32})
    elif device.startswith("cuda"):
        architecture = Architecture("resnet", {"depth": 20, "width": 64})
    else:
        early: dict[str, Option] = {
            "stem_width": 32,
            "widths": (96, 192, 256),
            "depths": (1, 2, 1),
            "strides": (2, 2, 2),
        }
        architecture = Architecture("thin", early)
    recipe = Recipe(epochs=settings.teacher_epochs, learning_rate=0.2, schedule="onecycle", label_smoothing=0.0)
    if small:
        recipe = Recipe(epochs=recipe.epochs, schedule="onecycle", batch_size=128, flip=False, crop=1)
    return Candidate(architecture, train=recipe, seed=settings.seed)


def make_teacher(
    settings: StudySettings,
    directory: Path,
    train: Images,
    validation: Images,
    provenance: Mapping[str, str],
    *,
    device: str,
) -> Ensemble:
    """The networks that were given, or the one of the study, trained now unless its file is in the study directory.

    Raises ContestError if a teacher cannot be read or trained, or has seen the validation images.
    """
    from contest.model_file import save
    from contest.pipeline import compress
    from contest.training import load_teachers

    if not settings.taught:
        raise UsageError("there is nobody to learn from: give a teacher (--teacher or --teacher-epochs)")
    classes = int(train.labels.max()) + 1
    home = directory / "teacher"
    path = home / "model.pt"
    if not settings.teachers and not path.exists():
        outcome = compress(
            teacher_candidate(settings, device=device),
            train,
            validation,
            image_shape=train.shape,
            classes=classes,
            device=device,
            directory=home,
            provenance=provenance,
        )
        save(outcome.network, path)
    paths = [Path(given) for given in settings.teachers] or [path]
    return load_teachers(paths, train, classes, provenance["split_sha256"])


def make_labels(teacher: Ensemble, cache: Path, train: Images, recipe: Recipe, *, device: str) -> Tensor:
    """The teacher's logits for the images of a recipe, from the cache or made now."""
    from contest.training import soft_labels

    return soft_labels(teacher, train, device=device, recipe=recipe, cache=cache)


TIMED_IMAGES = 250


def answering_s(teacher: Ensemble, cache: Path, train: Images, recipe: Recipe, *, device: str) -> float:
    """Seconds until the teacher has answered for the images of a recipe; 0 where its answers are kept already."""
    import torch

    from contest.training import answers_file, forward

    if answers_file(teacher, train, recipe, cache).exists():
        return 0.0
    some = train.take(torch.arange(min(TIMED_IMAGES, len(train))))
    seconds = 0.0
    for _ in range(2):  # the first sets things up
        started = time.monotonic()
        forward(teacher, some, device=device, batch_size=TIMED_IMAGES, bf16=True)
        seconds = time.monotonic() - started
    return seconds / len(some) * len(train) * (recipe.taught_epochs or 2)
