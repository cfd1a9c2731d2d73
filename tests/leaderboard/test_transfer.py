"""Export and import: everything comes back, on either database; damage is noticed."""

from __future__ import annotations

import csv
import io
import re
import shutil
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from board_helpers import auth, content, scripted
from click.testing import CliRunner
from fastapi.testclient import TestClient
from postgres_server import PostgresServer
from sqlalchemy import select

from contest.errors import RefusedError, UsageError
from leaderboard import backup
from leaderboard.app import create_app
from leaderboard.board import Board, open_board
from leaderboard.commands.admin import admin
from leaderboard.domain import contests, copies, queue, submissions, tokens
from leaderboard.domain.tokens import Viewer
from leaderboard.storage.database import Base
from leaderboard.storage.tables import Fingerprint, State, Submission

API = "/api/v1/contests/cifar"


def fill(board: Board) -> str:
    """Every kind of row; the token of a team."""
    with board.database.write() as session:
        contest = contests.find(session, "cifar")
        text = tokens.create(session, contests.find_team(session, contest, "Alpha"))
        contests.close(session, contest)
        contests.reopen(session, contest)
    for team, script in (
        ("Alpha", {"report": {}}),
        ("Beta", {"report": {"accuracy": 0.5}}),
        ("Beta", {"refuse": "no"}),
    ):
        with board.database.write() as session:
            contest = contests.find(session, "cifar")
            stored = board.files.take([content(**script)], 1000)
            row, _ = submissions.enter(session, contest, contests.find_team(session, contest, team), stored, note="ä🦉")
        board.work.score(row.id)
    with board.database.write() as session:
        contest = contests.find(session, "cifar")
        stored = board.files.take([b"running"], 1000)
        row, _ = submissions.enter(session, contest, contests.find_team(session, contest, "Beta"), stored)
        assert queue.claim(session, row.id, "worker", 60)
    return text


