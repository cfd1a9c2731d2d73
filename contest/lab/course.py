"""A lab as a file that everybody runs: task, steps with their experiments and parameters, questions.

title = "Repeated pruning"
[task]
model = "mnist_fc"
[[steps]]
title = "Three ways to go on"
experiment = "repeated"
questions = ["Which one would you deploy?"]
[steps.options]
rounds = 10
"""

from __future__ import annotations

import dataclasses
import html
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contest import pruning
from contest.errors import UsageError
from contest.files import write_lines
from contest.lab.image_task import image_task
from contest.lab.registry import EXPERIMENTS, execute, find, options_of
from contest.lab.results.report import STYLE, Results
from contest.lab.task import Task, load_task

LABS = resources.files("contest.lab") / "labs"
"""The labs that come with the package, by name (`repeated-pruning`)."""
LAB = "lab.json"
"""What was run, in the folder of its results."""
M = TypeVar("M", bound=BaseModel)


class StrictPart(BaseModel):
    """A table of the file in which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskTable(StrictPart):
    """What a step runs on: a built-in network and data set (else the experiment's), or a factory of one's own."""

    factory: str = ""
    model: str = ""
    models: tuple[str, ...] = ()
    dataset: str = ""
    batch_size: int | None = None
    augment: bool = False
    train_images: int | None = None
    test_images: int | None = None
    initialisation: str | None = None
    prunable: tuple[str, ...] = ("default",)


class Quick(StrictPart):
    """What is smaller in a quick look at the lab."""

    task: dict[str, Any] = {}
    options: dict[str, Any] = {}


class Step(StrictPart):
    """A numbered task of the lab: text, an experiment or code, and questions."""

    title: str
    text: str = ""
    experiment: str = ""
    name: str = ""
    """Of its folder; made from the title where it has none."""
    options: dict[str, Any] = {}
    task: dict[str, Any] = {}
    quick: Quick = Quick()
    show: tuple[str, ...] = ()
    """The tables and figures that the notebook shows, by name; all where none is named."""
    code: tuple[str, ...] = ()
    """Cells of the notebook, before the experiment's own."""
    questions: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return self.name or re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


class Lab(StrictPart):
    """The whole file."""

    title: str
    introduction: str = ""
    task: TaskTable = TaskTable()
    quick: Quick = Quick()
    steps: tuple[Step, ...] = Field(min_length=1)

    def table(self, step: Step, quick: bool = False) -> TaskTable:
        """What a step runs on."""
        merged = {**self.task.model_dump(exclude_unset=True), **step.task}
        if quick:
            merged |= {**self.quick.task, **step.quick.task}
        return _valid(TaskTable, merged, f"step '{step.title}'")

    def options(self, step: Step, quick: bool = False) -> Any:
        """The parameters of a step's experiment."""
        return options_of(step.experiment, _merged(step.options, step.quick.options) if quick else step.options)


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both, the other's values over the one's, in tables inside as well."""
    found = dict(one)
    for key, value in other.items():
        inner = found.get(key)
        found[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return found


def names() -> list[str]:
    """The labs that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in LABS.iterdir() if path.name.endswith(".toml"))


def read(path: Path | str) -> Lab:
    """A lab's file, or one of those that come with the package by name.

    Raises:
        UsageError: there is no such file, or something in it is wrong.
    """
    shipped = LABS / f"{path}.toml"
    if Path(path).is_file():
        text = Path(path).read_text(encoding="utf-8")
    elif shipped.is_file():
        text = shipped.read_text(encoding="utf-8")
    else:
        raise UsageError(f"{path} is no file, and no lab is called so; there are {', '.join(names())}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    lab = _valid(Lab, values, str(path))
    folders = [step.folder for step in lab.steps if step.experiment]
    if twice := sorted({name for name in folders if folders.count(name) > 1}):
        raise UsageError(f"{path}: two steps have the folder '{twice[0]}'; give one of them another `name`")
    for step in lab.steps:
        for quick in (False, True):
            lab.table(step, quick)
            if step.experiment:
                _look(lab.options(step, quick), f"{path}: step '{step.title}'")
    return lab


def _look(options: Any, where: str) -> None:
    """Raise UsageError for a pruning method that does not exist: said now, not when its step comes after hours."""
    named: tuple[str, ...] = getattr(options, "methods", None) or (options.method,)
    for name in named:
        try:
            pruning.method(name)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error


def _valid(kind: type[M], values: Any, where: str) -> M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where}: {place}: {first['msg']} (found {first['input']!r})") from error


def tasks_of(table: TaskTable, experiment: str, **machine: Any) -> list[Task]:
    """The tasks that a table names; `machine` is where the data lie and what computes (`data`, `device`).

    Raises:
        UsageError: a factory is named that gives no task.
    """
    if table.factory:
        found = load_task(table.factory)
        return [dataclasses.replace(found, prunable=table.prunable) if table.prunable != ("default",) else found]
    return [image_task(model, dataset, **given, **machine) for model, dataset, given in calls(table, experiment)]


