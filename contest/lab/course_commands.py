"""`contest lab` for a class: labs as files, notebooks, reports, and the results of many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contest.errors import UsageError
from contest.lab import registry

if TYPE_CHECKING:
    from torch import nn

    from contest.lab import Results, Task

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command()
@click.argument("lab")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Results folder; a folder in it each step.")
@click.option("--quick", is_flag=True, help="With the smaller parameters of the file, for a first look.")
@registry.machine_options
def run(lab: str, out: Path, quick: bool, seeds: int, **given: Any) -> None:
    """Run LAB: a lab's TOML file, the name of one that comes with this tool, or a result's config.json."""
    from contest.lab import course

    machine = registry.machine(given)
    if lab.endswith(".json"):
        show_results(course.run_configuration(Path(lab), out, seeds=seeds, progress=True, **machine))
        return
    page = course.run(course.read(lab), out, quick=quick, seeds=seeds, progress=True, finish=with_score, **machine)
    click.echo(str(page))


@click.command()
@click.argument("lab")
@click.option("--out", type=click.Path(path_type=Path), help="The notebook (default: the lab's name, here).")
@click.option("--quick", is_flag=True, help="With the smaller parameters of the file.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the data sets.")
def notebook(lab: str, out: Path | None, quick: bool, data: Path | None) -> None:
    """Write LAB (a TOML file or a lab's name) as a Jupyter notebook."""
    from contest.lab import course
    from contest.lab.notebook import write_notebook

    path = out or Path(f"{Path(lab).stem}.ipynb")
    if path.exists():
        raise UsageError(f"{path} exists, perhaps with somebody's answers; give another name with --out")
    click.echo(str(write_notebook(course.read(lab), path, quick=quick, data=data)))


@click.command()
@click.option("--write", type=click.Path(path_type=Path), help="Copy their files into this folder, to be changed.")
def labs(write: Path | None) -> None:
    """List the labs that come with this tool."""
    from contest.lab import course

    for name in course.names():
        found = course.read(name)
        questions = sum(len(step.questions) for step in found.steps)
        click.echo(f"{name}: {found.title} ({len(found.steps)} steps, {questions} questions)")
        if write is not None:
            write.mkdir(parents=True, exist_ok=True)
            path = write / f"{name}.toml"
            if path.exists():
                raise UsageError(f"{path} exists; remove it, or give another folder")
            path.write_text((course.LABS / f"{name}.toml").read_text(encoding="utf-8"), encoding="utf-8")
            click.echo(f"  {path}")


@click.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@click.option("--question", "questions", multiple=True, help="Asked on the page, with room for the answer.")
def report(folders: tuple[Path, ...], questions: tuple[str, ...]) -> None:
    """Write the page of finished results in FOLDERS again: report.html and report.md."""
    from contest.lab import course
    from contest.lab.results.report import Results

    for folder in folders:
        if not (folder / "results.json").is_file():
            click.echo(str(course.report(folder)))
            continue
        found = Results.load(folder)
        if questions:
            found.questions = questions
        click.echo(str(found.finish()))


@click.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), help="All values, a row for each.")
@click.option("--table", default="", help="Show this table's mean and standard deviation over everybody.")
def collect(folders: tuple[Path, ...], csv: Path | None, table: str) -> None:
    """Join the results of a class: FOLDERS, one for each student, named as they are to be called."""
    from rich.console import Console

    from contest.lab.results import report as collecting

    if csv is None and not table:
        raise UsageError("give --csv FILE for all values, or --table NAME for one table's mean")
    found = collecting.collect(folders)
    if csv is not None:
        collecting.long_table(found).to_csv(csv, index=False)
        click.echo(f"{csv}: {sum(map(len, found.values()))} results of {len(folders)} folders")
    if table:
        means = collecting.class_means(found, table)
        if not means:
            known = sorted({name for own in found.values() for one in own.values() for name in one.tables})
            raise UsageError(f"no result has a table '{table}'; there are {', '.join(known)}")
        for place, mean in means.items():
            show_table(Console(), f"{place}: {table}", mean)


@click.command()
def methods() -> None:
    """List the pruning methods with their options."""
    from contest import pruning

    for name, found in sorted(pruning.methods().items()):
        made_for = "an untrained network" if found.when == "before" else "a trained network"
        options = ",".join(f"{key}={value:g}" for key, value in found.options.items())
        click.echo(f"{name}{':' if options else ''}{options}")
        click.echo(f"    {found.what}")
        paper = f"; {found.paper}" if found.paper else ""
        click.echo(f"    {made_for}, {'with' if found.uses_data else 'without'} data{paper}")


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The page, such as docs/lab-results.md.")
def results(folders: tuple[Path, ...], out: Path) -> None:
    """Write the results in FOLDERS as one page, beside the published figures."""
    from contest.lab.results.published import write

    click.echo(f"{write(folders, out)}")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder, such as docs/methods.")
def gallery(out: Path) -> None:
    """Draw the pictures of the pruning methods' pages."""
    from contest.lab.results.pictures import gallery

    for path in gallery(out):
        click.echo(f"{path}")


def with_score(task: Task) -> Task:
    """A built-in task with the contest's score of its networks, where the command line knows how to score a file."""
    from dataclasses import replace

    score_file: Callable[[Path], float] | None = click.get_current_context().find_root().obj
    if score_file is None or "model" not in task.about or "factory" in task.about:
        return task
    return replace(task, score=lambda network: score_of(network, str(task.about["model"]), task, score_file))


def score_of(network: nn.Module, model: str, task: Task, score_file: Callable[[Path], float]) -> float:
    """The score of a trained network of a built-in architecture: frozen, written, and read as any entry is.

    `score_file` comes from the command line, which knows `scoring`; the laboratory does not.
    """
    import tempfile

    from contest import networks
    from contest.model_file import freeze, save

    channels, height, width = task.example(1).shape[1:]
    frozen = freeze(network, networks.parse(model), image_shape=(channels, height, width), classes=len(task.classes))
    with tempfile.TemporaryDirectory() as folder:
        return score_file(save(frozen, Path(folder) / "model.pt"))


def show_results(results: Results) -> None:
    """The tables that fit a screen, the sentences, and where the page lies."""
    from rich.console import Console

    console = Console()
    for name, table in results.tables.items():
        if len(table) <= 40:
            show_table(console, name, table)
    for note in results.notes:
        console.print(note, highlight=False)
    console.print(f"[bold]{results.folder / 'report.html'}[/bold]")


def show_table(console: Any, name: str, table: Any) -> None:
    """The table in as many parts as its columns need, so that none is cut.

    Each part begins with the columns that tell its rows apart, as long as they leave half of the line.
    """
    from rich.table import Table

    from contest.lab.results.report import as_text, text_columns

    text, left = as_text(table), text_columns(table)
    widths = {column: max([len(column), *map(len, text[column])]) + 3 for column in text.columns}
    keys = 1
    while (
        keys < len(text.columns)
        and text.iloc[:, :keys].duplicated().any()
        and sum(widths[column] for column in text.columns[: keys + 1]) <= console.width // 2
    ):
        keys += 1
    first, others = list(text.columns[:keys]), list(text.columns[keys:])
    while True:
        part, room = list(first), console.width - sum(widths[column] for column in first) - 1
        while others and (len(part) == keys or widths[others[0]] <= room):
            room -= widths[others[0]]
            part.append(others.pop(0))
        view = Table(title=name, title_justify="left")
        for column in part:
            view.add_column(column, justify="left" if column in left else "right", no_wrap=True)
        for row in text[part].itertuples(index=False):
            view.add_row(*row)
        console.print(view)
        if not others:
            return
