"""What the commands do, without parsing: open or make a study, run it, say how it ended."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contest.errors import UsageError, command
from contest.files import cache_folder, why_unwritable
from contest.zoo import parent_files, teacher_files
from search.output.progress import LiveView, duration
from search.policy.account import Plan, converged_epochs, epoch_ratio, open_account
from search.policy.budget import parse_duration
from search.policy.forecast import forecast, measure_speed
from search.policy.ranking import Finalist, reads
from search.run import Run, SearchOutcome, Tools, estimate_left
from search.space.candidates import check_space, whole
from search.space.space import Space, make_space, read_space
from search.study.settings import StudySettings
from search.study.storage import check_writable, open_storage, storage_url
from search.study.study import FINISHED, Study, new_identity
from search.trainers.given import Given, adopt
from search.trainers.isolated import IsolatedTrainer
from search.trainers.pipeline import PipelineTrainer
from search.workers.claim import situation

BUNDLED_FOR = "cifar10"
"""The data set of the teacher and the float parents of this package."""
TEACHING_SHARE = 0.15
"""Of a budget, in which a teacher that nobody asked for may answer."""
DEFAULT_EPOCHS = {"digits": (8.0, 30.0), "mnist": (4.0, 12.0)}
"""Epochs of a study for each of its trials, by data set; the second is kept for studies of older versions."""


def run_search(console: Console, **options: Any) -> SearchOutcome | None:
    """`contest search`: everything between the options and the summary."""
    begun: float = options.get("begun") or time.monotonic()
    directory: Path = options["directory"] or Path("studies") / options["dataset"]
    if options["plan_only"]:
        plan_only(console, begun, options)
        return None
    settings = resumed(directory, options) if options["resume"] else fresh(directory, options)
    url = storage_url(settings.storage, directory)
    console.print(
        f"study [bold]{directory}[/bold] · {settings.dataset} · rule {settings.rule_name} · "
        f"at least {settings.threshold:.1%}"
    )
    trainer = IsolatedTrainer(settings, directory, device=options["device"])
    space, given = prepare(console, trainer, options)
    settings = trainer.settings
    settings.save(directory)
    study = Study(
        directory, settings, space, open_storage(url, heartbeat_s=settings.heartbeat_s, grace_s=settings.grace_s)
    )
    study.optuna.set_user_attr(FINISHED, False)
    enqueue_given(study, given)
    enqueue_given(study, given, plan_study(console, study, trainer, begun))
    helpers = start_workers(directory, options)
    view = LiveView(study, trainer, console, lambda: estimate_left(study, trainer.images))
    tools = Tools(score=scorer(settings), teacher=trainer.teach)
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
    print_summary(console, study, outcome)
    return outcome


def plan_only(console: Console, begun: float, options: dict[str, Any]) -> None:
    """`contest search --plan`: the plan, and nothing in the study directory."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "plan"
        settings = dataclasses.replace(fresh(directory, options), storage=None)
        trainer = PipelineTrainer(settings, directory, device=options["device"])
        space, given = prepare(console, trainer, options)
        trainer.settings.save(directory)
        study = Study(directory, trainer.settings, space, open_storage(storage_url(None, directory)))
        enqueue_given(study, given)
        plan_study(console, study, trainer, begun)
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
            epochs = whole(plan.parent or plan.another, plan.parent or plan.another)
            warmup = round(min(candidate.train.warmup_epochs, 0.1 * epochs), 2)
            train = dataclasses.replace(candidate.train, epochs=epochs, warmup_epochs=warmup)
            candidate = dataclasses.replace(candidate, train=train)
        study.enqueue(study.space.asked(one.values), candidate, "parent", rung, forecast=one.accuracy, why="given")


def plan_study(console: Console, study: Study, trainer: PipelineTrainer, begun: float) -> Plan:
    """Open the study's account and say what is planned; with a budget of time, after a few steps were timed."""
    settings = study.settings
    if settings.budget_s is None:
        plan = open_account(study, trainer.images)
        print_plan(console, study, trainer, plan, None)
        return plan
    start_s = time.monotonic() - begun
    # Each finalist is read in a process of its own, which starts about as long as this one did.
    reading_s = min(0.3 * settings.budget_s, settings.finalists * start_s)
    teaching_s = trainer.answering_s()
    speed = measure_speed(trainer, study.space)
    ends_at = time.time() + settings.budget_s - (time.monotonic() - begun) - reading_s
    plan = open_account(study, trainer.images, ends_at=ends_at, speed=speed, teaching_s=teaching_s)
    console.print(
        f"speed here: {speed.float_images_per_s:,.0f} images/s float, {speed.tuned_images_per_s:,.0f} quantised "
        f"({speed.macs / 1e6:.3g} million multiply-accumulates each)",
        highlight=False,
    )
    if teaching_s:
        console.print(f"first the teacher answers: about {duration(teaching_s)}", highlight=False)
    print_plan(console, study, trainer, plan, ends_at + reading_s)
    return plan


