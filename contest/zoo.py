"""The trained networks that come with the package."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parents[1] / "leaderboard" / "bundled"
