"""What is turned away leaves nothing on the disk, and what lies there has an owner."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from board_helpers import auth, content, submit
from fastapi.testclient import TestClient

from contest.errors import UsageError
from leaderboard import backup
from leaderboard.board import Board, open_board
from leaderboard.domain import contests
from leaderboard.domain.submissions import QuotaError
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import Contest, Team

Make = Callable[[str], str]
SUBMIT = "/api/v1/contests/cifar/submissions"


def stored(settings: BoardSettings) -> list[Path]:
    """Files at their address: not a worker's copy of the one that it scores at this moment."""
    files = (path for path in Path(settings.files).glob("*/*") if path.is_file())
    return [path for path in files if path.name.startswith(path.parent.name)]


def contest_and_team(board: Board) -> tuple[Contest, Team]:
    with board.database.read() as session:
        contest = contests.find(session, "cifar")
        return contest, contests.find_team(session, contest, "Alpha")


def limit(board: Board, **changes: int) -> None:
    with board.database.write() as session:
        contests.change(session, contests.find(session, "cifar"), changes)


def test_uploads_over_the_quota_leave_no_file(any_board: Board) -> None:
    """All at once, so that each finds a free place before its body and most find none after it."""
    limit(any_board, daily_limit=5)
    contest, team = contest_and_team(any_board)

    def upload(number: int) -> bool:
        try:
            return submit(any_board, contest, team, content(note=number))[1]
        except QuotaError:
            return False

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(upload, range(40))) == 5
    assert len(stored(any_board.settings)) == 5
    assert backup.orphans(any_board.database, any_board.files) == (0, 0)


def test_without_quota_the_body_is_not_read(client: TestClient, board: Board, token: Make) -> None:
    limit(board, daily_limit=1)
    alpha = auth(token("Alpha"))
    first = content(report={})
    assert client.post(SUBMIT, content=first, headers=alpha).status_code == 202
    sent = 0

    def body() -> object:
        nonlocal sent
        for _ in range(50):
            sent += 1
            yield b"x" * 1000

    answer = client.post(SUBMIT, content=body(), headers=alpha)  # type: ignore[arg-type]
    assert answer.status_code == 429 and "used its 1 submissions of today" in answer.json()["detail"]
    uploads = client.get("/metrics").text.split("\ncontest_upload_bytes_total ")[1].split()[0]
    assert float(uploads) == len(first), "nothing of the second body was taken"
    # The same file again is the same submission, whatever is left: the asker says its hash.
    known = {"sha256": hashlib.sha256(first).hexdigest()}
    assert client.post(SUBMIT, params=known, content=b"", headers=alpha).status_code == 200
    checked = client.get(f"{SUBMIT}/check", params=known, headers=alpha)
    assert checked.status_code == 200 and checked.json()["known"]["sha256"] == known["sha256"]
    assert client.get(f"{SUBMIT}/check", headers=alpha).status_code == 429
    assert client.get(f"{SUBMIT}/check").status_code == 401


def test_a_team_has_so_much_room(client: TestClient, board: Board, token: Make) -> None:
    alpha = auth(token("Alpha"))
    limit(board, team_bytes=3000)
    for number in range(2):
        body = content(note=f"{number}", fill="x" * 1300)
        assert client.post(SUBMIT, content=body, headers=alpha).status_code == 202
    answer = client.post(SUBMIT, content=content(fill="y" * 1300), headers=alpha)
    assert answer.status_code == 429 and "ask the organisers for more room" in answer.json()["detail"]
    assert len(stored(board.settings)) == 2
    assert client.get(f"{SUBMIT}/check", params={"size_bytes": 10}, headers=alpha).status_code == 200
    assert client.post(SUBMIT, content=content(n=1), headers=auth(token("Beta"))).status_code == 202
    assert backup.disk_by_team(board.database)[0][:2] == ("cifar", "Alpha")


def test_uploads_of_one_team_at_once_are_limited(board: Board) -> None:
    _, team = contest_and_team(board)
    with pytest.raises(QuotaError, match="uploads of team 'Alpha' are under way"):
        nest(board, team, 11)
    with board.uploading(team):  # all ten are free again
        pass


def nest(board: Board, team: Team, depth: int) -> None:
    if depth:
        with board.uploading(team):
            nest(board, team, depth - 1)


def test_files_of_nobody_are_found_and_removed(any_board: Board) -> None:
    contest, team = contest_and_team(any_board)
    submit(any_board, contest, team, content(report={}))
    orphan = any_board.files.take([b"nobody's"], 100)
    assert backup.orphans(any_board.database, any_board.files) == (0, 0), "its row may come in a moment"
    old = time.time() - 7200
    for path in stored(any_board.settings):
        os.utime(path, (old, old))
    (fault,) = backup.check(any_board.database, any_board.files)
    assert fault.startswith("1 files (0.0 MiB) belong to no submission")
    assert backup.orphans(any_board.database, any_board.files, remove=True) == (1, len(b"nobody's"))
    assert not any_board.files.verify(orphan.sha256) and len(stored(any_board.settings)) == 1
    assert backup.check(any_board.database, any_board.files) == []


def test_a_board_inside_the_libraries_does_not_start(tmp_path: Path) -> None:
    """`--directory .venv/board`: the sandbox would bind it."""
    import sys

    with pytest.raises(UsageError, match=r"the board's folder '.*' lies inside"):
        open_board(BoardSettings(directory=Path(sys.prefix) / "board"))
    with pytest.raises(UsageError, match=r"the folder of the data sets '.*' lies inside"):
        open_board(BoardSettings(directory=tmp_path / "board", data=Path(sys.prefix)))
    assert not (Path(sys.prefix) / "board").exists()