def fresh(directory: Path, options: dict[str, Any]) -> StudySettings:
    """The settings of a new study. Raises UsageError if the directory holds one already."""
    from scoring.commands import rule_of
    from scoring.rules import load_rule

    if (directory / "study.json").exists():
        raise UsageError(f"{directory} holds a study: go on with --resume, or choose another --study directory")
    dataset = options["dataset"]
    budget_s = parse_duration(options["budget"]) if options["budget"] else None
    rule = rule_given(options["rule"]) if options["rule"] else rule_of(dataset)
    explore, refine = (
        parse_epochs(options["epochs"]) if options["epochs"] else DEFAULT_EPOCHS.get(dataset, (10.0, 40.0))
    )
    changes = read_space(options["space_file"]) if options["space_file"] else {}
    if options["family"]:
        changes["family"] = [name.strip() for name in options["family"].split(",")]
    changes.update(options["fixed"])
    return StudySettings(
        identity=new_identity(directory),
        dataset=dataset,
        data=str(options["data"].resolve()) if options["data"] else None,
        rule=rule,
        threshold=options["threshold"] if options["threshold"] is not None else load_rule(rule).threshold,
        objective=options["objective"],
        target_score=options["target_score"],
        sampler=options["sampler"],
        seed=options["seed"],
        trials=options["trials"] or (None if budget_s or options["images"] else 20),
        images=options["images"],
        float_epochs=refine if options["epochs"] and "/" in options["epochs"] else 0.0,
        budget_s=budget_s,
        explore_epochs=explore,
        refine_epochs=refine,
        teachers=tuple(str(path.resolve()) for path in _teachers(options)),
        answers=str((options["teacher_cache"] or _answers_folder(directory)).resolve()),
        parents=tuple(str(path.resolve()) for path in parent_files(options["parents"] or _bundled(dataset))),
        starts=tuple(str(path.resolve()) for path in options["starts"]),
        teacher_epochs=options["teacher_epochs"],
        taught_epochs=options["taught_epochs"],
        finalists=options["finalists"],
        variants=options["variants"],
        seeds=options["seeds"],
        margin=options["margin"],
        space=changes,
        storage=options["storage"],
    )


def _bundled(dataset: str) -> tuple[str, ...]:
    """What comes with the package fits one data set."""
    return ("bundled",) if dataset == BUNDLED_FOR else ()


def _teachers(options: dict[str, Any]) -> list[Path]:
    trained = options["teacher_epochs"] > 0
    return teacher_files(options["teachers"] or (() if trained else _bundled(options["dataset"])))


def _answers_folder(directory: Path) -> Path:
    """The folder that all studies share; where it cannot be written, one in the study."""
    shared = cache_folder("answers")
    try:
        shared.mkdir(parents=True, exist_ok=True)
    except OSError:
        return directory / "teacher"
    return shared if why_unwritable(shared) is None else directory / "teacher"


FIXED = {
    "dataset": "--dataset",
    "data": "--data",
    "objective": "--objective",
    "target_score": "--target-score",
    "sampler": "--sampler",
    "seed": "--seed",
    "seeds": "--seeds",
    "epochs": "--epochs",
    "margin": "--margin",
    "threshold": "--threshold",
    "teachers": "--teacher",
    "parents": "--parents",
    "starts": "--start",
    "teacher_epochs": "--teacher-epochs",
    "taught_epochs": "--taught-epochs",
    "rule": "--rule",
    "space_file": "--space",
    "family": "--family",
    "fix": "--fix",
}
"""Options that say what a study is: its trials could not be compared if they changed on the way."""


