"""The results of a class: many folders as one table, and their mean with its spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from contest.errors import UsageError
from contest.lab.results.report import Results
from contest.lab.results.tables import over_seeds


def collect(folders: Sequence[Path]) -> dict[str, dict[str, Results]]:
    """The finished results in and under each folder: by place (`.` or the step's folder), then by whose they are.

    Raises:
        UsageError: there are none.
    """
    found: dict[str, dict[str, Results]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("results.json")):
            if path.parent.name.startswith("seed-"):
                continue  # the folder above has their mean
            place = str(path.parent.relative_to(folder))
            found.setdefault(place, {})[folder.name] = Results.load(path.parent)
    if not found:
        raise UsageError(f"no finished results lie in {', '.join(map(str, folders))}")
    return found


def long_table(results: dict[str, dict[str, Results]]) -> pd.DataFrame:
    """A row for each value: who, step, experiment, task, seed, table, row, column, value."""
    rows = []
    for place, own in results.items():
        for who, one in own.items():
            config = one.configuration
            about = {
                "who": who,
                "step": place,
                "experiment": config["experiment"],
                "task": "; ".join(str(t["task"]) for t in config.get("tasks") or [config]),
                "seed": config.get("seed", config.get("seeds")),
            }
            for name, table in one.tables.items():
                for number, row in enumerate(table.to_dict("records")):
                    rows += [
                        {**about, "table": name, "row": number, "column": column, "value": value}
                        for column, value in row.items()
                    ]
    return pd.DataFrame(rows)


def class_means(results: dict[str, dict[str, Results]], table: str) -> dict[str, pd.DataFrame]:
    """One table's mean and standard deviation over everybody, for each step that has it."""
    return {
        place: over_seeds([one.tables[table] for one in own.values() if table in one.tables])
        for place, own in results.items()
        if any(table in one.tables for one in own.values())
    }
