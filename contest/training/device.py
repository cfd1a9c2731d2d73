"""What the machine at hand can do: its device, bf16 arithmetic, and memory that stays with the process."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from contest.candidate import Recipe
from contest.errors import TrainingError, UsageError


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA where there is a GPU, else the CPU; or a name like cpu, cuda, cuda:1, mps (untested).

    Raises UsageError for a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{name}' is not available here ({error}); try --device auto or cpu") from error
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32 there: in hardware, not emulated, nor kept from oneDNN by its environment."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        hardware = bool(able.get("avx512_bf16") or able.get("amx_bf16")) and torch.backends.mkldnn.is_available()
        return hardware and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def autocast(device: torch.device, enabled: bool = True) -> AbstractContextManager[object]:
    """bf16 autocast where the device has it, else nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_bf16(device))


@contextmanager
def memory_errors(recipe: Recipe) -> Iterator[None]:
    """Says what to do about memory that does not suffice (TrainingError)."""
    try:
        yield
    except RuntimeError as error:
        # On a GPU it is an OutOfMemoryError; on the CPU only the words tell.
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        raise TrainingError(
            f"not enough memory for a step of batch_size {recipe.batch_size}; lower it or the network's width"
        ) from error


@contextmanager
def channels_last_gradients(model: nn.Module) -> Iterator[None]:
    """Inside, the gradient of a mean over a map [N, C, H, W] goes on in channels-last memory.

    The mean's own backward pass writes it channels first, and so do the layers before it, one after the other, each
    reading one layout and writing the other: 2 % of the images/s of a small residual network on one core, 10 % on two.
    """

    def relayed(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].requires_grad:
            args[0].register_hook(lambda g: g.contiguous(memory_format=torch.channels_last))

    pools = [module for module in model.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    handles = [pool.register_forward_pre_hook(relayed) for pool in pools]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


Convolve = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(input, weight, bias) -> output: what `nn.Conv2d._conv_forward` is."""


@contextmanager
def cpu_convolutions(model: nn.Module, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, the CPU computes in another way the convolutions whose own way it does badly (oneDNN 3.13).

    - A 1x1 convolution with a stride reads `x[:, :, ::s, ::s]` with stride 1, which is the same sum. Its own backward
      pass writes behind its memory on processors with AVX2 alone: channels-last, one thread, up to 6 input channels.
    - A depthwise convolution with a stride or a large kernel runs in float32 under bf16 autocast. Its backward pass in
      bf16 is not written for speed: 96 channels, 16x16, stride 2, batch 128 take 91 ms against 8, more than the rest
      of a small network together. The others are faster in bf16 and stay.
    """
    changed = []
    try:
        if torch.device(device).type == "cpu":
            for module in model.modules():
                way = _other_way(module) if isinstance(module, nn.Conv2d) else None
                if way is not None:  # Brevitas's layers go through the same method, with the quantised weight
                    module._conv_forward = way  # type: ignore[assignment]
                    changed.append(module)
        yield
    finally:
        for module in changed:
            vars(module).pop("_conv_forward", None)


def _other_way(layer: nn.Conv2d) -> Convolve | None:
    if max(layer.kernel_size) == 1 and max(layer.stride) > 1 and layer.padding in ((0, 0), "valid"):
        return functools.partial(_subsampled, layer, layer._conv_forward)
    if 1 < layer.groups == layer.in_channels and (max(layer.stride) > 1 or max(layer.kernel_size) > 3):
        return functools.partial(_in_float32, layer._conv_forward)
    return None


def _subsampled(layer: nn.Conv2d, convolve: Convolve, x: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution with a stride, over the pixels that it reads."""
    if not isinstance(x, Tensor):  # stock Brevitas layers pass values with their scales, which cannot be sliced
        return convolve(x, weight, bias)
    rows, columns = layer.stride
    return nn.functional.conv2d(x[..., ::rows, ::columns], weight, bias, groups=layer.groups)


def _in_float32(convolve: Convolve, x: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not isinstance(x, Tensor):
        return convolve(x, weight, bias)
    with torch.autocast("cpu", enabled=False):
        return convolve(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


@functools.cache
def keep_memory() -> bool:
    """Tells glibc's malloc to keep freed blocks instead of giving each large one back to the kernel.

    A training step, or a batch of images that is scored, frees and asks for the same large activations again; otherwise
    every one of their pages is faulted in and zeroed anew at each step, which can cost as much as the step itself. Once
    a process; false where the C library is another.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # Some versions of glibc refuse an mmap threshold above 32 MiB.
    kept = mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 1 << 25)
    return bool(kept) and bool(mallopt(_M_TRIM_THRESHOLD, 1 << 30))
