"""The study's teacher: given or trained once, its soft labels kept for everybody who refines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from contest.candidate import Architecture, Candidate, Recipe
from search.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from contest.data import Images


def teacher_candidate(settings: Settings, *, device: str) -> Candidate:
    """A float network several times larger than what is searched, as large as the machine can train."""
    options: dict[str, int | str] = {"depth": 20, "width": 64 if device.startswith("cuda") else 32}
    recipe = Recipe(
        epochs=max(1.0, settings.teacher_epochs), learning_rate=0.2, schedule="onecycle", label_smoothing=0.0
    )
    small = settings.dataset in ("digits", "mnist")
    if small:
        recipe = Recipe(epochs=recipe.epochs, schedule="onecycle", batch_size=128, flip=False, crop=1)
    return Candidate(Architecture("resnet", options), train=recipe, seed=settings.seed)


def labels_path(directory: Path) -> Path:
    return directory / "teacher" / "labels.pt"


def make_labels(settings: Settings, directory: Path, train: Images, validation: Images, *, device: str) -> Tensor:
    """The teacher's logits for `train`, from the cache in the study directory or made now.

    Raises ContestError if the teacher cannot be read or trained.
    """
    from contest.inference import load, save
    from contest.pipeline import compress
    from contest.training import soft_labels

    home = directory / "teacher"
    path = Path(settings.teacher) if settings.teacher else home / "model.pt"
    if not settings.teacher and not path.exists():
        outcome = compress(
            teacher_candidate(settings, device=device),
            train,
            validation,
            image_shape=train.shape,
            classes=int(train.labels.max()) + 1,
            device=device,
            directory=home,
        )
        save(outcome.network, path)
    return soft_labels(load(path), train, device=device, cache=labels_path(directory))