def rows(board: Board) -> dict[str, list[dict[str, object]]]:
    with board.database.read() as session:
        return {
            table.name: [dict(r._mapping) for r in session.execute(select(table).order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
        }


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_everything_comes_back(board: Board, tmp_path: Path, target: str, request: pytest.FixtureRequest) -> None:
    token, file = fill(board), tmp_path / "board.tar"
    counts = backup.export(board.database, board.files, file)
    assert counts["submissions"] == counts["files"] == 4 and counts["results"] == 2
    database = ""
    if target == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        database = server.new_database("imported")
    other = open_board(replace(board.settings, directory=tmp_path / "other", database=database), scripted)
    assert backup.restore(other.database, other.files, file) == counts
    before, after = rows(board), rows(other)
    running = after["submissions"][-1]
    assert (running["state"], running["claim"], running["lease_until"]) == (State.QUEUED, "", None)
    running.update({key: before["submissions"][-1][key] for key in ("state", "claim", "lease_until")})
    assert after == before
    assert backup.check(other.database, other.files) == []
    with other.database.write() as session:
        viewer = tokens.check(session, token)
        assert viewer is not None and viewer.team_id == 1  # tokens keep working
        contest = contests.find(session, "cifar")
        assert contests.add_team(session, contest, "New").id == 3  # ids go on from the highest
    other.work.score(running["id"])  # type: ignore[arg-type]
    with other.database.read() as session:
        assert submissions.find(session, 4, Viewer("admin")).state == State.FAILED
    with pytest.raises(UsageError, match="not empty"):
        backup.restore(other.database, other.files, file)
    other.close()


@pytest.mark.parametrize("damage", ["content", "name", "table", "garbage", "link"])
def test_damage_is_refused_and_leaves_the_board_empty(board: Board, tmp_path: Path, damage: str) -> None:
    fill(board)
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    backup.export(board.database, board.files, good)
    with tarfile.open(good) as source, tarfile.open(bad, "w") as target:
        for member in source:
            reader = source.extractfile(member)
            assert reader is not None
            body = reader.read()
            if member.name.startswith("files/"):
                if damage == "content":
                    body = body[:-1] + b"!"
                elif damage == "name":
                    member.name = "files/../../escaped"
                elif damage == "link":
                    member.type, member.linkname, body = tarfile.SYMTYPE, "/etc/passwd", b""
            if damage == "table" and member.name == "tables/teams.jsonl":
                body = body.splitlines(keepends=True)[0]
            member.size = len(body)
            target.addfile(member, io.BytesIO(body))
    if damage == "garbage":
        bad.write_bytes(b"no tar at all" * 100)
    other = open_board(replace(board.settings, directory=tmp_path / "other"), scripted)
    with pytest.raises(RefusedError):
        backup.restore(other.database, other.files, bad)
    assert all(not found for found in rows(other).values())
    assert not (tmp_path / "escaped").exists()
    other.close()


def test_check_names_what_is_wrong_and_mends_the_ranking(board: Board) -> None:
    fill(board)
    assert backup.check(board.database, board.files) == []
    with board.database.write() as session:
        row = session.scalar(select(Submission).where(Submission.state == State.RANKED))
        assert row is not None
        row.score, sha256 = 0.5, row.sha256
    board.files.path(sha256).unlink()
    faults = backup.check(board.database, board.files)
    assert len(faults) == 2 and sha256 in faults[0] and "made anew" in faults[1]
    assert len(backup.check(board.database, board.files)) == 1
    with pytest.raises(RefusedError, match="missing"):
        backup.export(board.database, board.files, board.settings.directory / "x.tar")


def test_a_restore_drill(board: Board, tmp_path: Path) -> None:
    """The machine is lost in the middle of a contest. From the export alone, on another, all goes on where it was."""
    roster = tmp_path / "roster.csv"
    roster.write_text("team,name,mail,id\nAda,Ada L,ada@e.edu,1815\nAda,Bea,bea@e.edu,7\n,Late,late@e.edu,9\n")

    def admin_run(folder: Path, *arguments: object) -> str:
        done = CliRunner().invoke(admin, [*map(str, arguments), "--directory", str(folder)])
        assert done.exit_code == 0, done.output
        return done.output

    old, new = board.settings.directory, tmp_path / "another machine"
    admin_run(old, "teams", roster, "--out", tmp_path / "tokens.csv")
    code = admin_run(old, "class-code").split()[0]
    admin_run(old, "announce", "Room 3")
    admin_run(old, "set", "--final-at", "2099-01-01T10:00", "--pseudonyms")
    token = next(
        row["token"]
        for row in csv.DictReader(io.StringIO((tmp_path / "tokens.csv").read_text(encoding="utf-8-sig")))
        if row["team"] == "Ada"
    )
    with TestClient(create_app(replace(board.settings, workers=0), scripted)) as client:
        for score in (0.02, 0.01):
            data = content(report={"score": score})
            number = client.post(f"{API}/submissions", content=data, headers=auth(token)).json()["submission"]["id"]
            board.work.score(number)
        client.post(f"{API}/submissions", content=content(n=0, report={}), headers=auth(token))  # waits
    with board.database.write() as session:
        copies.store(session, number, "cifar10", bytes(range(256)) * 40)
    admin_run(old, "grades", "--csv", tmp_path / "before.csv")
    admin_run(old, "export", tmp_path / "board.tar")
    board.close()
    shutil.rmtree(old)

    admin_run(new, "import", tmp_path / "board.tar")
    admin_run(new, "check")
    admin_run(new, "grades", "--csv", tmp_path / "after.csv")
    assert (tmp_path / "after.csv").read_bytes() == (tmp_path / "before.csv").read_bytes()
    app = create_app(replace(board.settings, directory=new, workers=0), scripted)
    again: Board = app.state.board
    with TestClient(app) as client:
        waiting = client.get(f"{API}/submissions?state=queued", headers=auth(token)).json()["submissions"]
        assert len(waiting) == 1
        again.work.score(waiting[0]["id"])
        assert client.get(f"/api/v1/submissions/{number}/file", headers=auth(token)).content == data
        more = client.post(f"{API}/submissions", content=content(report={"score": 0.001}), headers=auth(token)).json()
        assert more["new"] and more["submission"]["id"] == waiting[0]["id"] + 1
        again.work.score(more["submission"]["id"])
        assert client.get(f"{API}/ranking").json()["rows"][0]["score"] == 0.001
        page = client.get("/join").text
        csrf = re.findall(r'name="csrf" value="([^"]+)"', page)[0]
        told = {"csrf": csrf, "code": code, "mail": "late@e.edu", "team": "Latecomers"}
        assert "Your token, shown this once" in client.post("/join", data=told).text
        assert "Room 3" in client.get("/contests/cifar/news").text
    with again.database.read() as session:
        assert zlib.decompress(session.get_one(Fingerprint, number).predictions) == bytes(range(256)) * 40
