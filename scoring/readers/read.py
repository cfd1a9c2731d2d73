"""From a file to a `Subject`, a stranger's within a cap on work. A new file format is a function here."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contest.errors import RefusedError
from contest.untrusted.description import CONVERT, MAX_MACS
from scoring.costs import ParentCosts
from scoring.graph.graph import Graph, Subject
from scoring.graph.interpreter import example_images, is_native
from scoring.readers.torch_trace import logits_among, trace

OURS = (".pt", ".safetensors")
SUFFIXES = (*OURS, ".onnx")


def read(path: Path, image_shape: tuple[int, int, int] | None = None) -> Subject:
    """A submission. Raises RefusedError for what the contest does not accept, saying how to convert it.

    image_shape: of the images that it is to run on, for a network that takes images of any size.
    """
    suffix = path.suffix.lower()
    if suffix in OURS:
        return _read_ours(path)
    if suffix == ".onnx":
        from contest.untrusted import check_file
        from scoring.readers.onnx_file import read_onnx

        if path.is_file():
            check_file(path)  # what the file says, before anything is deserialised
        return read_onnx(path, image_shape)
    if suffix in (".pt2", ".pth", ".pkl", ".ckpt", ".bin", ".torchscript"):
        raise RefusedError(f"{path.name}: pickled modules, TorchScript and .pt2 are not accepted; {CONVERT}")
    raise RefusedError(f"{path.name}: '{suffix}' is none of {', '.join(SUFFIXES)}; {CONVERT}")


def read_limited(path: Path, image_shape: tuple[int, int, int] | None = None, limit: int = MAX_MACS) -> Subject:
    """The same for a stranger's file: refused where one forward pass takes more work, before the work is done."""
    with _limited_macs(limit):
        subject = read(path, image_shape)
    _check_macs(subject.graph, limit)
    return subject


def _read_ours(path: Path) -> Subject:
    from contest.model_file import load
    from contest.model_file.manifest import code_bits

    network = load(path)
    manifest = network.manifest
    declared = code_bits(network)
    parent = ParentCosts(manifest.parent.weights, manifest.parent.macs) if manifest.parent else None
    claims = {key: value for key, value in manifest.claims.model_dump().items() if value is not None}
    subject = subject_of_module(
        network,
        manifest.image_shape,
        declared_bits=declared,
        parent=parent,
        claims=claims,
        provenance=manifest.provenance,
        prefix="body.",
    )
    logits = subject.graph.shapes[subject.graph.output][-1:]
    if logits != (manifest.classes,):
        raise RefusedError(
            f"the manifest says {manifest.classes} classes, but the network gives {logits[0] if logits else 'no'} "
            "logits for an image; `classes` and the last layer's outputs must agree"
        )
    return subject


def subject_of_module(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    declared_bits: Mapping[str, int] | None = None,
    parent: ParentCosts | None = None,
    claims: Mapping[str, float] | None = None,
    provenance: Mapping[str, str] | None = None,
    prefix: str = "",
    notes: Sequence[str] = (),
) -> Subject:
    """A torch module in evaluation mode. A module in half precision gets its images in half precision.

    prefix: of module names, left out in reports.
    """
    model = model.eval()
    dtype = _input_type(model)
    engine = _engine_of(model, dtype)
    image = example_images(image_shape, 1).to(dtype)
    graph = trace(model, image, declared_bits=declared_bits, prefix=prefix).before_the_choice()
    return Subject(
        graph,
        engine,
        image_shape,
        parent,
        dict(claims or {}),
        dict(provenance or {}),
        tuple(notes),
        module=model,
        example=image,
    )


def _engine_of(model: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Images -> what a module gives for them."""
    ours = getattr(model, "manifest", None) is not None  # it cares for no order in memory, and this one is quicker
    slow = dtype.itemsize == 2 and not is_native(dtype)

    @functools.cache
    def engine() -> tuple[nn.Module, torch.dtype]:
        """The module; where the processor has no half arithmetic and takes 40 times as long, its copy in float32."""
        return (copy.deepcopy(model).float(), torch.float32) if slow else (model, dtype)

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        network, type_ = engine()
        given = images.to(type_)
        output = network(given.contiguous(memory_format=torch.channels_last) if ours else as_loaders_give(given))
        return logits_among(output)

    return run


def as_loaders_give(images: Tensor) -> Tensor:
    """Images in the memory that a data loader gives them: channels first, with the strides of a new tensor.

    `contiguous()` is not enough: one channel is contiguous in both formats, convolutions then hand on channels last,
    and `x.view(x.size(0), -1)` behind them fails.
    """
    return images.reshape(-1).view(images.shape)


def _input_type(model: nn.Module) -> torch.dtype:
    """The type of the first floating-point parameter (or buffer): what `.half()` models want their images in."""
    if getattr(model, "manifest", None) is not None:
        return torch.float32  # our own networks change the type where they need it
    tensors = (*model.parameters(), *model.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


@contextmanager
def _limited_macs(limit: int) -> Iterator[None]:
    """While active, a convolution or linear layer that would take the sum of all beyond `limit` is not run.

    For the one image that a reader sends through a network: it must not work for hours before anybody counts.
    """
    done = 0

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal done
        weight = getattr(module, "codes", getattr(module, "weight", None))
        if not inputs or not isinstance(inputs[0], Tensor) or not isinstance(weight, Tensor) or weight.dim() < 2:
            return
        done += _macs(module, tuple(inputs[0].shape), tuple(weight.shape))
        _check(done, limit)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def _check_macs(graph: Graph, limit: int) -> None:
    """The same for a graph that was read already."""
    done = 0
    for node in graph.nodes:
        if (
            node.kind in ("Conv", "ConvTranspose", "Linear")
            and len(node.inputs) > 1
            and not graph.is_constant(node.output)
        ):
            weight = graph.shapes[node.inputs[1]]
            side = node.inputs[0] if node.kind == "ConvTranspose" else node.output
            done += math.prod(graph.shapes[side]) * math.prod(weight[1:])
    _check(done, limit)


def _macs(module: Any, shape: tuple[int, ...], weight: tuple[int, ...]) -> int:
    """About the multiply-accumulates of a layer: positions of its output times the weights of one."""
    if len(weight) == 2:
        return math.prod(shape[:-1]) * math.prod(weight)
    stride = getattr(module, "stride", 1)
    strides = math.prod(stride) if isinstance(stride, tuple) else stride
    return shape[0] * math.prod(shape[2:]) * math.prod(weight) // max(1, strides)


def _check(done: int, limit: int) -> None:
    if done > limit:
        raise RefusedError(f"one forward pass takes more than {limit:,} multiply-accumulates; that is the limit")
