"""A study from its options to its winner: opened or made, given what it begins from, planned, trained and read."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from contest.errors import ContestError, TrainingError, UsageError, command
from search.candidates import check_space, check_taught, lengthened, seeds, to_candidate
from search.given import Given, adopt
from search.options import fresh, resumed
from search.output.progress import LiveView, duration, tracker
from search.output.summary import print_plan, print_summary, why_nothing
from search.policy.budget import Plan, seconds_left
from search.policy.forecast import Times, TooSmallError, check_start, measure_speed, open_account, reading_s
from search.policy.ranking import (
    Converts,
    Judge,
    Scores,
    SearchOutcome,
    load_stages,
    read_finalists,
    save_stages,
    stage_costs,
    winner,
)
from search.space import Space, make_space
from search.study.settings import StudySettings
from search.study.storage import check_writable, open_storage, storage_url
from search.study.study import FINISHED, NotBegunError, Study, open_study
from search.study.trial import GIVEN, TrialRecord
from search.trainers.isolated import IsolatedTrainer
from search.trainers.pipeline import PipelineTrainer
from search.trainers.protocol import Speed, Trainer
from search.worker import work_until_done

TEACHING_SHARE = 0.15
"""Of a budget, in which a teacher that nobody asked for may answer."""


def run_search(console: Console, **options: Any) -> SearchOutcome | None:
    """`contest search`: everything between the options and the summary."""
    begun: float = options.get("begun") or time.monotonic()
    started_s = time.monotonic() - begun
    directory: Path = options["directory"] or Path("studies") / options["dataset"]
    if options["plan_only"]:
        plan_only(console, begun, started_s, options)
        return None
    settings = resumed(directory, options) if options["resume"] else fresh(directory, options)
    try:
        return go_on(console, directory, settings, begun, started_s, options)
    except TooSmallError as error:
        found = at_hand(directory, settings) if options["resume"] else None
        if found is None:
            raise
        text = f"nothing was trained, and what the study has is shown: {error}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
        print_summary(console, *found)
        return found[1]


def go_on(
    console: Console,
    directory: Path,
    settings: StudySettings,
    begun: float,
    started_s: float,
    options: dict[str, Any],
) -> SearchOutcome:
    """Begin a study, or go on with it, to its end."""
    track = tracker(options["track"], directory) if options["track"] else None
    url = storage_url(settings.storage, directory)
    console.print(
        f"study [bold]{directory}[/bold] · {settings.dataset} · rule {settings.rule_name} · "
        f"at least {settings.threshold:.1%}"
    )
    check_start(settings.budget_s, started_s, processes=2)
    new, trainer = not directory.exists(), IsolatedTrainer(settings, directory, device=options["device"])
    try:
        trainer.start()
        space, given = prepare(console, trainer, options)
        speed, times = timed(trainer, space, sum(one.trained for one in given), begun, started_s)
    except ContestError:
        trainer.close()
        if new:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    settings = trainer.settings
    settings.save(directory)
    study = Study(
        directory, settings, space, open_storage(url, heartbeat_s=settings.heartbeat_s, grace_s=settings.grace_s)
    )
    study.optuna.set_user_attr(FINISHED, False)
    plan_study(console, study, trainer, given, speed, times)
    before = len(study.finished())
    helpers = start_workers(directory, options)
    view = LiveView(study, trainer, console, lambda done: seconds_left(study, trainer.images, study.records(), done))
    tools = Tools(score=scorer(settings), teacher=trainer.teach, convert=convert, track=track)
    try:
        with view:
            outcome = Run(study, trainer, tools, view)()
    except OSError as error:
        check_writable(directory, error)
        raise
    finally:
        trainer.close()
        for helper in helpers:
            helper.terminate()
    if options["resume"] and len(study.finished()) == before:
        console.print(why_nothing(study, trainer.images), soft_wrap=True, highlight=False)
    print_summary(console, study, outcome)
    return outcome


def at_hand(directory: Path, settings: StudySettings) -> tuple[Study, SearchOutcome] | None:
    """What a study has without any further training; None: no network."""
    try:
        study = open_study(directory, settings.storage)
    except NotBegunError:
        return None
    judge = Judge.of(study)
    if not judge.networks:
        return None
    found = read_finalists(study, judge, scorer(settings), convert, until=time.time())
    best = winner(found, settings)
    return study, SearchOutcome(found, best, load_stages(directory))


def plan_only(console: Console, begun: float, started_s: float, options: dict[str, Any]) -> None:
    """`contest search --plan`: the plan, and nothing in the study directory.

    A study's trainings have a process of their own, for whose start it waits before anything is timed: so time is
    counted as if that had been. Raises UsageError for a budget that the search would refuse.
    """
    if options["resume"]:
        directory = options["directory"] or Path("studies") / options["dataset"]
        raise UsageError(
            "--plan --resume: a plan is of a new study; leave out --resume, or see what is left of the one that was "
            f"begun: {command('status', directory)}"
        )
    begun -= started_s
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "plan"
        settings = dataclasses.replace(fresh(directory, options), storage=None)
        check_start(settings.budget_s, started_s, processes=2)
        trainer = PipelineTrainer(settings, directory, device=options["device"])
        space, given = prepare(console, trainer, options)
        speed, times = timed(trainer, space, sum(one.trained for one in given), begun, started_s)
        trainer.settings.save(directory)
        study = Study(directory, trainer.settings, space, open_storage(storage_url(None, directory)))
        plan_study(console, study, trainer, given, speed, times, patience_s=math.inf)
        study.close()


def prepare(console: Console, trainer: PipelineTrainer, options: dict[str, Any]) -> tuple[Space, list[Given]]:
    """The space, and what a new study begins from; what was asked for is checked before anything is written.

    A bundled teacher or parent that nobody asked for is left out where it does not fit, and that is said. Raises
    UsageError for what was asked for and does not fit.
    """
    settings = trainer.settings
    space = make_space(trainer.image_shape, settings.narrowed, taught=settings.taught)
    check_space(space, settings.space)
    reason = trainer.refusal() if settings.teachers else None
    if reason is not None and (options["teachers"] or options["resume"]):
        raise UsageError(reason)
    if reason is None and not options["teachers"] and settings.teachers and settings.budget_s and not options["resume"]:
        answers_s = trainer.answering_s()
        if answers_s > TEACHING_SHARE * settings.budget_s:
            reason = f"its answers take about {duration(answers_s)} here"
    if reason is not None:
        console.print(f"no teacher: the bundled one is left out, since {reason}", soft_wrap=True, highlight=False)
        settings = dataclasses.replace(settings, teachers=(), taught_epochs=0)
        space = make_space(trainer.image_shape, settings.narrowed)
    check_taught(space, taught=settings.taught)
    trainer.settings = settings
    if options["resume"]:
        return space, []
    given: list[Given] = []
    for source in (*settings.parents, *settings.starts):
        asked = bool(options["parents"]) or source in settings.starts
        try:
            found = adopt(Path(source), trainer.directory, trainer, space)
        except UsageError as error:
            if asked:
                raise
            console.print(f"no parent: a bundled one is left out: {error}", soft_wrap=True, highlight=False)
            continue
        given += [one for one in found if asked or one.exact]
        if not asked and not all(one.exact for one in found):
            console.print("no parent: a bundled one is left out, since it lies outside the space", highlight=False)
    return space, given


def enqueue_given(study: Study, given: list[Given], plan: Plan | None = None) -> None:
    """Put what a study was given at the head of its queue: networks at once, recipes when a plan says their epochs."""
    rung = len(study.settings.rungs) - 1
    for one in given:
        candidate = one.candidate
        if one.trained != (plan is None):
            continue
        if plan is not None:
            candidate = lengthened(candidate, plan.parent or plan.another)
        study.enqueue(study.space.asked(one.values), candidate, "parent", rung, forecast=one.accuracy, why=GIVEN)


def timed(
    trainer: PipelineTrainer, space: Space, given: int, begun: float, started_s: float
) -> tuple[Speed | None, Times | None]:
    """A few steps are timed, and what else takes time; `given` float parents exist.

    started_s: until everything was imported. Raises UsageError for a budget of time that is too small for a network.
    Where images are counted and no step can be made, there are no times: the trials will say why.
    """
    settings = trainer.settings
    for point in seeds(space):  # the first price imports for seconds, beside the process that trains
        with suppress(ContestError, ValueError, RuntimeError):  # what cannot be built is found when it is its turn
            trainer.price(to_candidate(point, epochs=1.0, seed=settings.seed))
    teaching_s = trainer.answering_s()
    try:
        speed = measure_speed(trainer, space)
    except TrainingError:
        if settings.budget_s is not None:
            raise
        return None, None
    times = Times(
        begun=time.time() - (time.monotonic() - begun),
        budget=settings.budget_s or math.inf,
        starting=started_s,
        teaching=teaching_s,
        reading=reading_s(started_s, speed.float32_s / max(trainer.validation, 1) * trainer.test_images),
        finalists=settings.finalists,
    )
    if settings.budget_s is not None:
        times.check(speed, trainer.images, given)
    return speed, times


def plan_study(
    console: Console,
    study: Study,
    trainer: PipelineTrainer,
    given: list[Given],
    speed: Speed | None,
    times: Times | None,
    *,
    patience_s: float | None = None,
) -> None:
    """Open the study's account, put what it was given into its queue, and say what is planned and what time it takes.

    patience_s: see `print_plan`.
    """
    enqueue_given(study, given)
    plan = open_account(study, trainer.images, times=times, speed=speed)
    enqueue_given(study, given, plan)
    if speed is None or times is None:
        print_plan(console, study, trainer, plan, None, patience_s=patience_s)
        return
    console.print(
        f"speed here: {speed.float_images_per_s:,.0f} images/s float, {speed.tuned_images_per_s:,.0f} quantised "
        f"({speed.macs / 1e6:.3g} million multiply-accumulates each)",
        highlight=False,
        soft_wrap=True,
    )
    if times.teaching:
        console.print(f"first the teacher answers: about {duration(times.teaching)}", highlight=False)
    left = (seconds_left(study, trainer.images, study.records()) or 0.0) + times.teaching
    ends_at = times.over_at if study.settings.budget_s else time.time() + left
    print_plan(console, study, trainer, plan, ends_at, patience_s=patience_s)


def scorer(settings: StudySettings) -> Any:
    """Scores a file on the test set, as `contest score --json` does."""

    def score(model: Path) -> dict[str, Any]:
        from contest.datasets import load
        from scoring.score import score_file

        data = load(settings.dataset, Path(settings.data) if settings.data else None)
        report: dict[str, Any] = score_file(model, images=data.test, rule=settings.rule).to_json()
        return report

    return score


def convert(model: Path, out: Path, /) -> object:
    """A network's file as ONNX, checked, as `contest convert` does."""
    from scoring.convert import convert_file

    return convert_file(model, out)


