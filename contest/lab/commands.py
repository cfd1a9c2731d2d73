"""`contest lab`: the experiments on the command line; and for a class, labs as files, notebooks, reports of many.

An experiment's options are the fields of its dataclass, so that each parameter is declared once; what a field is for
stands in `HELP`, once for all experiments that have it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from rich.console import Console

from contest import pruning
from contest.datasets.registry import names_help
from contest.errors import UsageError
from contest.lab import course, registry
from contest.lab.course import TaskTable, tasks_of
from contest.lab.image_task import score_of
from contest.lab.registry import EXPERIMENTS, Experiment, execute
from contest.lab.results.report import Results, class_means, long_table
from contest.lab.results.report import collect as collect_results
from contest.lab.results.tables import show_table
from contest.lab.task import Task
from contest.lab.training import Training

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
HELP = {
    "batch": "Samples in one timed run.",
    "compare.look_at": "The ratio that is looked at layer by layer.",
    "finetune.look_at": "The convolution whose kernels are drawn  [default: the first]",
    "bits": "Of weights and inputs, with commas; 32 is float.",
    "calibration_samples": "Training samples from which quantisers' first steps and data-driven methods' scores come.",
    "disk": "The format whose size stands in the tables and the plot.",
    "fraction": "Of the remaining weights, removed in each round.",
    "images": "Sample images with their predictions.",
    "kernels": "How many kernels are drawn at most.",
    "latency_batch": "Samples in one timed run.",
    "latency_runs": "Timed runs.",
    "latency_warmup": "Runs before the timed ones.",
    "layer_by_layer": "Prune and retrain one layer after another.",
    "method": "A pruning method, with options (grasp:temperature=100), or your own package.module:function.",
    "methods": "Such methods, with commas, options too: snip,grasp:temperature=100,magnitude.",
    "orders": "Together, or one after the other.",
    "per_channel": "A quantiser's step for each channel, or one for the whole tensor.",
    "pretraining": "Before pruning by methods for trained networks (200 epochs in the original), likewise.",
    "removed": "Fractions of weights removed as channels, with commas.",
    "rounds": "Prunings, one after the other.",
    "runs": "Timed runs.",
    "scoring_samples": "Training samples from which data-driven methods score.",
    "sparsities": "Fractions of zeros, with commas.",
    "sparsity": "Of each weight tensor, or of all together by methods other than fine-grained.",
    "targets": "Sparsities of the whole network for which ratios of the layers are suggested, with commas.",
    "training": "How long and how; what is not named stays as by default.",
    "tuning": "Training after a pruning or quantisation, likewise.",
    "variants": "none, kept, initial, or a step k to rewind to, with commas.",
    "warmup": "Runs before the timed ones.",
}
"""What a parameter is for, by its name, or by experiment and name where that differs."""


@click.group()
def lab() -> None:
    """The laboratory experiments: tables, figures and a page in a folder; a killed one goes on where it stopped."""


def add(experiment: str, text: str, *spellings: click.Option, instead: Sequence[str] = ()) -> None:
    """Add an experiment's command: an option for each field but `instead`, which `spellings` say otherwise."""
    defaults = EXPERIMENTS[experiment]
    parameters = defaults.options()
    kinds = get_type_hints(type(parameters))
    fields = [f.name for f in dataclasses.fields(parameters) if f.name not in (*instead, "seed")]

    def command(**given: Any) -> None:
        said = {name: _value(given[name], getattr(parameters, name), kinds[name]) for name in fields}
        chosen = defaults.options(**said, **_respelled(given, parameters), seed=given["seed"])
        tasks = [with_score(task) for task in tasks_of(_table(given), experiment, **registry.machine(given))]
        again, seeds = given["again"], given["seeds"]
        show_results(execute(experiment, tasks, given["out"], chosen, seeds=seeds, progress=True, again=again))

    own = [_option(experiment, name, getattr(parameters, name), kinds[name]) for name in fields]
    params = [*_task_options(defaults), *own, *spellings]
    lab.add_command(registry.machine_options(click.Command(experiment, callback=command, params=params, help=text)))


def _task_options(defaults: Experiment) -> list[click.Parameter]:
    """What all experiments ask about the task and the folder."""
    return [
        click.Option(["--task"], default="", help="Your own: package.module:factory, which gives a contest.lab.Task."),
        click.Option(
            ["--model"], default=defaults.model, show_default=True, help="A network, such as vgg16:width=0.25."
        ),
        click.Option(["--dataset"], default=defaults.dataset, show_default=True, help=names_help()),
        click.Option(
            ["--batch-size"], default=defaults.batch_size, show_default=True, help="Images in a training batch."
        ),
        click.Option(["--augment"], is_flag=True, help="Random crops, and flips where they keep the class."),
        click.Option(["--train-images"], type=int, help="Only the first so many, for a quick look."),
        click.Option(["--test-images"], type=int, help="Only the first so many."),
        click.Option(
            ["--initialisation"],
            default=defaults.initialisation,
            show_default=True,
            help="torch (plain layers), kaiming (SynFlow's code) or family (the contest's recipes).",
        ),
        click.Option(
            ["--prunable"],
            multiple=True,
            help="Which weights: a name, module, pattern ('lstm.weight_*'), or default; may be repeated.",
        ),
        click.Option(["--out"], type=click.Path(path_type=Path), required=True, help="Results folder."),
        click.Option(["--seed"], default=0, show_default=True, help="Everything random comes from it."),
        click.Option(["--again"], multiple=True, help="Compute these finished cells anew, such as 'kept-0*'."),
    ]


