"""Training on a processor with AVX2 only, as most laptops have: no layer breaks the heap. In children, as it may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
SWEEP = Path(__file__).parents[1] / "benchmarks" / "convolution_sweep.py"

_FIT = """
import torch
from torch import nn
from contest.candidate import Recipe
from contest.datasets import Images
from contest.training import fit
from contest.training.device import has_bf16

torch.set_num_threads(1)
torch.manual_seed(0)
pixels, labels = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8), torch.arange(64) % 4
for inputs in (1, 2, 4, 6):
    model = nn.Sequential(
        nn.Conv2d(1, inputs, 3, padding=1), nn.ReLU(), nn.Conv2d(inputs, 8, 1, 2, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )
    fit(model, Images(pixels, labels, flips=False), Recipe(epochs=8, batch_size=16, learning_rate=0.01))
print("trained in", "bf16" if has_bf16(torch.device("cpu")) else "float32")
"""


def test_strided_1x1_convolutions_train_where_there_is_only_avx2() -> None:
    """Their own backward pass in oneDNN 3.13 writes behind its memory: SIGABRT every time before the way around it."""
    done = subprocess.run(
        [sys.executable, "-c", _FIT],
        env={**os.environ, **AVX2},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "trained in float32"), done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("only", ["1x1-strided", "transposed", "dilated", "grouped"])
def test_no_neighbour_breaks_the_heap(only: str) -> None:
    command = [sys.executable, str(SWEEP), "--avx2", "--trained", "--every", "17", "--only", only]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout
