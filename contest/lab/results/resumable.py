"""Results that survive a kill: an experiment is a set of cells, each written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from contest.errors import UsageError
from contest.files import beside, write_lines

TRUST = 2
"""So many cells weigh what was expected of one before any was computed."""
PACKAGES = ("torch", "torchvision", "brevitas", "onnx", "onnxruntime", "numpy", "contest")


def machine() -> dict[str, str]:
    """Processor, cores, memory, accelerator, operating system, versions, threads, time: all as text."""
    described = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "operating system": platform.platform(),
        "python": platform.python_version(),
        "torch threads": str(torch.get_num_threads()),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for package in PACKAGES:
        try:
            described[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            described[package] = "not installed"
    return described


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not on every operating system
        return "unknown"
    return f"{size_bytes / 2**30:.1f} GiB"


def reset_peak() -> None:
    """From now on, `peak_megabytes` counts anew (Linux, and the memory of a GPU)."""
    with suppress(OSError):  # elsewhere, or not allowed: then the peak is the process's since its start
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_megabytes() -> float:
    """The most memory that the process held (on a GPU: that torch held there), in millions of bytes; 0 if unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


Cell = dict[str, Any]


class Cells:
    """A results folder: `config.json`, `machine.json`, `cells/*.json`, `states/*.pt`.

    A folder belongs to one configuration: started again with the same one, finished cells are read instead
    of computed. Lists of what is compared (`growing`: methods, ratios) may be longer or shorter the next time. Use
    it as a context manager; it shows cells done and time left, in a line for each cell where nobody watches.
    """

    def __init__(
        self,
        folder: Path,
        configuration: Mapping[str, Any],
        total: int,
        *,
        growing: Sequence[str] = (),
        again: Sequence[str] = (),
        progress: bool = False,
    ) -> None:
        """`again` are patterns of cells that are to be computed anew.

        Raises UsageError when the folder holds results of another configuration.
        """
        self.folder, self.total, self.growing = folder, total, growing
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        self.configuration: dict[str, Any] = json.loads(json.dumps(configuration, default=str))
        self._claim()
        if not (folder / "machine.json").exists():
            write_lines(folder / "machine.json", json.dumps(machine(), indent=2))
        for path in (folder / "cells").glob("*.json"):
            if any(fnmatchcase(path.stem, pattern) for pattern in again):
                path.unlink()
        self._asked: set[str] = set()
        self._computed = 0
        self._seconds = 0.0
        self.expected: float | None = None
        """Seconds of a cell, where timed steps have told; the first cell alone, often the longest, would mislead."""
        self._console = Console(file=sys.stderr)
        self._lines = progress and not self._console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=not progress or self._lines,
        )
        self._shown = self._bar.add_task("cells", total=total, left="")

    def _claim(self) -> None:
        path = self.folder / "config.json"
        before = json.loads(path.read_text()) if path.exists() else self.configuration
        differing = sorted(
            key
            for key in before.keys() | self.configuration.keys()
            if key not in self.growing and before.get(key) != self.configuration.get(key)
        )
        if differing:
            raise UsageError(
                f"{self.folder} holds results of another configuration (different: {', '.join(differing)}); "
                "give another folder with --out, or remove it"
            )
        if not path.exists() or before != self.configuration:
            write_lines(path, json.dumps(self.configuration, indent=2))

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

    @property
    def unfinished(self) -> int:
        """How many of the cells are still to be computed."""
        return max(0, self.total - len(list((self.folder / "cells").glob("*.json"))))

    def finished(self, key: str) -> bool:
        return self._path(key).exists()

    def __call__(self, key: str, compute: Callable[[], Mapping[str, Any]]) -> Cell:
        """The cell's values, from its file or computed and written (JSON values only).

        Beside them stand the `seconds` that it took and the process's `peak_mb` of memory meanwhile.
        """
        self._bar.update(self._shown, description=key)
        if self.finished(key):
            self._asked.add(key)  # a network that several lines share is asked for by each, and counts once
        else:
            reset_peak()
            started, others = time.perf_counter(), self._seconds
            values = dict(compute())
            took = time.perf_counter() - started - (self._seconds - others)  # less the cells that it asked for
            self._asked.add(key)
            self._seconds += took
            self._computed += 1
            values |= {"seconds": round(took, 3), "peak_mb": peak_megabytes()}
            write_lines(self._path(key), json.dumps(values, indent=1))
            if self._lines:
                print(f"{len(self._asked)}/{self.total} {key}: {took:.1f} s{self._left()}", file=sys.stderr)
        self._bar.update(self._shown, completed=len(self._asked), left=self._left().lstrip(", "))
        found: Cell = json.loads(self._path(key).read_text())
        return found

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        if self._lines or not self._bar.disable:
            self._console.print(text, highlight=False, soft_wrap=True)

    def cost(self) -> str:
        """What the finished cells took, in a sentence; empty where nothing is known."""
        known = [json.loads(path.read_text()) for path in (self.folder / "cells").glob("*.json")]
        seconds = [cell["seconds"] for cell in known if "seconds" in cell]
        peaks = [cell["peak_mb"] for cell in known if cell.get("peak_mb")]
        if not seconds:
            return ""
        memory = f"; at most {max(peaks):,.0f} MB of memory" if peaks else ""
        return f"The {len(seconds)} cells took {minutes(sum(seconds))}, the longest {minutes(max(seconds))}{memory}."

    def _left(self) -> str:
        left = self.total - len(self._asked)
        if not self._computed or left <= 0:
            return ""
        trust = 0 if self.expected is None else TRUST
        cell = (self._seconds + trust * (self.expected or 0.0)) / (self._computed + trust)
        return f", about {minutes(cell * left)} left"

    def _path(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def save_state(self, key: str, state: Mapping[str, Tensor]) -> None:
        """Tensors that later cells start from."""
        path = self.folder / "states" / f"{key}.pt"
        with beside(path) as part:
            torch.save(dict(state), part)

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


def minutes(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
