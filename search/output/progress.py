"""How a study is followed while it runs: a table in the terminal, a line a trial in a pipe, or `--track` a service.

Optuna's own callbacks for these services are deprecated (4.9), so each one's own library is asked.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from contest.candidate import Bits
from contest.errors import UsageError
from search.policy.ranking import Judge
from search.study.study import Study, Work
from search.study.trial import TrialRecord
from search.trainers.protocol import Progress, Trainer

ROWS = 8
EVERY_S = 60.0
"""Between two lines on what is done, where output is no terminal."""
STAGES = {"parent": "float parent", "child": "settings compared", "long": "long tuning"}


WIDE = 10_000
"""Columns of what is no terminal."""


def standard_output() -> Console:
    """Where a search prints: a pipe or a file has no columns, so nothing is wrapped or cut there."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


class LiveView:
    """The live table of a study: counts, leaders, what is running, time left."""

    def __init__(
        self, study: Study, trainer: Trainer, console: Console, left_s: Callable[[float], float | None]
    ) -> None:
        """`left_s` says the seconds to the end, from the fraction that is done of the training that runs now."""
        self._study, self._trainer, self._console, self._left_s = study, trainer, console, left_s
        self._done, self._said = 0.0, time.monotonic()
        self._started = time.monotonic()
        self._now = "starting"
        self._stage = "starting"
        self._body: Table | Text = Text("")
        self._counts = ""
        self._seen: set[int] = set()
        self._lock = threading.Lock()
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=2, transient=False)

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        # What a resumed study has behind it is not told again.
        self._seen = {r.number for r in self._study.records() if r.state in ("COMPLETE", "FAIL", "PRUNED")}
        self.done()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def stage(self, name: str) -> None:
        self._stage = name
        if not self._console.is_terminal:
            self._console.print(f"[bold]{name}[/bold]")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, soft_wrap=not self._console.is_terminal, highlight=False)

    def begin(self, work: Work) -> None:
        """A piece of work starts."""
        self._stage = self._named(work)
        self._done, self._now = 0.0, f"trial {work.trial.number}: {work.candidate.architecture}"

    def _named(self, work: Work) -> str:
        """What is done, in words."""
        if work.stage == "parent" and work.candidate.start:
            return "a given parent is measured"
        if work.stage == "child" and not any(r.is_network for r in self._study.records()):
            return "first network"
        return STAGES.get(work.stage, work.stage)

    def epoch(self, work: Work, progress: Progress) -> None:
        """An epoch of it is over."""
        self._now = (
            f"trial {work.trial.number}: {progress.stage} {progress.fraction:.0%}, "
            f"validation {progress.accuracy:.2%}, {progress.images_per_second:,.0f} images/s"
        )
        self._done = progress.fraction
        self._say()

    def step(self, work: Work, stage: str, fraction: float) -> None:
        """Within an epoch."""
        self._done, self._now = fraction, f"trial {work.trial.number}: {stage} {fraction:.0%}"
        self._say()

    def _say(self) -> None:
        """Where a table does not stay in place: a line every minute."""
        if self._console.is_terminal or time.monotonic() - self._said < EVERY_S:
            return
        self._said, left = time.monotonic(), self._left_s(self._done)
        text = f"{self._stage}: {self._now}" + (f"; about {duration(left)} left" if left is not None else "")
        self._console.print(text, soft_wrap=True, highlight=False)

    def done(self) -> None:
        """Something is finished: read the study again."""
        records = self._study.records()
        judge = Judge(self._study.settings, records, self._trainer.classes)
        with self._lock:
            self._counts, self._body = counts(records), leaders_table(judge, self._console.width)
        if not self._console.is_terminal:
            for record in records:
                if record.number not in self._seen and record.state in ("COMPLETE", "FAIL", "PRUNED"):
                    self._seen.add(record.number)
                    if record.result is not None or record.state == "FAIL":
                        self._console.print(line(record, judge), soft_wrap=True, highlight=False)

    def render(self) -> Group:
        left = self._left_s(self._done)
        elapsed = duration(time.monotonic() - self._started)
        head = f"[bold]{self._study.name}[/bold] · {self._stage} · {elapsed}" + (
            f" · about {duration(left)} left" if left is not None else ""
        )
        with self._lock:
            return Group(Text.from_markup(head), Text(self._counts), self._body, Text(self._now, style="dim"))


