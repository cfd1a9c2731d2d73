"""Latency: warm-up, n runs, mean and standard deviation, threads said."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from contest.pruning.batches import Inputs, forward, samples, tensors


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward pass of a whole batch."""

    mean_s: float
    std_s: float
    median_s: float
    """Unlike the mean, not moved by the runs in which another program had the processor."""
    low_s: float
    high_s: float
    """Between these lies the middle half of the runs."""
    runs: int
    batch: int
    threads: int

    def values(self) -> dict[str, float]:
        """Plain data for a cell."""
        return asdict(self)


def timed(run: Callable[[], object], *, batch: int, threads: int, runs: int = 20, warmup: int = 3) -> Latency:
    """Time `run`; the warm-up runs (allocation, autotuning, caches) are not counted."""
    for _ in range(warmup):
        run()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    deviation = statistics.stdev(seconds) if runs > 1 else 0.0
    low, median, high = statistics.quantiles(seconds, n=4) if runs > 1 else seconds * 3
    return Latency(statistics.fmean(seconds), deviation, median, low, high, runs, batch, threads)


def torch_latency(model: nn.Module, inputs: Inputs, *, runs: int = 20, warmup: int = 3) -> Latency:
    """A forward pass in evaluation mode; on a GPU the clock waits for the device."""
    training = model.training
    model.eval()
    on_gpu = any(tensor.is_cuda for tensor in tensors(inputs))

    def run() -> None:
        with torch.inference_mode():
            forward(model, inputs)
        if on_gpu:
            torch.cuda.synchronize()

    found = timed(run, batch=samples(inputs), threads=torch.get_num_threads(), runs=runs, warmup=warmup)
    model.train(training)
    return found
