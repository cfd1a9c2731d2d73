"""Tables as people need them: CSV to compute with, Markdown to read, LaTeX for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from contest.lab.results.resumable import write_text

SPREAD = " ±"
"""What a column of standard deviations has behind the name of its own column."""
MOST_DIGITS = 6


def write_table(folder: Path, name: str, caption: str, table: pd.DataFrame, digits: int = 2) -> None:
    """`tables/<name>.csv` (full precision), `.md` and `.tex` (each column with its own number of decimals)."""
    directory = folder / "tables"
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / f"{name}.csv", table.to_csv(index=False, na_rep="").rstrip("\n"))
    write_text(directory / f"{name}.md", markdown(table, digits))
    text = as_text(table, digits)
    columns = "".join("l" if column in text_columns(table) else "r" for column in text.columns)
    latex = text.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    written = latex.to_latex(
        hrules=True, caption=_latex(caption), label=f"tab:{name}", column_format=columns, position_float="centering"
    )
    write_text(directory / f"{name}.tex", written)


def markdown(table: pd.DataFrame, digits: int = 2) -> str:
    """A Markdown table, numbers right-aligned."""
    left, text = text_columns(table), as_text(table, digits)
    lines = [
        "| " + " | ".join(text.columns) + " |",
        "| " + " | ".join("---" if column in left else "---:" for column in text.columns) + " |",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in text.itertuples(index=False)]
    return "\n".join(lines)


def as_text(table: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """Every value as it is shown; a column of standard deviations joins its own: 97.03 ± 0.11."""
    found: dict[str, list[str]] = {}
    for column in map(str, table.columns):
        if column.endswith(SPREAD) and column.removesuffix(SPREAD) in table:
            continue
        values = table[column].tolist()
        spreads = table[column + SPREAD].tolist() if column + SPREAD in table else []
        shown = column_text([*values, *spreads], digits)
        own, others = shown[: len(values)], shown[len(values) :]
        found[column] = [f"{a} ± {b}" if a and b else a for a, b in zip(own, others, strict=True)] if others else own
    return pd.DataFrame(found, index=table.index)


def column_text(values: Sequence[object], digits: int = 2) -> list[str]:
    """Values of a column, all with one number of decimals: `digits`, or what the smallest needs for two digits."""
    sizes = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v) and v]
    smallest, largest = min(sizes, default=1.0), max(sizes, default=1.0)
    if largest < 10.0**-MOST_DIGITS * 10:
        return [_plain(value, ".1e") for value in values]
    needed = 1 - math.floor(math.log10(smallest)) if smallest < 10.0**-digits * 10 else digits
    return [_plain(value, f".{min(max(digits, needed), MOST_DIGITS)}f") for value in values]


def _plain(value: object, form: str) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, form) if math.isfinite(value) else str(value)
    return str(value)


def text_columns(table: pd.DataFrame) -> set[str]:
    """The columns that hold words, which stand left; numbers and their gaps stand right."""
    return {
        str(column)
        for column in table.columns
        if not all(v is None or isinstance(v, bool | int | float) for v in table[column].tolist())
    }


def over_seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of the same table over several runs, with a column of standard deviations after each that differs.

    Where the runs' tables have other rows (an empty column, say), the first run's stands alone.
    """
    first = tables[0]
    if len({(tuple(table.columns), len(table)) for table in tables}) > 1:
        return first
    found: dict[str, Any] = {}
    for column in first.columns:
        values = [table[column].reset_index(drop=True) for table in tables]
        found[column] = values[0]
        if str(column) in text_columns(first) or all(value.equals(values[0]) for value in values):
            continue
        side = pd.concat(values, axis=1).astype(float)
        found[column], found[f"{column}{SPREAD}"] = side.mean(axis=1), side.std(axis=1)
    return pd.DataFrame(found)


def whole(column: pd.Series[Any]) -> pd.Series[Any]:
    """Integers where all values are whole, so that a table says 90 and not 90.000."""
    rounded = column.round(9)
    return column if rounded.isna().any() or (rounded % 1 != 0).any() else rounded.astype(int)


def _latex(text: str) -> str:
    """Text with the characters that mean something to LaTeX escaped."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
