"""Every command that the program prints runs as it is printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from search.study.storage import UnwritableError, check_writable


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"), "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-m", "contest", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


def hints(text: str) -> list[list[str]]:
    """The commands in what a command printed: lines of their own, and those behind `now:`."""
    found = re.findall(r"(?:^  |now: |go on with:? )contest (.+)$", text, re.MULTILINE)
    return [shlex.split(line) for line in found]


def check(folder: Path, printed: str, least: int) -> None:
    commands = hints(printed)
    assert len(commands) >= least, printed
    for command in commands:
        done = run(folder, *command)
        # 1 is an answer of `score` and `submit`: below the threshold
        assert done.returncode in (0, 1) and "Traceback" not in done.stderr, f"contest {command}: {done.stderr}"


@pytest.mark.slow
def test_the_hints_of_train(tmp_path: Path) -> None:
    options = ("--dataset", "digits", "--out", "mein [b] Netz ü.pt", "--train", "epochs=1", "--tune", "epochs=1")
    done = run(tmp_path, "train", "resnet:depth=8,width=4", "--bits", "4", *options)
    assert done.returncode == 0, done.stderr
    check(tmp_path, done.stdout, least=1)


@pytest.mark.slow
def test_the_hints_of_search(tmp_path: Path) -> None:
    options = (
        "--dataset",
        "digits",
        "--trials",
        "1",
        "--epochs",
        "1/0",
        "--finalists",
        "1",
        "--study",
        "my [b] study's ü",
    )
    done = run(tmp_path, "search", *options, "--family", "resnet")
    assert done.returncode == 0, done.stderr
    check(tmp_path, done.stdout, least=4)


def test_a_hint_is_found_in_what_is_printed() -> None:
    assert hints("my.pt: 3 bytes; now: contest score my.pt --dataset digits\n  contest plot\n") == [
        ["score", "my.pt", "--dataset", "digits"],
        ["plot"],
    ]


def test_what_stopped_is_gone_on_with_as_it_is_printed(tmp_path: Path) -> None:
    away = tmp_path / "my study's [b] ü"
    with pytest.raises(UnwritableError) as caught:
        check_writable(away)
    assert hints(str(caught.value)) == [["search", "--resume", "--study", str(away)]]
