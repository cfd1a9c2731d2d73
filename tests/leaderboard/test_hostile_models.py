"""Hostile model files from end to end: uploaded, queued, opened by the product's own isolated child, refused, told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from board_helpers import auth, wait_for
from fastapi.testclient import TestClient

from contest import networks
from contest.model_file import freeze, save
from leaderboard.app import create_app
from leaderboard.board import Board
from leaderboard.domain import contests, tokens
from leaderboard.settings import BoardSettings
from scoring.rules import load_rule
from tests.attacks.hostile import CASES

SUBMIT = "/api/v1/contests/digits/submissions"
EVERY = 25
"""Each takes a child of seconds; `tests/attacks` opens all of them."""


def honest(directory: Path) -> bytes:
    torch.manual_seed(0)
    architecture = networks.parse("thin:widths=4-6,depths=1-1")
    network = networks.build(architecture, (1, 8, 8), 10).eval()
    save(freeze(network, architecture, image_shape=(1, 8, 8), classes=10), directory / "net.pt")
    return (directory / "net.pt").read_bytes()


@pytest.fixture
def service(settings: BoardSettings) -> Iterator[tuple[TestClient, Board, str]]:
    """A contest on the bundled digits with the real scorer, and a team's token."""
    app = create_app(replace(settings, lease_s=60))
    board: Board = app.state.board
    with board.database.write() as session:
        contest = contests.create(session, "digits", load_rule("digits"), daily_limit=1000, total_limit=1000)
        token = tokens.create(session, contests.add_team(session, contest, "Mallory"))
    with TestClient(app) as client:
        yield client, board, token


def through(service: tuple[TestClient, Board, str], labels: list[str]) -> None:
    client, board, token = service
    mallory = auth(token)
    before = {path for path in Path(board.settings.directory).rglob("*") if path.is_file()}
    for label in labels:
        case = CASES[label]
        body = case.make()
        answer = client.post(SUBMIT, params={"name": case.name}, content=body, headers=mallory)
        if not body:
            assert answer.status_code == 422, label
            continue
        assert answer.status_code == 202, label
        ended = wait_for(client, answer.json()["submission"]["id"], mallory, limit_s=300)
        assert ended["state"] == "refused" and ended["reason"], (label, ended)
        assert ended["score"] is None and not ended["measured"], label
        assert str(board.settings.directory) not in ended["reason"], label
        page = client.get(f"/submissions/{ended['id']}")
        assert page.status_code == 404  # a stranger's visitor sees nothing of it
    assert client.get("/api/v1/contests/digits/ranking").json()["rows"] == []
    new = {path for path in Path(board.settings.directory).rglob("*") if path.is_file()} - before
    assert all(path.parent.parent == board.files.directory for path in new if "sqlite" not in path.name)


@pytest.mark.slow
def test_hostile_models_are_refused_and_the_next_honest_one_is_scored(
    service: tuple[TestClient, Board, str], tmp_path: Path
) -> None:
    labels = list(CASES)
    through(service, labels[3::EVERY])
    client, _, token = service
    answer = client.post(SUBMIT, params={"name": "net.pt"}, content=honest(tmp_path), headers=auth(token))
    ended = wait_for(client, answer.json()["submission"]["id"], auth(token), limit_s=300)
    assert ended["state"] == "below_threshold" and ended["score"] > 0


def test_code_in_a_file_is_never_run(service: tuple[TestClient, Board, str], tmp_path: Path) -> None:
    """The quick one: a pickle that would leave a mark."""
    client, _, token = service
    mark = tmp_path / "owned"
    body = f"\x80\x04cposix\nsystem\n(S'touch {mark}'\ntR.".encode("latin-1")
    answer = client.post(SUBMIT, params={"name": "net.pt"}, content=body, headers=auth(token))
    ended = wait_for(client, answer.json()["submission"]["id"], auth(token), limit_s=300)
    assert ended["state"] == "refused" and "net.pt" in ended["reason"] and "pickle" in ended["reason"]
    assert not mark.exists()
