"""How many threads train small networks fastest on this machine."""

from __future__ import annotations

import math
import time

from contest.candidate import Architecture


def choose_threads(image_shape: tuple[int, int, int], threads: int | None = None) -> None:
    """The number of threads that trains small networks fastest on this machine, as it is now: one or all.

    threads: what another process has found; then nothing is measured.

    Threads wait for each other several hundred times a step; where other programs use the cores too, all threads
    may be ten times slower than one. So it is measured, with a second of a typical network's steps each.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
        return
    cores = torch.get_num_threads()
    if cores == 1 or math.prod(image_shape) < 500:
        torch.set_num_threads(1)  # images so small never gain from more
        return
    times = {}
    for number in (1, cores):
        torch.set_num_threads(number)
        times[number] = _time_steps(image_shape)
    torch.set_num_threads(min(times, key=lambda number: times[number]))


def _time_steps(image_shape: tuple[int, int, int], steps: int = 4) -> float:
    """Seconds of a few float training steps of a small residual network, after one to warm up."""
    import torch

    from contest.networks import build

    network = build(Architecture("resnet", {"depth": 8}), image_shape, 10)
    x = torch.rand(64, *image_shape)
    started = 0.0
    for step in range(steps + 1):
        network(x).sum().backward()
        if step == 0:
            started = time.perf_counter()
    return time.perf_counter() - started
