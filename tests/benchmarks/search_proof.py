"""Does the search win? Ours against random search and against plain Optuna TPE, with equal training images.

    python tests/benchmarks/search_proof.py --images 150000 --epochs 0.8 --target 0.005 --results proof.jsonl

(a) random search with the plain pipeline: candidates drawn at random, each trained for `--epochs`.
(b) Optuna TPE with the objective's constraint, without stages, rungs, price filter or seeds: what a plain
    `study.optimize` loop gives.
(c) ours: prices before training, rungs with resume, forecasts, neighbours, refinement.

All three draw from the same space and pay for each training image, until the budget is spent: `--images`, or what
`--minutes` buy on this machine at the measured speed. With `--target` the best *validation* accuracy below that score
wins; without it the lowest score among networks that reach the threshold on validation.

Each run is one line of `--results`; runs that stand there are not repeated, so the program can be started again after
a kill, or run by run (`--runs 1`) between other work on the machine. It ends with the table of all that is there.
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
from typing import Any

import optuna
import torch
from rich.console import Console

from contest.candidate import Candidate
from contest.errors import ContestError
from search.output.progress import View
from search.policy.budget import EXPLORE_SHARE, plan_refine
from search.policy.proposals import EXPLORE_UNTIL
from search.policy.speed import measure_speed
from search.run import Run, Tools
from search.space.space import Space, make_space, to_candidate
from search.study.settings import Settings
from search.study.storage import open_storage, storage_url
from search.study.study import Study
from search.trainers.pipeline import PipelineTrainer
from search.trainers.protocol import Progress, Trained

RANDOM, TPE, OURS = "random search, plain pipeline", "Optuna TPE, plain loop", "contest search"


class SpentError(ContestError):
    """The budget of training images is used up."""


class Meter:
    """A trainer that pays for every image and writes down what came out."""

    def __init__(self, trainer: PipelineTrainer, budget: int) -> None:
        self.trainer, self.budget, self.spent = trainer, budget, 0
        self.found: list[tuple[float, float, str]] = []
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
        self.found.append((trained.price.total, trained.correct / trained.total, str(candidate.architecture)))
        return trained


def plain(meter: Meter, space: Space, folder: Path, settings: Settings, sampler: optuna.samplers.BaseSampler) -> None:
    """(a) and (b): ask, train to the end, tell."""
    target = settings.target_score
    study = optuna.create_study(sampler=sampler, direction="minimize" if target is None else "maximize")
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
            accuracy, score = trained.correct / trained.total, trained.price.total
            trial.set_constraint("limit", settings.threshold - accuracy if target is None else score - target)
            study.tell(trial, score if target is None else accuracy)
        number += 1


class MeteredRun(Run):
    """`contest search --budget`, with training images for time: the plan is the same, the clock is the meter."""

    trainer: Meter

    def _replan(self) -> None:
        left = (self.trainer.budget - self.trainer.spent) / self.trainer.images
        self.study.settings = plan_refine(self.study.settings, left, 1.0)

    def _room(self) -> int:
        tuned = [r.candidate.tune.epochs for r in self.study.records() if r.stage == "refine"]
        each = max(tuned, default=0.0) * self.trainer.images
        return int((self.trainer.budget - self.trainer.spent) / each) if each else 0


def ours(meter: Meter, space: Space, folder: Path, settings: Settings) -> None:
    """(c): the shares of `--budget` explore and refine."""
    study = Study(folder / "study", settings, space, open_storage(storage_url(None, folder)))
    view = View(study, meter, Console(file=io.StringIO()), lambda: None)
    tools = Tools(lambda model: {}, meter.trainer.sensitivity, lambda: False)

    def stop_exploring() -> None:
        if meter.spent >= EXPLORE_SHARE * meter.budget:
            study.optuna.set_user_attr(EXPLORE_UNTIL, 0.0)

    view.done = stop_exploring  # type: ignore[method-assign]
    run = MeteredRun(study, meter, tools, view, None)
    run.explore_and_refine()
    study.close()


class SubsetTrainer(PipelineTrainer):
    """Trains on the first images only, so that a small budget still has epochs; validates on the whole split."""

    def __init__(self, settings: Settings, directory: Path, train_images: int | None) -> None:
        super().__init__(settings, directory)
        if train_images is not None:
            some = torch.randperm(len(self._train), generator=torch.Generator().manual_seed(0))[:train_images]
            self._train = self._train.take(some)


def one_run(name: str, settings: Settings, images: int, train_images: int | None) -> dict[str, Any]:
    """One method with one seed and `images` to spend: a line of the results."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = SubsetTrainer(settings, Path(folder), train_images)
        space = make_space(trainer.image_shape, {})
        meter, started, used = Meter(trainer, images), time.monotonic(), time.process_time()
        if name == OURS:
            ours(meter, space, Path(folder), settings)
        else:
            samplers = {RANDOM: optuna.samplers.RandomSampler, TPE: optuna.samplers.TPESampler}
            plain(meter, space, Path(folder), settings, samplers[name](seed=settings.seed))
    target = settings.target_score
    if target is None:
        wins = min((f for f in meter.found if f[1] >= settings.threshold), default=None)
    else:
        wins = max((f for f in meter.found if f[0] <= target), key=lambda f: f[1], default=None)
    return {
        "seed": settings.seed, "method": name, "trained": len(meter.found), "images": meter.spent,
        "all": [(round(score, 5), round(accuracy, 4)) for score, accuracy, _ in meter.found],
        "score": wins and wins[0], "accuracy": wins and wins[1], "network": wins and wins[2],
        "seconds": round(time.monotonic() - started), "cpu_seconds": round(time.process_time() - used),
    }  # fmt: skip


