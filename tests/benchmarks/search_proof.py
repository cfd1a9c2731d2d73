"""Does the search win? Ours, at equal trained images, against what anybody can do.

    python tests/benchmarks/search_proof.py --dataset digits --images 40000 --seeds 5 --results digits.jsonl
    python tests/benchmarks/search_proof.py --train-images 12000 --images 72000 --target 0.01 --results cifar.jsonl

(a) random search with the plain pipeline: candidates drawn at random, each trained for `--epochs`.
(b) Optuna TPE with the objective's constraint: what a plain `study.optimize` loop gives.
(c) by hand: one fixed line. Digits: `resnet` 4-6-8, 3 bits, half zeros, half of the images float, half quantised.
    CIFAR-10: `thin` 16, 32-64, 1-2, 4 bits, 40 % zeros, two thirds of the images float at 0.2, the rest at 0.03.
(d) Optuna's Hyperband on the same space: trials report each epoch and are pruned.
(e) `contest search` with nothing but the budget.

All pay for each training image until the budget is spent. With `--target` the best *validation* accuracy below that
score wins; without it the lowest score among networks that reach the threshold on validation. What each method would
hand in is read on the test set, here only. Each run is one line of `--results`; runs that stand there are not repeated,
so the program can be started again after a kill, or run by run (`--runs 1`).
"""

from __future__ import annotations

import argparse
import io
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch
from rich.console import Console

from contest.candidate import Architecture, Bits, Candidate, Recipe
from contest.datasets import load
from contest.errors import ContestError
from contest.model_file import load as load_network
from contest.training import evaluate
from scoring.commands import rule_of
from scoring.rules import load_rule
from search.candidates import to_candidate
from search.output.progress import LiveView
from search.policy.forecast import open_account
from search.run import Run, Tools
from search.space import Space, make_space
from search.study.settings import StudySettings
from search.study.storage import open_storage, storage_url
from search.study.study import ACCOUNT, Study
from search.trainers.pipeline import PipelineTrainer
from search.trainers.protocol import Progress, Trained

RANDOM, TPE, HAND = "(a) random search", "(b) Optuna TPE", "(c) by hand"
HYPERBAND, OURS = "(d) Optuna Hyperband", "(e) contest search"
METHODS = (RANDOM, TPE, HAND, HYPERBAND, OURS)


class SpentError(ContestError):
    """The budget of training images is used up."""


class Meter:
    """A trainer that pays for every image and writes down what came out."""

    def __init__(self, trainer: PipelineTrainer, budget: int) -> None:
        self.trainer, self.budget, self.spent = trainer, budget, 0
        self.found: list[tuple[float, float, str, Path]] = []
        self.classes, self.images, self.validation = trainer.classes, trainer.images, trainer.validation
        self.price = trainer.price

    def train(
        self, candidate: Candidate, directory: Path, on_epoch: Callable[[Progress], None], **_: object
    ) -> Trained:
        def pay(progress: Progress) -> None:
            self.spent += progress.images
            on_epoch(progress)
            if self.spent >= self.budget and progress.fraction < 1 - 1e-6:
                raise SpentError("the budget of images is spent")

        if self.spent >= self.budget:
            raise SpentError("the budget of images is spent")
        trained = self.trainer.train(candidate, directory, pay)
        if candidate.bits.quantised:
            accuracy = trained.correct / trained.total
            self.found.append((trained.price.total, accuracy, str(candidate.architecture), trained.model))
        return trained


def plain(meter: Meter, space: Space, folder: Path, settings: StudySettings, study: optuna.Study) -> None:
    """(a), (b) and (d): ask, train, tell; a pruner may end a training after any epoch."""
    target = settings.target_score
    number = 0
    while meter.spent < meter.budget:
        trial = study.ask()
        candidate = to_candidate(space.values(trial), epochs=settings.explore_epochs, seed=settings.seed)

        def watch(progress: Progress, trial: optuna.Trial = trial) -> None:
            trial.report(progress.accuracy, round(100 * progress.fraction))
            if progress.fraction < 1 - 1e-6 and trial.should_prune():
                raise optuna.TrialPruned

        try:
            trained = meter.train(candidate, folder / "trials" / str(number), watch)
        except SpentError:
            return
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except (ContestError, RuntimeError, ValueError):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            accuracy, score = trained.correct / trained.total, trained.price.total
            trial.set_constraint("limit", settings.threshold - accuracy if target is None else score - target)
            study.tell(trial, accuracy if target is not None else score)
        number += 1


