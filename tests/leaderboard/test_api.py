"""The API from outside."""

from __future__ import annotations

from collections.abc import Callable

from board_helpers import auth, content, wait_for
from fastapi.testclient import TestClient

Make = Callable[[str], str]


def test_a_file_is_submitted_scored_and_ranked(client: TestClient, token: Make) -> None:
    alpha = auth(token("Alpha"))
    answer = client.post(
        "/api/v1/contests/cifar/submissions?name=net.pt&note=hi", content=content(report={"score": 0.02}), headers=alpha
    )
    assert answer.status_code == 202, answer.text
    entered = answer.json()
    assert entered["new"] and entered["submission"]["state"] in ("queued", "running", "ranked")
    done = wait_for(client, entered["submission"]["id"], alpha)
    assert done["state"] == "ranked" and done["score"] == 0.02 and done["file_name"] == "net.pt"
    page = client.get("/api/v1/contests/cifar/ranking").json()
    assert [(row["rank"], row["team"], row["score"]) for row in page["rows"]] == [(1, "Alpha", 0.02)]
