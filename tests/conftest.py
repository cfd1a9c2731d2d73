"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

# Also for what tests start: two processes of two threads stall each other on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)  # tests are many small things; threads only get into each other's way


@pytest.fixture(scope="session")
def data_directory() -> Path:
    """The folder with cifar10.npz and mnist.npz, or a skip that says how to get it."""
    directory = os.environ.get("CONTEST_DATA")
    if not directory or not Path(directory).is_dir():
        pytest.skip("CONTEST_DATA names no folder with cifar10.npz and mnist.npz")
    return Path(directory)
