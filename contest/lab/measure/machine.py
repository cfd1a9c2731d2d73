"""On what machine a result was measured; without it a latency says nothing."""

from __future__ import annotations

import os
import platform
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
