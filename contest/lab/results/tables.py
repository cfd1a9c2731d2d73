"""Tables as text: files in three formats, a page, the terminal; and the means of one table over several runs."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from contest.files import write_lines

SPREAD = " ±"
"""What a column of standard deviations has behind the name of its own column."""
MOST_DIGITS = 6


def write_table(folder: Path, name: str, caption: str, table: pd.DataFrame, digits: int = 2) -> None:
    """`tables/<name>.csv` (full precision), `.md` and `.tex` (each column with its own number of decimals)."""
    directory = folder / "tables"
    directory.mkdir(parents=True, exist_ok=True)
    write_lines(directory / f"{name}.csv", table.to_csv(index=False, na_rep="").rstrip("\n"))
    write_lines(directory / f"{name}.md", markdown(table, digits))
    text = as_text(table, digits)
    columns = "".join("l" if column in text_columns(table) else "r" for column in text.columns)
    latex = text.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    written = latex.to_latex(
        hrules=True, caption=_latex(caption), label=f"tab:{name}", column_format=columns, position_float="centering"
    )
    write_lines(directory / f"{name}.tex", written)


def read_table(path: Path) -> pd.DataFrame:
    """A table as it was written; gaps are None again."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return table.astype(object).where(table.notna(), None) if bool(table.isna().any(axis=None)) else table


def markdown(table: pd.DataFrame, digits: int = 2) -> str:
    """A Markdown table, numbers right-aligned."""
    left, text = text_columns(table), as_text(table, digits)
    lines = [
        "| " + " | ".join(text.columns) + " |",
        "| " + " | ".join("---" if column in left else "---:" for column in text.columns) + " |",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in text.itertuples(index=False)]
    return "\n".join(lines)


def as_html(table: pd.DataFrame, digits: int, caption: str) -> str:
    text, left = as_text(table, digits), text_columns(table)
    kinds = [' class="text"' if column in left else "" for column in text.columns]
    head = "".join(f"<th{k}>{html.escape(c)}</th>" for c, k in zip(text.columns, kinds, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{k}>{html.escape(v)}</td>" for v, k in zip(row, kinds, strict=True)) + "</tr>"
        for row in text.itertuples(index=False)
    )
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


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


def whole(column: pd.Series[Any]) -> pd.Series[Any]:
    """Integers where all values are whole, so that a table says 90 and not 90.000."""
    rounded = column.round(9)
    return column if rounded.isna().any() or (rounded % 1 != 0).any() else rounded.astype(int)


def _latex(text: str) -> str:
    """Text with the characters that mean something to LaTeX escaped."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def show_table(console: Console, name: str, table: pd.DataFrame) -> None:
    """The table in as many parts as its columns need, so that none is cut.

    Each part begins with the columns that tell its rows apart, as long as they leave half of the line.
    """
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


def over_everybody(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean over tables that need not have the same rows (somebody ran more rounds), and of how many it is.

    A row is known by its first column, and by its second where that is no measured value. Of who ran several seeds
    the mean counts once; words that differ stand beside each other.
    """
    plain = [own.drop(columns=[name for name in own.columns if str(name).endswith(SPREAD)]) for own in tables]
    first = plain[0]
    named = 1 if first.shape[1] > 1 else 0  # a single column is measured
    if first.shape[1] > 2 and first.dtypes.iloc[1].kind in "iO":
        named = 2
    keys = list(first.columns[:named])
    turned = [
        own.assign(_turn=own.groupby(keys, dropna=False).cumcount() if keys else range(len(own))) for own in plain
    ]
    groups = pd.concat(turned).groupby([*keys, "_turn"], sort=False, dropna=False)
    words = set().union(*map(text_columns, plain))
    found: dict[str, Any] = {}
    for column in (name for name in first.columns if name not in keys):
        if column in words:
            found[column] = groups[column].agg(lambda own: " / ".join(dict.fromkeys(map(str, own.dropna()))))
            continue
        own = groups[column].agg(["mean", "std", "nunique"])
        found[column] = groups[column].first() if own["nunique"].max() <= 1 else own["mean"]
        if own["nunique"].max() > 1:
            found[f"{column}{SPREAD}"] = own["std"].astype(object).where(own["std"].notna(), None)  # of one: none
    found["Results"] = groups.size()
    return pd.DataFrame(found).reset_index().drop(columns="_turn")
