"""Strangers at the API: names, sizes, speeds, tokens, filters, headers."""

from __future__ import annotations

import concurrent.futures
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn
from board_helpers import auth, content, scripted, wait_for
from fastapi.testclient import TestClient

from leaderboard.app import create_app
from leaderboard.board import Board
from leaderboard.domain import contests, tokens
from leaderboard.service.middleware import CONTENT_SECURITY_POLICY, HEADERS
from leaderboard.settings import BoardSettings

Make = Callable[[str], str]
SUBMIT = "/api/v1/contests/cifar/submissions"
NASTY = [
    "../../../../etc/passwd",
    "..\\..\\windows\\system32",
    "/etc/passwd",
    "a/../../b.pt",
    "nul\x00byte.pt",
    "<script>alert(1)</script>.pt",
    "'; DROP TABLE teams; --",
    "\u202egpj.tp",
    "x" * 255,
    "",
    " ",
    ".",
    "..",
    "%2e%2e%2f",
    "CON",
    "line\r\nSet-Cookie: a=b",
    '"><img src=x onerror=alert(1)>',
]


CAP = 200_000


@pytest.fixture
def live(settings: BoardSettings, board: Board) -> Iterator[str]:
    """A real server on a real socket, with small limits."""
    small = replace(settings, max_upload_bytes=CAP, upload_idle_s=0.5, upload_total_s=2.0, workers=0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = create_app(small, scripted)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("name", NASTY)
def test_names_never_become_paths_or_headers(
    client: TestClient, settings: BoardSettings, token: Make, name: str
) -> None:
    alpha = auth(token("Alpha"))
    answer = client.post(SUBMIT, params={"name": name}, content=content(report={}), headers=alpha)
    assert answer.status_code == 202
    done = wait_for(client, answer.json()["submission"]["id"], alpha)
    shown = done["file_name"]
    assert shown and not set(shown) & set('/\\<>"%\r\n\x00\u202e') and shown not in (".", "..")
    outside = [p for p in settings.directory.parent.rglob("*") if p.is_file() and settings.directory not in p.parents]
    assert outside == []
    file = client.get(f"/api/v1/submissions/{done['id']}/file", headers=alpha)
    assert file.status_code == 200 and "set-cookie" not in file.headers


@pytest.mark.parametrize("note", ["<script>alert(1)</script>", "{{7*7}}", "\x00\x1b[31m", "🦉" * 100, "\u202eabc"])
def test_notes_are_kept_as_text(client: TestClient, token: Make, note: str) -> None:
    answer = client.post(SUBMIT, params={"note": note}, content=content(), headers=auth(token("Alpha")))
    assert answer.status_code == 202 and answer.headers["content-type"] == "application/json"
    shown = answer.json()["submission"]["note"]
    assert not set(shown) & set("\x00\x1b\u202e")


@pytest.mark.parametrize(
    "query",
    [
        "team=' OR 1=1 --",
        "team=%25",
        "team=_",
        "team=x\x00y",
        "team=\ud800",
        "min_accuracy=1e999",
        "max_score=nan",
        "sort=score;DROP TABLE teams",
        "sort=(SELECT 1)",
        "page=1 UNION SELECT 1",
        "descending=1'",
        "section=x' OR '1",
    ],
)
def test_filters_are_values_not_sql(client: TestClient, token: Make, query: str) -> None:
    alpha = auth(token("Alpha"))
    number = client.post(SUBMIT, content=content(report={}), headers=alpha).json()["submission"]["id"]
    wait_for(client, number, alpha)
    raw = query.encode("utf-8", "surrogatepass").replace(b"\x00", b"%00").replace(b" ", b"%20").decode("latin-1")
    answer = client.get(f"/api/v1/contests/cifar/ranking?{raw}")
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        assert answer.json()["rows"] == []
    assert len(client.get("/api/v1/contests/cifar/ranking").json()["rows"]) == 1


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer x",
        "Bearer contest_0000000000000000_" + "A" * 43,
        "Bearer " + "x" * 5000,
    ],
)
def test_bad_tokens_are_no_tokens(client: TestClient, header: str) -> None:
    answer = client.post(SUBMIT, content=b"x", headers={"Authorization": header})
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"


