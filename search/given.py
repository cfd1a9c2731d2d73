"""What a study is given to begin from: float parents in files, a candidate's recipe, the best of another study."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contest.candidate import Architecture, Candidate
from contest.errors import ContestError, UsageError
from contest.files import beside
from contest.networks.options import Value
from contest.networks.registry import family_rows
from search.candidates import architecture_of, compression_of, float_candidate, seeds
from search.policy.ranking import Judge
from search.space import Space
from search.study.study import open_study
from search.study.trial import PARENTS, checkpoint_of, float_key
from search.trainers.pipeline import PipelineTrainer

THAWED_IMAGES = 1000
"""Training images from which a stored network's batch norms get statistics again."""


@dataclass(frozen=True)
class Given:
    """A parent that was brought along."""

    candidate: Candidate
    """Without epochs, and `start` the content of its checkpoint; where there are no weights, with its recipe."""
    values: Mapping[str, Value]
    """The point of the space that is nearest; its settings are those from which the children's differ."""
    exact: bool
    """Whether that point is this very architecture."""
    accuracy: float | None = None
    """On validation, as its training says, or measured; None where there are no weights."""

    @property
    def trained(self) -> bool:
        return bool(self.candidate.start)


def adopt(source: Path, directory: Path, trainer: PipelineTrainer, space: Space) -> list[Given]:
    """What a file or a study brings: its checkpoints are copied into the study `directory`.

    source: a `train.ckpt` or `tune.ckpt`, a `model.pt`, a `candidate.json`, or the directory of a study, whose best
    networks' parents are taken. Raises UsageError for anything else, for networks of other images or classes, and for
    those that learned from other images than this study's training split, or do not say from which.
    """
    if source.is_dir():
        return _of_study(source, directory, trainer, space)
    if not source.is_file():
        raise UsageError(f"{source}: no such file; give a checkpoint, a model.pt, a candidate.json or a study")
    if source.suffix == ".json":
        return [_of_candidate(Candidate.read(source), trainer, space)]
    from contest.training.checkpoint import write

    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "parent.ckpt"
        state = _state_of(source)
        if state is None:
            state = _thawed(source, trainer)
            write(state, found)
        else:
            shutil.copyfile(source, found)
        content = hashlib.sha256(found.read_bytes()).hexdigest()[:16]
        given = _of_checkpoint(found, state, source, content, trainer, space)
        kept = directory / PARENTS / f"{content}.ckpt"
        with beside(kept) as part:
            shutil.copyfile(found, part)
    return [given]


