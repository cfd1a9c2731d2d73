"""The API from outside: what it says, to whom, and how it may be asked."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from board_helpers import auth, content, scripted, wait_for
from fastapi.testclient import TestClient

from leaderboard.app import create_app
from leaderboard.board import Board
from leaderboard.domain import contests, tokens
from leaderboard.service.middleware import JsonFormatter
from leaderboard.service.schemas import FROM_LABELS, FROM_THE_FILE
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import State, now
from scoring.report import Report

Make = Callable[[str], str]
SUBMIT = "/api/v1/contests/cifar/submissions"
RANKING = "/api/v1/contests/cifar/ranking"


def enter(client: TestClient, headers: dict[str, str], **script: object) -> dict[str, object]:
    answer = client.post(SUBMIT, content=content(**script), headers=headers)
    assert answer.status_code in (200, 202), answer.text
    return wait_for(client, answer.json()["submission"]["id"], headers)


def change(board: Board, **changes: object) -> None:
    with board.database.write() as session:
        contests.change(session, contests.find(session, "cifar"), changes)


def test_a_file_is_submitted_scored_and_ranked(client: TestClient, token: Make) -> None:
    alpha = auth(token("Alpha"))
    answer = client.post(f"{SUBMIT}?name=net.pt&note=hi", content=content(report={"score": 0.02}), headers=alpha)
    assert answer.status_code == 202, answer.text
    number = answer.json()["submission"]["id"]
    assert answer.json()["new"] and answer.headers["location"] == f"/api/v1/submissions/{number}"
    done = wait_for(client, number, alpha)
    assert (done["state"], done["score"], done["file_name"], done["note"]) == ("ranked", 0.02, "net.pt", "hi")
    page = client.get(RANKING).json()
    assert [(row["rank"], row["team"], row["score"]) for row in page["rows"]] == [(1, "Alpha", 0.02)]
    assert [p["score"] for p in client.get("/api/v1/contests/cifar/points").json()] == [0.02]
    assert [r["team"] for r in client.get("/api/v1/contests/cifar/records").json()] == ["Alpha"]
    assert client.get(f"/api/v1/submissions/{number}/report").json()["scores"]["lab"]["total"] == 0.02
    lines = client.get(f"/api/v1/submissions/{number}/log", headers=alpha).json()["lines"]
    assert "received" in lines[0] and "attempt 1" in lines[1] and "ranked" in lines[-1]
    file = client.get(f"/api/v1/submissions/{number}/file", headers=alpha)
    assert file.content == content(report={"score": 0.02}) and "net.pt" in file.headers["content-disposition"]
    again = client.post(SUBMIT, content=content(report={"score": 0.02}), headers=alpha)
    assert again.status_code == 200 and not again.json()["new"] and again.json()["submission"]["id"] == number


def test_what_is_inside_is_for_the_owner(client: TestClient, token: Make) -> None:
    alpha, beta, organiser = auth(token("Alpha")), auth(token("Beta")), auth(token(""))
    number = enter(client, alpha, report={})["id"]
    for part in ("log", "file"):
        assert client.get(f"/api/v1/submissions/{number}/{part}").status_code == 403
        assert client.get(f"/api/v1/submissions/{number}/{part}", headers=beta).status_code == 403
        assert client.get(f"/api/v1/submissions/{number}/{part}", headers=organiser).status_code == 200
    public = client.get(f"/api/v1/submissions/{number}").json()
    assert public["reason"] is None and public["file_name"] is None
    hidden = enter(client, alpha, refuse="no")["id"]
    assert client.get(f"/api/v1/submissions/{hidden}", headers=beta).status_code == 404
    me = client.get("/api/v1/me", headers=alpha).json()
    assert (me["role"], me["team"], me["contest"], me["left_today"]) == ("team", "Alpha", "cifar", 998)


def test_etags_change_with_the_ranking_only(client: TestClient, token: Make) -> None:
    first = client.get(RANKING)
    tag = {"If-None-Match": first.headers["etag"]}
    assert client.get(RANKING, headers=tag).status_code == 304
    assert client.get(f"{RANKING}?size=10", headers=tag).status_code == 200  # another question
    enter(client, auth(token("Alpha")), report={})
    second = client.get(RANKING, headers=tag)
    assert second.status_code == 200 and second.headers["etag"] != first.headers["etag"]


def test_submissions_come_in_pages(client: TestClient, token: Make) -> None:
    alpha = auth(token("Alpha"))
    numbers = [enter(client, alpha, report={"score": 1 + i})["id"] for i in range(5)]
    seen, before = [], ""
    while True:
        page = client.get(f"{SUBMIT}?size=2{before}").json()
        seen += [row["id"] for row in page["submissions"]]
        if page["next_before"] is None:
            break
        before = f"&before={page['next_before']}"
    assert seen == numbers[::-1]
    assert client.get(f"{SUBMIT}?state=refused").json()["submissions"] == []


def test_a_private_ranking_is_for_organisers(client: TestClient, board: Board, token: Make) -> None:
    alpha = auth(token("Alpha"))
    number = enter(client, alpha, report={})["id"]
    change(board, private_until=now() + timedelta(hours=1))
    for path in ("ranking", "points", "records"):
        answer = client.get(f"/api/v1/contests/cifar/{path}")
        assert answer.status_code == 403 and "private until" in answer.json()["detail"]
        assert client.get(f"/api/v1/contests/cifar/{path}", headers=alpha).status_code == 403
        assert client.get(f"/api/v1/contests/cifar/{path}", headers=auth(token(""))).status_code == 200
    assert client.get(f"/api/v1/submissions/{number}").status_code == 404
    assert client.get(f"/api/v1/submissions/{number}", headers=alpha).status_code == 200
    change(board, private_until=now() - timedelta(hours=1))
    assert client.get(RANKING).status_code == 200


@pytest.mark.parametrize("state", ["ranked", "below_threshold", "refused"])
def test_coarse_feedback_hides_figures_everywhere(client: TestClient, board: Board, token: Make, state: str) -> None:
    """Of a report only what follows from the file is shown."""
    change(board, feedback="coarse")
    alpha, beta = auth(token("Alpha")), auth(token("Beta"))
    value = 0.913725 if state == "ranked" else 0.813725
    digits, correct = str(value)[3:], str(round(value * 10_000))
    told = f"accuracy {value} ({correct} of 10,000) is below the threshold"
    more = {
        "details": {"per_class": [{"name": "cat", "accuracy": value}], "confusion": [[int(correct)]]},
        "holdout": {"value": value, "gap": value, "p_value": value},
        "flags": [f"hold-out {value}"],
        "problems": [told] if state == "below_threshold" else [],
    }
    if state == "refused":
        more |= {"status": "flagged", "rankable": False, "problems": ["tensor 'x' is used by nothing", told]}
    entry = enter(client, alpha, report={"accuracy": value, **more})
    number = entry["id"]
    assert entry["state"] == state
    paths = [f"/api/v1/submissions/{number}{part}" for part in ("", "/report", "/log")]
    paths += [f"/api/v1/contests/cifar/{part}" for part in ("ranking", "points", "records", "submissions")]
    paths += ["/api/v1/contests/cifar/ranking?section=below_threshold", "/api/v1/contests", "/api/v1/me"]
    for headers in ({}, alpha, beta):
        for path in paths:
            # Hashes and moments hold any digits.
            text = re.sub(r'"[0-9a-f]{64}"|"[0-9-]{10}T[^"]+"', "", client.get(path, headers=headers).text)
            assert digits not in text and correct not in text, (path, text)
    if state == "refused":
        assert "used by nothing" in entry["reason"]
        assert client.get(paths[1], headers=alpha).json()["problems"] == ["tensor 'x' is used by nothing"]
    organiser = auth(token(""))
    assert digits in client.get(paths[0], headers=organiser).text
    assert client.get(paths[1], headers=organiser).json()["flags"]
    with board.database.write() as session:
        contests.close(session, contests.find(session, "cifar"))
    assert digits in client.get(paths[0], headers=alpha).text


def test_of_every_field_of_a_report_it_is_known_whether_it_comes_from_labels() -> None:
    """A field that nobody has sorted would be shown under coarse feedback: this test asks where it belongs."""
    names = {field.name for field in dataclasses.fields(Report)}
    assert set(FROM_LABELS) | FROM_THE_FILE == names and not set(FROM_LABELS) & FROM_THE_FILE


def test_no_privacy_rests_on_wording(client: TestClient, board: Board, token: Make) -> None:
    """Two problems of files: one begins as the line on the accuracy does, one says the accuracy in other words."""
    change(board, feedback="coarse")
    alpha = auth(token("Alpha"))
    layer = "accuracy head: its weights do not lie on the declared grid"
    told = "only 8,137 of 10,000 images are told rightly"
    flagged = {"status": "flagged", "rankable": False, "accuracy": 0.8137}
    entry = enter(client, alpha, report={**flagged, "problems": [layer, told]})
    assert layer in entry["reason"] and "8,137" not in entry["reason"]
    shown = client.get(f"/api/v1/submissions/{entry['id']}/report", headers=alpha).json()
    assert shown["problems"] == [layer]


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/api/v1/contests/none", 404, "no contest 'none'"),
        ("/api/v1/submissions/999", 404, "999"),
        ("/api/v1/submissions/0", 422, "greater"),
        ("/api/v1/submissions/99999999999999999999", 422, "less"),
        ("/api/v1/contests/cifar/ranking?sort=name", 422, "sort"),
        ("/api/v1/contests/cifar/ranking?size=100000", 422, "size"),
        ("/api/v1/nothing", 404, "Not Found"),
    ],
)
def test_problems_say_what_is_wrong(client: TestClient, path: str, status: int, word: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status and word in answer.json()["detail"]


def test_health_readiness_and_metrics(client: TestClient, token: Make) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").json() == {"status": "ready"}
    enter(client, auth(token("Alpha")), report={})
    text = client.get("/metrics").text
    assert (
        'contest_http_requests_total{method="POST",route="/api/v1/contests/{contest}/submissions",status="202"} 1.0'
        in text
    )
    assert 'contest_scored_total{state="ranked"} 1.0' in text
    assert 'contest_submissions{state="queued"} 0.0' in text


def test_metrics_may_need_a_token(settings: BoardSettings) -> None:
    app = create_app(replace(settings, metrics_token="m" * 32, workers=0), scripted, pages=False)
    with TestClient(app) as client:
        assert client.get("/metrics").status_code == 403
        assert client.get("/metrics", headers=auth("m" * 32)).status_code == 200


def test_too_many_requests_wait(settings: BoardSettings) -> None:
    app = create_app(replace(settings, requests_per_minute=3, workers=0), scripted, pages=False)
    with TestClient(app) as client:
        answers = [client.get("/api/v1/contests") for _ in range(4)]
        assert [a.status_code for a in answers] == [200, 200, 200, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert client.get("/healthz").status_code == 200


def test_a_class_behind_one_address_hands_in_at_once(settings: BoardSettings, board: Board) -> None:
    """Each team has its own measure; guesses at tokens share the one of their address."""
    with board.database.write() as session:
        contest = contests.find(session, "cifar")
        handed = [tokens.create(session, contests.add_team(session, contest, f"Team {i}")) for i in range(9)]
    app = create_app(replace(settings, requests_per_minute=12, writes_per_minute=2, workers=0), scripted, pages=False)
    with TestClient(app) as client:
        for again in range(2):
            for i, one in enumerate(handed):
                answer = client.post(SUBMIT, content=content(n=again, team=i, report={}), headers=auth(one))
                assert answer.status_code == 202, (again, i, answer.text)
        answer = client.post(SUBMIT, content=content(n=3, report={}), headers=auth(handed[0]))
        assert answer.status_code == 429 and "try again in" in answer.json()["detail"]
        guesses = [client.post(SUBMIT, headers=auth(f"contest_{i:016x}_{'a' * 43}")).status_code for i in range(6)]
        assert guesses == [401, 401, 429, 429, 429, 429]
        assert client.get("/api/v1/me", headers=auth(handed[1])).status_code == 200


def test_a_service_that_stops_leaves_nothing_running(settings: BoardSettings, board: Board, token: Make) -> None:
    """Graceful shutdown: a short scoring is finished, none is left in the state 'running'."""
    alpha = auth(token("Alpha"))
    with TestClient(create_app(settings, scripted, pages=False)) as client:
        number = client.post(SUBMIT, content=content(sleep=0.5, report={}), headers=alpha).json()["submission"]["id"]
        while client.get(f"/api/v1/submissions/{number}", headers=alpha).json()["state"] == "queued":
            pass
    with board.database.read() as session:
        counts = contests.count_submissions(session, contests.find(session, "cifar"))
    assert counts == {State.RANKED: 1}


def test_the_database_may_go_away(client: TestClient, board: Board, settings: BoardSettings) -> None:
    engine = client.app.state.board.database.engine  # type: ignore[attr-defined]
    path, away = settings.directory / "leaderboard.sqlite", settings.directory / "away"
    path.rename(away)
    while not path.is_dir():
        with suppress(FileExistsError):  # the service looks for work meanwhile, and may have made a new file
            path.unlink(missing_ok=True)
            path.mkdir()
    engine.dispose()
    try:
        for page in ("/readyz", RANKING):
            answer = client.get(page)
            assert answer.status_code == 503 and answer.headers["retry-after"]
            assert "sqlite" not in answer.text
        assert client.get("/healthz").status_code == 200
    finally:
        path.rmdir()
        away.rename(path)
        engine.dispose()
    assert client.get("/readyz").status_code == 200


def test_logs_are_json_lines() -> None:
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": "a\n%s", "args": ("b",), "submission": 7})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["message"], entry["submission"], entry["level"]) == ("a\nb", 7, "info")


def test_uploads_are_stored_once_by_content(client: TestClient, settings: BoardSettings, token: Make) -> None:
    for team in ("Alpha", "Beta"):
        enter(client, auth(token(team)), report={})
    stored = [path for path in Path(settings.files).rglob("*") if path.is_file()]
    assert len(stored) == 1