def test_revoked_and_foreign_tokens(client: TestClient, board: Board, token: Make) -> None:
    text = token("Alpha")
    assert client.get("/api/v1/me", headers=auth(text)).status_code == 200
    with board.database.write() as session:
        tokens.revoke(session, text.split("_")[1])
    assert client.get("/api/v1/me", headers=auth(text)).status_code == 401
    assert client.post(SUBMIT, content=b"x", headers=auth(text)).status_code == 401
    other = token("Beta")
    mixed = "_".join([*text.split("_")[:2], other.split("_", 2)[2]])  # one's key, another's secret
    assert client.get("/api/v1/me", headers=auth(mixed)).status_code == 401
    assert client.post(SUBMIT, content=b"x", headers=auth(token(""))).status_code == 403  # organisers have no team


def test_the_database_holds_no_token(board: Board, settings: BoardSettings, token: Make) -> None:
    secret = token("Alpha").split("_", 2)[2]
    for path in settings.directory.iterdir():
        if path.is_file():
            assert secret.encode() not in path.read_bytes()


def test_oversize_declared_or_streamed(live: str, token: Make, settings: BoardSettings) -> None:
    alpha = auth(token("Alpha"))

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    for body in (b"x" * 1_000_000, endless()):
        try:
            answer = httpx.post(live + SUBMIT, content=body, headers=alpha)
            assert answer.status_code == 413 and str(settings.directory) not in answer.text
        except httpx.TransportError:
            pass  # the server may hang up while we still send
    assert httpx.post(live + "/api/v1/contests", content=b"x" * 100_000).status_code == 413
    assert httpx.post(live + SUBMIT, content=b"", headers=alpha).status_code == 422
    assert list(Path(settings.files).glob("incoming-*")) == []


def head_of_form(live: str, token: str, length: int | None, csrf: str = "") -> tuple[bytes, bytes]:
    """A team's upload form up to its file's first byte: header, and the beginning of the body."""
    with httpx.Client(base_url=live) as browser:
        for path in ("/login", "/contests/cifar/submit"):
            found = re.search(r'name="csrf" value="([^"]+)"', browser.get(path).text)
            assert found is not None
            if path == "/login":
                assert browser.post("/login", data={"token": token, "csrf": found[1]}).status_code == 303
        cookie = browser.cookies["contest_session"]
    begin = (
        f'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{csrf or found[1]}\r\n'
        '--b\r\nContent-Disposition: form-data; name="file"; filename="m.pt"\r\n\r\n'
    ).encode()
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {len(begin) + length}"
    header = (
        "POST /contests/cifar/submissions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Cookie: contest_session={cookie}\r\n{size}\r\n\r\n"
    )
    return header.encode(), begin


def head_of_upload(token: str, length: int | None) -> bytes:
    """The header of an upload to the API."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{size}\r\n\r\n".encode()


def converse(live: str, first: bytes, piece: bytes, pause: float, limit_s: float = 8) -> tuple[bytes, int, float]:
    """Send, then piece after piece until an answer comes: the answer, bytes sent, seconds."""
    host, port = live.removeprefix("http://").split(":")
    answer, sent, started = b"", len(first), time.monotonic()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(first)
        connection.settimeout(pause)
        while not answer and time.monotonic() - started < limit_s:
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                try:
                    connection.sendall(piece)
                    sent += len(piece)
                except (ConnectionError, TimeoutError):
                    continue
            except ConnectionError:
                break
    return answer, sent, time.monotonic() - started


@pytest.mark.parametrize("door", ["API", "form"])
@pytest.mark.parametrize("declared", [True, False])
def test_too_large_is_refused_early(
    live: str, board: Board, token: Make, settings: BoardSettings, door: str, declared: bool
) -> None:
    """By what is declared before a byte of the file is read, else at the first byte past the contest's own cap."""
    with board.database.write() as session:
        contests.find(session, "cifar").max_bytes = 50_000
    length = 40_000_000 if declared else None
    header, begin = head_of_upload(token("Alpha"), length), b""
    if door == "form":
        header, begin = head_of_form(live, token("Alpha"), length)

    def chunk(data: bytes) -> bytes:
        return data if declared else b"%x\r\n%s\r\n" % (len(data), data)

    answer, sent, seconds = converse(live, header + (chunk(begin) if begin else b""), chunk(b"x" * 10_000), 0.05)
    assert b" 413 " in answer and seconds < 4
    assert sent < 30_000 if declared else sent < 150_000, sent
    assert list(Path(settings.files).glob("incoming-*")) == []


