"""Files from strangers: opened, run and measured in a process that can do nothing else.

`run_isolated` is what `scoring.score_file` and the leaderboard call; see docs/security.md.
"""

from scoring.sandbox.limits import LEVELS, Limits, at_least
from scoring.sandbox.parent import Isolated, look_isolated, run_isolated

__all__ = ["LEVELS", "Isolated", "Limits", "at_least", "look_isolated", "run_isolated"]