def _table(given: dict[str, Any]) -> TaskTable:
    names = ("model", "dataset", "batch_size", "augment", "train_images", "test_images", "initialisation")
    models = tuple(name.strip() for name in given.get("models", "").split(";") if name.strip())
    prunable = {"prunable": given["prunable"]} if given["prunable"] else {}
    return TaskTable(factory=given["task"], models=models, **{name: given[name] for name in names}, **prunable)


def _option(experiment: str, name: str, default: Any, kind: Any) -> click.Option:
    """The option of one parameter, of the type of its field."""
    flag, text = f"--{name.replace('_', '-')}", HELP.get(f"{experiment}.{name}") or HELP[name]
    if isinstance(default, Training):
        return click.Option([flag], default=_said(default), show_default=True, help=text)
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"] if default else [flag], default=default, help=text)
    if get_origin(kind) is tuple:
        return click.Option([flag], default=",".join(_written(one) for one in default), show_default=True, help=text)
    choice = click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind
    return click.Option([flag], type=choice, default=default, show_default=default != "", help=text)


def _value(given: Any, default: Any, kind: Any) -> Any:
    """What was said, as the field's own type."""
    if isinstance(default, Training):
        return registry.training(given, default)
    if get_origin(kind) is not tuple:
        return given
    inner = get_args(kind)[0]
    if inner in (int, float):
        return tuple(inner(number) for number in registry.numbers(given))
    return registry.methods(given)


def _said(training: Training) -> str:
    """A training as its option takes it, without what is as in every training."""
    usual = dataclasses.asdict(Training())
    values = dataclasses.asdict(training)
    shown = {k: v for k, v in values.items() if v != usual[k] or k in ("epochs", "optimiser", "learning_rate")}
    return ",".join(f"{name}={_written(value)}" for name, value in shown.items())


