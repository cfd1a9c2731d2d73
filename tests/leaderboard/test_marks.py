"""Marks, baselines, copies, validation."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from board_helpers import content, submit
from click.testing import CliRunner

from contest.errors import UsageError
from leaderboard.board import Board
from leaderboard.commands.admin import admin
from leaderboard.domain import contests, copies, marks, ranking, roster
from leaderboard.domain.marks import Formula, PointsTable
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import Contest, Submission, Team

VALUES = dict.fromkeys(marks.NAMES, 1.0) | {"score": 0.01, "best": 0.001, "rank": 3.0, "baselines": 2.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6 - 2 * log10(score / best)", 4.0),
        ("max(1, 7 - rank)", 4.0),
        ("5 if rank <= 3 and not late > 1 else 1", 5.0),
        ("-rank // 2", -2.0),
        ("1 / (rank - 3)", None),
        ("log(0)", None),
        ("1e308 * 10", None),
    ],
)
def test_formulas(text: str, expected: float | None) -> None:
    found = Formula.parse(text)(VALUES)
    assert found == (pytest.approx(expected) if expected is not None else None)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "score.__class__",
        "(lambda: 1)()",
        "[1 for x in ()]",
        "open('/etc/passwd')",
        "f'{score}'",
        "'a' * 9",
        "secret",
        "2 ** 10 ** 10",
        "",
        "1 +",
        "x := 3",
        "round(score, ndigits=2)",
        "(" * 400 + "1" + ")" * 400,
    ],
)
def test_a_formula_is_arithmetic_and_nothing_else(text: str) -> None:
    with pytest.raises(UsageError):
        Formula.parse(text)


def test_a_table_of_points() -> None:
    table = PointsTable.parse("rank,points\n1,6\n3,5\n10,4\n")
    assert [table({**VALUES, "rank": rank}) for rank in (1, 2, 3, 4, 11, math.inf)] == [6, 5, 5, 4, 0, 0]
    table = PointsTable.parse("baselines,points\n1,4\n3,6\n")
    assert [table({**VALUES, "baselines": n}) for n in (0, 1, 2, 3)] == [0, 4, 4, 6]
    for text in ("", "colour,points\n", "rank,points\n1\n", "rank,points\none,2\n"):
        with pytest.raises(UsageError):
            PointsTable.parse(text)


@pytest.fixture
def marked(board: Board) -> Board:
    """Two teams with members, a baseline between them, one person without a team."""
    table = (
        "team,name,mail,number\nAlpha,Ada,ada@e.edu,=1+1\nAlpha,Bob,bob@e.edu,2\nBeta,Cyd,cyd@e.edu,3\n"
        ",Dan,dan@e.edu,4\n"
    )
    with board.database.write() as session:
        contest = contests.find(session, "cifar")
        roster.import_roster(session, contest, roster.parse(table))
        contests.add_baseline(session, contest, "ResNet8, 4 bits")
    for name, report in (
        ("Alpha", {"score": 0.01, "claimed": {"p_u": 0.9}}),
        ("ResNet8, 4 bits", {"score": 0.02}),
        ("Beta", {"score": 0.03}),
        ("Beta", {"accuracy": 0.5}),
    ):
        contest, team = both(board, name)
        board.work.score(submit(board, contest, team, content(report=report), name="net.pt")[0].id)
    return board


def both(board: Board, name: str) -> tuple[Contest, Team]:
    with board.database.read() as session:
        contest = contests.find(session, "cifar")
        return contest, contests.find_team(session, contest, name)


def test_grades(marked: Board, settings: BoardSettings, tmp_path: Path) -> None:
    out = tmp_path / "grades.csv"
    arguments = ["--directory", str(settings.directory)]
    done = CliRunner().invoke(admin, ["grades", "--csv", str(out), "--formula", "10 - rank + baselines", *arguments])
    assert done.exit_code == 0 and "4 rows" in done.output
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    assert [(r["name"], r["team"], r["rank"], r["points"]) for r in rows] == [
        ("Ada", "Alpha", "1", "10.0"),
        ("Bob", "Alpha", "1", "10.0"),
        ("Cyd", "Beta", "2", "8.0"),
        ("Dan", "", "", ""),
    ]
    assert rows[0]["number"] == "'=1+1", "no spreadsheet takes it for a formula"
    assert rows[0]["claimed otherwise"] == "p_u: claimed 0.9, measured 0.5"
    assert (rows[2]["submissions"], rows[2]["baselines beaten"]) == ("2", "0")
    told = {
        state: CliRunner().invoke(admin, ["addresses", "--state", state, *arguments]).output.split()
        for state in ("none", "below", "ranked")
    }
    assert told == {"none": ["dan@e.edu"], "below": [], "ranked": ["ada@e.edu", "bob@e.edu", "cyd@e.edu"]}
    archive = tmp_path / "best.zip"
    CliRunner().invoke(admin, ["files", str(archive), *arguments])
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == ["Alpha/1-net.pt", "Beta/3-net.pt", "ResNet8_ 4 bits/2-net.pt"]
        assert opened.read("Alpha/1-net.pt") == content(report={"score": 0.01, "claimed": {"p_u": 0.9}})


def test_a_baseline_is_on_the_board_without_a_rank(marked: Board) -> None:
    with marked.database.read() as session:
        contest = contests.find(session, "cifar")
        rows = ranking.page(session, contest).rows
        assert [(row.rank, row.team, row.baseline) for row in rows] == [
            (1, "Alpha", False),
            (0, "ResNet8, 4 bits", True),
            (2, "Beta", False),
        ]
        assert ranking.count(session, contest) == 2 and ranking.place(session, contest, 2) is None
        assert [record.team for record in ranking.history(session, contest)] == ["Alpha"]
        drawn = {point.team: point.baseline for point in ranking.points(session, contest)}
        assert drawn == {"Alpha": False, "ResNet8, 4 bits": True, "Beta": False}
        with pytest.raises(UsageError, match="is a team"):
            contests.add_baseline(session, contest, "alpha")


def test_copies_are_found_for_organisers(any_board: Board) -> None:
    chance = np.random.default_rng(3)
    truth = chance.integers(0, 10, 10_000).astype(np.uint8)

    def network(errors: float) -> np.ndarray:
        wrong = chance.random(10_000) < errors
        return np.where(wrong, chance.integers(0, 10, 10_000), truth).astype(np.uint8)

    one = network(0.1)
    nearly = np.where(chance.random(10_000) < 0.01, network(0.1), one).astype(np.uint8)  # trained a little further
    # Trained apart, and better: they agree in more images than the copies, since they err in few, and in the same ones.
    hard = chance.random(10_000) < 0.04
    apart = [np.where(hard & (chance.random(10_000) < 0.5), (truth + 1) % 10, truth).astype(np.uint8) for _ in "ab"]
    assert (apart[0] == apart[1]).mean() > 0.975
    said = {"Alpha": one, "Beta": nearly, "Gamma": network(0.1), "Delta": apart[0], "Epsilon": apart[1]}
    with any_board.database.write() as session:
        for name in ("Gamma", "Delta", "Epsilon"):
            contests.add_team(session, contests.find(session, "cifar"), name)
    for name, predictions in said.items():
        contest, team = both(any_board, name)
        entry, _ = submit(any_board, contest, team, content(n=name))
        with any_board.database.write() as session:
            copies.store(session, entry.id, "cifar10", predictions.tobytes())
            session.get_one(Submission, entry.id).accuracy = float((predictions == truth).mean())
    contest, team = both(any_board, "Gamma")
    submit(any_board, contest, team, content(n="Alpha"))  # Alpha's very file
    with any_board.database.read() as session:
        found = copies.find(session, contests.find(session, "cifar"))
    assert [(c.team, c.other_team, c.same_file) for c in found] == [("Gamma", "Alpha", True), ("Beta", "Alpha", False)]
    assert found[1].agreement == pytest.approx(float((one == nearly).mean()))


def test_validated_with_a_remark(marked: Board) -> None:
    with marked.database.write() as session:
        contests.validate(session, session.get_one(Submission, 1), "training shown in class")
    with marked.database.read() as session:
        contest = contests.find(session, "cifar")
        assert [row.validated for row in ranking.page(session, contest).rows] == [True, False, False]
        assert marks.rows(session, contest)[0]["remarks"] == "validated: training shown in class"


def test_a_claim_of_removed_channels_stands_beside_what_was_measured() -> None:
    """`p_s` is claimed as one number and measured as two; figures have four digits."""
    claimed, measured = {"p_s": 0.0, "p_u": 0.40617234}, {"p_s_weights": 0.0016, "p_s_ops": 0.001, "p_u": 0.4045696}
    best = Submission(claimed=claimed, measured=measured)
    assert marks._claims(best) == "p_s: claimed 0, measured 0.0016; p_u: claimed 0.4062, measured 0.4046"
