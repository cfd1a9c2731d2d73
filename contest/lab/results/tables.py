"""Tables as people need them: CSV to compute with, Markdown to read, LaTeX for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from contest.lab.results.resumable import write_text


def write_table(folder: Path, name: str, table: pd.DataFrame, digits: int = 2) -> None:
    """`tables/<name>.csv` (full precision), `.md` and `.tex` (rounded to `digits` decimals)."""
    directory = folder / "tables"
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / f"{name}.csv", table.to_csv(index=False).rstrip("\n"))
    write_text(directory / f"{name}.md", markdown(table, digits))
    latex = table.style.hide(axis="index").format(lambda value: shown(value, digits), escape="latex")
    latex = latex.format_index(escape="latex", axis=1)
    write_text(
        directory / f"{name}.tex", latex.to_latex(hrules=True, caption=name.replace("-", " "), label=f"tab:{name}")
    )


def markdown(table: pd.DataFrame, digits: int = 2) -> str:
    """A Markdown table, numbers right-aligned."""
    right = [pd.api.types.is_numeric_dtype(table[column]) for column in table.columns]
    lines = [
        "| " + " | ".join(str(column) for column in table.columns) + " |",
        "| " + " | ".join("---:" if numeric else "---" for numeric in right) + " |",
    ]
    lines += ["| " + " | ".join(shown(value, digits) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def whole(column: pd.Series[Any]) -> pd.Series[Any]:
    """Integers where all values are whole, so that a table says 90 and not 90.000."""
    rounded = column.round(9)
    return column if (rounded % 1 != 0).any() else rounded.astype(int)


def shown(value: object, digits: int = 2) -> str:
    """A value as a table shows it; small numbers (seconds, say) keep three significant digits."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float):
        small = value and abs(value) < 10 ** (1 - digits)
        return f"{value:#.3g}" if small else f"{value:.{digits}f}"
    return str(value)