def start_workers(directory: Path, options: dict[str, Any]) -> list[Any]:
    """The other workers that were asked for: processes here, or actors on a Ray cluster."""
    if options["ray_address"]:
        from search.worker import start_on_ray, worker_job

        job, share = worker_job(options["device"]), options["gpus_per_worker"]
        return list(start_on_ray(options["ray_address"], directory, options["workers"], job, gpus_each=share))
    return [
        subprocess.Popen(  # the same interpreter, so the same environment
            [sys.executable, "-m", "contest", "worker", "--study", str(directory), "--device", options["device"]],
            env={**os.environ, "CONTEST_WORKER": str(number)},
            stdout=subprocess.DEVNULL,
        )
        for number in range(1, options["workers"])
    ]


class TeacherOf(Protocol):
    def __call__(self) -> bool:
        """Make the teacher's soft labels ready for the trainer; False if the study has no teacher."""


@dataclass(frozen=True)
class Tools:
    """What a study needs besides a trainer. `score` is the only one that sees the test set."""

    score: Scores
    teacher: TeacherOf
    convert: Converts | None = None
    track: Callable[[TrialRecord], None] | None = None
    """Is told of each trial that ends while this runs."""


class Run:
    """One invocation of `contest search` on a study, new or resumed."""

    def __init__(self, study: Study, trainer: Trainer, tools: Tools, view: LiveView) -> None:
        self.study, self.trainer, self.tools, self.view = study, trainer, tools, view
        self._told = {r.number for r in study.records() if r.result} if tools.track else set()

    def __call__(self) -> SearchOutcome:
        """Run what is left of the study. KeyboardInterrupt goes through; what was finished stays."""
        self.train()
        self.study.optuna.set_user_attr(FINISHED, True)
        settings = self.study.settings
        known = self.study.account or {}
        until = known.get("over_at")
        early = 0.0 if until is None else until - float(known.get("reading", 0.0)) - time.time()
        asked = settings.trials is not None and self.study.claims.taken() >= settings.trials
        if until is not None and not asked and early > max(15.0, 0.1 * (settings.budget_s or 0.0)):
            self.view.say(
                f"no setting that is left promises to be worth its training: the search ends {duration(early)} early"
            )
        self.view.stage("reading the finalists on the test set")
        found = read_finalists(self.study, self._judge(), self.tools.score, self.tools.convert, until=until)
        return SearchOutcome(found, winner(found, settings), load_stages(self.study.directory))

    def train(self) -> None:
        """Everything but the test set."""
        if self.study.settings.taught:
            self.view.stage("teacher")
            self.tools.teacher()
        work_until_done(
            self.study,
            self.trainer,
            watch=self.view.epoch,
            on_step=self.view.step,
            on_work=self.view.begin,
            on_done=self._done,
        )
        self._done()

    def _done(self) -> None:
        if self.tools.track is not None:
            for record in self.study.records():  # those of other workers too
                if record.result is not None and record.number not in self._told:
                    self._told.add(record.number)
                    self.tools.track(record)
        save_stages(self.study.directory, stage_costs(self._judge()))
        self.view.done()

    def _judge(self) -> Judge:
        return Judge(self.study.settings, self.study.records(), self.trainer.classes)