def optuna_study(name: str, settings: StudySettings) -> optuna.Study:
    sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(seed=settings.seed)
    if name == RANDOM:
        sampler = optuna.samplers.RandomSampler(seed=settings.seed)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if name == HYPERBAND:  # accuracies are reported; where scores are the value, none may be compared with them
        pruner = optuna.pruners.HyperbandPruner(min_resource=25, max_resource=100)
    direction = "minimize" if settings.target_score is None else "maximize"
    if name == HYPERBAND and settings.target_score is None:
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=25)
    return optuna.create_study(sampler=sampler, pruner=pruner, direction=direction)


def by_hand(meter: Meter, folder: Path, settings: StudySettings, epochs: float) -> None:
    """(c): a candidate that a reader of docs/record would write down, with all of the images."""
    if settings.dataset == "digits":
        architecture = Architecture("resnet", {"widths": (4, 6, 8), "depths": (1, 1, 1)})
        bits = Bits(3, 3, numbers=8, layers={"first": (8, 8), "last": (4, 4)})
        recipe = Recipe(epochs=epochs / 2, batch_size=64, learning_rate=0.2, schedule="onecycle", flip=False, crop=1)
        zeros, tune = 0.5, replace(recipe, learning_rate=0.02, schedule="cosine", warmup_epochs=0.0)
    else:
        options = {"stem_width": 16, "widths": (32, 64), "depths": (1, 2), "strides": (2, 2)}
        architecture = Architecture("thin", options)  # type: ignore[arg-type]
        bits = Bits(4, 4, numbers=8, layers={"first": (8, 8), "last": (8, 8)})
        recipe = Recipe(epochs=2 * epochs / 3, batch_size=128, learning_rate=0.2, schedule="onecycle")
        tune = replace(recipe, epochs=epochs / 3, learning_rate=0.03, schedule="cosine", warmup_epochs=0.0)
        zeros = 0.4
    candidate = Candidate(architecture, bits, unstructured=zeros, train=recipe, tune=tune, seed=settings.seed)
    meter.train(candidate, folder / "trials" / "hand", lambda _: None)


def ours(meter: Meter, space: Space, folder: Path, settings: StudySettings) -> str | None:
    """(e); the file of the network that it would hand in."""
    study = Study(folder, settings, space, open_storage(storage_url(None, folder)))
    total = meter.budget / meter.images / (settings.trials or 1)
    study.settings = replace(settings, explore_epochs=total)
    open_account(study, meter.images)
    print("   plan:", study.optuna.user_attrs[ACCOUNT]["plan"], flush=True)
    view = LiveView(study, meter, Console(file=io.StringIO()), lambda done: None)
    run = Run(study, meter, Tools(lambda model: {}, lambda: False), view)
    run.train()
    chosen = next(iter(run._judge().leaders()), None)
    for r in study.records():
        if r.result:
            c = r.candidate
            print(
                f"   {r.number} {r.stage} {r.why}: {c.architecture} w{c.bits.weights} a{c.bits.activations} "
                f"zeros {c.unstructured:g} channels {c.structured:g} epochs {c.train.epochs:g}+{c.tune.epochs:.3g}: "
                f"{r.result.price.total:.5f} at {r.result.accuracy:.2%}, expected {r.forecast or 0:.2%}"
            )
    study.close()
    return chosen.result.model if chosen and chosen.result else None


class SubsetTrainer(PipelineTrainer):
    """Trains on some of the images only, so that a small budget still has epochs; validates on the whole split."""

    def __init__(self, settings: StudySettings, directory: Path, train_images: int | None) -> None:
        super().__init__(settings, directory)
        if train_images is not None:
            some = torch.randperm(len(self._train), generator=torch.Generator().manual_seed(0))[:train_images]
            self._train = self._train.take(some)