def counts(records: list[TrialRecord]) -> str:
    """How many trials there are of each kind."""
    kinds = Counter(_kind(r) for r in records)
    order = ("parent", "short", "long", "trained", "refined", "paused")
    others = ("stopped", "refused", "repeated", "failed", "running", "waiting")
    return ", ".join(f"{kinds[kind]} {kind}" for kind in (*order, *others) if kinds[kind]) or "nothing yet"


def _kind(record: TrialRecord) -> str:
    if record.state in ("RUNNING", "WAITING"):
        return record.state.lower()
    if record.state == "FAIL":
        return "failed"
    if record.answered_by is not None:
        return "repeated"
    if record.result is None:
        return "refused"
    if record.state == "PRUNED":
        return "stopped"
    if record.stage == "refine":
        return "refined"
    if not record.at_end:
        return "paused"
    return {"child": "short"}.get(record.stage, "trained" if record.stage == "explore" else record.stage)


COLUMNS = ("trial", "network", "bits w/a", "p_s", "p_u", "MACs", "score", "validation", "lower bound", "")
LEFT_OUT = ("MACs", "p_s", "", "p_u", "lower bound", "network", "bits w/a")
"""Columns that a narrow terminal does without, the first first: a figure is whole or not shown."""


def leaders_table(judge: Judge, width: int = 120) -> Table:
    """The best networks so far, and the parents while there are none, in a terminal of `width` columns."""
    rows = [row(record, judge) for record in (judge.leaders() or judge.ranked(judge.records))[:ROWS]]
    texts = [COLUMNS, *([Text.from_markup(cell).plain for cell in cells] for cells in rows)]
    needed = {name: max(len(cells[place]) for cells in texts) + 3 for place, name in enumerate(COLUMNS)}
    shown = list(COLUMNS)
    for name in LEFT_OUT:
        if sum(needed[column] for column in shown) + 1 > width:
            shown.remove(name)
    table = Table(expand=False, pad_edge=False)
    for name in shown:
        table.add_column(name, justify="left" if name in ("network", "trial") else "right", no_wrap=True)
    for cells in rows:
        table.add_row(*(cell for name, cell in zip(COLUMNS, cells, strict=True) if name in shown))
    return table


def row(record: TrialRecord, judge: Judge) -> list[str]:
    assert record.result is not None
    candidate, price = record.candidate, record.result.price
    enough = "[green]yes[/green]" if judge.feasible(record) else "no"
    stage = record.stage if record.at_end else f"rung {record.rung}"
    return [
        str(record.number),
        short(candidate.architecture.family, candidate.architecture.options.get("widths")),
        bits_text(candidate.bits),
        f"{candidate.structured:.2f}",
        f"{candidate.unstructured:.2f}",
        f"{price.macs / 1e6:.2f}M",
        f"{price.total:.5f}",
        f"{record.result.accuracy:.2%}",
        f"{judge.predicted(record):.2%} {enough}",
        stage,
    ]


def line(record: TrialRecord, judge: Judge) -> str:
    """One finished trial in one line."""
    if record.result is None:
        return f"trial {record.number} failed: {record.reason}"
    cells = row(record, judge)
    text = (
        f"trial {record.number} ({cells[9]}): {record.candidate.architecture} bits {cells[2]} p_s {cells[3]} "
        f"p_u {cells[4]}: score {cells[6]}, validation {cells[7]}, {record.result.seconds:.0f} s"
    )
    return text + (f", stopped: {record.reason}" if record.reason else "")