@pytest.mark.parametrize("door", ["API", "form"])
def test_a_file_goes_to_disk_as_it_arrives(live: str, token: Make, settings: BoardSettings, door: str) -> None:
    """Half an upload is half a file: nothing waits in memory or in another file for the other half."""
    half = CAP // 2
    first = head_of_upload(token("Alpha"), CAP)
    if door == "form":
        first = b"".join(head_of_form(live, token("Alpha"), CAP))
    host, port = live.removeprefix("http://").split(":")
    largest = 0
    for _ in range(8):  # the service cuts off who is silent for half a second: on a busy machine once more
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(first + b"x" * half)
            deadline = time.monotonic() + 0.45
            while largest < half - 70_000 and time.monotonic() < deadline:
                sizes = [path.stat().st_size for path in Path(settings.files).glob("incoming-*")]
                largest = max([largest, *sizes])
        if largest >= half - 70_000:
            break
    assert half - 70_000 <= largest <= half


@pytest.mark.parametrize("door", ["API", "form"])
@pytest.mark.parametrize("pause", [60.0, 0.2])  # silence; and a trickle that never is silent for long
def test_slow_uploads_are_cut_off(live: str, token: Make, settings: BoardSettings, door: str, pause: float) -> None:
    first = head_of_upload(token("Alpha"), 1000)
    if door == "form":
        first = b"".join(head_of_form(live, token("Alpha"), 1000))
    answer, _, seconds = converse(live, first, b"x", pause)
    assert b" 408 " in answer and seconds < 8
    assert list(Path(settings.files).glob("incoming-*")) == []


def test_a_form_that_this_site_did_not_send_is_refused_before_its_file(live: str, token: Make) -> None:
    first = b"".join(head_of_form(live, token("Alpha"), 150_000, csrf="forged"))
    answer, sent, _ = converse(live, first, b"x" * 1000, 0.05)
    assert b" 403 " in answer and sent < 20_000


def test_a_broken_upload_leaves_nothing(live: str, board: Board, settings: BoardSettings, token: Make) -> None:
    host, port = live.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('Alpha')}\r\n"
            "Content-Length: 1000\r\n\r\nhalf".encode()
        )
    deadline = time.monotonic() + 5
    while list(Path(settings.files).glob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(Path(settings.files).glob("*")) == []
    assert httpx.get(live + "/api/v1/me", headers=auth(token("Alpha"))).json()["left_today"] == 1000


def test_one_file_uploaded_at_once_is_one_submission(live: str, token: Make) -> None:
    alpha = auth(token("Alpha"))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: httpx.post(live + SUBMIT, content=b"same", headers=alpha, timeout=30), range(8))
        )
    assert sorted(a.status_code for a in answers) == [200] * 7 + [202]
    assert len({a.json()["submission"]["id"] for a in answers}) == 1


@pytest.mark.parametrize("path", ["/api/v1/contests", "/healthz", "/nothing", "/api/v1/submissions/x"])
def test_every_answer_is_protected(client: TestClient, path: str) -> None:
    answer = client.get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "unsafe" not in CONTENT_SECURITY_POLICY and "eval" not in CONTENT_SECURITY_POLICY
    assert "server" not in answer.headers


def test_an_error_shows_nothing_of_the_machine(
    client: TestClient, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"broken in {board.settings.directory}")

    monkeypatch.setattr("leaderboard.service.api.contests.listing", broken)
    answer = client.get("/api/v1/contests")
    assert answer.status_code == 500 and answer.headers["content-type"] == "application/problem+json"
    for secret in (str(board.settings.directory), "Traceback", "RuntimeError", "broken"):
        assert secret not in answer.text
    assert answer.headers["content-security-policy"]


def test_reading_changes_nothing(client: TestClient) -> None:
    """No state changes by GET: only POST routes write, and the API knows no cookie that another site could use."""
    for route in client.app.openapi()["paths"].values():  # type: ignore[attr-defined]
        assert set(route) <= {"get", "post"}
    answer = client.post(SUBMIT, content=b"x", cookies={"contest_session": "anything"})
    assert answer.status_code == 401