def _written(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _respelled(given: dict[str, Any], parameters: Any) -> dict[str, Any]:
    """The fields that have options of other names."""
    found: dict[str, Any] = {}
    if "exponents" in given:
        found["ratios"] = registry.ratios(given["ratios"], given["sparsities"], given["exponents"], parameters.ratios)
    if "layer" in given:
        found["layers"] = _layers(given["layer"]) if given["ratios"] is None else pruning.read_ratios(given["ratios"])
    if "group" in given:
        groups = tuple((group.partition("=")[0], registry.names(group.partition("=")[2])) for group in given["group"])
        if not all(members for _, members in groups):
            raise UsageError(f"--group is {', '.join(given['group'])}; it must be name=layer,layer")
        found["groups"] = groups
    return found


def _layers(given: Sequence[str]) -> tuple[tuple[str, float], ...]:
    each = [layer.partition("=") for layer in given]
    if not all(separator for _, separator, _ in each):
        raise UsageError(f"--layer is {', '.join(given)}; it must be name=sparsity, such as conv1.weight=0.5")
    return tuple((name, registry.numbers(value)[0]) for name, _, value in each)


def with_score(task: Task) -> Task:
    """A built-in task with the contest's score of its networks, where the command line knows how to score a file."""
    score_file: Callable[[Path], float] | None = click.get_current_context().find_root().obj
    if score_file is None or "model" not in task.about or "factory" in task.about:
        return task
    return dataclasses.replace(
        task, score=lambda network: score_of(network, str(task.about["model"]), task, score_file)
    )


def show_results(results: Results) -> None:
    """The tables that fit a screen, the sentences, and where the page lies."""
    console = Console()
    for name, table in results.tables.items():
        if len(table) <= 40:
            show_table(console, name, table)
    for note in results.notes:
        console.print(note, highlight=False)
    console.print(f"[bold]{results.folder / 'report.html'}[/bold]")


add("repeated", "Prune a fraction of what remains, again and again: no retraining, retraining, rewinding.")
add(
    "compare",
    "Prune once by several methods at several compression ratios, and train every network.",
    click.Option(["--models"], default="", help="Several networks (separated by ;) instead of --model."),
    click.Option(["--ratios"], default="", show_default="1,2,5,10,15,20", help="Compression ratios."),
    click.Option(["--sparsities"], default="", help="The same as sparsities, such as 0,0.5,0.9."),
    click.Option(["--exponents"], default="", help="The same as powers of ten, such as 0,0.5,1,1.5."),
    instead=("ratios",),
)
add(
    "finetune",
    "Prune a trained network, fine-tune it with the mask held, and look at each stage.",
    click.Option(["--layer"], multiple=True, help="conv1.weight=0.5: a sparsity for one layer; others stay whole."),
    click.Option(
        ["--ratios"],
        type=click.Path(path_type=Path, dir_okay=False),
        help="A file of ratios from `contest lab sensitivity`, instead of --layer.",
    ),
    instead=("layers",),
)
add(
    "sensitivity",
    "Prune each layer, or named group of layers, alone; suggest a ratio for each.",
    click.Option(
        ["--group"], multiple=True, help="early=conv1,conv2: layers (or prefixes) pruned together; may be repeated."
    ),
    instead=("groups",),
)
add("deploy", "Run pruned networks in PyTorch and in ONNX Runtime: latency, agreement, size.")
add("quantise", "Prune and quantise on a grid, together and one after the other.")


@lab.command()
@click.argument("lab")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Results folder; a folder in it each step.")
@click.option("--quick", is_flag=True, help="With the smaller parameters of the file, for a first look.")
@registry.machine_options
def run(lab: str, out: Path, quick: bool, seeds: int, **given: Any) -> None:
    """Run LAB: a lab's TOML file, the name of one that comes with this tool, or a result's config.json."""
    machine = registry.machine(given)
    if lab.endswith(".json"):
        show_results(course.run_configuration(Path(lab), out, seeds=seeds, progress=True, **machine))
        return
    page = course.run(course.read(lab), out, quick=quick, seeds=seeds, progress=True, finish=with_score, **machine)
    click.echo(str(page))


@lab.command()
@click.argument("lab")
@click.option("--out", type=click.Path(path_type=Path), help="The notebook (default: the lab's name, here).")
@click.option("--quick", is_flag=True, help="With the smaller parameters of the file.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the data sets.")
def notebook(lab: str, out: Path | None, quick: bool, data: Path | None) -> None:
    """Write LAB (a TOML file or a lab's name) as a Jupyter notebook."""
    from contest.lab.notebook import write_notebook

    path = out or Path(f"{Path(lab).stem}.ipynb")
    if path.exists():
        raise UsageError(f"{path} exists, perhaps with somebody's answers; give another name with --out")
    click.echo(str(write_notebook(course.read(lab), path, quick=quick, data=data)))


@lab.command()
@click.option("--write", type=click.Path(path_type=Path), help="Copy their files into this folder, to be changed.")
def labs(write: Path | None) -> None:
    """List the labs that come with this tool."""
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


@lab.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@click.option("--question", "questions", multiple=True, help="Asked on the page, with room for the answer.")
def report(folders: tuple[Path, ...], questions: tuple[str, ...]) -> None:
    """Write the page of finished results in FOLDERS again: report.html and report.md."""
    for folder in folders:
        if not (folder / "results.json").is_file():
            click.echo(str(course.report(folder)))
            continue
        found = Results.load(folder)
        if questions:
            found.questions = questions
        click.echo(str(found.finish()))


@lab.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), help="All values, a row for each.")
@click.option("--table", default="", help="Show this table's mean and standard deviation over everybody.")
def collect(folders: tuple[Path, ...], csv: Path | None, table: str) -> None:
    """Join the results of a class: FOLDERS, one for each student, named as they are to be called."""
    if csv is None and not table:
        raise UsageError("give --csv FILE for all values, or --table NAME for one table's mean")
    found = collect_results(folders)
    if csv is not None:
        long_table(found).to_csv(csv, index=False)
        click.echo(f"{csv}: {sum(map(len, found.values()))} results of {len(folders)} folders")
    if table:
        means = class_means(found, table)
        if not means:
            known = sorted({name for own in found.values() for one in own.values() for name in one.tables})
            raise UsageError(f"no result has a table '{table}'; there are {', '.join(known)}")
        for place, mean in means.items():
            show_table(Console(), f"{place}: {table}", mean)


@lab.command()
def methods() -> None:
    """List the pruning methods with their options."""
    for name, found in sorted(pruning.methods().items()):
        made_for = "an untrained network" if found.when == "before" else "a trained network"
        options = ",".join(f"{key}={value:g}" for key, value in found.options.items())
        click.echo(f"{name}{':' if options else ''}{options}")
        click.echo(f"    {found.what}")
        paper = f"; {found.paper}" if found.paper else ""
        click.echo(f"    {made_for}, {'with' if found.uses_data else 'without'} data{paper}")


@lab.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The page, such as docs/lab-results.md.")
def results(folders: tuple[Path, ...], out: Path) -> None:
    """Write the results in FOLDERS as one page, beside the published figures."""
    from contest.lab.results.published import write

    click.echo(f"{write(folders, out)}")


@lab.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder, such as docs/methods.")
def gallery(out: Path) -> None:
    """Draw the pictures of the pruning methods' pages."""
    from contest.lab.results.pictures import gallery

    for path in gallery(out):
        click.echo(f"{path}")
