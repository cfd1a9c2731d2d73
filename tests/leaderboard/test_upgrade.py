"""Databases of earlier versions, with everything in them: brought up to date, they go on.

`old_boards/REVISION.json` holds the rows that the program of that revision wrote (a board with ranked, refused,
disqualified and waiting submissions); only the token was exchanged for one that is no secret.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from board_helpers import content, scripted
from sqlalchemy import DateTime, MetaData, func, select, text

from leaderboard import backup
from leaderboard.board import open_board
from leaderboard.domain import contests, queue, ranking, submissions, tokens
from leaderboard.domain.tokens import Viewer
from leaderboard.settings import BoardSettings
from leaderboard.storage.database import Base, Database, _config
from leaderboard.storage.tables import Standing, State, Submission
from scoring.rules import load_rule

OLD = Path(__file__).parent / "old_boards"
TOKEN = "contest_0123456789abcdef_" + "A" * 43


def make_old(settings: BoardSettings, revision: str) -> dict[str, list[dict[str, Any]]]:
    """A database as that revision's program left it."""
    tables: dict[str, list[dict[str, Any]]] = json.loads((OLD / f"{revision}.json").read_text("utf-8"))["tables"]
    settings.directory.mkdir()
    database = Database(settings)
    with database._writing.begin() as connection:
        command.upgrade(_config(connection), revision)
    metadata = MetaData()
    metadata.reflect(database.engine)
    with database._writing.begin() as connection:
        for table in metadata.sorted_tables:
            for row in tables.get(table.name, []):
                moments = {key for key in row if isinstance(table.columns[key].type, DateTime) and row[key]}
                values = {
                    key: datetime.fromisoformat(value).replace(tzinfo=None) if key in moments else value
                    for key, value in row.items()
                }
                connection.execute(table.insert().values(values))
            if not database.sqlite and "id" in table.columns:
                highest = connection.scalar(select(func.max(table.columns.id))) or 1
                connection.execute(
                    text("SELECT setval(pg_get_serial_sequence(:t, 'id'), :n)"), {"t": table.name, "n": highest}
                )
    database.close()
    return tables


@pytest.mark.parametrize("revision", sorted(path.stem for path in OLD.glob("*.json")))
def test_an_old_board_goes_on(any_settings: BoardSettings, revision: str) -> None:
    old = make_old(any_settings, revision)
    board = open_board(any_settings, scripted)
    board.database.ready()
    with board.database.read() as session:
        for name, rows in old.items():
            found = [row._mapping for row in session.execute(select(Base.metadata.tables[name])).all()]
            assert len(found) == len(rows)
        contest = contests.find(session, "cifar")
        ranked = ranking.page(session, contest).rows
        assert [(row.rank, row.team, row.score) for row in ranked] == [(1, "Beta ä🦉", 0.02), (2, "Alpha", 0.03)]
        for row in ranked:  # terms: a quarter and three quarters, as `make_report` has it
            assert (row.params, row.ops) == pytest.approx((row.score / 4, row.score * 3 / 4))
        below = ranking.page(session, contest, "below_threshold").rows
        assert [(row.team, row.params) for row in below] == [("Gamma", 0.0025)]
        assert [record.score for record in ranking.history(session, contest)] == [0.04, 0.02]
        for refused in session.scalars(select(Submission).where(Submission.state == State.REFUSED)):
            assert "0.8123" not in refused.reason and refused.reason  # what coarse feedback shows of it
        viewer = tokens.check(session, TOKEN)
        assert viewer is not None and viewer.team_id == 1
        assert all(s.params + s.ops == pytest.approx(s.score) for s in session.scalars(select(Standing)))
    # The files did not travel with the rows: give the board those that it names, then let it work.
    waiting = next(row for row in old["submissions"] if row["state"] == State.QUEUED)
    for script in ({"wait": 1}, {"report": {"score": 0.005}}):
        stored = board.files.take([content(**script)], 10_000)
        assert script != {"wait": 1} or stored.sha256 == waiting["sha256"]
    board.work.score(waiting["id"])
    with board.database.write() as session:
        team = contests.find_team(session, contests.find(session, "cifar"), "Gamma")
        new, fresh = submissions.enter(session, team.contest, team, stored)
        assert fresh and new.id == max(row["id"] for row in old["submissions"]) + 1
    board.work.score(new.id)
    # The rule has a newer version since: the old ranking keeps its own, and says how it is brought forward.
    with board.database.write() as session:
        contest = contests.find(session, "cifar")
        leader = ranking.leader(session, contest)
        assert leader is not None and leader.team == "Beta ä🦉"
        assert submissions.find(session, waiting["id"], Viewer("admin")).state == State.RANKED
        assert "version" in submissions.find(session, new.id, Viewer("admin")).reason
        assert "`contest admin rescore --rule lab`" in contests.told_rule(contest)
        assert queue.rescore(session, contest, load_rule("lab")) > 1
    board.work.score(new.id)
    with board.database.read() as session:
        leader = ranking.leader(session, contests.find(session, "cifar"))
        assert leader is not None and (leader.team, leader.params) == ("Gamma", 0.00125)
        assert session.scalar(select(func.count()).select_from(Submission)) == len(old["submissions"]) + 1
    faults = backup.check(board.database, board.files)
    assert all(fault.endswith("is missing or damaged") for fault in faults)  # the files; no ranking was wrong
    board.close()
