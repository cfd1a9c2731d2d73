"""Every malformed or hostile file ends in a clear refusal, in bounded time and memory."""

from __future__ import annotations

import os
import re
import time
import tracemalloc
from pathlib import Path

import pytest

from contest.errors import ContestError, RefusedError
from contest.untrusted import check_file
from scoring.examine import examine
from scoring.readers.read import read
from scoring.sandbox import Limits, run_isolated
from scoring.sandbox.child import _reason
from tests.attacks import hostile, hostile_onnx, makers, onnx_makers

assert hostile_onnx.honest()
CASES = hostile.CASES
GATE_S = 3.0
GATE_BYTES = 150_000_000
WHAT_THE_CHILD_TURNS_INTO_A_REFUSAL = {"onnx: a terabyte at run time", "images of a terabyte"}
"""Limits of memory and work stop these, and only the isolated child has such limits."""


def write(case: str, directory: Path) -> Path:
    path = directory / CASES[case].name
    path.write_bytes(CASES[case].make())
    return path


def open_as_the_child_does(path: Path) -> None:
    check_file(path)
    examine(read(path))


def test_there_are_enough() -> None:
    assert len(CASES) >= 60
    assert len({CASES[c].make() for c in CASES}) >= 0.95 * len(CASES)


@pytest.mark.parametrize("case", [c for c in CASES if c not in WHAT_THE_CHILD_TURNS_INTO_A_REFUSAL])
def test_refused(case: str, tmp_path: Path) -> None:
    path = write(case, tmp_path)
    with pytest.raises(RefusedError, match=CASES[case].message) as caught:
        open_as_the_child_does(path)
    message = _reason(caught.value)[1]
    assert str(tmp_path) not in message and len(message) < 1_500
    assert "\x1b" not in message and "\u202e" not in message


@pytest.mark.parametrize("case", CASES)
def test_the_gate_is_quick_and_small(case: str, tmp_path: Path) -> None:
    path = write(case, tmp_path)
    tracemalloc.start()
    start = time.process_time()
    try:
        check_file(path)
    except RefusedError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert time.process_time() - start < GATE_S
    assert peak < GATE_BYTES


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "float.onnx", "quantised.onnx"])
def test_honest_files_pass(name: str, tmp_path: Path) -> None:
    content = {
        "model.pt": lambda: makers.torch_bytes(makers.quantised()),
        "model.safetensors": lambda: makers.safetensors_bytes(makers.quantised()),
        "float.onnx": lambda: onnx_makers.network().SerializeToString(),
        "quantised.onnx": lambda: onnx_makers.quantised().SerializeToString(),
    }[name]()
    path = tmp_path / name
    path.write_bytes(content)
    described = check_file(path)
    assert described.size_bytes == len(content) and described.tensors
    assert (described.manifest is None) == name.endswith(".onnx")
    open_as_the_child_does(path)


def test_both_of_our_formats_are_described_alike(tmp_path: Path) -> None:
    for name, data in (("m.pt", makers.torch_bytes), ("m.safetensors", makers.safetensors_bytes)):
        (tmp_path / name).write_bytes(data(makers.quantised()))
    one, other = check_file(tmp_path / "m.pt"), check_file(tmp_path / "m.safetensors")
    assert one.tensors == other.tensors and one.manifest == other.manifest


# What is not a regular file


def test_directory(tmp_path: Path) -> None:
    (tmp_path / "model.pt").mkdir()
    with pytest.raises(RefusedError, match="a directory"):
        check_file(tmp_path / "model.pt")


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pt")
    with pytest.raises(RefusedError, match="a pipe"):
        check_file(tmp_path / "model.pt")


def test_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "model.pt").symlink_to("/dev/zero")
    with pytest.raises(RefusedError, match="a device"):
        check_file(tmp_path / "model.pt")


def test_link_that_leads_to_itself(tmp_path: Path) -> None:
    (tmp_path / "model.pt").symlink_to(tmp_path / "model.pt")
    with pytest.raises(RefusedError, match="cannot be opened"):
        check_file(tmp_path / "model.pt")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cannot be opened: No such file"):
        check_file(tmp_path / "model.pt")


def test_name_with_a_zero_byte() -> None:
    with pytest.raises(RefusedError, match="not a file name"):
        check_file(Path("model\0.pt"))


def test_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RefusedError, match="the limit is 256,000,000"):
        check_file(path)


# The whole way


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_refused_by_the_isolated_child(case: str, tmp_path: Path) -> None:
    path = write(case, tmp_path)
    limits = Limits(wall_s=600, cpu_s=120, memory_bytes=2_000_000_000)
    with pytest.raises(ContestError) as caught:
        run_isolated(path, None, limits)
    message = str(caught.value)
    assert isinstance(caught.value, RefusedError), message
    assert str(tmp_path) not in message and "Traceback" not in message
    if case not in WHAT_THE_CHILD_TURNS_INTO_A_REFUSAL:
        assert re.search(CASES[case].message, message)