def resumed(directory: Path, options: dict[str, Any]) -> StudySettings:
    """The settings of the study in the directory, with what was asked for now: more trials or time, other finalists.

    Raises UsageError for an option that cannot change.
    """
    settings = StudySettings.load(directory)
    if "float_epochs" not in json.loads((directory / "study.json").read_text()):
        raise UsageError(
            f"{directory} was made by a version without float parents: it can be reported, "
            f"{command('report', directory)}, "
            "but not continued; start a new study in another directory"
        )
    given: set[str] = options.get("given", set())
    different = [name for name in FIXED if name in given and not _is_as_before(name, settings, options)]
    if different:
        raise UsageError(
            f"{', '.join(FIXED[name] for name in different)} cannot change in a study that was begun: leave it out, or "
            "begin another with another --study directory. What can change: --trials, --images, --budget, --finalists, "
            "--variants, --storage, --workers, --device"
        )
    changes: dict[str, Any] = {name: options[name] for name in ("finalists", "variants") if name in given}
    if options["trials"]:
        changes["trials"] = options["trials"]
    if options["images"]:
        changes["images"] = options["images"]
    if options["budget"]:
        changes["budget_s"] = parse_duration(options["budget"])
    if options["storage"]:
        changes["storage"] = options["storage"]
    return dataclasses.replace(settings, **changes)


def _is_as_before(name: str, settings: StudySettings, options: dict[str, Any]) -> bool:
    """Whether an option says what the study does anyway."""
    if name == "rule":
        return rule_given(options["rule"]) == settings.rule
    if name == "epochs":
        return parse_epochs(options["epochs"]) == (settings.explore_epochs, settings.refine_epochs)
    if name == "teachers":
        return tuple(str(path.resolve()) for path in teacher_files(options["teachers"])) == settings.teachers
    if name == "parents":
        return tuple(str(path.resolve()) for path in parent_files(options["parents"])) == settings.parents
    if name == "starts":
        return tuple(str(path.resolve()) for path in options["starts"]) == settings.starts
    if name == "data":
        return str(options["data"].resolve()) == settings.data
    if name == "family":
        return [part.strip() for part in options["family"].split(",")] == settings.space.get("family")
    if name in ("space_file", "fix"):
        changes = read_space(options["space_file"]) if name == "space_file" else options["fixed"]
        return all(settings.space.get(key) == value for key, value in changes.items())
    return bool(getattr(settings, name) == options[name])


def rule_given(rule: str) -> str:
    """A rule's name as it is; a TOML file's path so that the study finds it from any folder."""
    return str(Path(rule).resolve()) if Path(rule).suffix == ".toml" else rule


def parse_epochs(text: str) -> tuple[float, float]:
    """`10` -> (10, 40); `10/30` -> (10, 30)."""
    try:
        explore, slash, refine = text.partition("/")
        return float(explore), float(refine) if slash else 4 * float(explore)
    except ValueError as error:
        raise UsageError(f"--epochs {text}: write a number, or two as in 10/40") from error


def print_plan(console: Console, study: Study, trainer: PipelineTrainer, plan: Plan, ends_at: float | None) -> None:
    """What will be done, what is expected of it, and when it ends."""
    parts = [f"first network {plan.parent:.3g} epochs float and {plan.child:.3g} quantised"]
    if plan.shorts:
        parts.append(f"{plan.shorts} settings compared for {plan.short:.3g} epochs each")
    if plan.longs:
        parts.append(f"about {plan.longs} long tunings of {plan.long:.3g}")
    piped = not console.is_terminal  # a pipe has no columns: a line stays one
    console.print(f"plan: {plan.whole:.1f} epochs in all; {'; '.join(parts)}", soft_wrap=piped, highlight=False)
    if study.settings.objective == "constrained" and all(r.result is None for r in study.records()):
        console.print(expectation(study, trainer), soft_wrap=piped, highlight=False)
    if ends_at is not None:
        console.print(f"ends at {time.strftime('%H:%M:%S', time.localtime(ends_at))}")


def expectation(study: Study, trainer: PipelineTrainer) -> str:
    """What the plan promises, in words; it does not pretend to know what no training has shown."""
    now, settings = situation(study, trainer), study.settings
    if now is None:
        return "every network that was asked for has been begun"
    converged = converged_epochs(settings, trainer.images)
    known = forecast(now, ratio=epoch_ratio(now.budget), converged=converged)
    if known is None or not known.known:
        return f"no forecast: nothing is known of trainings on '{settings.dataset}' before the first one here"
    said = f"expected: {known.architecture}, {known.accuracy:.1%} on validation"
    if known.score is None or known.chance < 0.5:
        said += f"; {settings.threshold:.0%} is reached with a probability of {known.chance:.0%} only"
        if known.enough is not None:
            spent = settings.budget_s or 0.0
            epochs = f"{known.enough * now.plan.whole:.0f} epochs"
            amount = duration(known.enough * spent) if spent else epochs
            said += f": it needs about {amount} here"
        return said
    said += f", score {known.score:.5f} at {settings.threshold:.0%}"
    return said + (f" (80 %: {known.band[0]:.5f} to {known.band[1]:.5f})" if known.band else "")


