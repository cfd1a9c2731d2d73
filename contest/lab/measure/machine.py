"""On what machine a result was measured; without it a latency says nothing."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

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
