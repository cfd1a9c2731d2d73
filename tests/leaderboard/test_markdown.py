"""Tables of the ranking: figures written out by hand, names of strangers as plain text, and the README's own table."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from contest.cli import cli
from leaderboard.charts.accuracy_score import ChartPoint
from leaderboard.commands.output import ranking_table
from leaderboard.commands.ranking import bundled_entries
from scoring.rules import load_rule

README = Path(__file__).parents[2] / "README.md"
MEASURED = {"macs": 12_501_632, "weights": 146_480, "nonzeros": 58_592, "q_w": 3.04, "q_a": 3.18}


def row(name: str = "us") -> dict[str, object]:
    return {
        "team": name,
        "accuracy": 0.9012,
        "score": 0.004,
        "params": 0.001,
        "ops": 0.003,
        "measured": MEASURED,
    }


def test_the_lowest_score_comes_first_and_references_stand_where_they_belong() -> None:
    table = ranking_table([row()], [ChartPoint("far", 0.93, 1.66), ChartPoint("near", 0.9, 0.0021)]).splitlines()
    assert table[2:] == [
        "| *near* | *90.00%* | *0.0021* | | | | |",
        "| **us** | 90.12% | 0.00400 | 0.00100 + 0.00300 | 12.5M | 58,592 of 146,480 | 3.0 / 3.2 |",
        "| *far* | *93.00%* | *1.6600* | | | | |",
    ]


def test_a_strangers_name_stays_one_cell_of_text() -> None:
    line = ranking_table([row("a|b\n| **x** [l](u) <img>")]).splitlines()[2]
    assert line.startswith("| **a\\|b \\| \\*\\*x\\*\\* \\[l\\](u) \\<img\\>** | 90.12% |")


def test_the_readme_shows_what_the_command_prints() -> None:
    printed = CliRunner().invoke(cli, ["leaderboard", "--bundled", "--markdown"])
    assert printed.exit_code == 0
    assert printed.output in README.read_text(encoding="utf-8")


def test_the_bundled_ranking_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = CliRunner().invoke(cli, ["leaderboard", "--bundled"])
    assert printed.exit_code == 0 and "submitted" not in printed.output  # a column that none of them would fill
    for entry in bundled_entries(load_rule("lab")):
        assert f" {entry.name} " in printed.output
