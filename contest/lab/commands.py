"""`contest lab`: the experiments on the command line.

An experiment's options are the fields of its dataclass, so that each parameter is declared once; what a field is for
stands in `HELP`, once for all experiments that have it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from contest.datasets.registry import names_help
from contest.errors import UsageError
from contest.lab import registry
from contest.lab.course import TaskTable, tasks_of
from contest.lab.course_commands import (
    collect,
    gallery,
    labs,
    methods,
    notebook,
    report,
    results,
    run,
    show_results,
    with_score,
)
from contest.lab.registry import EXPERIMENTS, Experiment, execute
from contest.lab.training import Training
from contest.pruning import read_ratios

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
    "methods": "Such methods, with commas.",
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
        found["layers"] = _layers(given["layer"]) if given["ratios"] is None else read_ratios(given["ratios"])
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
for other in (run, notebook, labs, report, collect, methods, results, gallery):
    lab.add_command(other)
