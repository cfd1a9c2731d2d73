"""Below a path of another site, behind a proxy that takes the path off, and behind one that leaves it on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from board_helpers import auth, content, scripted, submit
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from contest.errors import UsageError
from leaderboard.app import create_app
from leaderboard.board import Board
from leaderboard.client import Client
from leaderboard.domain import contests, tokens
from leaderboard.settings import BoardSettings

PREFIX = "/courses/contest"


def proxy(app: ASGIApp, strips: bool) -> ASGIApp:
    """What lies outside of the prefix is another site's."""

    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith(f"{PREFIX}/"), f"{scope['path']} is another site's"
            if strips:
                path = scope["path"].removeprefix(PREFIX)
                scope = {**scope, "path": path, "raw_path": path.encode()}
        await app(scope, receive, send)

    return forward


@pytest.fixture(params=[True, False], ids=["taken off", "left on"])
def site(
    request: pytest.FixtureRequest, settings: BoardSettings, board: Board
) -> Iterator[tuple[TestClient, str, str]]:
    with board.database.write() as session:
        contest = contests.find(session, "cifar")
        team = contests.find_team(session, contest, "Alpha")
        token, organiser = tokens.create(session, team), tokens.create(session, None)
        contest.about = "[rules](/contests/cifar/rules)"
    for score in (0.02, 0.01):
        board.work.score(submit(board, contest, team, content(report={"score": score}))[0].id)
    app = create_app(replace(settings, prefix=PREFIX, workers=0), scripted)
    with TestClient(proxy(app, request.param), follow_redirects=True) as client:
        yield client, token, organiser


def test_every_address_stays_below_the_prefix(site: tuple[TestClient, str, str]) -> None:
    client, _, organiser = site
    login = client.get(f"{PREFIX}/login").text
    found = re.search(r'name="csrf" value="([^"]+)"', login)
    assert found is not None
    told = {"csrf": found[1], "token": organiser, "next": "/contests/cifar/news"}
    answer = client.post(f"{PREFIX}/login", data=told)
    assert answer.url.path == f"{PREFIX}/contests/cifar/news"  # a redirect of ours
    seen: set[str] = set()
    waiting = [f"{PREFIX}/", f"{PREFIX}/submissions/1/why", f"{PREFIX}/compare?id=1&id=2", f"{PREFIX}/nowhere"]
    while waiting:
        path = waiting.pop()
        if path in seen or len(seen) > 150:
            continue
        seen.add(path)
        answer = client.get(path)
        assert answer.status_code == (404 if path.endswith("nowhere") else 200), path
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        for kind, address in re.findall(r' (href|src|action|data-[a-z-]+)="(/[^"]*)"', answer.text):
            address = address.replace("&amp;", "&")
            if kind != "data-root":
                assert address.startswith(f"{PREFIX}/"), f"{path}: {kind}={address}"
            if kind in ("href", "src", "data-chart"):
                waiting.append(address.split("#")[0])
    for part in ("/static/app.js", "/contests/cifar/news", "/submissions/2", "/admin/contests/cifar/roster"):
        assert any(path.startswith(PREFIX + part) for path in seen), part
    assert f"http://testserver{PREFIX}/join" in client.get(f"{PREFIX}/admin/contests/cifar/roster").text


def test_the_command_line_and_the_api_work_there(site: tuple[TestClient, str, str]) -> None:
    client, token, _ = site
    data = content(report={"score": 0.03})
    answer = client.post(f"{PREFIX}/api/v1/contests/cifar/submissions", content=data, headers=auth(token))
    assert answer.status_code == 202 and answer.headers["location"] == f"{PREFIX}/api/v1/submissions/3"
    assert client.get(f"{PREFIX}/openapi.json").json()["servers"] == [{"url": PREFIX}]
    forward = httpx.MockTransport(lambda r: httpx.Response(200, json=client.get(r.url.path).json()))
    with Client(f"http://testserver{PREFIX}/", token, transport=forward) as there:
        assert there.contest("cifar")["name"] == "cifar"


@pytest.mark.parametrize("prefix", ["contest", "/contest/", "/a b", '/"', "//"])
def test_a_prefix_is_a_path(settings: BoardSettings, prefix: str) -> None:
    with pytest.raises(UsageError, match="prefix"):
        replace(settings, prefix=prefix)
