"""The experiments by name: their parameters, what they run on by default, and how one is run over several seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from pydantic import TypeAdapter, ValidationError

from contest.errors import UsageError
from contest.files import write_lines
from contest.lab.experiments.compare import Compare, compare
from contest.lab.experiments.deploy import Deploy, deploy
from contest.lab.experiments.finetune import FineTune, finetune
from contest.lab.experiments.layer_sensitivity import Sensitivity, sensitivity
from contest.lab.experiments.quantise import Quantise, quantise
from contest.lab.experiments.repeated import Repeated, repeated
from contest.lab.results.report import Results
from contest.lab.results.tables import over_seeds
from contest.lab.task import Task

if TYPE_CHECKING:
    from contest.lab import Training


C = TypeVar("C", bound=Callable[..., Any])


def machine_options(command: C) -> C:
    """Where the data lie, what computes, and over how many seeds."""
    for option in (
        click.option("--seeds", default=1, show_default=True, help="Runs from so many seeds: means and bands."),
        click.option("--data", type=click.Path(path_type=Path), help="Folder of the data set."),
        click.option("--device", default="cpu", show_default=True, help="auto, cpu or cuda (built-in tasks only)."),
        click.option("--threads", type=int, help="Of torch and ONNX Runtime (default: torch's own)."),
    ):
        command = option(command)
    return command


def machine(given: Mapping[str, Any]) -> dict[str, Any]:
    """`data` and `device` of these options; the threads are set."""
    import torch

    from contest.training import choose_device

    if given["threads"] is not None:
        if given["threads"] < 1:
            raise UsageError(f"--threads is {given['threads']}; at least 1 is needed")
        torch.set_num_threads(given["threads"])
    return {"data": given["data"], "device": str(choose_device(given["device"]))}


def numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"'{text}' is not a list of numbers such as 0.5,0.9") from error


def names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def methods(text: str) -> tuple[str, ...]:
    """Methods with commas; `name:one=1,two=2` is one of them."""
    found: list[str] = []
    for part in names(text):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return tuple(found)


def ratios(ratios: str, sparsities: str, exponents: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """Compression ratios, however they were said: c itself, a sparsity 1 - 1/c, or an exponent with c = 10^e."""
    given = [
        name for name, text in (("--ratios", ratios), ("--sparsities", sparsities), ("--exponents", exponents)) if text
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} say the same thing; give one of them")
    if exponents:
        return tuple(10**exponent for exponent in numbers(exponents))
    if sparsities:
        found = numbers(sparsities)
        if not all(0 <= sparsity < 1 for sparsity in found):
            raise UsageError(f"--sparsities is {sparsities}; each must lie in [0, 1)")
        return tuple(round(1 / (1 - sparsity), 9) for sparsity in found)
    return numbers(ratios) or default


def training(text: str, default: Training) -> Training:
    """`epochs=2,optimiser=adam,learning_rate=0.001` over the experiment's own defaults."""
    types: dict[str, Callable[[str], Any]] = {"float": float, "bool": lambda text: text.lower() in ("1", "true", "yes")}
    kinds = {field.name: types.get(str(field.type), str) for field in dataclasses.fields(default)}
    chosen: dict[str, Any] = {}
    for part in names(text):
        name, separator, value = part.partition("=")
        if not separator or name not in kinds:
            raise UsageError(f"training option '{part}' is none of {', '.join(f'{known}=...' for known in kinds)}")
        try:
            chosen[name] = kinds[name](value)
        except ValueError as error:
            raise UsageError(f"training option {name}={value}: {error}") from error
    return dataclasses.replace(default, **chosen)


@dataclass(frozen=True)
class Experiment:
    """One experiment: its function, the dataclass of its parameters, and what it runs on where nothing is said."""

    options: Callable[..., Any]
    function: Callable[..., Results]
    model: str
    batch_size: int
    dataset: str = "mnist"
    initialisation: str = "torch"
    several: bool = False
    """Whether its function takes a list of tasks."""


EXPERIMENTS = {
    "repeated": Experiment(Repeated, repeated, "mnist_fc", 64),
    "compare": Experiment(
        Compare, compare, "vgg16:width=0.25", 128, dataset="cifar10", initialisation="kaiming", several=True
    ),
    "finetune": Experiment(FineTune, finetune, "mnist_cnn", 256),
    "sensitivity": Experiment(Sensitivity, sensitivity, "mnist_cnn", 256),
    "deploy": Experiment(Deploy, deploy, "mnist_cnn", 256),
    "quantise": Experiment(Quantise, quantise, "mnist_cnn", 256),
}


