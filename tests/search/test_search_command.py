"""The commands on the bundled digits, with the real trainer."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_trainer import FakeTrainer
from test_search_engine import make_study

from contest.errors import UsageError
from scoring import score_file
from search.commands import report, search, status
from search.policy.forecast import open_account
from search.policy.ranking import reads
from search.study.study import open_study
from search.work import next_work

SMALL = ["--dataset", "digits", "--epochs", "4/4", "--finalists", "1", "--fix", "structured=0"]


def numbers_of(directory: Path) -> dict[int, tuple[str, float]]:
    study = open_study(directory)
    found = {r.number: (r.key, r.result.accuracy) for r in study.records() if r.result is not None}
    study.close()
    return found


def check_status(directory: Path, score: float, trials: Path) -> None:
    """`contest status` from another terminal: what the study has, without waiting for torch."""
    code = "import sys\nfrom contest.cli import main\ntry: main()\nfinally: print('torch:', 'torch' in sys.modules)"

    def told(*options: str) -> list[str]:
        line = [sys.executable, "-c", code, "status", str(directory), *options]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()

    shown = told()
    assert shown[-1] == "torch: False"
    assert "finished" in shown[0] and any(f"{score:.5f}" in line for line in shown)
    assert json.loads("\n".join(told("--json")[:-1])) == json.loads(trials.read_text())


def test_search_then_report_with_slides(tmp_path: Path) -> None:
    directory = tmp_path / "study"
    result = CliRunner().invoke(
        search, [*SMALL, "--trials", "2", "--study", str(directory), "--family", "resnet"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert f"contest report {directory}" in result.output
    assert len(reads(directory)) == 1
    (finalist,) = (directory / "finalists").glob("*/report.json")
    scored = json.loads(finalist.read_text())
    assert scored["accuracy"]["total"] == 360  # the digits' test set
    study = open_study(directory)
    chosen = [r for r in study.records() if r.key == finalist.parent.name][-1]  # its last visit
    assert chosen.result is not None
    # The price on which the search chose is the score that a reader of the file gets.
    assert scored["scores"]["digits"]["total"] == pytest.approx(chosen.result.price.total, rel=1e-9)
    study.close()
    out = CliRunner().invoke(
        report,
        [str(directory), "--out", str(tmp_path / "r"), "--slides", str(tmp_path / "talk.pptx")],
        catch_exceptions=False,
    )
    assert out.exit_code == 0, out.output
    page = (tmp_path / "r" / "report.html").read_text()
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert (tmp_path / "r" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "the best" in page and not (tmp_path / "r" / "importance.png").exists()  # two networks say nothing of it
    assert score_file(finalist.parent / "model.onnx", rule="digits").to_json()["scores"] == scored["scores"]
    check_status(directory, scored["scores"]["digits"]["total"], tmp_path / "r" / "trials.json")
    trials = json.loads((tmp_path / "r" / "trials.json").read_text())
    with (tmp_path / "r" / "trials.csv").open(newline="") as file:
        assert [int(line["trial"]) for line in csv.DictReader(file)] == [line["trial"] for line in trials]
    by_number = {line["trial"]: line["accuracy"] for line in trials if line["accuracy"] is not None}
    assert by_number == {number: accuracy for number, (_, accuracy) in numbers_of(directory).items()}
    said = CliRunner().invoke(status, [str(directory)], catch_exceptions=False)
    assert said.exit_code == 0 and "finished" in said.output and f"{chosen.result.price.total:.5f}" in said.output
    plain = CliRunner().invoke(status, [str(directory), "--json"], catch_exceptions=False)
    assert json.loads(plain.output) == trials
    from pptx import Presentation

    talk = Presentation(str(tmp_path / "talk.pptx"))
    texts = [s.text_frame.text for slide in talk.slides for s in slide.shapes if s.has_text_frame]
    assert {"Experiments", "Techniques", "Scores of the architectures", "Accuracy against score"} <= set(texts)
    width, height = talk.slide_width, talk.slide_height
    assert all(
        s.left >= 0 and s.top >= 0 and s.left + s.width <= width and s.top + s.height <= height
        for slide in talk.slides
        for s in slide.shapes
    )


def test_a_study_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(UsageError, match="--resume"):
        CliRunner().invoke(search, ["--dataset", "digits", "--study", str(tmp_path)], catch_exceptions=False)


def test_no_study_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no study"):
        CliRunner().invoke(search, ["--resume", "--study", str(tmp_path / "none")], catch_exceptions=False)


def told(directory: Path) -> str:
    done = CliRunner().invoke(status, [str(directory)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_status_counts_what_runs_and_says_who_was_interrupted_or_waits(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", trials=None, images=60_000), FakeTrainer()
    open_account(study, trainer.images)
    first = next_work(study, trainer)
    assert first is not None and first.stage == "parent"
    left = 60_000 - 1000 * first.candidate.train.epochs  # an epoch of the fake trainer has 1,000 images
    assert f"left: {left:,.0f} images\n" in told(tmp_path / "s")
    assert f"now: trial {first.trial.number} (parent" in told(tmp_path / "s")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    work = study.optuna.get_trials()[first.trial.number].user_attrs["work"]
    first.trial.set_user_attr("work", {**work, "worker": f"{socket.gethostname()}:{gone.pid}"})
    said = told(tmp_path / "s")
    assert f"interrupted: trial {first.trial.number} (parent" in said and "now:" not in said
    assert f"nobody works on it; go on with: contest search --resume --study {tmp_path / 's'}\n" in said
    assert study.reap() == 1
    said = told(tmp_path / "s")
    assert "waiting: trial 1 (parent" in said and "now:" not in said and "interrupted" not in said
    study.close()


def test_status_of_a_study_that_has_not_begun_writes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    study = make_study(directory)
    study.close()
    for file in directory.glob("study.db*"):
        file.unlink()
    assert "holds a study that has not begun" in told(directory)
    assert [file.name for file in directory.iterdir()] == ["study.json"]
    with pytest.raises(UsageError, match=r"has not begun.*contest search --resume --study"):
        CliRunner().invoke(report, [str(directory)], catch_exceptions=False)


@pytest.mark.slow
def test_kill_9_on_the_digits_and_resume(tmp_path: Path) -> None:
    directory = tmp_path / "study"
    command = [sys.executable, "-m", "contest", "search", *SMALL, "--trials", "5", "--study", str(directory)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while True:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
        if (directory / "study.db").exists() and len(numbers_of(directory)) >= 3:
            break
    time.sleep(0.5)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = numbers_of(directory)
    subprocess.run(
        [sys.executable, "-m", "contest", "search", "--resume", "--study", str(directory)],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=500,
    )
    after = numbers_of(directory)
    assert before and before.items() <= after.items()
    study = open_study(directory)
    assert study.claims.taken() == 5
    assert not study.running() and not study.waiting()
    assert len({r.key for r in study.records() if r.is_network}) == 5
    study.close()
