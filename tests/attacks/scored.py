"""Scoring what the makers make, in this process; the isolated child's way is `test_isolated_scoring.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from contest.datasets import Images
from scoring.report import Report
from scoring.score import score_file
from tests.attacks import makers

COUNT = 64


def images(count: int = COUNT, shape: tuple[int, ...] = makers.SHAPE) -> Images:
    """Random pixels and labels of ten classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.randint(0, 10, (count,), generator=generator))


def score(model: onnx.ModelProto | dict[str, Any], directory: Path, **options: Any) -> Report:
    """The report of an ONNX model, or of the content of a `model.pt`."""
    if isinstance(model, dict):
        path = directory / "model.pt"
        path.write_bytes(makers.torch_bytes(model))
    else:
        path = directory / "model.onnx"
        path.write_bytes(model.SerializeToString())
    return score_file(path, trust=True, **options)


def layer(report: Report, name: str) -> Any:
    """The row of one layer."""
    return next(row for row in report.layers if row["name"] == name)


def problem(report: Report) -> str:
    """What the organiser reads. Nothing in it may let the network into the ranking."""
    assert not report.rankable
    return " | ".join(report.problems)


def charged(report: Report) -> float:
    """Bits of all numbers that are not weights."""
    return float(np.sum([n["count"] * n["bits"] for n in report.numbers]))
