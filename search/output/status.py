"""How far a study is, for who looks on: reads only, and needs neither its data set nor torch."""

from __future__ import annotations

from functools import partial

from rich.console import Console

from contest.errors import command
from search.output.progress import counts, duration, leaders_table
from search.policy.budget import what_is_left
from search.policy.ranking import Judge, load_stages
from search.study.study import FINISHED, Study
from search.study.trial import TrialRecord


def print_status(console: Console, study: Study) -> None:
    """What was trained, what runs, what was interrupted or waits, the best networks so far, the cost of the stages."""
    say = partial(console.print, highlight=False, markup=False, soft_wrap=not console.is_terminal)
    records, ended = study.records(), bool(study.optuna.user_attrs.get(FINISHED, False))
    say(f"{study.directory}: {counts(records)}; {'finished' if ended else 'not finished'}")
    budget = what_is_left(study, records)
    if not ended and budget is not None and budget.left() < float("inf"):
        left = max(0.0, budget.left())
        say(f"left: {duration(left) if budget.timed else f'{left:,.0f} images'}")
    abandoned = {trial.number for trial in study.abandoned()}
    told = [(how, r) for r in records if (how := _how(r, abandoned))]
    for how, record in told:
        say(f"{how}: trial {record.number} ({record.stage}, {record.why}): {record.candidate.architecture}")
    if abandoned and all(how != "now" for how, _ in told):
        say(f"nobody works on it; go on with: {command('search', '--resume', '--study', study.directory)}")
    if any(record.result for record in records):
        console.print(leaders_table(Judge.of(study), console.width))
    for stage in load_stages(study.directory):
        say(f"{stage.name}: {stage.trials} trainings, {duration(stage.seconds)}, {stage.images:,} images")


def _how(record: TrialRecord, abandoned: set[int]) -> str:
    """How it stands with a training that is not over; nothing for one that is."""
    if record.state == "RUNNING":
        return "interrupted" if record.number in abandoned else "now"
    return "waiting" if record.state == "WAITING" else ""
