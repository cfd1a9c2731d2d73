"""candidate -> network: train, remove channels, quantise, mask and fine-tune, freeze.

Everything random comes from the candidate's seed, and each stage has its own checkpoint, so an interrupted
compression goes on where it stopped and ends in the same network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from contest import networks
from contest.candidate import Candidate, Recipe
from contest.datasets import Images
from contest.errors import TrainingError, UsageError
from contest.model_file import Network, fold_batch_norms, freeze
from contest.model_file.manifest import ClaimedParent, Claims, WeightLayer
from contest.model_file.numbers import norms_behind, round_norms
from contest.networks.wide_end import is_wide, whole, with_wide_end
from contest.pruning.masks import exact_k, exact_k_each, full, hold
from contest.pruning.prunable import prunable
from contest.pruning.registry import method
from contest.training import Epoch, Evaluation, evaluate, fit, refresh_statistics, start_from

CALIBRATION_IMAGES = 256
"""Images from which the first quantiser steps are chosen."""
NUMBERS_RATE = 0.5
"""Learning rate of the numbers' own epochs, of the tuning's."""
FIRST_IMAGES = 5000
"""Images that a new network is shown (`networks.see`)."""


@dataclass(frozen=True)
class Stage:
    """One training of the pipeline, as it ended."""

    name: str
    epochs: float
    seconds: float
    validation_accuracy: float | None


@dataclass(frozen=True)
class Outcome:
    """What a candidate became. `validation` is measured on the frozen network, None without validation images."""

    network: Network
    validation: Evaluation | None
    stages: tuple[Stage, ...]


@dataclass
class _Stages:
    """What the stages of one compression share."""

    train: Images
    validation: Images | None
    device: str
    directory: Path | None
    teach: Callable[[Recipe], Tensor] | None
    on_epoch: Callable[[Epoch], None] | None
    on_step: Callable[[str, float], None] | None
    progress: bool
    provenance: Mapping[str, str]
    plan: Mapping[str, float]
    """Epochs of each stage, in order."""
    ends_at: float | None
    stages: list[Stage]

    def fit(
        self,
        name: str,
        model: nn.Module,
        recipe: Recipe,
        seed: int,
        masks: GradualMasks | None = None,
        begun: bool = False,
    ) -> None:
        """One stage: train `model` in place, from its checkpoint where there is one."""
        start, on_step = time.monotonic(), self.on_step
        soft_labels = self.teach(recipe) if self.teach and recipe.distillation and recipe.epochs else None
        history = fit(
            model,
            self.train,
            recipe,
            validation=self.validation,
            device=self.device,
            seed=seed,
            checkpoint=None if self.directory is None else self.directory / f"{name}.ckpt",
            soft_labels=soft_labels,
            begun=begun,
            before_epoch=None if masks is None else masks.before_epoch,
            before_step=_dampening(recipe) if recipe.dampening else None,
            after_step=None if masks is None else masks.after_step,
            on_epoch=self.on_epoch,
            on_step=None if on_step is None else lambda share: on_step(name, share),
            ends_at=self._ends_at(name),
            progress=self.progress,
            provenance=self.provenance,
        )
        if masks is not None:
            masks.finish(model)
        self.stages.append(Stage(name, recipe.epochs, time.monotonic() - start, history.validation_accuracy))

    def _ends_at(self, name: str) -> float | None:
        """The end of a stage: of the time that is left now, its share by epochs."""
        names, epochs = list(self.plan), list(self.plan.values())
        left = sum(epochs[names.index(name) :]) if name in names else 0.0
        if self.ends_at is None or not left:
            return self.ends_at
        now = time.time()
        return now + (self.ends_at - now) * self.plan[name] / left


def _of_numbers(recipe: Recipe) -> Recipe:
    """The last epochs of a quantised training, for numbers alone."""
    rate = recipe.learning_rate * NUMBERS_RATE
    return replace(recipe, epochs=recipe.number_epochs, number_epochs=0.0, learning_rate=rate, warmup_epochs=0.0)


def _dampening(recipe: Recipe) -> Callable[[nn.Module, float], None]:
    """The pull to the grid, from nothing to the recipe's along a cosine."""
    from contest.quantisation import dampen

    return lambda model, done: dampen(model, recipe.dampening * (1 - math.cos(math.pi * done)) / 2)


