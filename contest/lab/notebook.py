"""A lab as a Jupyter notebook: each numbered task, table and question a cell that can be changed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from contest.errors import UsageError
from contest.files import write_lines
from contest.lab.course import Lab, Step, TaskTable, calls
from contest.lab.experiments.finetune import STAGES
from contest.lab.registry import find

Cell = tuple[str, str]
HEAD = """\
from pathlib import Path

import pandas as pd
import torch

from contest import lab, pruning

RESULTS = Path("results")  # what is finished stays here: a cell that is run again reads it"""
CHANGES = """\
Tables are data frames. Figures of lines are drawn anew with what you change, such as
`.figure("...", title="Mine", x_log=True, width=400)`; the fields are those of `contest.lab.results.figures.Lines`."""

Shown = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of tables, and of figures."""
SHOWN: dict[str, Shown] = {
    "repeated": (
        ("{variant}", "parameters", "layers-{variant}", "sizes"),
        (
            "accuracy-by-sparsity",
            "accuracy-by-sparsity-end",
            "sparsity-by-accuracy",
            "disk-size-by-accuracy",
            "latency-by-accuracy",
            "layers",
            "sizes",
        ),
    ),
    "compare": (
        (
            "networks-by-method",
            *(
                f"{name}{{task}}"
                for name in ("accuracy", "testing-time", "flops", "flops-fraction", "curves", "layers")
            ),
        ),
        (
            *(f"{name}{{task}}" for name in ("accuracy", "testing-time", "flops", "flops-fraction")),
            *(f"{name}{{task}}" for name in ("training-loss", "test-loss", "layer-sparsity", "layer-flops")),
            "weights-{method}{task}",
        ),
    ),
    "finetune": (
        ("stages", "layers"),
        ("layers", *(f"{what}-{stage}" for what in ("weights", "kernels", "samples") for stage in STAGES)),
    ),
    "sensitivity": (("sensitivity", "ratios", "gain"), ("sensitivity",)),
    "deploy": (("deploy",), ("latency", "accuracy", "accuracy-by-latency")),
    "quantise": (("grid",), ("accuracy-by-bits", "accuracy-{order}", "accuracy-by-size")),
}
"""All that an experiment makes; a name in braces stands for each value of an option (`{variant}`: of `variants`)."""


def shown(experiment: str, options: Any, tasks: int) -> Shown:
    """The tables and figures that an experiment with these parameters may make; some need images, or more rounds."""
    values = {
        "variant": tuple(getattr(options, "variants", ())),
        "method": tuple(name.replace(":", ".") for name in getattr(options, "methods", ())),
        "order": tuple(getattr(options, "orders", ())),
        "task": tuple(f"-{number}" for number in range(tasks)) if tasks > 1 else ("",),
    }

    def each(pattern: str) -> list[str]:
        keys = [key for key in values if f"{{{key}}}" in pattern]
        every = itertools.product(*(values[key] for key in keys))
        return [pattern.format(**dict(zip(keys, chosen, strict=True))) for chosen in every]

    tables, drawn = SHOWN[experiment]
    return tuple(itertools.chain(*map(each, tables))), tuple(itertools.chain(*map(each, drawn)))


def write_notebook(lab: Lab, path: Path, *, quick: bool = False, data: Path | None = None) -> Path:
    """Write the lab's notebook; `quick` with the smaller parameters of the file."""
    return save_notebook(_cells(lab, quick, data), path)


