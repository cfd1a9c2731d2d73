"""What a submission may take."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


def idle_cores() -> int:
    """Threads for a run that begins now: OMP_NUM_THREADS where it is set, else the cores that nothing else uses.

    Threads wait for each other several hundred times a pass. On two cores that other programs used too, two took ten
    times as long as one and fifteen times the processor time, which is what a submission is judged by.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return min(cores, int(asked))
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, min(cores, round(cores - busy)))


@dataclass(frozen=True)
class Limits:
    """Limits of one isolated run.

    memory_bytes: address space on top of what the libraries have mapped once they are imported (torch alone maps
    3 GB, of which it touches a tenth). wall_s, cpu_s: seconds, imports included. file_bytes: of a file that it
    writes, and of its /tmp. answer_bytes: what may come back.

    Too much processor time is the file's fault; too much time on the clock without it is the machine's. So wall_s is
    the larger, and a network that never ends meets cpu_s first wherever it gets a whole core.
    """

    memory_bytes: int = 4_000_000_000
    wall_s: float = 1_200.0
    cpu_s: int = 900
    open_files: int = 128
    file_bytes: int = 16_000_000
    answer_bytes: int = 256_000_000
    threads: int = field(default_factory=idle_cores)