def table(lines: list[dict[str, Any]], settings: Settings) -> str:
    """Median over the seeds of what each method found, in Markdown."""
    target = settings.target_score
    asked = f">= {settings.threshold:.0%}" if target is None else f"score <= {target:g}"
    goal = f"lowest score at {asked}" if target is None else f"best accuracy at {asked}"
    rows = [f"| method | {goal}: median | by seed | runs that got there |", "| --- | ---: | --- | ---: |"]
    for name in (RANDOM, TPE, OURS):
        mine = sorted((x for x in lines if x["method"] == name), key=lambda x: x["seed"])
        values = [x["score" if target is None else "accuracy"] for x in mine]

        def show(value: float | None) -> str:
            return "-" if value is None else f"{value:.5f}" if target is None else f"{value:.2%}"

        found = [v for v in values if v is not None]
        median = show(statistics.median(found) if found else None)
        rows.append(f"| {name} | {median} | {', '.join(map(show, values))} | {len(found)} of {len(values)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--images", type=int, help="training images a run; default: what --minutes buy here")
    parser.add_argument("--train-images", type=int, help="train on so many of the training images [default: all]")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--rule", default=None)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--finalists", type=int, default=3, help="of our search; 1 where the budget is a few trials")
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--target", type=float, help="compare accuracy below this score, not scores at the threshold")
    parser.add_argument("--results", type=Path, default=Path("search_proof.jsonl"))
    parser.add_argument("--runs", type=int, help="make at most so many runs now")
    parser.add_argument("--only", help="only methods whose name has this in it")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    from scoring.rules import load_rule
    from search.start import default_rule

    rule = arguments.rule or default_rule(arguments.dataset)
    base = Settings(
        dataset=arguments.dataset, rule=rule, threshold=arguments.threshold or load_rule(rule).threshold, trials=1000,
        margin=0.0, objective="constrained" if arguments.target is None else "target", target_score=arguments.target,
        explore_epochs=arguments.epochs, refine_epochs=4 * arguments.epochs, finalists=arguments.finalists,
    )  # fmt: skip
    if arguments.images is None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = SubsetTrainer(base, Path(folder), arguments.train_images)
            speed = measure_speed(trainer, make_space(trainer.image_shape, {}), teacher=False)
        arguments.images = int(60 * arguments.minutes * trainer.images / speed.epoch_s())
    setting = {
        "dataset": base.dataset, "rule": rule, "epochs": arguments.epochs, "budget": arguments.images,
        "threshold": base.threshold, "target": base.target_score, "finalists": base.finalists,
        "train_images": arguments.train_images,
    }  # fmt: skip

    def known() -> list[dict[str, Any]]:
        found = arguments.results.read_text().splitlines() if arguments.results.exists() else []
        return [x for x in map(json.loads, found) if x["setting"] == setting]

    done = {(x["seed"], x["method"]) for x in known()}
    names = [name for name in (RANDOM, TPE, OURS) if (arguments.only or "") in name]
    wanted = [(s, name) for s in range(arguments.seeds) for name in names if (s, name) not in done]
    for seed, name in wanted[: arguments.runs]:
        line = {"setting": setting, **one_run(name, replace(base, seed=seed), arguments.images, arguments.train_images)}
        with arguments.results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps({k: v for k, v in line.items() if k != "setting"}), flush=True)
    print(f"\n{base.dataset}, rule {rule}, {arguments.images:,} training images a run, trials of {arguments.epochs:g} "
          f"epochs, {len(known())} of {3 * arguments.seeds} runs\n")  # fmt: skip
    print(table(known(), base))


if __name__ == "__main__":
    main()
