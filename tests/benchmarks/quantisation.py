"""What a quantisation-aware training step costs, as a multiple of the float step of the same network.

    python tests/benchmarks/quantisation.py [--bits 3] [--batch 256] [--rounds 10] [--threads 2]

All variants run in turn, step by step, in one process, so that a noisy machine hits all of them; ratios are taken round
by round and their median is printed. The network is a ResNet-8 of 12.5M MACs (widths 16-32-64), channels-last, in the
arithmetic that a training of the product uses on the machine at hand: bf16 autocast where the processor has it, float32
elsewhere, and the convolutions of `contest.training.device`. The stem stays float in every variant, since it sees the
8-bit image.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from brevitas.nn import QuantConv2d
from brevitas.quant import Int8WeightPerChannelFloat, Uint8ActPerTensorFloat
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from contest import networks
from contest.candidate import Bits
from contest.quantisation import quantise
from contest.training.device import autocast, cpu_convolutions, has_bf16, keep_memory

SHAPE = (3, 32, 32)


class FakeQuantise(torch.autograd.Function):
    """PyTorch's own fused operator in a plain autograd function, nothing else tuned."""

    @staticmethod
    def forward(ctx: object, x: Tensor, scale: float, low: int, high: int) -> Tensor:
        ctx.save_for_backward((x > (low - 0.5) * scale) & (x < (high + 0.5) * scale))  # type: ignore[attr-defined]
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, 0, low, high)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0] * ctx.saved_tensors[0], None, None, None  # type: ignore[attr-defined]


class FakeConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = FakeQuantise.apply(self.weight, float(self.weight.detach().abs().max()) / 3, -4, 3)
        return self._conv_forward(FakeQuantise.apply(x, 0.3, 0, 7), weight, self.bias)


def float_network() -> nn.Module:
    torch.manual_seed(0)
    model = networks.build(networks.parse("resnet:depth=8,width=16"), SHAPE, 10)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def ours(bits: int) -> nn.Module:
    return quantise(float_network(), Bits(bits, bits), torch.rand(64, *SHAPE))


def swapped(make: Callable[[nn.Conv2d], nn.Module]) -> nn.Module:
    model = float_network()
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)][1:]
    for name in convolutions:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, make(model.get_submodule(name)))  # type: ignore[arg-type]
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def geometry(old: nn.Conv2d) -> tuple[object, ...]:
    return (old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding)


def stock_brevitas(bits: int) -> nn.Module:
    return swapped(
        lambda old: QuantConv2d(
            *geometry(old),
            bias=False,
            weight_quant=Int8WeightPerChannelFloat,
            weight_bit_width=bits,
            input_quant=Uint8ActPerTensorFloat,
            input_bit_width=bits,
        )
    )


def torch_fake_quantise() -> nn.Module:
    return swapped(lambda old: FakeConv2d(*geometry(old), bias=False))  # type: ignore[arg-type]


def stepper(model: nn.Module, batch: int) -> Callable[[], None]:
    """One training step on the same random batch."""
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), 0.01, 0.9, nesterov=True)
    x = torch.rand(batch, *SHAPE).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,))

    def step() -> None:
        with cpu_convolutions(model):
            with autocast(torch.device("cpu")):
                loss = F.cross_entropy(model(x), y)
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_memory()
    variants = {
        "float": float_network(),
        "ours (learned step, per channel)": ours(options.bits),
        "torch.fake_quantize_per_tensor_affine": torch_fake_quantise(),
        "stock Brevitas": stock_brevitas(options.bits),
    }
    steps = {name: stepper(model, options.batch) for name, model in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    Console().print(f"arithmetic: {'bf16 autocast' if has_bf16(torch.device('cpu')) else 'float32'}")
    table = Table("step", "ms (median)", "images/s", "x float (median of ratios)", "least", "most")
    for name, all_times in seconds.items():
        times, base = all_times[2:], seconds["float"][2:]
        ratios = [t / b for t, b in zip(times, base, strict=True)]
        median = statistics.median(times)
        table.add_row(
            name,
            f"{median * 1e3:.1f}",
            f"{options.batch / median:,.0f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f}",
            f"{max(ratios):.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