def bits_text(bits: Bits) -> str:
    """`3/4`, or `2-3/3-4` where stages or layers differ; the first and last layer are left out."""
    inner = [pair for name, pair in bits.layers.items() if name.split(".")[0] == "stages"]

    def span(values: list[int]) -> str:
        return str(values[0]) if min(values) == max(values) else f"{min(values)}-{max(values)}"

    return f"{span([bits.weights, *(w for w, _ in inner)])}/{span([bits.activations, *(a for _, a in inner)])}"


def short(family: str, widths: object) -> str:
    return f"{family} {'-'.join(map(str, widths))}" if isinstance(widths, tuple) else family


def duration(seconds: float) -> str:
    """`75` -> `1 min 15 s`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


log = logging.getLogger("search")


class Tracker(Protocol):
    def __call__(self, record: TrialRecord) -> None:
        """Log one trial: its parameters, its curve on validation (step: per cent of the training), how it ended."""


def tracker(names: Sequence[str], directory: Path) -> Tracker:
    """Tells all of `names` of a trial; one that fails is warned of and told no more, since a study needs none of them.

    Raises UsageError for one that is not installed.
    """
    services = {name: SERVICES[name](directory) for name in dict.fromkeys(names)}

    def tell(record: TrialRecord) -> None:
        for name, service in list(services.items()):
            try:
                service(record)
            except Exception as error:  # a network or a server of somebody else's, which may fail in any way
                log.warning("%s is told no more of this study: %s", name, error)
                del services[name]

    return tell


def _figures(record: TrialRecord) -> dict[str, float]:
    assert record.result is not None
    result = record.result
    return {
        "score": result.price.total,
        "validation accuracy": result.accuracy,
        "images": result.images,
        "seconds": result.seconds,
    }


def _curve(record: TrialRecord) -> list[tuple[int, float]]:
    assert record.result is not None
    return [(round(100 * fraction), accuracy) for fraction, accuracy in record.result.curve]


def _about(record: TrialRecord) -> dict[str, str]:
    return {"stage": record.stage, "why": record.why, "architecture": str(record.candidate.architecture)}


def _tensorboard(directory: Path) -> Tracker:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _missing("tensorboard", "tensorboard") from error

    def tell(record: TrialRecord) -> None:
        with SummaryWriter(str(directory / "tensorboard" / f"trial-{record.number}")) as writer:
            for step, accuracy in _curve(record):
                writer.add_scalar("validation accuracy", accuracy, step)
            writer.add_hparams({**_about(record), **record.params}, _figures(record), run_name=".")

    return tell


def _mlflow(directory: Path) -> Tracker:
    """Where MLFLOW_TRACKING_URI says; an experiment for the study, a run for the trial."""
    try:
        import mlflow
    except ImportError as error:
        raise _missing("mlflow", "mlflow-skinny") from error

    def tell(record: TrialRecord) -> None:
        mlflow.set_experiment(directory.name)
        with mlflow.start_run(run_name=f"trial {record.number}", tags=_about(record)):
            mlflow.log_params(record.params)
            for step, accuracy in _curve(record):
                mlflow.log_metric("validation accuracy", accuracy, step=step)
            mlflow.log_metrics({name: v for name, v in _figures(record).items() if name != "validation accuracy"})

    return tell


def _wandb(directory: Path) -> Tracker:
    """The project that WANDB_PROJECT says, else `contest`; a group for the study, a run for the trial."""
    try:
        import wandb
    except ImportError as error:
        raise _missing("wandb", "wandb") from error

    def tell(record: TrialRecord) -> None:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "contest"),
            group=directory.name,
            name=f"trial {record.number}",
            config={**_about(record), **record.params},
            reinit="create_new",
            settings=wandb.Settings(silent=True),  # the terminal is the study's
        )
        for step, accuracy in _curve(record):
            run.log({"validation accuracy": accuracy}, step=step)
        run.summary.update(_figures(record))
        run.finish()

    return tell


def _missing(name: str, package: str) -> UsageError:
    return UsageError(f"--track {name} needs a package that is not installed: pip install {package}")


SERVICES: Mapping[str, Callable[[Path], Tracker]] = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
