"""What a score is the sum of: its terms and their names, for tables, pages, files and charts.

Parameters and operations have columns of their own. What a rule adds to them (`scoring.rules.EXTRA_TERMS`) is kept with
what was measured, under `terms`: it goes wherever a submission or a row of the ranking goes. Others leave no trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from scoring.rules import Score

KEY = "terms"


def with_terms(measured: Mapping[str, Any], score: Score | None) -> dict[str, Any]:
    """What was measured, and what the rule adds to a score besides the usual two."""
    added = {name: value for name, value in added_to(score).items() if math.isfinite(value)} if score else {}
    return {**measured, KEY: added} if added else dict(measured)


def added_to(score: Score) -> dict[str, float]:
    """The terms of a score that not every rule has."""
    return {name: value for name, value in score.terms.items() if name not in ("params", "ops")}


def further(measured: Mapping[str, Any] | None) -> dict[str, float]:
    """The same of a submission or a row. Reports are data from elsewhere: what is no number is no term."""
    kept = (measured or {}).get(KEY)
    found = kept.items() if isinstance(kept, Mapping) else ()
    return {str(k): float(v) for k, v in found if isinstance(v, int | float) and math.isfinite(v)}


def terms_of(row: Mapping[str, Any]) -> dict[str, float]:
    """All terms of a row by their names; their sum is its score."""
    return {"parameters": row["params"], "operations": row["ops"], **further(row.get("measured"))}


def names_of(many: Iterable[Mapping[str, float]]) -> list[str]:
    """The names of several rows' terms, each once, for columns."""
    return list(dict.fromkeys(name for terms in many for name in terms))
