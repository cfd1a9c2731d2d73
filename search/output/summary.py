"""What a study says of itself: its plan and what to expect before, its stages, finalists and winner after."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contest.errors import command
from scoring.rules import Score
from search.output.progress import duration
from search.policy.budget import Plan, account, converged_epochs, epoch_ratio, written
from search.policy.forecast import forecast
from search.policy.ranking import Finalist, SearchOutcome, reads
from search.policy.situation import situation
from search.study.settings import StudySettings
from search.study.study import Study
from search.trainers.pipeline import PipelineTrainer

REHEARSING = 0.02
"""Of a study's time, what rehearsals of it may take."""


def print_plan(
    console: Console,
    study: Study,
    trainer: PipelineTrainer,
    plan: Plan,
    ends_at: float | None,
    *,
    patience_s: float | None = None,
) -> None:
    """What will be done, what is expected of it, and when it ends (Unix time), if that is known.

    patience_s: for rehearsals; None: a small part of the study's time.
    """
    begun = time.time()
    parts = [f"first network {plan.parent:.3g} epochs float and {plan.child:.3g} quantised"]
    if plan.shorts:
        parts.append(f"{plan.shorts} settings compared for {plan.short:.3g} epochs each")
    if plan.longs:
        parts.append(f"about {plan.longs} long tunings of {plan.long:.3g}")
    piped = not console.is_terminal  # a pipe has no columns: a line stays one
    console.print(f"plan: {plan.whole:.1f} epochs in all; {'; '.join(parts)}", soft_wrap=piped, highlight=False)
    if study.settings.objective == "constrained" and all(r.result is None for r in study.records()):
        if patience_s is None:
            patience_s = REHEARSING * (ends_at - begun) if ends_at else 0.0
        console.print(expectation(study, trainer, patience_s), soft_wrap=piped, highlight=False)
    if ends_at is None:
        return
    if study.settings.budget_s is None:  # it has not begun yet
        ends_at += time.time() - begun
    clock = time.strftime("%H:%M:%S", time.localtime(ends_at))
    if study.settings.budget_s is not None:
        console.print(f"ends at {clock}", highlight=False)
    else:
        console.print(f"takes about {duration(ends_at - time.time())} here, until {clock}", highlight=False)


def expectation(study: Study, trainer: PipelineTrainer, patience_s: float) -> str:
    """What the plan promises, in words; it does not pretend to know what no training has shown."""
    now, settings = situation(study.snapshot(), trainer), study.settings
    if now is None:
        return "every network that was asked for has been begun"
    converged = converged_epochs(settings, trainer.images)
    known = forecast(now, ratio=epoch_ratio(now.budget), converged=converged, patience_s=patience_s)
    if known is None or not known.known:
        return f"no forecast: nothing is known of trainings on '{settings.dataset}' before the first one here"
    said = f"expected: {known.architecture}, {known.accuracy:.1%} on validation"
    if known.score is None or known.chance < 0.5:
        said += f"; {settings.threshold:.0%} is reached with a probability of {known.chance:.0%} only"
        if known.enough is not None:
            # Starting, the teacher's answers and reading finalists take what they take: trainings alone grow.
            longer = now.budget.takes(known.enough) - now.budget.takes(now.plan)
            spent, epochs = settings.budget_s, f"{known.enough.whole:.0f} epochs"
            said += f": it needs about {duration(spent + longer) if spent else epochs} here"
        return said
    said += f", score {known.score:.5f} at {settings.threshold:.0%}"
    if known.band is None:
        return said
    low, high = known.band
    return f"{said} (80 %: {low:.5f} to {'nothing' if high is None else f'{high:.5f}'}; the plan rehearsed)"


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
        missed = f"reaches {settings.threshold:.1%} on the test set"
        if settings.objective == "target":
            missed = f"has a score of at most {settings.target_score:g}"
        console.print(
            f"[yellow]no finalist {missed}[/yellow]: "
            f"give {more(study)}, or begin another study with a wider --space or other --parents",
            soft_wrap=not console.is_terminal,
        )
    leader = outcome.winner or max(outcome.finalists, key=lambda f: f.accuracy or 0.0)
    terms = leader.score(settings.rule_name)
    if outcome.winner is not None:
        console.print(
            f"[bold green]winner[/bold green]: {leader.record.candidate.architecture}, "
            f"score {terms['total']:.5f} = "
            + " + ".join(f"{value:.5f} {name}" for name, value in Score.from_json(terms).terms.items())
        )
    rule = ["--rule", settings.rule] if settings.rule != "lab" else []
    submit = command("submit", leader.model, "--team", "NAME", *rule)
    for line in (command("score", leader.model, *rule), submit, "contest plot", command("report", study.directory)):
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)


def more(study: Study) -> str:
    """The options with which a study that has come to its end goes on: what it was short of, and about how much."""
    settings, begun = study.settings, study.claims.taken()
    if settings.trials is not None and begun >= settings.trials:
        return f"--resume --trials {begun + 10}"
    if settings.budget_s is not None:
        return f"--resume --budget {written(2 * settings.budget_s)}"
    if settings.images is not None:
        spent = sum(r.result.images for r in study.finished() if r.result)
        return f"--resume --images {2 * (spent or settings.images)}"
    return f"--resume --trials {2 * (settings.trials or 1)}"


def why_nothing(study: Study, images: int) -> str:
    """Why a study that was resumed has trained nothing, with the remedy; `images` of an epoch."""
    settings, begun = study.settings, study.claims.taken()
    if settings.trials is not None and begun >= settings.trials:
        return (
            f"nothing was trained: --trials counts the networks of the whole study, and of {settings.trials} it has "
            f"begun {begun}; for ten more give {more(study)}"
        )
    budget = account(study, images, study.records())
    if budget.timed:
        return f"nothing was trained: no training fits into the time that is left; give {more(study)}"
    least = max(1, round(0.05 * images))
    if budget.left() < least:
        spent = sum(r.result.images for r in study.records() if r.result)
        return (
            f"nothing was trained: the study has seen {spent:,} training images, as many as it may; give {more(study)}"
        )
    return (
        "nothing was trained: no setting that is left promises to be worth its training; a wider --space, other "
        "--parents or more --epochs, in a study of its own, may"
    )


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
    return f"there was no time for a training, or no trial left: give {more(study)}"


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