def save_notebook(cells: Iterable[Cell], path: Path) -> Path:
    """Write cells, each (`markdown` or `code`, its source), as a Jupyter notebook."""
    notebook = {
        "cells": [_cell(f"cell-{index:03d}", *cell) for index, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    write_lines(path, json.dumps(notebook, indent=1))
    return path


def _cells(lab: Lab, quick: bool, data: Path | None) -> Iterator[Cell]:
    yield _markdown(f"# {lab.title}\n\n{lab.introduction}\n\n**Name:**")
    yield _code(HEAD)
    before: tuple[TaskTable, str] | None = None
    questions = 0
    for number, step in enumerate(lab.steps, 1):
        yield _markdown(f"## {number}. {step.title}\n\n{step.text}")
        table = lab.table(step, quick)
        if (step.experiment or step.code) and before != (table, step.experiment):
            yield _code(_task_source(table, step.experiment, data))
            before = (table, step.experiment)
        for source in step.code:
            yield _code(source)
        if step.experiment:
            yield from _experiment(lab, step, quick)
        for question in step.questions:
            questions += 1
            yield _markdown(f"**Question {questions}.** {question}")
            yield _markdown("*Your answer:*")
    yield _markdown("## Machine\n\nWithout the machine, a time says nothing.")
    yield _code("from contest.lab.results.resumable import machine\n\npd.Series(machine())")


def _experiment(lab: Lab, step: Step, quick: bool) -> Iterator[Cell]:
    """The parameters, the run, and a cell for each table and figure."""
    name = re.sub(r"\W", "_", step.folder)
    experiment = find(step.experiment)
    yield _code(f"{name}_options = {_options_source(lab.options(step, quick))}")
    subject = "tasks" if experiment.several else "task"
    call = f'lab.{step.experiment}({subject}, RESULTS / "{step.folder}", {name}_options)'
    yield _code(f"{name} = {call}\nfor sentence in {name}.notes:\n    print(sentence)")
    yield _markdown(CHANGES)
    several = len(calls(lab.table(step, quick), step.experiment))
    tables, drawn = shown(step.experiment, lab.options(step, quick), several)
    if unknown := sorted(set(step.show) - {*tables, *drawn}):
        known = ", ".join(dict.fromkeys([*tables, *drawn]))
        raise UsageError(f"step '{step.title}' shows '{unknown[0]}'; {step.experiment} makes {known}")
    for one in tables:
        if one in step.show or not step.show:
            yield _code(f'{name}.tables.get("{one}")')
    for one in drawn:
        if one in step.show or not step.show:
            yield _code(f'{name}.figure("{one}") if "{one}" in {name}.drawn else None')


def _task_source(table: TaskTable, experiment: str, data: Path | None) -> str:
    """The cell that makes the task."""
    if table.factory:
        return f'task = lab.load_task("{table.factory}")'
    written = []
    for model, dataset, given in calls(table, experiment):
        plain = {"augment": False, "prunable": ("default",)}
        shown = {key: repr(value) for key, value in given.items() if value is not None and value != plain.get(key)}
        shown |= {"data": f"Path({str(data)!r})"} if data else {}
        lines = "".join(f"    {key}={value},\n" for key, value in shown.items())
        written.append(f'lab.image_task(\n    "{model}",\n    "{dataset}",\n{lines})')
    if experiment and find(experiment).several:
        return "tasks = [\n" + "".join(f"{call},\n" for call in written) + "]\nprint(*(one.check() for one in tasks))"
    return f"task = {written[0]}\nprint(task.check())"


def _options_source(options: Any, indent: str = "    ") -> str:
    """A dataclass of parameters as the source that makes it, a line for each."""
    lines = [f"lab.{type(options).__name__}("]
    for one in dataclasses.fields(options):
        value = getattr(options, one.name)
        text = _options_source(value, indent + "    ") if dataclasses.is_dataclass(value) else repr(value)
        lines.append(f"{indent}{one.name}={text},")
    return "\n".join([*lines, f"{indent[4:]})"])


def _markdown(text: str) -> Cell:
    return "markdown", text.strip()


def _code(source: str) -> Cell:
    return "code", source


def _cell(name: str, kind: str, source: str) -> dict[str, Any]:
    more: dict[str, Any] = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"id": name, "cell_type": kind, "metadata": {}, "source": source, **more}
