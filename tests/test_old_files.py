"""Files that version 0.1.0 of 2026-11-21 wrote, kept in `old_files`: later versions open them.

`scores.json` holds what that version's `contest score --rule digits` said of the four networks.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from contest import networks
from contest.candidate import Candidate
from contest.datasets import load
from contest.model_file import load as load_network
from contest.model_file import packing
from contest.training import start_from
from scoring.score import score_file

OLD = Path(__file__).parent / "old_files"
SCORES = json.loads((OLD / "scores.json").read_text("utf-8"))


@pytest.mark.parametrize("name", sorted(SCORES))
def test_networks_have_the_score_that_they_had(name: str) -> None:
    then = SCORES[name]
    report = score_file(OLD / f"{name}.pt", images=load("digits").test, rule="digits", trust=True).to_json()
    assert report["accuracy"]["correct"] == then["correct"]
    assert (report["measured"]["macs"], report["measured"]["nonzeros"]) == (then["macs"], then["nonzeros"])
    for term in ("params", "ops", "total"):
        assert report["scores"]["digits"][term] == pytest.approx(then["scores"]["digits"][term], rel=1e-12), term


@pytest.mark.parametrize("name", sorted(SCORES))
def test_their_candidates_open(name: str) -> None:
    provenance = load_network(OLD / f"{name}.pt").manifest.provenance
    candidate = Candidate.from_json(provenance["candidate"])
    assert candidate.architecture.family == "thin"
    assert Candidate.from_json(candidate.to_json()) == candidate


def test_a_packed_file_is_the_network_that_was_packed() -> None:
    packed = packing.unpack(OLD / "quantised.packed").state_dict()
    plain = load_network(OLD / "quantised.pt").state_dict()
    assert packed.keys() == plain.keys()
    assert all(torch.equal(packed[name], plain[name]) for name in plain)


def test_a_checkpoint_of_a_quantised_training_is_a_start() -> None:
    model = networks.build(networks.parse("thin:widths=8,depths=1,strides=2,stem_width=8"), (1, 8, 8), 10)
    taken = start_from(OLD / "tune.ckpt", model)
    assert {name for name, _ in model.named_parameters() if name.endswith("weight")} <= set(taken)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The study of three trials as it lay on disk, without its checkpoints."""
    directory = tmp_path / "study"
    shutil.copytree(OLD / "study", directory)
    script = directory / "study.sql"
    with sqlite3.connect(directory / "study.db") as database:
        database.executescript(script.read_text("utf-8"))
    database.close()
    script.unlink()
    return directory


def test_a_study_is_reported_and_goes_on_or_says_why_not(study: Path) -> None:
    def contest(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "contest", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=study.parent)

    report = contest("report", str(study))
    assert report.returncode == 0, report.stderr
    assert list(study.rglob("*.html"))
    resumed = contest("search", "--resume", "--study", str(study))
    said = resumed.stdout + resumed.stderr
    assert "Traceback" not in said, said
    assert resumed.returncode in (0, 1, 3), said
