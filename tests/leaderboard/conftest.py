"""A board in a temporary directory, on SQLite and on PostgreSQL, with clients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from board_helpers import scripted
from fastapi.testclient import TestClient
from postgres_server import PostgresServer

from leaderboard.app import create_app
from leaderboard.board import Board, open_board
from leaderboard.domain import contests, tokens
from leaderboard.settings import BoardSettings
from scoring.rules import load_rule

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(tmp_path: Path) -> BoardSettings:
    return BoardSettings(
        directory=tmp_path / "board", requests_per_minute=100_000, writes_per_minute=100_000, sweep_s=1
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def any_settings(request: pytest.FixtureRequest, tmp_path: Path) -> BoardSettings:
    """Every storage goes through the same tests."""
    database = ""
    if request.param == "postgresql":
        database = request.getfixturevalue("postgres").new_database(f"test{next(_numbers)}")
    return BoardSettings(directory=tmp_path / "any", database=database, sweep_s=1)


def _filled(settings: BoardSettings) -> Board:
    board = open_board(settings, scripted)
    with board.database.write() as session:
        contest = contests.create(session, "cifar", load_rule("lab"), title="CIFAR-10", daily_limit=1000)
        contests.add_team(session, contest, "Alpha")
        contests.add_team(session, contest, "Beta")
    return board


@pytest.fixture
def board(settings: BoardSettings) -> Iterator[Board]:
    board = _filled(settings)
    yield board
    board.close()


@pytest.fixture
def any_board(any_settings: BoardSettings) -> Iterator[Board]:
    board = _filled(any_settings)
    yield board
    board.close()


@pytest.fixture
def token(board: Board) -> Callable[[str], str]:
    """Makes a token of a team, or of an organiser when the name is empty."""

    def make(team: str) -> str:
        with board.database.write() as session:
            contest = contests.find(session, "cifar")
            return tokens.create(session, contests.find_team(session, contest, team) if team else None)

    return make


@pytest.fixture
def client(settings: BoardSettings, board: Board) -> Iterator[TestClient]:
    """The application with its worker."""
    with TestClient(create_app(settings, scripted, pages=False), raise_server_exceptions=False) as client:
        yield client
