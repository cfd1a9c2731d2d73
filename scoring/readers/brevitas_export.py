"""Modules with Brevitas layers: read through Brevitas's own QONNX export, run as they are."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from scoring.readers.subject import Subject, example_images


def subject_of_brevitas(model: nn.Module, image_shape: tuple[int, int, int]) -> Subject:
    """A trusted Brevitas module: costs from its QONNX export, predictions from itself."""
    from scoring.readers.onnx_graph import read_onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.onnx"
        export_qonnx(model, image_shape, path)
        subject = read_onnx(path)

    return replace(subject, run=runner(model), max_batch=None)


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
