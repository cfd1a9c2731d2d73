"""The search: space, trials, studies, workers.

from search import search
outcome = search(Path("study"), dataset="digits", images=8000)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from search.policy.ranking import SearchOutcome


def search(directory: Path, *, console: Console | None = None, **options: Any) -> SearchOutcome:
    """What `contest search --study DIRECTORY` does; its finalists, the winner, and what each stage cost.

    options: those of the command by name (`images=1000000`, `parents=["none"]`); dimensions to narrow are
    `fixed={"weight_bits": [3, 4]}`. Raises UsageError for one that does not exist or makes no sense.
    """
    from contest.errors import UsageError, did_you_mean
    from search.commands import default_options
    from search.output.progress import standard_output
    from search.run import run_search

    known = default_options()
    for name in options:
        if name not in known:
            raise UsageError(f"search has no option '{name}'{did_you_mean(name, known)}; it has {', '.join(known)}")
    chosen = {**known, **options, "directory": directory, "given": set(options), "plan_only": False}
    outcome = run_search(console or standard_output(), **chosen)
    assert outcome is not None
    return outcome