class GradualMasks:
    """Masks whose zeros grow epoch by epoch during the first half of a training, and hold from then on.

    The zeros follow the cubic schedule of Zhu & Gupta 2017 (arXiv 1710.01878, eq. 1), and are chosen by the scores of a
    pruning method. Once zero, always zero, so an interrupted run finds the same masks in the weights themselves.
    `zeros` is a number for all weights together, or a fraction for each named one.
    """

    RAMP = 0.5

    def __init__(
        self,
        model: nn.Module,
        zeros: int | Mapping[str, float],
        score: Callable[[nn.Module], Mapping[str, Tensor]],
    ) -> None:
        self.zeros, self.total = zeros, sum(p.numel() for p in prunable(model).values())
        self._score = score
        self.masks = full(model)
        self._behind_quantisers(model)

    def before_epoch(self, model: nn.Module, number: int, epochs: int) -> None:
        """Draw the masks of epoch `number` (from 0) of `epochs`."""
        share = min(1.0, (number + 1) / math.ceil(epochs * self.RAMP))
        self._draw(model, 1 - (1 - share) ** 3)

    def after_step(self, model: nn.Module) -> None:
        """Zeros stay zeros."""
        hold(model, self.masks)

    def finish(self, model: nn.Module) -> None:
        """The exact number of zeros, in the weights that the training returned."""
        self._draw(model, 1.0)

    def _draw(self, model: nn.Module, share: float) -> None:
        """Masks with this share of all the zeros."""
        weights = prunable(model)
        scores = {
            name: score.to(weights[name].device).masked_fill(weights[name].detach() == 0, -torch.inf)
            for name, score in self._score(model).items()
        }
        if isinstance(self.zeros, Mapping):
            self.masks = exact_k_each(scores, {name: share * fraction for name, fraction in self.zeros.items()})
        else:
            self.masks = exact_k(scores, self.total - round(self.zeros * share))
        self._behind_quantisers(model)
        hold(model, self.masks)

    def _behind_quantisers(self, model: nn.Module) -> None:
        if any(hasattr(module, "weight_quant") for module in model.modules()):
            from contest.quantisation import set_masks

            set_masks(model, self.masks)