def one_run(name: str, settings: StudySettings, images: int, train_images: int | None) -> dict[str, Any]:
    """One method with one seed and `images` to spend: a line of the results."""
    target = settings.target_score
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        trainer = SubsetTrainer(settings, folder, train_images)
        space = make_space(trainer.image_shape, {})
        meter, started, used = Meter(trainer, images), time.monotonic(), time.process_time()
        chosen: str | None = None
        wins: tuple[float, float, str, Path] | None
        if name == OURS:
            chosen = ours(meter, space, folder, settings)
        elif name == HAND:
            by_hand(meter, folder, settings, images / trainer.images)
        else:
            plain(meter, space, folder, settings, optuna_study(name, settings))
        if chosen is not None:
            wins = next(f for f in meter.found if f[3] == folder / chosen)
        elif target is None:
            wins = min((f for f in meter.found if f[1] >= settings.threshold), default=None)
        else:
            wins = max((f for f in meter.found if f[0] <= target), key=lambda f: f[1], default=None)
        test = None
        if wins:
            data = load(settings.dataset, Path(settings.data) if settings.data else None)
            assert data.test is not None
            test = evaluate(load_network(wins[3]), data.test).accuracy
    if wins and target is None and wins[1] < settings.threshold:
        wins = None
    return {
        "seed": settings.seed,
        "method": name,
        "trained": len(meter.found),
        "images": meter.spent,
        "score": wins and wins[0],
        "accuracy": wins and wins[1],
        "test": test,
        "network": wins and wins[2],
        "seconds": round(time.monotonic() - started),
        "cpu_seconds": round(time.process_time() - used),
    }


def table(lines: list[dict[str, Any]], settings: StudySettings) -> str:
    """Median over the seeds of what each method found, in Markdown."""
    target = settings.target_score
    asked = f">= {settings.threshold:.0%}" if target is None else f"score <= {target:g}"
    goal = f"lowest score at {asked}" if target is None else f"best accuracy at {asked}"
    rows = [
        f"| method | {goal}: median | by seed | test set | images | CPU s |",
        "| --- | ---: | --- | --- | ---: | ---: |",
    ]

    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.5f}" if target is None else f"{value:.2%}"

    for name in METHODS:
        mine = sorted((x for x in lines if x["method"] == name), key=lambda x: x["seed"])
        if not mine:
            continue
        values = [x["score" if target is None else "accuracy"] for x in mine]
        nothing = math.inf if target is None else 0.0  # a seed without a network counts as the worst
        median: float | None = statistics.median(nothing if v is None else v for v in values)
        median = None if median == nothing else median
        tests = ", ".join("-" if x["test"] is None else f"{x['test']:.1%}" for x in mine)
        images, seconds = (round(statistics.mean(x[k] for x in mine)) for k in ("images", "cpu_seconds"))
        rows.append(f"| {name} | {show(median)} | {', '.join(map(show, values))} | {tests} | {images:,} | {seconds} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=40_000, help="training images a run")
    parser.add_argument("--train-images", type=int, help="train on so many of the training images [default: all]")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--rule", default=None)
    parser.add_argument("--epochs", type=float, default=4.0, help="of each trial of (a), (b) and (d)")
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--target", type=float, help="compare accuracy below this score, not scores at the threshold")
    parser.add_argument("--results", type=Path, default=Path("search_proof.jsonl"))
    parser.add_argument("--runs", type=int, help="make at most so many runs now")
    parser.add_argument("--only", default="", help="only methods whose name has this in it")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    rule = arguments.rule or rule_of(arguments.dataset)
    base = StudySettings(
        dataset=arguments.dataset,
        rule=rule,
        threshold=arguments.threshold or load_rule(rule).threshold,
        trials=1000,
        objective="constrained" if arguments.target is None else "target",
        target_score=arguments.target,
        explore_epochs=arguments.epochs,
    )
    names = ("dataset", "rule", "images", "epochs", "threshold", "target", "train_images")
    setting = {name: getattr(arguments, name) for name in names}

    def known() -> list[dict[str, Any]]:
        found = arguments.results.read_text().splitlines() if arguments.results.exists() else []
        return [x for x in map(json.loads, found) if x["setting"] == setting]

    done = {(x["seed"], x["method"]) for x in known()}
    wanted = [
        (seed, name)
        for seed in range(arguments.seeds)
        for name in METHODS
        if arguments.only in name and (seed, name) not in done
    ]
    for seed, name in wanted[: arguments.runs]:
        print(f"{name}, seed {seed}", flush=True)
        line = one_run(name, replace(base, seed=seed), arguments.images, arguments.train_images)
        with arguments.results.open("a") as file:
            file.write(json.dumps({"setting": setting, **line}) + "\n")
        print(json.dumps(line), flush=True)
    print(f"\n{base.dataset}, rule {rule}, {arguments.images:,} training images a run\n")
    print(table(known(), base))


if __name__ == "__main__":
    main()
