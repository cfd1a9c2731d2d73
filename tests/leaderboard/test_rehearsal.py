"""A contest from roster to marks, as one class has it: the steps of an organiser and of forty teams, over HTTP.

The files are the scripts of `board_helpers`; that real networks are scored is for `test_commands` and the tests of the
sandbox.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from board_helpers import auth, content, scripted
from click.testing import CliRunner
from fastapi.testclient import TestClient

from leaderboard.app import create_app
from leaderboard.board import Board
from leaderboard.commands.admin import admin
from leaderboard.domain import contests, copies
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import State, Submission, now

SUBMIT = "/api/v1/contests/cifar/submissions"


def run(settings: BoardSettings, *arguments: str) -> str:
    done = CliRunner().invoke(admin, [*arguments, "--contest", "cifar", "--directory", str(settings.directory)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


def join(client: TestClient, code: str, number: int) -> str:
    client.cookies.clear()
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/join").text)
    assert found is not None
    told = {"csrf": found[1], "code": code, "mail": f"late{number}@uni.example", "team": f"Late {number}"}
    token = re.search(r"contest_[0-9a-f]{16}_[\w-]{43}", client.post("/join", data=told).text)
    client.cookies.clear()
    assert token is not None
    return token[0]


def test_a_class_from_roster_to_marks(settings: BoardSettings, board: Board, tmp_path: Path) -> None:
    table, out = tmp_path / "roster.csv", tmp_path / "tokens.csv"
    table.write_text("team,name,mail,id\n" + "".join(f"Team {i},P{i},p{i}@e.edu,{i}\n" for i in range(30)))
    assert "30 new teams, 30 new members" in run(settings, "teams", str(table), "--out", str(out))
    tokens = {row["team"]: row["token"] for row in csv.DictReader(io.StringIO(out.read_text()))}
    code = run(settings, "class-code", "--domain", "uni.example").strip()
    with TestClient(create_app(replace(settings, workers=0), scripted), raise_server_exceptions=False) as client:
        tokens |= {f"Late {i}": join(client, code, i) for i in range(10)}
        assert len(tokens) == 40

        def submit(team: str, **script: object) -> int:
            answer = client.post(SUBMIT, content=content(**script), headers=auth(tokens[team]))
            return int(answer.json()["submission"]["id"]) if answer.status_code in (200, 202) else answer.status_code

        entered: dict[str, int] = {}
        for i, team in enumerate(tokens):
            script = {"report": {"score": 0.01 + i / 1000, "accuracy": 0.91}, "private": {"accuracy": 0.905}}
            entered[team] = submit(team, n=i, **script)
        assert submit("Team 3", refuse="it is a pickled module") and submit("Team 4", crash=1)
        assert submit("Team 5", report={"accuracy": 0.7}) and submit("Team 6", n=9, report={"score": 0.019})
        client.post(
            SUBMIT,
            content=content(n=0, report={"score": 0.01, "accuracy": 0.91}, private={"accuracy": 0.905}),
            headers=auth(tokens["Team 29"]),
        )  # Team 0's very file
        for _ in range(50):
            board.work.score()
        run(settings, "rerun", str(entered["Team 7"]))
        board.work.score()
        end = now()
        run(
            settings,
            "set",
            "--deadline",
            f"{end:%Y-%m-%dT%H:%M:%S}",
            "--final-data",
            "private",
            "--final-at",
            f"{end + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}",
        )
        run(settings, "team", "Team 8", "--deadline", f"{end + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}")
        assert submit("Team 9", n=99, report={}) == 403
        late = submit("Team 8", n=98, report={"score": 0.001}, private={"accuracy": 0.906})
        board.jobs.sweep()
        board.work.score()
        with board.database.read() as session:
            assert session.get_one(Submission, late).state == State.RANKED
            alike = copies.find(session, contests.find(session, "cifar"))
            assert {(c.team, c.other_team) for c in alike if c.same_file} == {("Team 29", "Team 0")}
        run(settings, "team", "Team 8", "--deadline", "none")
        for _ in range(45):
            board.jobs.sweep()
            board.work.score()
        assert client.get("/api/v1/contests/cifar/final").status_code == 403
        run(settings, "set", "--final-at", f"{now() - timedelta(seconds=1):%Y-%m-%dT%H:%M:%S}")
        final = client.get("/api/v1/contests/cifar/final").json()
    assert [row["rank"] for row in final] == list(range(1, 41))
    assert (final[0]["team"], final[0]["score"], final[0]["accuracy"]) == ("Team 8", 0.01, 0.906)
    marks = tmp_path / "marks.csv"
    run(settings, "grades", "--csv", str(marks), "--formula", "6 - (rank - 1) / teams")
    rows = list(csv.DictReader(io.StringIO(marks.read_text(encoding="utf-8"))))
    assert len(rows) == 42  # the two teams of the fixture have no members
    assert (rows[0]["name"], rows[0]["id"], rows[0]["points"], rows[0]["final rank"]) == ("P8", "8", "6.0", "1")
    assert {row["rank"] for row in rows[:40]} == {str(i) for i in range(1, 41)}
    assert np.isclose(float(rows[39]["points"]), 6 - 39 / 40, atol=1e-4)
