"""Does the search win? Ours against random search and against plain Optuna TPE, with equal training images.

    python tests/benchmarks/search_proof.py [--minutes 20] [--seeds 3] [--dataset cifar10] [--images N]

(a) random search with the plain pipeline: candidates drawn at random, each trained for `--epochs`.
(b) Optuna TPE with the accuracy constraint, without stages, rungs, price filter or seeds: what a plain
    `study.optimize` loop gives.
(c) ours: prices before training, rungs with resume, forecasts, neighbours, refinement.

All three draw from the same space and pay for each training image, until the budget is spent: `--images`, or what
`--minutes` buy on this machine at the measured speed. Reported: the best score among networks whose
*validation* accuracy reaches the threshold, or, where the budget is too small for that, the best validation
accuracy below `--target`.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
from rich.console import Console

from contest.candidate import Candidate
from contest.errors import ContestError
from search.live import View
from search.measure import measure_speed
from search.pipeline_trainer import PipelineTrainer
from search.propose import EXPLORE_UNTIL
from search.run import Run, Tools
from search.settings import Settings
from search.space import Space, make_space, to_candidate
from search.storage import open_storage, storage_url
from search.study import Study
from search.trainer import Progress, Trained


class SpentError(ContestError):
    """The budget of training images is used up."""


class Meter:
    """A trainer that pays for every image and writes down what came out."""

    def __init__(self, trainer: PipelineTrainer, budget: int) -> None:
        self.trainer, self.budget, self.spent = trainer, budget, 0
        self.found: list[tuple[float, float]] = []
        self.classes, self.images, self.validation = trainer.classes, trainer.images, trainer.validation
        self.price = trainer.price

    def train(self, candidate: Candidate, directory: Path, on_epoch: Callable[[Progress], None]) -> Trained:
        def pay(progress: Progress) -> None:
            self.spent += progress.images
            on_epoch(progress)
            if self.spent >= self.budget and progress.fraction < 1:
                raise SpentError("the budget of images is spent")

        if self.spent >= self.budget:
            raise SpentError("the budget of images is spent")
        trained = self.trainer.train(candidate, directory, pay)
        self.found.append((trained.price.total, trained.correct / trained.total))
        return trained


def plain(meter: Meter, space: Space, folder: Path, settings: Settings, sampler: optuna.samplers.BaseSampler) -> None:
    """(a) and (b): ask, train to the end, tell."""
    study = optuna.create_study(sampler=sampler)
    number = 0
    while meter.spent < meter.budget:
        trial = study.ask()
        candidate = to_candidate(space.values(trial), epochs=settings.explore_epochs, seed=settings.seed)
        try:
            trained = meter.train(candidate, folder / str(number), lambda _: None)
        except SpentError:
            return
        except (ContestError, RuntimeError):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            trial.set_constraint("accuracy", settings.threshold - trained.correct / trained.total)
            study.tell(trial, trained.price.total)
        number += 1


def ours(meter: Meter, space: Space, folder: Path, settings: Settings) -> None:
    """(c): half of the images explore, half refine as many of the best as they suffice for."""
    half = meter.budget // 2
    epochs = 0.75 * half / meter.images
    refine_epochs = min(settings.refine_epochs, epochs)
    settings = replace(settings, refine_epochs=refine_epochs, refined=max(1, int(epochs / refine_epochs)))
    study = Study(folder / "study", settings, space, open_storage(storage_url(None, folder)))
    view = View(study, meter, Console(file=io.StringIO()), lambda: None)
    tools = Tools(lambda model: {}, meter.trainer.sensitivity, lambda: False)

    def stop_exploring() -> None:
        if meter.spent >= half:
            study.optuna.set_user_attr(EXPLORE_UNTIL, 0.0)

    view.done = stop_exploring  # type: ignore[method-assign]
    run = Run(study, meter, tools, view, None)
    run.explore_and_refine()
    study.close()


def best(found: list[tuple[float, float]], threshold: float, target: float) -> tuple[float | None, float]:
    """(lowest score at the threshold, highest accuracy below the target score)."""
    enough = [score for score, accuracy in found if accuracy >= threshold]
    below = [accuracy for score, accuracy in found if score <= target]
    return min(enough, default=None), max(below, default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--images", type=int, help="training images a run; default: what --minutes buy here")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--rule", default=None)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--target", type=float, default=0.01, help="score below which accuracy is compared")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    from scoring.rules import load_rule
    from search.command import default_rule

    rule = arguments.rule or default_rule(arguments.dataset)
    threshold = arguments.threshold or load_rule(rule).threshold
    base = Settings(
        dataset=arguments.dataset, rule=rule, threshold=threshold, trials=1000, margin=0.0,
        explore_epochs=arguments.epochs, refine_epochs=4 * arguments.epochs,
    )  # fmt: skip
    results: dict[str, list[tuple[float | None, float]]] = {}
    for seed in range(arguments.seeds):
        settings = replace(base, seed=seed)
        samplers = {
            "random, plain pipeline": optuna.samplers.RandomSampler(seed=seed),
            "Optuna TPE, plain loop": optuna.samplers.TPESampler(seed=seed),
        }
        for name in [*samplers, "contest search"]:
            with tempfile.TemporaryDirectory() as folder:
                trainer = PipelineTrainer(settings, Path(folder))
                space = make_space(trainer.image_shape, {})
                if arguments.images is None:
                    speed = measure_speed(trainer, space, teacher=False)
                    arguments.images = int(60 * arguments.minutes * trainer.images / speed.epoch_s())
                    print(f"{arguments.images:,} training images a run ({arguments.minutes:g} minutes here)")
                meter, started = Meter(trainer, arguments.images), time.monotonic()
                if name in samplers:
                    plain(meter, space, Path(folder), settings, samplers[name])
                else:
                    ours(meter, space, Path(folder), settings)
            found = best(meter.found, threshold, arguments.target)
            results.setdefault(name, []).append(found)
            line = {"seed": seed, "method": name, "trained": len(meter.found), "images": meter.spent}
            line |= {"score": found[0], "accuracy_below_target": found[1], "seconds": round(time.monotonic() - started)}
            print(json.dumps(line), flush=True)
    print(f"\n| method | median best score at >= {threshold:.0%} | runs that got there | "
          f"median best accuracy below {arguments.target:g} |\n| --- | --- | --- | --- |")  # fmt: skip
    for name, values in results.items():
        scores = sorted(score for score, _ in values if score is not None)
        score = f"{statistics.median(scores):.5f}" if scores else "-"
        print(f"| {name} | {score} | {len(scores)} of {len(values)} | {statistics.median(a for _, a in values):.2%} |")


if __name__ == "__main__":
    main()
