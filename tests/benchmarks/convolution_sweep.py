"""Does any convolution break the heap on this processor, or a lesser one? Each configuration in a child of its own.

    python tests/benchmarks/convolution_sweep.py [--avx2] [--trained] [--every 7] [--threads 1,2] [--only transposed]

The children are forks of a process that has imported torch and calculated nothing, so one takes milliseconds.

Each child runs a convolution forward and backward in channels-last memory, 30 times, as a training does. A child that
dies of a signal is printed with its configuration, and at the end their number; the exit code is 1 if there are any.
`--avx2` makes the libraries take the processor for one with AVX2 only, as most laptops have (oneDNN and ATen read it
from the environment). `--trained` runs them as the product's training does, with the ways around in
`contest.training.device`: then nothing may die. Without it, oneDNN 3.13 dies of strided 1x1 convolutions of few
channels. `--every N` takes every Nth configuration.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

STEPS = 30
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


@dataclass(frozen=True)
class Configuration:
    """One convolution and how it is run."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    size: int
    groups: int = 1
    dilation: int = 1
    transposed: bool = False
    bf16: bool = False
    threads: int = 1
    trained: bool = False


def configurations(threads: tuple[int, ...], trained: bool) -> Iterator[Configuration]:
    """Kernels, strides, channels, groups, maps; transposed and dilated ones; float32 and bf16; numbers of threads."""
    plain = itertools.product((1, 2, 4, 6, 8, 16), (4, 8, 32), (1, 2, 3, 5), (1, 2, 3), (6, 8, 9, 16, 32))
    shapes = [Configuration(*shape, trained=trained) for shape in plain]
    for channels, kernel, stride, size in itertools.product((4, 8, 32), (1, 3, 5), (1, 2), (8, 9, 16)):
        shapes += [
            Configuration(channels, channels, kernel, stride, size, groups=groups, trained=trained)
            for groups in (2, channels)
        ]
        shapes.append(Configuration(channels, 8, kernel, stride, size, transposed=True, trained=trained))
        shapes.append(Configuration(channels, 8, kernel, stride, size, dilation=2, trained=trained))
    for shape, number, bf16 in itertools.product(shapes, threads, (False, True)):
        yield Configuration(**{**asdict(shape), "threads": number, "bf16": bf16})


def run_child(configuration: Configuration) -> None:
    """Forward and backward passes of one convolution, in this process."""
    import torch
    from torch import nn

    from contest.training.device import cpu_convolutions

    c = configuration
    torch.set_num_threads(c.threads)
    kind = nn.ConvTranspose2d if c.transposed else nn.Conv2d
    padding = c.dilation * (c.kernel // 2)
    layer = kind(c.inputs, c.outputs, c.kernel, c.stride, padding, groups=c.groups, dilation=c.dilation, bias=False).to(
        memory_format=torch.channels_last
    )  # type: ignore[call-overload]
    with cpu_convolutions(layer) if c.trained else torch.enable_grad():
        for _ in range(STEPS):
            x = torch.randn(2, c.inputs, c.size, c.size).to(memory_format=torch.channels_last).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=c.bf16):
                layer(x).float().square().sum().backward()


def death(configuration: Configuration) -> str | None:
    """The signal that a child with this configuration dies of, or how else it ends badly."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            run_child(configuration)
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".splitlines()[0].encode()[:500])
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        words = said.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return signal.Signals(-code).name if code < 0 else words or (f"code {code}" if code else None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--trained", action="store_true")
    parser.add_argument("--every", type=int, default=7)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--only", choices=("all", "1x1-strided", "transposed", "dilated", "grouped"), default="all")
    options = parser.parse_args()
    if options.avx2 and any(os.environ.get(name) != value for name, value in AVX2.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **AVX2})  # read when torch is loaded
    threads = tuple(int(number) for number in options.threads.split(","))
    wanted = {
        "all": lambda c: True,
        "1x1-strided": lambda c: c.kernel == 1 and c.stride > 1,
        "transposed": lambda c: c.transposed,
        "dilated": lambda c: c.dilation > 1,
        "grouped": lambda c: c.groups > 1,
    }[options.only]
    chosen = [c for c in configurations(threads, options.trained) if wanted(c)][:: options.every]
    import contest.training.device  # noqa: F401 - torch comes with it, once for all children

    dead = 0
    for configuration in chosen:
        cause = death(configuration)
        if cause is not None:
            dead += 1
            print(f"{cause}: {configuration}", flush=True)
    print(f"{dead} of {len(chosen)} configurations die")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
