"""Results that survive a kill: an experiment is a set of cells, each written whole or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from contest.errors import UsageError
from contest.lab.measure.machine import machine

Cell = dict[str, Any]


class Cells:
    """A results folder: `config.json`, `machine.json`, `cells/*.json`, `states/*.pt`.

    A folder belongs to one configuration: started again with the same one, finished cells are read instead
    of computed. Use it as a context manager; it shows cells done and time left.
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any], total: int, *, progress: bool = False) -> None:
        """Raises UsageError when the folder holds results of another configuration."""
        self.folder, self.total = folder, total
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        self.configuration: dict[str, Any] = json.loads(json.dumps(configuration, default=str))
        self._claim()
        if not (folder / "machine.json").exists():
            write_text(folder / "machine.json", json.dumps(machine(), indent=2))
        self._done = self._computed = 0
        self._seconds = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            disable=not progress,
        )
        self._shown = self._bar.add_task("cells", total=total, left="")

    def _claim(self) -> None:
        path = self.folder / "config.json"
        if not path.exists():
            write_text(path, json.dumps(self.configuration, indent=2))
            return
        before = json.loads(path.read_text())
        if before != self.configuration:
            differing = sorted(
                key
                for key in before.keys() | self.configuration.keys()
                if before.get(key) != self.configuration.get(key)
            )
            raise UsageError(
                f"{self.folder} holds results of another configuration (different: {', '.join(differing)}); "
                "give another folder with --out, or remove it"
            )

    def __enter__(self) -> Cells:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def machine(self) -> dict[str, str]:
        """The machine that the folder's first cells were measured on."""
        found: dict[str, str] = json.loads((self.folder / "machine.json").read_text())
        return found

    def finished(self, key: str) -> bool:
        return self._path(key).exists()

    def __call__(self, key: str, compute: Callable[[], Mapping[str, Any]]) -> Cell:
        """The cell's values, from its file or computed and written (JSON values only)."""
        self._bar.update(self._shown, description=key)
        if not self.finished(key):
            started = time.perf_counter()
            values = dict(compute())
            self._seconds += time.perf_counter() - started
            self._computed += 1
            write_text(self._path(key), json.dumps(values, indent=1))
        self._done += 1
        self._bar.update(self._shown, completed=self._done, left=self._left())
        found: Cell = json.loads(self._path(key).read_text())
        return found

    def _left(self) -> str:
        if not self._computed or self._done >= self.total:
            return ""
        seconds = self._seconds / self._computed * (self.total - self._done)
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

    def _path(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def save_state(self, key: str, state: Mapping[str, Tensor]) -> None:
        """Tensors that later cells start from."""
        path = self.folder / "states" / f"{key}.pt"
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        torch.save(dict(state), part)
        part.replace(path)

    def load_state(self, key: str) -> dict[str, Tensor]:
        """Raises UsageError when the state is gone: room is given back once the cells after it are finished."""
        path = self.folder / "states" / f"{key}.pt"
        if not path.exists():
            raise UsageError(
                f"{path} is gone, from which an unfinished cell starts; remove {self.folder} to start anew"
            )
        found: dict[str, Tensor] = torch.load(path, weights_only=True)
        return found

    def has_state(self, key: str) -> bool:
        return (self.folder / "states" / f"{key}.pt").exists()

    def drop_state(self, key: str) -> None:
        """Give the room back once no cell will start from it."""
        (self.folder / "states" / f"{key}.pt").unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write atomically: a reader or a kill sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
