"""What the machine has and what a budget buys: `contest doctor`."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from contest.cli import cli
from contest.errors import UsageError
from search.commands import default_options
from search.doctor import examine, found, machine


def test_the_machine_is_the_one_at_hand(tmp_path: Path) -> None:
    rows = dict(machine(tmp_path))
    assert torch.__version__.partition("+")[0] in rows["versions"]
    assert f"{len(os.sched_getaffinity(0))} cores" in rows["processor"]
    assert rows["instructions"].startswith(torch.backends.cpu.get_cpu_capability())
    assert str(tmp_path) in rows["disk"]


def test_data_that_is_there_is_counted() -> None:
    assert found("digits", None) == "digits, 1,437 training and 360 test images of 1x8x8, 10 classes"


def test_without_data_it_says_the_ways_and_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTEST_DATA", raising=False)
    done = CliRunner().invoke(cli, ["doctor", "--dataset", "cifar10", "--data", str(tmp_path)], standalone_mode=False)
    assert done.return_value == 1 and "cifar10.npz" in done.output.replace("\n", "") and not list(tmp_path.iterdir())


def test_a_budget_is_refused_as_a_search_would_refuse_it(tmp_path: Path) -> None:
    """Of which starting takes a part: 9 s until all is imported, and as long for each of two more processes."""
    file, options = io.StringIO(), {**default_options(), "dataset": "digits", "plan_only": True}
    assert examine(Console(file=file), options, ("4s",), tmp_path, started_s=9.0)
    said = file.getvalue()
    assert "starting alone took 9 s" in said and "about --budget 50s" in said and "plan:" not in said
    with pytest.raises(UsageError, match="--budget abc: write a time such as 2h"):
        CliRunner().invoke(cli, ["doctor", "--budget", "abc"], standalone_mode=False, catch_exceptions=False)


@pytest.mark.slow
def test_a_budget_is_planned_with_the_speed_of_this_machine() -> None:
    done = CliRunner().invoke(cli, ["doctor", "--dataset", "digits", "--budget", "10m"], standalone_mode=False)
    assert done.return_value == 0 and "images/s float" in done.output and "plan: " in done.output