def _state_of(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; None for another file."""
    from contest.training.checkpoint import UNREADABLE, read

    try:
        state = read(path)
        return state if "parts" in state else None
    except UNREADABLE:
        return None


def _thawed(source: Path, trainer: PipelineTrainer) -> dict[str, Any]:
    """A stored network as the checkpoint of a float one. Raises UsageError for a file that holds none."""
    from contest.model_file import load, thaw

    try:
        network = load(source)
    except ContestError as error:
        raise UsageError(f"{source} is neither a checkpoint nor a model.pt: {error}") from error
    manifest = network.manifest
    if tuple(manifest.image_shape) != trainer.image_shape or manifest.classes != trainer.classes:
        raise UsageError(
            f"{source} takes {'x'.join(map(str, manifest.image_shape))} images of {manifest.classes} classes; "
            f"these are {'x'.join(map(str, trainer.image_shape))} images of {trainer.classes}"
        )
    _check_split(source, manifest.provenance, trainer)
    model = thaw(network, trainer.some_images(THAWED_IMAGES).pixels.cpu().float() / 255)
    candidate = Candidate(Architecture(manifest.architecture.family, dict(manifest.architecture.options)))
    provenance = {"candidate": candidate.to_json(), **manifest.provenance}
    return {"provenance": provenance, "run": {}, "parts": {"model": model.state_dict()}, "history": []}


def _check_split(source: Path, provenance: Mapping[str, str], trainer: PipelineTrainer) -> None:
    learned = provenance.get("split_sha256")
    if learned != trainer.split_sha256:
        seen = f"was trained on other images ({learned[:16]})" if learned else "does not say which images it saw"
        raise UsageError(
            f"{source} {seen}; this study's training images are {trainer.split_sha256[:16]}: what it knows of images "
            "that validation is measured on would count as the study's own, so give a network of these images"
        )


def _of_checkpoint(
    path: Path, state: Mapping[str, Any], source: Path, content: str, trainer: PipelineTrainer, space: Space
) -> Given:
    from contest.networks import build
    from contest.training import start_from

    provenance, history = state.get("provenance", {}), state.get("history", [])
    _check_split(source, provenance, trainer)
    if "candidate" not in provenance:
        raise UsageError(f"{source} does not say which network it holds: give the model.pt of that training instead")
    made = Candidate.from_json(provenance["candidate"])
    made = replace(made, architecture=_cheapest(made.architecture, space))
    model = build(made.architecture, trainer.image_shape, trainer.classes)
    taken = start_from(path, model, trainer.split_sha256)
    missing = sorted(set(model.state_dict()) - set(taken))
    if missing:
        raise UsageError(
            f"{source} is no parent for these images: {missing[0]} is missing or has another shape (images of "
            "another size or class, or channels were removed)"
        )
    values, exact = nearest(made, space)
    parent = float_candidate(values, epochs=0.0, seed=trainer.settings.seed)
    accuracy = history[-1].get("validation_accuracy") if history else None
    if accuracy is None:  # a stored network was measured by nobody who would say so
        accuracy = trainer.accuracy(model)
    return Given(replace(parent, architecture=made.architecture, start=content), values, exact, accuracy)


def _cheapest(architecture: Architecture, space: Space) -> Architecture:
    """The network of this space that computes the same at the least price: without a last 1x1 that the classifier can
    do (`contest.networks.wide_end`)."""
    block, head = (architecture.options.get(name) for name in ("block", "head_width"))
    allowed = "tail" in space.dimensions and "wide" in space.dimensions["tail"].grid()
    if architecture.family != "thin" or block != "inverted" or head or not allowed:
        return architecture
    return Architecture(architecture.family, {**architecture.options, "tail": "wide"})


def _of_candidate(candidate: Candidate, trainer: PipelineTrainer, space: Space) -> Given:
    values, exact = nearest(candidate, space)
    trainer.price(candidate)  # raises for an architecture that these images do not go through
    seed = trainer.settings.seed
    train = replace(candidate.train, distillation=float(values["distillation"]) if trainer.settings.taught else 0.0)
    return Given(Candidate(candidate.architecture, train=train, seed=seed), values, exact)


def _of_study(source: Path, directory: Path, trainer: PipelineTrainer, space: Space) -> list[Given]:
    """The float parents of the three best networks of a study."""
    if not (source / "study.json").is_file():
        raise UsageError(
            f"--start {source}: this folder holds no study (no study.json); give a study's directory, a train.ckpt, a "
            "model.pt or a candidate.json"
        )
    study = open_study(source)
    best = Judge(study.settings, study.records(), trainer.classes).leaders()
    study.close()
    found: dict[str, Given] = {}
    for record in best:
        path = checkpoint_of(source, record.candidate) or source / f"floats/{float_key(record.candidate)}.ckpt"
        if path.is_file() and len(found) < 3:
            for given in adopt(path, directory, trainer, space):
                settings = {n: v for n, v in record.params.items() if n in space.compression}
                values = space.complete({**given.values, **settings})
                found.setdefault(given.candidate.start, replace(given, values=values))
    if not found:
        raise UsageError(f"{source} is a study without a network whose float parent is still there")
    return list(found.values())


def nearest(candidate: Candidate, space: Space) -> tuple[dict[str, Value], bool]:
    """The point of the space that is nearest to a candidate, and whether it has the very architecture.

    The best starting point of the family, changed in one dimension at a time while that brings it nearer, with what of
    the candidate's recipe its children keep, and with the bits, zeros and tuning of a candidate that is compressed.
    """
    family = candidate.architecture.family
    points = [p for p in seeds(space) if p["family"] == family] or [space.complete({"family": family})]
    best = min(points, key=lambda p: _distance(candidate.architecture, p))
    distance = _distance(candidate.architecture, best)
    names = [name for name in space.architecture if name in best and name != "family"]
    improved = 0 < distance < math.inf
    while improved:
        improved = False
        for name in names:
            for value in space.dimensions[name].grid():
                changed = space.complete({**best, name: value})
                if (further := _distance(candidate.architecture, changed)) < distance - 1e-9:
                    best, distance, improved = changed, further, True
    recipe = {n: v for n, v in vars(candidate.train).items() if n in RECIPE_KEPT and n in space.parts}
    settings = {n: v for n, v in compression_of(candidate).items() if n in space.compression}
    return space.complete({**best, **recipe, **settings}), distance < 1e-9


RECIPE_KEPT = ("optimiser", "weight_decay", "label_smoothing", "batch_size", "flip", "crop")
"""Of a parent's recipe, what its children keep."""


def _distance(architecture: Architecture, values: Mapping[str, Value]) -> float:
    """0 for the same network; infinite for another family or what cannot be drawn."""
    other = architecture_of(values)
    if other.family != architecture.family:
        return math.inf
    defaults = {name: spec.default for name, spec in family_rows()[other.family].options.items()}
    mine, theirs = ({**defaults, **a.options} for a in (architecture, other))
    return sum(_differ(mine[name], theirs.get(name)) for name in mine)


def _differ(one: Any, other: Any) -> float:
    if one == other:
        return 0.0
    if isinstance(one, tuple) and isinstance(other, tuple):
        return abs(len(one) - len(other)) + sum(_differ(a, b) for a, b in zip(one, other, strict=False))
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in (one, other))
    return abs(math.log(one / other)) if numbers else 1.0
