"""A user's own module, built by a factory and filled from a state dictionary."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contest.errors import UsageError, did_you_mean
from scoring.graph.graph import Subject
from scoring.graph.interpreter import example_images
from scoring.readers.quantiser_patterns import suggestions, with_declared_bits
from scoring.readers.read import subject_of_module


def subject_of_brevitas(model: nn.Module, image_shape: tuple[int, int, int]) -> Subject:
    """A trusted Brevitas module: costs from its QONNX export, predictions from itself."""
    from scoring.readers.onnx_file import read_onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.onnx"
        export_qonnx(model, image_shape, path)
        subject = read_onnx(path)

    return replace(subject, engine=runner(model), max_batch=None)


def runner(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Images -> logits of a module that may return a QuantTensor."""

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        output = model(images)
        value: Tensor = getattr(output, "value", output)
        return value

    return run


def export_qonnx(model: nn.Module, image_shape: tuple[int, int, int], path: Path) -> None:
    """Write a QONNX file by Brevitas's exporter, without its progress messages."""
    from brevitas.export import export_qonnx as export

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            export(model.eval(), args=example_images(image_shape, 1), export_path=str(path))
    except Exception as error:  # the exporters of torch and Brevitas raise whatever they meet
        raise UsageError(
            f"Brevitas cannot export this module to QONNX: {' '.join(str(error).split())[:300]}"
        ) from error
    finally:
        logger.setLevel(level)


def read_module(arch: str, weights: Path | None, image_shape: tuple[int, int, int], *, trust: bool = True) -> Subject:
    """A user's own module, built by `package.module:factory` and filled from a state dictionary.

    It runs the user's code, so it is for local use only. Brevitas modules go through Brevitas's own QONNX export.
    """
    if not trust:
        raise UsageError("--arch runs code of your own; it is for local use, not for submissions")
    return subject_of_user_module(load_module(arch, weights), image_shape)


def subject_of_user_module(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    notes: Sequence[str] = (),
    declared: Mapping[str, int] | None = None,
) -> Subject:
    """A module of the user's, Brevitas layers and PyTorch's prepared and converted ones included.

    declared: bits by layer, for weights that lie on a grid of so few and are stored as floats.
    """
    model, found = _settled(model)
    notes = (*notes, *found)
    if has_brevitas(model):
        return replace(subject_of_brevitas(model, image_shape), notes=tuple(notes))
    subject = subject_of_module(model, image_shape, notes=notes)
    graph = with_declared_bits(subject.graph, declared) if declared else subject.graph
    subject = replace(subject, graph=graph, notes=(*subject.notes, *suggestions(graph)))
    return replace(subject, module=None) if _is_packed(model) else subject


def _is_packed(model: nn.Module) -> bool:
    """Whether layers were converted to integers: other counters do not see their multiplications."""
    from torch import Tensor

    return not all(isinstance(entry, Tensor) for entry in model.state_dict().values())


def _settled(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The module whose observers watch no more, so that steps stay as they were trained; and notes."""
    if not any(type(module).__module__.startswith(("torch.ao.", "torchao.")) for module in model.modules()):
        return model, []
    from torch import nn
    from torch.ao.quantization import FakeQuantizeBase, ObserverBase

    model, alone = copy.deepcopy(model), []
    for parent in list(model.modules()):
        if isinstance(parent, FakeQuantizeBase):
            parent.disable_observer()
            continue
        for name, child in list(parent._modules.items()):
            if isinstance(child, ObserverBase):
                setattr(parent, name, nn.Identity())
                alone.append(name)
    if not alone:
        return model, []
    return model, [
        f"{len(alone)} observers watch activations and quantise nothing: the network is prepared, and not converted; "
        "score what `convert` makes of it"
    ]


def has_brevitas(model: nn.Module) -> bool:
    """Whether any layer of a module is Brevitas's."""
    return any(type(module).__module__.startswith("brevitas.") for module in model.modules())


def load_module(
    arch: str, weights: Path | None, *, state_key: str | None = None, notes: list[str] | None = None
) -> nn.Module:
    """Build `package.module:factory()` (or `file.py:factory`) and fill it from a checkpoint of any form.

    state_key: which of several state dictionaries to take. notes: gets what was found, in words.
    """
    from torch import nn

    factory = _factory(arch)
    try:
        model = factory()
    except Exception as error:  # the user's own code
        name = arch.rpartition(":")[2]
        raise UsageError(
            f"--arch '{arch}': calling it without arguments failed: {_short(error)}; name a function that builds it "
            f"whole, such as `def make(): return {name}(...)` in the same file, and `--arch {arch[: -len(name)]}make`"
        ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"--arch '{arch}' returned a {type(model).__name__}, not a torch.nn.Module")
    if weights is not None:
        from scoring.readers.checkpoint_fit import load_state
        from scoring.readers.checkpoint_reader import open_checkpoint, tensor_dictionaries

        found = load_state(model, tensor_dictionaries(open_checkpoint(weights)), state_key)
        if notes is not None:
            notes += found
    return model.eval()


_LIBRARIES = {
    "timm/": "timm.create_model('{}', num_classes=10)",
    "torchvision/": "torchvision.models.{}(num_classes=10)",
    "torchvision:": "torchvision.models.{}(num_classes=10)",
}
"""How people name networks of libraries, and what builds them."""


def _factory(arch: str) -> Callable[[], Any]:
    """What `package.module:factory` names; modules are looked for in the working folder too."""
    module_name, _, factory_name = arch.rpartition(":")
    for start, build in _LIBRARIES.items():
        if arch.startswith(start):
            name = arch.removeprefix(start)
            made = f"`import {build.partition('.')[0]}` and `def make(): return {build.format(name)}`"
            raise UsageError(
                f"--arch is '{arch}'; it must be package.module:factory or file.py:factory: write net.py with "
                f"{made} (arguments as when it was trained), and give --arch net.py:make"
            )
    if not module_name or not factory_name:
        raise UsageError(f"--arch is '{arch}'; it must be package.module:factory or file.py:factory")
    folder = Path.cwd()
    if module_name.endswith(".py"):
        folder, module_name = (folder / module_name).resolve().parent, Path(module_name).stem
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's own code
        raise UsageError(f"--arch '{arch}' cannot be imported: {_short(error)}") from error
    factory = getattr(module, factory_name, None)
    if factory is None:
        named = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = did_you_mean(factory_name, named)
        raise UsageError(f"--arch '{arch}': {module_name} has no '{factory_name}'{near}")
    if not callable(factory):
        raise UsageError(f"--arch '{arch}' is a {type(factory).__name__}, not callable")
    return factory  # type: ignore[no-any-return]


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
