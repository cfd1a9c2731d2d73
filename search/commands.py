"""`contest search`, `contest worker`, `contest report`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from contest.commands import GIVEN
from contest.datasets.registry import names_help
from contest.errors import UsageError, command

EPOCHS_HELP = (
    "Without --budget: epochs of the whole study for each of --trials; `10/40`: and the float epochs that one network "
    "gets at most."
)


@click.command()
@click.option(
    "--trials", type=click.IntRange(1), help="Networks to compress (default 20, or as many as --budget allows)."
)
@click.option("--budget", help="Time to keep to, such as 2h or 45m: epochs and stages are chosen for this machine.")
@click.option(
    "--images", type=click.IntRange(1), help="Training images to see in all, on any machine; not beside --budget."
)
@click.option("--dataset", default="cifar10", show_default=True, help=names_help())
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the data set (else CONTEST_DATA, else download)."
)
@click.option(
    "--study", "directory", type=click.Path(path_type=Path), help="Study directory [default: studies/DATASET]."
)
@click.option("--plan", "plan_only", is_flag=True, help="Print the plan and what to expect of it, and end.")
@click.option("--resume", is_flag=True, help="Go on with the study in that directory.")
@click.option(
    "--objective",
    type=click.Choice(["constrained", "pareto", "target"]),
    default="constrained",
    show_default=True,
    help="Lowest score at the threshold, the whole front, or best accuracy below a score.",
)
@click.option("--target-score", type=float, help="With --objective target: the score to stay below.")
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "nsga2", "random"]),
    default="tpe",
    show_default=True,
    help="How candidates are proposed.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Everything random comes from it.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Tunings of the best network, each with a seed of its own.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps (mps is untested).")
@click.option("--storage", help="postgresql://... shared by many machines [default: SQLite in the study directory].")
@click.option("--epochs", help=EPOCHS_HELP)
@click.option(
    "--margin",
    type=float,
    help="Points of accuracy asked for above the threshold, such as 0.005 [default: the lower bound at two sigma].",
)
@click.option("--threshold", type=float, help="Accuracy that must be reached [default: the rule's].")
@click.option(
    "--finalists", type=click.IntRange(1), default=3, show_default=True, help="Networks that are read on the test set."
)
@click.option("--variants", type=click.IntRange(0), default=0, hidden=True, help="Without effect.")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="FILE|bundled|none",
    help="A model.pt from whose soft labels all networks learn; of several, the mean of their logits. "
    "`bundled`: the teacher of this package, 93.9 % on validation with mirror images [default: on cifar10, where the "
    "time allows it].",
)
@click.option(
    "--teacher-cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of given teachers' answers, shared by studies and trainings [default: in ~/.cache/contest].",
)
@click.option(
    "--parents",
    multiple=True,
    metavar="FILE|bundled|none",
    help="Checkpoint of a float network that is compressed at once; may be given again. `bundled`: the one of "
    "this package [default: on cifar10, where it lies in the space].",
)
@click.option(
    "--start",
    "starts",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE|STUDY",
    help="A network of your own to begin from: model.pt, train.ckpt, candidate.json, or a study's directory.",
)
@click.option(
    "--teacher-epochs",
    type=float,
    default=0.0,
    help="Train a teacher for that long, once [default: none; with --budget as there is time].",
)
@click.option(
    "--taught-epochs",
    type=click.IntRange(0),
    default=0,
    help="The teacher answers for the very images of so many epochs, not once for each [default: once for each].",
)
@click.option("--rule", help="Rule that prices candidates [default: the data set's].")
@click.option(
    "--space",
    "space_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file that narrows or fixes dimensions.",
)
@click.option("--family", help="Families to search, such as resnet,thin.")
@click.option(
    "--fix",
    multiple=True,
    metavar="NAME=VALUE",
    help="Narrow one dimension: `weight_bits=3` or `weight_bits=2,3,4`. May be given again.",
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes on this machine.")
@click.option(
    "--track",
    multiple=True,
    type=click.Choice(["tensorboard", "mlflow", "wandb"]),
    help="Also log every trial there: its parameters, curve, accuracy and score; may be given again.",
)
@click.option("--ray", "ray_address", help="Start the workers on this Ray cluster (`auto`, `local` or host:port).")
@click.option(
    "--gpus-per-worker", type=float, default=0.0, show_default=True, help="With --ray: share of a GPU for each worker."
)
def search(**options: Any) -> int:
    """Search for the network with the lowest score at the accuracy that the contest asks for.

    The study directory holds everything: `--resume` goes on after Ctrl-C, kill -9 or with more --trials. The
    test set is read once for each finalist, at the end.
    """
    options["begun"] = time.monotonic()  # importing torch is part of --budget
    _share_the_cores(options["workers"])
    from search.output.progress import standard_output
    from search.run import run_search

    console = standard_output()
    context = click.get_current_context()
    options["given"] = {n for n in options if context.get_parameter_source(n) in GIVEN}
    options["fixed"] = parse_fixed(options.pop("fix"))
    try:
        outcome = run_search(console, **options)
    except KeyboardInterrupt:
        directory = options["directory"] or f"studies/{options['dataset']}"
        resume = command("search", "--resume", "--study", directory)
        console.print(f"\ninterrupted; go on with: {resume}", soft_wrap=True, highlight=False, markup=False)
        raise click.exceptions.Abort from None
    return 0 if outcome is None or outcome.finalists else 1


def default_options() -> dict[str, Any]:
    """The options of `contest search` by name, as they are where nothing is said."""
    known = dict(search.make_context("search", [], resilient_parsing=True).params)
    return {"fixed": {}, **{name: value for name, value in known.items() if name != "fix"}}


@click.command()
@click.option("--dataset", default="cifar10", show_default=True, help=names_help())
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the data set (else CONTEST_DATA).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps (mps is untested).")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    default=("25m", "2h"),
    show_default=True,
    help="What a search with that time would come to; may be given again.",
)
def doctor(dataset: str, data: Path | None, device: str, budgets: tuple[str, ...]) -> int:
    """What this machine has, how fast it trains the first starting point, and what a budget buys.

    Nothing is downloaded and nothing is written.
    """
    begun = time.monotonic()
    import search.run  # noqa: F401 - a search is over with its imports before it times anything: so is this
    from search.doctor import examine
    from search.output.progress import standard_output
    from search.policy.budget import parse_duration

    for budget in budgets:
        parse_duration(budget)
    options = {**default_options(), "dataset": dataset, "data": data, "device": device, "plan_only": True}
    return 0 if examine(standard_output(), options, budgets, Path(), time.monotonic() - begun) else 1


@click.command()
@click.option(
    "--study",
    "directory",
    type=click.Path(path_type=Path),
    required=True,
    help="Study directory, which all machines see.",
)
@click.option("--storage", help="The study's database [default: what the study was started with].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps (mps is untested).")
@click.option("--exit-when-idle", is_flag=True, help="End when there is nothing to do, not when the study ends.")
def worker(directory: Path, storage: str | None, device: str, exit_when_idle: bool) -> None:
    """Work on a study that `contest search` started, from this machine, until it ends."""
    _share_the_cores(1)
    from search.worker import run_worker

    done = run_worker(directory, storage, device, stay=not exit_when_idle)
    click.echo(f"{done} pieces of work done")


@click.command()
@click.argument("study", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--storage", help="The study's database [default: what the study was started with].")
@click.option("--json", "as_json", is_flag=True, help="Every trial as JSON.")
def status(study: Path, storage: str | None, as_json: bool) -> None:
    """How far STUDY is: what was trained, what runs now, the best networks so far. Reads only."""
    import json

    from search.output.progress import standard_output
    from search.output.status import print_status
    from search.study.study import NotBegunError, open_study

    try:
        opened = open_study(study, storage)
    except NotBegunError as error:
        click.echo("[]" if as_json else str(error))
        return
    if as_json:
        click.echo(json.dumps([record.row() for record in opened.records()], indent=1))
    else:
        print_status(standard_output(), opened)


@click.command()
@click.argument("study", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the report [default: STUDY/report].")
@click.option("--slides", type=click.Path(path_type=Path), help="Also write a seven-minute talk (.pptx).")
@click.option("--storage", help="The study's database [default: what the study was started with].")
def report(study: Path, out: Path | None, slides: Path | None, storage: str | None) -> None:
    """What happened in STUDY: history, Pareto front, importance, cost by stage, as HTML, PNG and slides."""
    from search.output.html import write_report
    from search.study.study import open_study

    opened = open_study(study, storage)
    for path in write_report(opened, out or study / "report"):
        click.echo(str(path))
    if slides is not None:
        from search.output.slides import write_slides

        click.echo(str(write_slides(opened, slides)))


def _share_the_cores(workers: int) -> None:
    """Before torch is imported: threads sleep rather than spin while they wait, and workers share the cores."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


def parse_fixed(texts: tuple[str, ...]) -> dict[str, list[int | float | str]]:
    """`("weight_bits=2,3",)` -> `{"weight_bits": [2, 3]}`. Raises UsageError for text without `=`, or a second one."""
    fixed: dict[str, list[int | float | str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values:
            raise UsageError(f"--fix {text}: write NAME=VALUE or NAME=VALUE,VALUE")
        if (name := name.strip()) in fixed:
            first = ",".join(map(str, fixed[name]))
            raise UsageError(
                f"--fix {name} is given twice: for all of these values write --fix {name}={first},{values}"
            )
        fixed[name] = [_number(value.strip()) for value in values.split(",")]
    return fixed


def _number(text: str) -> int | float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
