"""What the service says to HTTP itself: HEAD, hosts, headers without end, what may be kept, metrics."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import pytest
import uvicorn
from board_helpers import auth, content, scripted, wait_for
from fastapi.testclient import TestClient

from leaderboard.app import HeaderDeadline, create_app
from leaderboard.board import Board
from leaderboard.settings import BoardSettings

Make = Callable[[str], str]
SUBMIT = "/api/v1/contests/cifar/submissions"


class Hurried(HeaderDeadline):
    header_s = 0.6


@pytest.fixture
def live(settings: BoardSettings, board: Board) -> Iterator[tuple[str, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(
        create_app(replace(settings, workers=0), scripted),
        port=port,
        http=Hurried,
        log_config=None,
        timeout_keep_alive=30,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield "127.0.0.1", port
    server.should_exit = True
    thread.join()


def trickle(connection: socket.socket, piece: bytes, limit_s: float) -> tuple[bytes, float]:
    """Send a piece every 50 ms until the other side hangs up: its answer, and how long that took."""
    answer, started = b"", time.monotonic()
    connection.settimeout(0.05)
    while time.monotonic() - started < limit_s:
        try:
            received = connection.recv(4096)
            if not received:
                break
            answer += received
        except TimeoutError:
            try:
                connection.sendall(piece)
            except OSError:
                break
        except OSError:
            break
    return answer, time.monotonic() - started


def whole_answer(connection: socket.socket) -> bytes:
    """Head and JSON body, in however many pieces they come."""
    answer = b""
    while not answer.endswith(b"}"):
        piece = connection.recv(4096)
        assert piece, f"closed after {answer!r}"
        answer += piece
    return answer


@pytest.mark.parametrize("first", ["silence", "header", "second request"])
def test_a_header_that_never_ends_is_cut(live: tuple[str, int], first: str) -> None:
    with socket.create_connection(live) as connection:
        if first == "second request":
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in whole_answer(connection)
        if first != "silence":
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        answer, seconds = trickle(connection, b"" if first == "silence" else b"X-More: 1\r\n", 6)
    assert 0.4 < seconds < 4
    assert b" 408 " in answer
    assert httpx.get(f"http://127.0.0.1:{live[1]}/healthz").status_code == 200


def test_an_idle_connection_and_a_slow_body_are_not_headers(live: tuple[str, int], token: Make) -> None:
    with socket.create_connection(live) as connection:
        for _ in range(2):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in whole_answer(connection)
            time.sleep(1.0)  # longer than a header may take
        data = content(report={})
        head = f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('Alpha')}\r\n"
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode())
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(1.0 / len(data))
        assert b"202 Accepted" in whole_answer(connection)


@pytest.mark.parametrize(
    "path", ["/", "/contests/cifar", "/api/v1/contests", "/healthz", "/static/icon.svg", "/nothing"]
)
def test_head_is_get_without_a_body(settings: BoardSettings, board: Board, path: str) -> None:
    with TestClient(create_app(settings, scripted), raise_server_exceptions=False) as client:
        got, head = client.get(path), client.head(path)
    assert head.status_code == got.status_code and head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.headers["content-length"] == str(len(got.content))


def test_hosts(settings: BoardSettings, board: Board) -> None:
    app = create_app(replace(settings, hosts=("board.example",)), scripted)
    with TestClient(app, base_url="http://board.example") as client:
        assert client.get("/").status_code == 200
        for name in ("localhost:8000", "127.0.0.1"):
            assert client.get("/healthz", headers={"Host": name}).status_code == 200
        refused = client.get("/", headers={"Host": "evil.example"})
        assert refused.status_code == 400 and refused.headers["x-content-type-options"] == "nosniff"


def test_metrics_can_be_closed(settings: BoardSettings, board: Board) -> None:
    with TestClient(create_app(replace(settings, metrics=False), scripted)) as client:
        assert client.get("/metrics").status_code == 404
    with TestClient(create_app(replace(settings, metrics_token="m" * 20), scripted)) as client:
        assert client.get("/metrics").status_code == 403
        assert client.get("/metrics", headers=auth("m" * 20)).status_code == 200


def test_what_is_private_is_not_kept(client: TestClient, token: Make) -> None:
    alpha = auth(token("Alpha"))
    number = client.post(SUBMIT, content=content(report={}), headers=alpha).json()["submission"]["id"]
    wait_for(client, number, alpha)
    for path in ("file", "log", "report"):
        answer = client.get(f"/api/v1/submissions/{number}/{path}", headers=alpha)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), path
    for path in ("/api/v1/me", f"/api/v1/submissions/{number}", SUBMIT):
        assert client.get(path, headers=alpha).headers["cache-control"] == "no-store", path
    assert client.get("/api/v1/contests/cifar/ranking").headers["cache-control"] == "no-cache"
