"""Networks from elsewhere as ONNX files that score exactly as they do: `contest convert`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from contest.errors import ContestError, UsageError
from scoring.analysis.cost_model import analyse
from scoring.costs import Costs
from scoring.graph.graph import Subject
from scoring.graph.interpreter import example_images
from scoring.readers.read import read
from scoring.readers.user_module import export_qonnx, has_brevitas, load_module, runner, subject_of_user_module

IMAGES = 16
LOGITS = 1e-3
"""Largest difference of logits, relative to the largest logit, between the module and its file, for half of the
images: where activations are quantised, the last bit of a sum can tip a code over."""


def convert_file(
    weights: Path | None,
    out: Path,
    *,
    arch: str | None = None,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    declared: Mapping[str, int] | None = None,
    state_key: str | None = None,
) -> Costs:
    """Write `out` (.onnx) and check it: same costs, operation by operation, and same predictions.

    Args:
        weights: a state dictionary for `arch`; without `arch` a model file of this project.
        arch: `package.module:factory`; its code is run.
        declared: bits by layer, of float weights of `arch` that lie on a grid of so few.
        state_key: which of several state dictionaries to take.

    Returns the costs of the file. Raises UsageError where the network cannot be written.
    """
    if out.suffix != ".onnx":
        raise UsageError(f"{out.name}: the converted file ends in .onnx")
    if arch is not None:
        return convert_module(load_module(arch, weights, state_key=state_key), out, image_shape, declared)
    if weights is None:
        raise UsageError("without --arch, give a model file of this project to convert")
    return _checked(read(weights), out)


def convert_module(
    model: nn.Module, out: Path, image_shape: tuple[int, int, int], declared: Mapping[str, int] | None = None
) -> Costs:
    """The same for a module that is there already."""
    if not has_brevitas(model):
        return _checked(subject_of_user_module(model, image_shape, declared=declared), out)
    export_qonnx(model, image_shape, out)
    subject = read(out)
    _check_predictions(replace(subject, engine=runner(model)), subject)
    return analyse(subject.graph)


def _checked(subject: Subject, out: Path) -> Costs:
    from scoring.onnx_writer import write_onnx

    write_onnx(subject.graph, out, subject.claims, subject.provenance)
    written = read(out)
    before, after = analyse(subject.graph), analyse(written.graph)
    if before.operations != after.operations or before.parameters != after.parameters:
        raise ContestError(f"{out.name} does not score as the network does; please report this network")
    _check_predictions(subject, written)
    return after


def _check_predictions(subject: Subject, written: Subject) -> None:
    images = example_images(subject.image_shape, IMAGES)
    step = written.max_batch or IMAGES
    before = subject.run(images).float()
    after = torch.cat([written.run(part).float() for part in images.split(step)])
    difference = (before - after).abs().amax(1) / before.abs().max().clamp_min(1e-6)
    if float(difference.median()) > LOGITS:
        raise ContestError("the ONNX file does not compute what the network computes; please report this network")