def find(name: str) -> Experiment:
    """The experiment called `name`."""
    if name not in EXPERIMENTS:
        raise UsageError(f"experiment '{name}' does not exist; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def options_of(name: str, given: Mapping[str, Any]) -> Any:
    """An experiment's parameters from plain values (of a TOML or JSON file) over its defaults.

    Raises:
        UsageError: a parameter does not exist or has a wrong value.
    """
    kind = find(name).options
    merged = _over(dataclasses.asdict(kind()), given, f"experiment '{name}'")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(cast(Any, kind))
        return adapter.validate_python(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"experiment '{name}' parameter {where} is {first['input']!r}: {first['msg']}") from error


def _over(defaults: dict[str, Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = dict(defaults)
    for key, value in given.items():
        if key not in defaults:
            raise UsageError(f"{where} has no parameter '{key}'; there are {', '.join(defaults)}")
        inner = defaults[key]
        nested = isinstance(inner, dict) and isinstance(value, Mapping)
        found[key] = _over(inner, value, f"{where} {key}") if nested else value
    return found


def execute(
    name: str,
    tasks: Sequence[Task],
    folder: Path,
    options: Any,
    *,
    seeds: int = 1,
    progress: bool = False,
    again: Sequence[str] = (),
    questions: Sequence[str] = (),
) -> Results:
    """Run (or finish) an experiment; over several seeds, each in a folder of its own, with their mean and spread.

    Raises:
        UsageError: the experiment takes one task and several were given.
    """
    experiment = find(name)
    if not experiment.several and len(tasks) != 1:
        raise UsageError(f"experiment '{name}' runs on one task, not on {len(tasks)}")
    subject = tasks if experiment.several else tasks[0]
    more = {"progress": progress, "again": again, "questions": questions}
    if seeds == 1:
        return experiment.function(subject, folder, options, **more)
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}; at least one run is needed")
    own = [dataclasses.replace(options, seed=options.seed + i) for i in range(seeds)]
    places = _places(folder, [one.seed for one in own])
    runs = [
        experiment.function(subject, place, one, **more)  # what is added to a folder begins with what it has
        for place, one in zip(places, own, strict=True)
    ]
    return combined(runs, folder, questions)


def _places(folder: Path, seeds: Sequence[int]) -> list[Path]:
    """Where the run of each seed lies: a folder in `folder`, or that itself for the seed that it was begun with.

    Raises:
        UsageError: it holds a run of none of these seeds.
    """
    config = folder / "config.json"
    begun = json.loads(config.read_text(encoding="utf-8")).get("seed") if config.is_file() else None
    if begun is not None and begun not in seeds:
        raise UsageError(
            f"{folder} holds a run of seed {begun}, which is none of {', '.join(map(str, seeds))}; give another folder "
            f"with --out, or --seed {begun}"
        )
    return [folder if seed == begun else folder / f"seed-{seed}" for seed in seeds]


def combined(runs: Sequence[Results], folder: Path, questions: Sequence[str] = ()) -> Results:
    """Several runs of one experiment as one: tables of means with standard deviations, lines with bands."""
    first = runs[0]
    configuration = json.loads(json.dumps(first.configuration, default=str))
    configuration["seeds"] = [run.configuration["seed"] for run in runs]
    configuration.pop("seed")
    results = Results(
        folder,
        first.title,
        f"{first.summary} Mean and standard deviation of {len(runs)} seeds.",
        configuration,
        first.machine,
        questions=questions,
    )
    results.notes += [*first.notes, "Sentences above that name single cells are of the first seed."]
    for name in first.tables:
        own = [run.tables[name] for run in runs if name in run.tables]
        results.add_table(name, first.captions[name], over_seeds(own), first.digits[name])
    for name, caption in first.drawn.items():
        if name in first.lines:
            lines = first.lines[name].over_seeds([run.lines[name] for run in runs if name in run.lines])
            results.add_figure(name, f"{caption} Bands: one standard deviation over {len(runs)} seeds.", lines)
        else:
            results.copy_figure(first, name, f"{caption} Of the first seed.")
    results.finish()
    if not (folder / "config.json").is_file():  # as `contest lab run` takes it
        write_lines(folder / "config.json", json.dumps(configuration, indent=2))
        write_lines(folder / "machine.json", json.dumps(dict(first.machine), indent=2))
    return results
