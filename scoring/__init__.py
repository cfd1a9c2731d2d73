"""What a network costs and what it scores: rules, costs, readers of files, checks, the isolated child.

    from scoring import score_file
    report = score_file("model.pt")
    report.scores["lab"].total

`score_file` is the twin of `contest score FILE`, `score_module` of `--arch`, `architecture_costs` of a name. A `Rule`
is a version of a contest (`load_rule("lab")`, or a TOML file of your own); a `Report` is what the first two return.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoring.report import Report
    from scoring.rules import Rule, load_rule
    from scoring.score import architecture_costs, score_costs, score_file, score_module

_HOMES = {
    "Report": "scoring.report",
    "Rule": "scoring.rules",
    "load_rule": "scoring.rules",
    "architecture_costs": "scoring.score",
    "score_costs": "scoring.score",
    "score_file": "scoring.score",
    "score_module": "scoring.score",
}

__all__ = ["Report", "Rule", "architecture_costs", "load_rule", "score_costs", "score_file", "score_module"]


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: the isolated child passes through here and must start at once."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'scoring' has no attribute '{name}'")
