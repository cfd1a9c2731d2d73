"""The input pipeline against torchvision's, and what it and the training loop cost in a step of a 12.5M-MAC net.

    python tests/benchmarks/input_pipeline.py [--data DIR] [--rounds 5] [--json results.json]

All rows come from one run and take turns, so what else runs on the machine falls on all of them alike. The
baseline is torchvision's CIFAR10 with its PIL transforms (reflected random crop, flip, ToTensor) behind a
DataLoader with 2 workers, counted after its workers have started and what they had prepared is used up. On a
machine that is busy with other things take --threads 1: two threads that wait for each other measure the others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Column, Table
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from contest.candidate import Architecture, Recipe
from contest.datasets import Batches, Images, load
from contest.datasets.images import to_float
from contest.networks import build
from contest.training import fit
from contest.training.device import autocast, has_bf16, keep_memory
from contest.training.loop import make_optimiser

BATCH, WORKERS = 256, 2
NET = Architecture("resnet", {"depth": 8, "width": 16})  # 12.5M MACs, the net of the 5 % goal
RECIPE = Recipe(batch_size=BATCH, learning_rate=0.01)
TIMES_FASTER, SHARE = 10, 0.05


@dataclass(frozen=True)
class Row:
    name: str
    batch_ms: float
    """Median over the rounds."""
    fastest_ms: float
    images_per_second: float
    """At the median."""

    @staticmethod
    def of(name: str, seconds: list[float]) -> Row:
        median = statistics.median(seconds)
        return Row(name, median * 1e3, min(seconds) * 1e3, BATCH / median)


def torchvision_batches(images: Images, workers: int) -> Iterator[Any]:
    """The usual pipeline on the same pixels, one epoch after another."""
    data = datasets.CIFAR10.__new__(datasets.CIFAR10)  # its __getitem__ without its files
    data.data = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    data.targets = images.labels.tolist()
    data.target_transform = None
    data.transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    loader: DataLoader[Any] = DataLoader(
        data, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


def our_batches(images: Images, recipe: Recipe, device: torch.device) -> Iterator[Any]:
    batches = Batches(images, recipe, device=device)
    return itertools.chain.from_iterable(itertools.repeat(batches))


def taker(batches: Iterator[Any], count: int, device: torch.device) -> Callable[[], float]:
    """Seconds for one batch, over `count` batches, on the device where training wants them."""

    def seconds() -> float:
        start = time.perf_counter()
        for x, _ in itertools.islice(batches, count):
            x.to(device)
        _wait(device)
        return (time.perf_counter() - start) / count

    return seconds


def bare_step(model: nn.Module, images: Images, count: int, device: torch.device) -> Callable[[], float]:
    """Forward, backward, optimiser on a batch that is already there: nothing of our loop."""
    x = to_float(images.pixels[:BATCH].permute(0, 2, 3, 1).contiguous().to(device))
    labels = images.labels[:BATCH].to(device)
    optimiser = make_optimiser(model, RECIPE)

    def seconds() -> float:
        model.train()
        start = time.perf_counter()
        for _ in range(count):
            with autocast(device):
                logits = model(x)
            F.cross_entropy(logits.float(), labels).backward()
            optimiser.step()
            optimiser.zero_grad()
        _wait(device)
        return (time.perf_counter() - start) / count

    return seconds


def whole_loop(
    model: nn.Module, images: Images, recipe: Recipe, count: int, device: torch.device
) -> Callable[[], float]:
    """A step of `fit` as a user runs it: batches, schedule, meters and all."""
    few = images.take(torch.arange(count * BATCH))

    def seconds() -> float:
        history = fit(model, few, replace(recipe, epochs=1), device=device)
        return BATCH / history.epochs[0].images_per_second

    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(images: Images, device: torch.device, rounds: int, count: int) -> list[Row]:
    keep_memory()
    model = build(NET).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mixed = replace(RECIPE, cutout=8, mixup=0.2, cutmix=1.0)
    own_work = {
        "ours: crop, flip": taker(our_batches(images, RECIPE, device), 4 * count, device),
        "ours: and cutout, mixup or cutmix": taker(our_batches(images, mixed, device), 4 * count, device),
        "training step alone": bare_step(model, images, count, device),
        "step of fit": whole_loop(model, images, RECIPE, count, device),
        "step of fit, EMA, clipping": whole_loop(
            model, images, replace(RECIPE, ema_decay=0.99, clip_norm=1.0), count, device
        ),
    }
    # More batches than the workers have prepared (2 x 2) while the other rows had their turn.
    theirs = {
        f"torchvision, PIL, {WORKERS} workers": (torchvision_batches(images, WORKERS), 4 * WORKERS),
        "torchvision, PIL, no workers": (torchvision_batches(images, 0), 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*theirs, *own_work)}
    for number in range(rounds + 1):  # the first round warms everything up
        for name, (batches, queued) in theirs.items():
            for _ in itertools.islice(batches, queued):
                pass
            seconds[name].append(taker(batches, count, device)())
        for name, work in own_work.items():
            seconds[name].append(work())
        if number == 0:
            seconds = {name: [] for name in seconds}
    return [Row.of(name, times) for name, times in seconds.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory with CIFAR-10 (default: CONTEST_DATA)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=12, help="batches or steps of each row in each round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    rows = {
        row.name: row for row in measure(load("cifar10", options.data).train, device, options.rounds, options.batches)
    }
    baseline, *_ = rows.values()
    step, ours = rows["training step alone"], rows["ours: crop, flip"]
    table = Table(Column("row", no_wrap=True), "ms", "least", "images/s", "x torchvision", "of a step")
    for row in rows.values():
        speed, share = (
            f"{row.images_per_second / baseline.images_per_second:.1f}",
            f"{row.batch_ms / step.batch_ms:.1%}",
        )
        table.add_row(
            row.name, f"{row.batch_ms:.2f}", f"{row.fastest_ms:.2f}", f"{row.images_per_second:,.0f}", speed, share
        )
    machine = (
        f"{platform.processor() or platform.machine()}, {options.threads} threads, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, {device}, {'bf16' if has_bf16(device) else 'float32'}, batch {BATCH}"
    )
    console = Console()
    console.print(table)
    console.print(machine, highlight=False)
    if options.json:
        content = {"machine": machine, "rounds": options.rounds, "rows": [asdict(row) for row in rows.values()]}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    reached = ours.images_per_second >= TIMES_FASTER * baseline.images_per_second and (
        ours.batch_ms <= SHARE * step.batch_ms
    )
    console.print(f"goal of {TIMES_FASTER}x and {SHARE:.0%}: {'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
