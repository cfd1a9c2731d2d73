"""A run on disk: written whole or not at all, read without executing anything."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from contest.errors import TrainingError


def save(state: dict[str, Any], path: Path) -> None:
    """Writes beside `path` and renames: a killed process leaves the checkpoint before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """The state at `path`, which must be of the same `run` (plain data that says what is trained how).

    Raises TrainingError for a damaged file or a checkpoint of another run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = dict(state["run"])
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, TypeError, pickle.UnpicklingError) as error:
        raise TrainingError(f"the checkpoint '{path}' is damaged ({error}); delete it to start anew") from error
    different = {key: (saved.get(key), run.get(key)) for key in saved | run if saved.get(key) != run.get(key)}
    if different:
        listed = ", ".join(f"{key}: {old} there, {new} now" for key, (old, new) in sorted(different.items()))
        raise TrainingError(
            f"the checkpoint '{path}' belongs to another run ({listed}); give the run its own path or delete it"
        )
    assert isinstance(state, dict)
    return state
