"""The real trainer: `contest.pipeline` on one data set, priced by `scoring`, on the fastest number of threads."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from contest.candidate import Architecture, Bits, Candidate, Recipe
from contest.errors import UsageError
from contest.files import beside
from contest.pipeline import stages
from search.study.settings import StudySettings
from search.study.trial import TrialPrice, checkpoint_of, float_key
from search.trainers.protocol import OnStep, Progress, Speed, Trained

if TYPE_CHECKING:
    import torch
    from torch import nn

    from contest.datasets import Images
    from contest.training import Ensemble, Epoch


STEPS = 6
"""Of an epoch that is timed."""
SMALL_SET = 25_000
"""Training sets below this many images give a fifth to validation, larger ones 5,000."""


class PipelineTrainer:
    """Trains candidates of a study on its training split and measures them on its validation split.

    The test images are never given to it. Float trainings that several candidates share (the same
    architecture, recipe and seed, other bits or sparsity) are done once: their checkpoint is kept in `floats/`.
    """

    def __init__(
        self, settings: StudySettings, directory: Path, *, device: str = "auto", threads: int | None = None
    ) -> None:
        from contest.datasets import load, split
        from contest.training import choose_device

        data = load(settings.dataset, Path(settings.data) if settings.data else None)
        held_out = 5000 if len(data.train) >= SMALL_SET else len(data.train) // 5
        parts = split(data.train, held_out, settings.split_seed)
        self.settings = settings
        self.directory = directory
        self.device = str(choose_device(device))
        self.image_shape = data.image_shape
        self.classes = len(data.classes)
        self.test_images = 0 if data.test is None else len(data.test)
        self._teacher: Ensemble | None = None
        self._answering_s: float | None = None
        self._labels: dict[str, torch.Tensor] = {}
        self._train = parts.train
        self._validation = parts.validation
        self._provenance = {
            "study": directory.name,
            "data": data.name,
            "validation": f"{held_out} of the training images, seed {parts.seed}",
            "split_sha256": parts.sha256,
        }
        if self.device == "cpu":
            choose_threads(self.image_shape, threads)
        else:
            self._train, self._validation = parts.train.to(self.device), parts.validation.to(self.device)

    @property
    def split_sha256(self) -> str:
        """Of the split whose validation images judge the networks."""
        return self._provenance["split_sha256"]

    @property
    def images(self) -> int:
        return len(self._train)

    @property
    def validation(self) -> int:
        return len(self._validation)

    def price(self, candidate: Candidate) -> TrialPrice:
        return price_before(candidate, self.settings.rule, self.image_shape, self.classes)

    def train(
        self,
        candidate: Candidate,
        directory: Path,
        on_epoch: Callable[[Progress], None],
        *,
        ends_at: float | None = None,
        on_step: OnStep | None = None,
    ) -> Trained:
        from contest.model_file import save
        from contest.pipeline import compress

        directory.mkdir(parents=True, exist_ok=True)
        shared = self.directory / "floats" / f"{float_key(candidate)}.ckpt"
        own = directory / "train.ckpt"
        if shared.exists() and not own.exists():
            _copy(shared, own)
        plan = list(stages(candidate))
        total = sum(epochs for _, epochs in plan)
        starts = {name: sum(epochs for _, epochs in plan[:place]) for place, (name, _) in enumerate(plan)}
        unsaid = 0

        def step(stage: str, share: float) -> None:
            if on_step is not None and total:
                on_step(stage, (starts[stage] + share * dict(plan)[stage]) / total)

        def report(epoch: Epoch) -> None:
            stage, before = _current(directory, plan)
            if stage == "train" and epoch.epoch == math.ceil(epoch.epochs) and not shared.exists():
                _copy(own, shared)
            nonlocal unsaid
            done = min(1.0, (before + min(epoch.epoch, epoch.epochs)) / total)
            images = unsaid + round(len(self._train) * min(1.0, epoch.epochs - epoch.epoch + 1) * epoch.share)
            unsaid = images if epoch.validation_accuracy is None else 0
            if epoch.validation_accuracy is None:  # a late training does not stop to look
                return
            on_epoch(Progress(done, epoch.validation_accuracy, epoch.images_per_second, images, stage))

        outcome = compress(
            candidate,
            self._train,
            self._validation,
            image_shape=self.image_shape,
            classes=self.classes,
            device=self.device,
            directory=directory,
            teach=self.soft_labels if distils(candidate) else None,
            start=checkpoint_of(self.directory, candidate),
            on_epoch=report,
            on_step=step,
            ends_at=ends_at,
            provenance=self._provenance,
        )
        model, seen = save(outcome.network, directory / "model.pt"), outcome.validation
        assert seen is not None
        return Trained(seen.correct, seen.total, price_after(model, self.settings.rule), model, seen.loss)

    def accuracy(self, model: nn.Module) -> float:
        """Of a network, on the validation images."""
        from contest.training import evaluate

        return evaluate(model, self._validation, device=self.device).accuracy

    def some_images(self, count: int) -> Images:
        """The first training images: for timing."""
        import torch

        return self._train.take(torch.arange(min(count, len(self._train))))

    def measure(self, candidate: Candidate) -> Speed:
        """What a training of `candidate` (of two epochs, float and quantised) costs here.

        It is made with the images of a few steps; the second epoch counts (the first sets things up). What a training
        does with all images besides its steps (batch norms' statistics, the last validation) is calculated from the
        time of a validation.
        """
        import torch

        from contest.model_file import save
        from contest.networks import build
        from contest.pipeline import compress
        from contest.training import evaluate
        from contest.training.averaging import IMAGES
        from contest.training.device import has_bf16

        import_module("contest.quantisation")  # seconds that only the first training would pay
        import_module("scoring.score")
        macs = self.price(candidate).macs
        network = build(candidate.architecture, self.image_shape, self.classes)
        took = []
        for bf16 in (has_bf16(torch.device(self.device)), False):
            started = time.monotonic()
            evaluate(network, self._validation, device=self.device, bf16=bf16)
            took.append(time.monotonic() - started)
        found: dict[int, float] = {}
        stage = 0

        def note(epoch: Epoch) -> None:
            nonlocal stage
            stage += epoch.epoch == 1
            found[stage] = epoch.images_per_second

        started = time.monotonic()
        images = self.some_images(STEPS * candidate.train.batch_size)
        with tempfile.TemporaryDirectory() as folder:
            outcome = compress(
                candidate,
                images,
                image_shape=self.image_shape,
                classes=self.classes,
                device=self.device,
                directory=Path(folder),
                on_epoch=note,
            )
            price_after(save(outcome.network, Path(folder) / "model.pt"), self.settings.rule)
        speeds = list(found.values())
        start_s = time.monotonic() - started - sum(2 * len(images) / speed for speed in speeds)
        shown = (min(IMAGES, self.images) + self.validation) / self.validation
        return Speed(macs, speeds[0], speeds[-1], took[0], max(0.1, start_s) + took[1] * shown, took[1])

    def teach(self) -> bool:
        """Make the study's teacher ready; False if it has none."""
        if not self.settings.taught:
            return False
        if not self.settings.taught_epochs:  # one set of answers serves every recipe
            self.soft_labels(Recipe())
        elif self._teacher is None:
            self._teacher = self._make_teacher()
        return True

    def refusal(self) -> str | None:
        """Why the given teacher cannot teach here: it takes other images, or knows those of the validation split."""
        from contest.training import load_teachers

        try:
            load_teachers([Path(path) for path in self.settings.teachers], self._train, self.classes, self.split_sha256)
        except UsageError as error:
            return str(error)
        return None

    def soft_labels(self, recipe: Recipe) -> torch.Tensor:
        """The teacher's logits for the images of a recipe: made by whoever needs them first, read by the others."""
        from contest.training import question
        from search.trainers.teacher import make_labels

        asked = question(recipe)
        if asked not in self._labels:
            self._teacher = self._teacher or self._make_teacher()
            self._labels[asked] = make_labels(self._teacher, self._answers, self._train, recipe, device=self.device)
        return self._labels[asked]

    def answering_s(self) -> float:
        """Seconds that the study's given teacher needs for its answers; 0 where they are kept, or nobody is given."""
        from search.trainers.teacher import answering_s

        if not self.settings.teachers:
            return 0.0
        if self._answering_s is None:
            recipe = Recipe(taught_epochs=self.settings.taught_epochs)
            self._answering_s = answering_s(
                self._make_teacher(), self._answers, self._train, recipe, device=self.device
            )
        return self._answering_s

    @property
    def _answers(self) -> Path:
        """Where answers are kept: those of given teachers serve all studies."""
        shared = self.settings.answers if self.settings.teachers else None
        return Path(shared) if shared else self.directory / "teacher"

    def _make_teacher(self) -> Ensemble:
        from search.trainers.teacher import make_teacher

        return make_teacher(
            self.settings, self.directory, self._train, self._validation, self._provenance, device=self.device
        )


def distils(candidate: Candidate) -> bool:
    return candidate.train.distillation > 0 or candidate.tune.distillation > 0


def _current(directory: Path, plan: list[tuple[str, float]]) -> tuple[str, float]:
    """The stage whose checkpoint was written last, and the epochs of the stages before it."""
    begun = [index for index, (name, _) in enumerate(plan) if (directory / f"{name}.ckpt").exists()]
    last = begun[-1] if begun else 0
    return plan[last][0], sum(epochs for _, epochs in plan[:last])


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all, whoever else copies at the same time."""
    with beside(target) as part:
        shutil.copyfile(source, part)


def price_before(candidate: Candidate, rule: str, image_shape: tuple[int, int, int], classes: int) -> TrialPrice:
    """The price that a candidate aims at. Raises ContestError if it cannot be built.

    Removing a fraction p_s of the weights in whole channels removes about the same fraction of operations;
    zeros are free. Scales and shifts do not shrink, so this is slightly less than what the file will cost: right
    for asking whether a candidate *can* win.
    """
    params, ops, numbers, macs, weights = _dense(candidate.architecture, candidate.bits, rule, image_shape, classes)
    left = 1 - candidate.structured
    return TrialPrice(
        params=(params - numbers) * (left - candidate.unstructured) + numbers * left,
        ops=ops * left,
        macs=round(macs * left),
        weights=round(weights * left),
    )


@lru_cache(maxsize=16384)
def _dense(
    architecture: Architecture, bits: Bits, rule: str, image_shape: tuple[int, int, int], classes: int
) -> tuple[float, float, float, int, int]:
    """(parameter term, operation term, part of the parameter term that is not weights, MACs, weights)."""
    import dataclasses

    from scoring.rules import load_rule, price
    from scoring.score import architecture_costs

    costs = architecture_costs(architecture, bits, image_shape, classes)
    loaded = load_rule(rule)
    score = price(costs, loaded)
    # Numbers beside the weights (scales, multipliers, shifts) are not pruned: priced alone, with the weights gone.
    bare = dataclasses.replace(costs, operations=tuple(dataclasses.replace(op, nonzeros=0) for op in costs.operations))
    return score.params, score.ops, price(bare, loaded).params, costs.macs, costs.weights


def price_after(model: Path, rule: str) -> TrialPrice:
    """The price measured on a network's file (one that this program wrote: opened without the isolated child)."""
    from scoring.rules import load_rule
    from scoring.score import score_file

    report = score_file(model, rule=rule, trust=True).to_json()
    terms, measured = report["scores"][load_rule(rule).name], report["measured"]
    return TrialPrice(params=terms["params"], ops=terms["ops"], macs=measured["macs"], weights=measured["weights"])


def choose_threads(image_shape: tuple[int, int, int], threads: int | None = None) -> None:
    """The number of threads that trains small networks fastest on this machine, as it is now: one or all.

    threads: what another process has found; then nothing is measured.

    Threads wait for each other several hundred times a step; where other programs use the cores too, all threads
    may be ten times slower than one. So it is measured, with a second of a typical network's steps each.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
        return
    cores = torch.get_num_threads()
    if cores == 1 or math.prod(image_shape) < 500:
        torch.set_num_threads(1)  # images so small never gain from more
        return
    times = {}
    for number in (1, cores):
        torch.set_num_threads(number)
        times[number] = _time_steps(image_shape)
    torch.set_num_threads(min(times, key=lambda number: times[number]))


def _time_steps(image_shape: tuple[int, int, int], steps: int = 4) -> float:
    """Seconds of a few float training steps of a small residual network, after one to warm up."""
    import torch

    from contest.networks import build

    network = build(Architecture("resnet", {"depth": 8}), image_shape, 10)
    x = torch.rand(64, *image_shape)
    started = 0.0
    for step in range(steps + 1):
        network(x).sum().backward()
        if step == 0:
            started = time.perf_counter()
    return time.perf_counter() - started
