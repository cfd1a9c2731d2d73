"""What the machine at hand has and can do, and what a budget of time buys on it: `contest doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from contest.errors import ContestError, UsageError

PACKAGES = ("contest", "torch", "torchvision", "brevitas", "optuna", "onnxruntime", "timm")


def examine(
    console: Console, options: dict[str, Any], budgets: tuple[str, ...], folder: Path, started_s: float
) -> bool:
    """Print everything; False where the data set is not at hand, so that no speed can be measured.

    options: those of a search, of which the data set, its folder and the device count. started_s: what a search takes
    until everything is imported.
    """
    table = Table("what", "here", box=None, show_header=False, pad_edge=False)
    for what, here in machine(folder):
        table.add_row(what, here)
    console.print(table)
    try:
        data = found(options["dataset"], options["data"])
    except ContestError as error:
        console.print(f"data: {error}", highlight=False, soft_wrap=True)
        return False
    console.print(f"data: {data}", highlight=False, soft_wrap=True)
    from search.run import plan_only

    for budget in budgets:
        console.print(f"\n`contest search --dataset {options['dataset']} --budget {budget}` would do:", highlight=False)
        try:
            plan_only(console, time.monotonic() - started_s, started_s, {**options, "budget": budget})
        except UsageError as error:  # too small for a network
            console.print(str(error), highlight=False, soft_wrap=True)
    return True


def machine(folder: Path) -> Iterator[tuple[str, str]]:
    """(what, how it is here), a row each."""
    import torch

    from contest.training.device import has_bf16

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "versions", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    yield "processor", f"{_processor()}: {cores} cores for this process, {torch.get_num_threads()} threads of torch"
    half = "bf16 in hardware" if has_bf16(torch.device("cpu")) else "no bf16 in hardware: trainings run in float32"
    yield "instructions", f"{torch.backends.cpu.get_cpu_capability()}, {half}"
    yield "GPU", ", ".join(_gpus()) or "none that torch can use: everything runs on the processor"
    memory = _memory()
    if memory:
        yield "memory", f"{memory / 2**30:.1f} GiB"
    yield "disk", f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB free in {folder.resolve()}"


def found(dataset: str, directory: Path | None) -> str:
    """What there is of a data set, without a download. Raises DataError where there is nothing, with the ways."""
    from contest.datasets import load

    data = load(dataset, directory, download=False)
    test = f"{len(data.test):,}" if data.test is not None else "no"
    channels, height, width = data.image_shape
    return (
        f"{data.name}, {len(data.train):,} training and {test} test images of {channels}x{height}x{width}, "
        f"{len(data.classes)} classes"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in cards]


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