def compress(
    candidate: Candidate,
    train: Images,
    validation: Images | None = None,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    device: str = "cpu",
    directory: Path | None = None,
    teach: Callable[[Recipe], Tensor] | None = None,
    start: Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: Callable[[str, float], None] | None = None,
    ends_at: float | None = None,
    progress: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> Outcome:
    """Make the candidate's network.

    Args:
        directory: where the checkpoints of the stages lie; a second call with the same arguments goes on from them.
        teach: a teacher's logits for the images of a recipe that distils, as `fit` takes them.
        start: a checkpoint of a float training; weights whose name and shape agree begin as they ended there.
        on_epoch: sees every epoch of every stage; what it raises ends the run with the checkpoints intact.
        on_step: is told now and then how far a stage is (its name, 0 to 1).
        ends_at: when the last step should have been made (Unix time); stages that are too slow are shortened (`fit`).

    Raises:
        UsageError: the architecture, the bits or the pruning do not fit together, a teacher is missing, or `start` is
            of a network that has nothing in common with this one.
        TrainingError: the loss is not a number any more.
    """
    _check(candidate, start, taught=teach is not None)
    origin = {**_versions(), "seed": str(candidate.seed), "candidate": candidate.to_json(), **(provenance or {})}
    epochs = dict(stages(candidate))
    run = _Stages(train, validation, device, directory, teach, on_epoch, on_step, progress, origin, epochs, ends_at, [])
    torch.manual_seed(candidate.seed)
    model = networks.build(candidate.architecture, image_shape, classes)
    exact_k_each(prunable(model), dict(candidate.ratios))  # names that do not exist are said before the float training
    networks.see(model, _some(train, candidate.seed, FIRST_IMAGES), train.statistics)
    if start is not None:
        start_from(start, model, (provenance or {}).get("split_sha256") if validation is not None else None)
    macs, weights = networks.macs_and_weights(candidate.architecture, image_shape, classes)
    if start is None and candidate.train.epochs and is_wide(candidate.architecture):
        _train_whole(run, model, candidate, image_shape, classes)
    else:
        run.fit("train", model, candidate.train, candidate.seed, begun=start is not None)
    last = candidate.train
    if candidate.structured:
        model = _remove_channels(model, candidate, image_shape)
        last = replace(candidate.tune, number_epochs=0.0)
        run.fit("channels", model, last, candidate.seed + 1)
    left = sum(p.numel() for p in prunable(model).values())
    asked = _zeros_asked(candidate, weights, left)
    if candidate.bits.quantised or asked:
        _quantise(model, candidate, train)
        masks = GradualMasks(model, asked, scorer(candidate, train, device)) if asked else None
        last = replace(candidate.tune, epochs=run.plan["tune"], number_epochs=0.0)
        run.fit("tune", model, last, candidate.seed + candidate.tune_seed + 2, masks)
    refresh_statistics(model, train, last, device=device, seed=candidate.seed)
    if "numbers" in run.plan:
        behind = norms_behind(candidate.architecture, image_shape, classes)
        if round_norms(model.cpu(), behind, candidate.bits.numbers):
            run.fit("numbers", model, _of_numbers(candidate.tune), candidate.seed + candidate.tune_seed + 3)
            refresh_statistics(model, train, last, device=device, seed=candidate.seed)  # of batch norms that stayed
    parent = ClaimedParent(weights=float(weights), macs=float(macs))
    network = _frozen(model.cpu(), candidate, image_shape, classes, parent, origin)
    claims = Claims(p_s=(weights - left) / weights, p_u=_zeros(network) / weights)
    network.manifest = network.manifest.model_copy(update={"claims": claims})
    measured = None if validation is None else evaluate(network, validation, device=device)
    return Outcome(network.cpu(), measured, tuple(run.stages))


def _train_whole(
    run: _Stages, model: nn.Module, candidate: Candidate, image_shape: tuple[int, int, int], classes: int
) -> None:
    """Train a network with a wide tail, in place, as the one that still has its last 1x1 convolution.

    That computes the same and learns better (docs/record: a point after six epochs).
    """
    torch.manual_seed(candidate.seed)
    longer = networks.build(whole(candidate.architecture), image_shape, classes)
    networks.see(longer, _some(run.train, candidate.seed, FIRST_IMAGES), run.train.statistics)
    run.fit("train", longer, candidate.train, candidate.seed)
    refresh_statistics(longer, run.train, candidate.train, device=run.device, seed=candidate.seed)
    model.load_state_dict(with_wide_end(longer.cpu().state_dict(), model.state_dict()))


def _check(candidate: Candidate, start: Path | None, taught: bool) -> None:
    """Raises UsageError now for what would be missed after hours of training."""
    for stage, recipe in (("train", candidate.train), ("tune", candidate.tune)):
        if recipe.distillation and not taught:
            raise UsageError(
                f"the {stage} recipe has distillation = {recipe.distillation:g}, but there are no soft labels of a "
                "teacher: give --teacher model.pt, or set distillation to 0"
            )
    if candidate.train.number_epochs:
        raise UsageError("the train recipe has number_epochs; they belong to the quantised training (tune)")
    if candidate.tune.branches:
        raise UsageError("the tune recipe has branches = true; they belong to the float training (train)")
    if candidate.unstructured:
        method(candidate.pruning)  # an unknown one is an error
    if candidate.start and start is None:
        raise UsageError(
            f"the candidate begins from a float network whose checkpoint has the content {candidate.start}: give it as "
            "the start (contest train --start)"
        )


def _zeros_asked(candidate: Candidate, weights: int, left: int) -> int | Mapping[str, float]:
    """How many zeros masks make of the `left` weights, for a network that had `weights`: a number, or a fraction for
    each named weight. Raises TrainingError where so many are not there."""
    zeros = round(candidate.unstructured * weights)
    if zeros >= left:
        raise TrainingError(
            f"p_u = {candidate.unstructured:g} asks for {zeros:,} zeros, but structured pruning left {left:,} weights"
        )
    return dict(candidate.ratios) or zeros


def _frozen(
    model: nn.Module,
    candidate: Candidate,
    image_shape: tuple[int, int, int],
    classes: int,
    parent: ClaimedParent,
    provenance: Mapping[str, str],
) -> Network:
    """The network of the file."""
    half = candidate.bits.weights == 16
    stored = torch.float16 if half else torch.float32  # half precision counts only where the network runs in it
    numbers = candidate.bits.numbers if candidate.bits.quantised else 32
    return freeze(
        model if numbers <= 8 else fold_batch_norms(model, stored),
        candidate.architecture,
        image_shape=image_shape,
        classes=classes,
        weight_bits=16 if half else 32,
        affine_type=stored,
        number_bits=numbers,
        parent=parent,
        provenance=provenance,
    )


def _remove_channels(model: nn.Module, candidate: Candidate, image_shape: tuple[int, int, int]) -> nn.Module:
    from contest.pruning.structured import remove_channels

    return remove_channels(model.cpu(), candidate.structured, image_shape, candidate.channels)  # type: ignore[arg-type]


def scorer(candidate: Candidate, train: Images, device: str) -> Callable[[nn.Module], Mapping[str, Tensor]]:
    """The scores of the candidate's pruning method, on the images from which the quantisers' steps are chosen.

    Raises UsageError for a method that does not exist.
    """
    chosen = method(candidate.pruning)
    if candidate.pruning == "magnitude":  # without data, and so before every epoch for nothing
        return lambda model: {name: weight.detach().abs() for name, weight in prunable(model).items()}

    def score(model: nn.Module) -> Mapping[str, Tensor]:
        images = _some(train, candidate.seed, CALIBRATION_IMAGES).to(device)
        labels = train.labels[_places(train, candidate.seed, CALIBRATION_IMAGES).to(train.labels.device)].to(device)
        model.to(device)
        torch.manual_seed(candidate.seed)
        return chosen(model, [(images, labels)], nn.functional.cross_entropy)

    return score


def _quantise(model: nn.Module, candidate: Candidate, train: Images) -> None:
    if candidate.bits.quantised:
        from contest.quantisation import quantise

        quantise(model.cpu(), candidate.bits, _some(train, candidate.seed, CALIBRATION_IMAGES))


def _some(train: Images, seed: int, count: int) -> Tensor:
    """`count` training images, float [N, C, H, W] in [0, 1]."""
    return train.pixels[_places(train, seed, count).to(train.pixels.device)].cpu().float() / 255


def _places(train: Images, seed: int, count: int) -> Tensor:
    """Where `count` training images are, the same for the same seed."""
    return torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:count]


def _zeros(network: Network) -> int:
    """Weights of the stored network that are zero: masked, or rounded to the code 0."""
    layers = [module for module in network.modules() if isinstance(module, WeightLayer)]
    return sum(int((m.codes if m.weight_bits <= 8 else m.weight).eq(0).sum()) for m in layers)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("contest", "torch", "brevitas")}


def stages(candidate: Candidate) -> Iterator[tuple[str, float]]:
    """The trainings of the pipeline for this candidate and their epochs, in order."""
    yield "train", candidate.train.epochs
    if candidate.structured:
        yield "channels", candidate.tune.epochs
    if candidate.bits.quantised or candidate.unstructured or candidate.ratios:
        numbers = candidate.tune.number_epochs if candidate.bits.quantised and candidate.bits.numbers <= 8 else 0.0
        yield "tune", candidate.tune.epochs - numbers
        if numbers:
            yield "numbers", numbers