def scorer(settings: StudySettings) -> Any:
    """Scores a file on the test set, as `contest score --json` does."""

    def score(model: Path) -> dict[str, Any]:
        from contest.datasets import load
        from scoring.score import score_file

        data = load(settings.dataset, Path(settings.data) if settings.data else None)
        report: dict[str, Any] = score_file(model, images=data.test, rule=settings.rule).to_json()
        return report

    return score


def start_workers(directory: Path, options: dict[str, Any]) -> list[Any]:
    """The other workers that were asked for: processes here, or actors on a Ray cluster."""
    if options["ray_address"]:
        from search.workers.ray import start_on_ray, worker_job

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


def print_summary(console: Console, study: Study, outcome: SearchOutcome) -> None:
    """Stages, finalists, the winner and what to do with it."""
    stages = Table(title="what each stage cost and gained", title_justify="left")
    for column in ("stage", "time", "images", "trainings", "best score", "validation"):
        stages.add_column(column, justify="left" if column == "stage" else "right")
    for stage in outcome.stages:
        best = "" if stage.best_score is None else f"{stage.best_score:.5f}"
        accuracy = "" if stage.best_accuracy is None else f"{stage.best_accuracy:.2%}"
        stages.add_row(stage.name, duration(stage.seconds), f"{stage.images:,}", str(stage.trials), best, accuracy)
    console.print(stages)
    if not outcome.finalists:
        console.print(
            f"[red]the search ends without a network[/red]: {escape(why_none(study))}",
            soft_wrap=not console.is_terminal,
        )
        return
    console.print(finalists_table(study.settings, outcome.finalists))
    console.print(f"the test set was read {len(reads(study.directory))} times in this study")
    settings = study.settings
    if outcome.winner is None:
        console.print(
            f"[yellow]no finalist reaches {settings.threshold:.1%} on the test set[/yellow]: "
            f"more time (--resume --trials N), or another study with more --epochs or a wider --space"
        )
    leader = outcome.winner or max(outcome.finalists, key=lambda f: f.accuracy or 0.0)
    terms = leader.score(settings.rule_name)
    if outcome.winner is not None:
        console.print(
            f"[bold green]winner[/bold green]: {leader.record.candidate.architecture}, "
            f"score {terms['total']:.5f} = {terms['params']:.5f} params + {terms['ops']:.5f} ops"
        )
    rule = ["--rule", settings.rule] if settings.rule != "lab" else []
    submit = command("submit", leader.model, "--team", "NAME", *rule)
    for line in (command("score", leader.model, *rule), submit, "contest plot", command("report", study.directory)):
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)


def why_none(study: Study) -> str:
    """Why no candidate was trained to its end, from what the study has recorded."""
    records = study.records()
    failed = Counter(r.reason for r in records if r.state == "FAIL" and r.reason)
    if failed:
        reason, times = failed.most_common(1)[0]
        return f"{sum(failed.values())} of {len(records)} trials failed, {times} of them with: {reason}"
    refused = Counter(r.reason for r in records if r.state == "PRUNED" and r.reason)
    if refused:
        reason, times = refused.most_common(1)[0]
        return f"{sum(refused.values())} of {len(records)} candidates were given up, {times} of them since: {reason}"
    return "there was no time for a training, or no trial left: give more --trials, more --budget or fewer --epochs"


def finalists_table(settings: StudySettings, finalists: list[Finalist]) -> Table:
    table = Table(title="finalists, best on validation first", title_justify="left")
    for column in ("", "network", "score", "params", "ops", "validation", "test", "in finalists/"):
        table.add_column(column, justify="left" if column in ("network", "in finalists/") else "right")
    for finalist in finalists:
        terms, result = finalist.score(settings.rule_name), finalist.record.result
        assert result is not None
        test = "-" if finalist.accuracy is None else f"{finalist.accuracy:.2%}"
        numbers = (f"{terms['total']:.5f}", f"{terms['params']:.5f}", f"{terms['ops']:.5f}", f"{result.accuracy:.2%}")
        table.add_row(
            str(finalist.place), finalist.record.candidate.architecture.family, *numbers, test, finalist.record.key
        )
    return table
