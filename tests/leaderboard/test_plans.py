"""How the databases answer what the service asks: by indexes, however many submissions there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from board_helpers import auth, content, scripted, submit
from bulk import fill
from fastapi.testclient import TestClient
from sqlalchemy import JSON, event, insert, literal, select, text

from leaderboard.app import create_app
from leaderboard.board import Board
from leaderboard.domain import contests, queue, tokens
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import Result, Submission, Team

COUNT = 6_000
BIG = ("submissions", "results")
"""Tables that grow with every submission. Contests are few, and a ranking needs all its standings once a revision."""
RANKING = "/api/v1/contests/load/ranking"
QUESTIONS = (
    RANKING,
    f"{RANKING}?page=3",
    f"{RANKING}?team=17",
    f"{RANKING}?max_score=0.1&min_accuracy=0.91",
    f"{RANKING}?sort=team&descending=1",
    f"{RANKING}?section=below_threshold",
    "/api/v1/contests/load/points",
    "/api/v1/contests/load/records",
    "/api/v1/contests/load/submissions",
    "/api/v1/contests/load/submissions?before=99",
    "/api/v1/contests/load/submissions?team_id=5",
    "/api/v1/contests/load/submissions?state=refused",
    "/api/v1/submissions/4321",
    "/api/v1/me",
    "/",
    "/contests/load",
    "/contests/load?q=17&sort=ops",
    "/contests/load/teams/7",
    "/submissions/17",
    "/compare?id=3&id=4",
    "/contests/load/chart.json",
    "/metrics",
)

Statement = tuple[str, Any]


@pytest.fixture
def loaded(any_settings: BoardSettings) -> Iterator[tuple[TestClient, Board]]:
    """A board with two big contests, and a reader of it."""
    app = create_app(replace(any_settings, workers=0, requests_per_minute=10**6), scripted)
    board: Board = app.state.board
    fill(board.database, COUNT, 10)
    fill(board.database, COUNT, 10, "other")
    with board.database.write() as session:
        names = ["submission_id", "created_at", "state", "reason", "rule_name", "rule_version", "report"]
        columns = (Submission.id, Submission.created_at, Submission.state, Submission.reason, Submission.rule_name)
        made = select(*columns, Submission.rule_version, literal({}, JSON))
        session.execute(insert(Result).from_select(names, made))
        session.execute(text("ANALYZE"))
    yield TestClient(app), board
    board.close()


@pytest.fixture
def asked(loaded: tuple[TestClient, Board]) -> Iterator[list[Statement]]:
    """What the database was asked, statement and parameters."""
    found: list[Statement] = []
    engine = loaded[1].database.engine

    def note(connection: object, cursor: object, statement: str, parameters: Any, *_: object) -> None:
        found.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


def scanned(board: Board, statement: Statement) -> set[str]:
    """The tables that the plan reads from end to end."""
    sql, parameters = statement
    with board.database.engine.connect() as connection:
        if board.database.sqlite:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters).all()
            steps = [str(row[3]).split() for row in rows]
            # A covering index is read from end to end as well.
            return {step[1] for step in steps if step[0] == "SCAN"}
        plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sql}", parameters).scalar_one()
    found, nodes = set(), [entry["Plan"] for entry in (json.loads(plan) if isinstance(plan, str) else plan)]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        whole = node["Node Type"] in ("Index Scan", "Index Only Scan") and "Index Cond" not in node
        if "Relation Name" in node and (node["Node Type"] == "Seq Scan" or (whole and not ordered(node))):
            found.add(node["Relation Name"])
    return found


def ordered(node: dict[str, Any]) -> bool:
    """Reading an index backwards until a page is full reads no table."""
    return node.get("Scan Direction") == "Backward"


def test_no_question_reads_a_big_table_whole(loaded: tuple[TestClient, Board], asked: list[Statement]) -> None:
    client, board = loaded
    with board.database.write() as session:
        team = session.get_one(Team, 5)
        token = tokens.create(session, team)
    asked.clear()
    plans: dict[str, set[str]] = {}
    for question in QUESTIONS:
        asked.clear()
        answer = client.get(question, headers=auth(token) if "/me" in question else {})
        assert answer.status_code == 200, answer.text
        for statement in list(asked):
            if statement[0].lstrip().upper().startswith("SELECT") and "pg_catalog" not in statement[0]:
                plans.setdefault(question, set()).update(scanned(board, statement))
    faults = {question: found & set(BIG) for question, found in plans.items() if found & set(BIG)}
    assert faults == {}, faults
    assert len(plans) == len(QUESTIONS)


def test_no_step_of_a_submission_reads_a_big_table_whole(
    loaded: tuple[TestClient, Board], asked: list[Statement]
) -> None:
    """Entered, announced, claimed, scored, put in its place; swept; a team disqualified."""
    _, board = loaded
    with board.database.read() as session:
        contest = contests.find(session, "load")
        team = session.get_one(Team, 5)
    asked.clear()
    submission, _ = submit(board, contest, team, content(report={}))
    board.jobs.sweep()
    board.work.score(submission.id)
    with board.database.write() as session:
        contests.disqualify_team(session, session.get_one(Team, 6), "shared files")
        found = session.get_one(Submission, submission.id)
        contests.disqualify_submission(session, found, "trained on the test set")
        assert queue.queue_depth(session)["queued"] == 0
    statements = [s for s in asked if s[0].split()[0].upper() in ("SELECT", "UPDATE", "DELETE", "INSERT")]
    assert len(statements) > 20
    faults = {s[0]: found for s in statements if (found := scanned(board, s) & set(BIG)) and "min(" not in s[0]}
    assert faults == {}, faults
    # The history of the record may be made anew: from one contest's submissions, not from all.
    anew = [scanned(board, s) & set(BIG) for s in statements if "INTO records" in s[0] and "min(" in s[0]]
    assert anew and (not board.database.sqlite or anew == [set()] * len(anew))


def test_the_first_reader_after_a_change_asks_once(loaded: tuple[TestClient, Board], asked: list[Statement]) -> None:
    """The order of all teams is read once for a revision; filters and orders then ask for the page's rows only."""
    client, board = loaded
    for question in (RANKING, f"{RANKING}?team=17", f"{RANKING}?sort=time", "/contests/load?max_score=0.2"):
        assert client.get(question).status_code == 200
    standings = [s for s, _ in asked if "FROM standings" in s]
    assert len(standings) == 1
    with board.database.write() as session:
        contests.change(session, contests.find(session, "load"), {"daily_limit": 5})
    assert client.get(RANKING).status_code == 200
    assert len([s for s, _ in asked if "FROM standings" in s]) == 2
    asked.clear()
    assert client.get(RANKING).status_code == 200
    assert len(asked) <= 2, asked  # BEGIN, and the contest's revision