def calls(table: TaskTable, experiment: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Model, data set and further arguments of `image_task` for each task of a table."""
    defaults = EXPERIMENTS.get(experiment) or EXPERIMENTS["repeated"]
    given = {
        "batch_size": table.batch_size or defaults.batch_size,
        "augment": table.augment,
        "train_images": table.train_images,
        "test_images": table.test_images,
        "initialisation": table.initialisation or defaults.initialisation,
        "prunable": table.prunable,
    }
    models = table.models or (table.model or defaults.model,)
    return [(model, table.dataset or defaults.dataset, given) for model in models]


def run(
    lab: Lab,
    folder: Path,
    *,
    quick: bool = False,
    seeds: int = 1,
    progress: bool = False,
    finish: Callable[[Task], Task] = lambda task: task,
    **machine: Any,
) -> Path:
    """Run (or finish) all steps, each in its own folder, and write one page with everything and room for answers.

    Args:
        quick: with the smaller parameters of the file.
        finish: a change to each task, such as the contest's score.
    """
    sections: list[tuple[Step, Results | None]] = []
    ready = {
        step.folder: [finish(task) for task in tasks_of(lab.table(step, quick), step.experiment, **machine)]
        for step in lab.steps
        if step.experiment
    }
    write_lines(folder / LAB, lab.model_dump_json(indent=1))
    for step in lab.steps:
        results = None
        if step.experiment:
            tasks = ready[step.folder]
            results = execute(
                step.experiment,
                tasks,
                folder / step.folder,
                lab.options(step, quick),
                seeds=seeds,
                progress=progress,
                questions=step.questions,
            )
        sections.append((step, results))
    return write_page(lab, sections, folder)


def report(folder: Path) -> Path:
    """Write the page of a lab's folder again, with what is finished of it.

    Raises:
        UsageError: it is no lab's folder.
    """
    path = folder / LAB
    if not path.is_file():
        raise UsageError(f"{folder} holds no finished results of `contest lab`: neither results.json nor {LAB}")
    lab = _valid(Lab, json.loads(path.read_text(encoding="utf-8")), str(path))
    finished = {step.folder: (folder / step.folder / "results.json").is_file() for step in lab.steps}
    return write_page(
        lab,
        [(step, Results.load(folder / step.folder) if finished[step.folder] else None) for step in lab.steps],
        folder,
    )


def run_configuration(path: Path, folder: Path, *, seeds: int = 1, progress: bool = False, **machine: Any) -> Results:
    """Run the experiment of a result's `config.json` again, in another folder.

    Raises:
        UsageError: it is no such file, or names a task that only its maker has.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        experiment = find(str(config["experiment"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no config.json of a result: {error}") from error
    if "seeds" in config:  # of several runs
        config["seed"], seeds = min(config["seeds"]), max(seeds, len(config["seeds"]))
    parameters = {f.name for f in dataclasses.fields(experiment.options)}  # type: ignore[arg-type]
    options = options_of(config["experiment"], {k: v for k, v in config.items() if k in parameters})
    described = config.get("tasks") or [config]
    known = set(inspect.signature(image_task).parameters) - {"data", "device"}
    tasks = []
    for about in described:
        if "model" not in about and "factory" not in about:
            raise UsageError(f"{path}: task '{about.get('task')}' is not built in; run it with --task")
        if "factory" in about:
            tasks.append(load_task(str(about["factory"])))
            continue
        chosen = {k: v for k, v in about.items() if k in known}
        tasks.append(image_task(chosen.pop("model"), chosen.pop("dataset"), **chosen, **machine))
    return execute(config["experiment"], tasks, folder, options, seeds=seeds, progress=progress)


def write_page(lab: Lab, sections: Sequence[tuple[Step, Results | None]], folder: Path) -> Path:
    """One page, HTML and Markdown, with every step's text, tables and figures, and room for the answers."""
    body = [f"<h1>{html.escape(lab.title)}</h1>", *_paragraphs(lab.introduction)]
    text = [f"# {lab.title}", lab.introduction, "Name: ______________________"]
    body.append("<p>Name: ______________________</p>")
    for number, (step, results) in enumerate(sections, 1):
        body += [f"<h1>{number}. {html.escape(step.title)}</h1>", *_paragraphs(step.text)]
        text += [f"# {number}. {step.title}", step.text]
        for source in step.code:  # what the notebook runs; here to be read
            body.append(f"<pre>{html.escape(source)}</pre>")
            text.append(f"```python\n{source}\n```")
        if results is not None:
            body.append(results.body(prefix=f"{step.folder}-"))
            text.append(results.markdown_body(f"{step.folder}/figures"))
        for question in step.questions:
            body.append(f'<h2>{html.escape(question)}</h2><div class="answer" contenteditable="true"></div>')
            text += [f"## {question}", "*(your answer)*"]
    page = folder / "report.html"
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(lab.title)}</title>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    write_lines(page, f"{head}{view}<style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>")
    write_lines(folder / "report.md", "\n\n".join(part for part in text if part))
    return page


def _paragraphs(text: str) -> list[str]:
    """HTML of paragraphs in which `code` stands between backticks."""
    parts = (re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(part.strip())) for part in text.split("\n\n"))
    return [f"<p>{part}</p>" for part in parts if part]
