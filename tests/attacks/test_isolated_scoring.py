"""Scoring a stranger's file the default way, through the isolated child: same figures, refusals in the same words."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contest.errors import RefusedError
from scoring.sandbox import LEVELS, parent, run_isolated
from scoring.score import score_file
from tests.attacks import makers, onnx_makers
from tests.attacks.scored import images


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model.onnx"])
def test_isolated_and_trusted_agree(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = {
        "model.pt": lambda: makers.torch_bytes(makers.quantised()),
        "model.safetensors": lambda: makers.safetensors_bytes(makers.quantised()),
        "model.onnx": lambda: onnx_makers.network().SerializeToString(),
    }[name]()
    path.write_bytes(content)
    isolated, trusted = score_file(path, images=images()), score_file(path, images=images(), trust=True)
    assert isolated.file["isolation"] in LEVELS[1:] and trusted.file["isolation"] == "none"
    same = {k: v for k, v in isolated.file.items() if k != "isolation"}
    assert dataclasses.replace(isolated, file=same).to_json() == dataclasses.replace(trusted, file=same).to_json()


@pytest.mark.slow
def test_refusal_of_a_network_that_lies(tmp_path: Path) -> None:
    def change(manifest: dict[str, object]) -> None:
        manifest["claims"] = {"p_s": 0.7, "p_u": 0.7}

    path = tmp_path / "model.safetensors"
    path.write_bytes(makers.safetensors_bytes(makers.with_manifest(makers.quantised(), change)))
    with pytest.raises(RefusedError, match="cannot add up to more than 1"):
        score_file(path)


@pytest.mark.slow
def test_the_child_costs_little_more_than_importing_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of the whole is 2.5. In seconds of processor time, so that a busy machine does not decide."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(makers.safetensors_bytes(makers.quantised()))
    # Through bubblewrap the time of the child is not handed on to its grandparent.
    monkeypatch.setattr(parent, "_impossible", {"bubblewrap"})

    def seconds(function: Callable[[], object]) -> float:
        def used() -> float:
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            return usage.ru_utime + usage.ru_stime

        best = float("inf")
        for _ in range(3):
            before = used()
            function()
            best = min(best, used() - before)
        return best

    torch_alone = seconds(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True))
    assert seconds(lambda: run_isolated(path)) <= 1.8 * torch_alone
