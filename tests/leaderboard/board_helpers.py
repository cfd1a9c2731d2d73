"""A scorer that reads its answer from the submitted file, and what else the tests of the board share."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from contest.errors import ContestError, RefusedError
from leaderboard.board import Board
from leaderboard.storage.tables import TERMINAL, Contest, Submission, Team
from scoring.report import Report
from scoring.rules import Rule


def make_report(score: float = 0.01, accuracy: float | None = 0.91, rule: str = "lab", **more: Any) -> Report:
    """A report; `more` are keys of its JSON."""
    total = 10_000
    data = {
        "rule": rule,
        "scores": {
            rule: {"params": score / 4, "ops": score * 3 / 4, "total": score, "total_with_bitmask": score * 1.1}
        },
        "accuracy": None
        if accuracy is None
        else {
            "value": accuracy,
            "correct": round(accuracy * total),
            "total": total,
            "low": accuracy - 0.005,
            "high": accuracy + 0.005,
        },
        "measured": {"p_u": 0.5, "q_w": 4.0, "weights": 1000, "nonzeros": 500},
        "claimed": None,
        "layers": [],
        "unknown_operations": [],
        "problems": [],
        "status": "costs-only" if accuracy is None else "rankable" if accuracy >= 0.9 else "below",
        "rankable": accuracy is not None and accuracy >= 0.9,
        "file": {"isolation": "test"},
        "rule_version": 1,
        "dataset": "cifar10",
        "threshold": 0.9,
        "numbers": [],
        "flags": [],
        "notes": [],
        **more,
    }
    data["claimed"] = data["claimed"] or {}
    return Report.from_json(data)


def scripted(path: Path, rule: Rule, isolation: str = "") -> Report:
    """Does what the submitted JSON says: `report` (`private`: on the data set of that name), `refuse`, `crash`, `late`
    (the child's time ran out) or `sleep`.
    """
    script = json.loads(path.read_bytes())
    time.sleep(script.get("sleep", 0))
    if "refuse" in script:
        raise RefusedError(f"{path}: {script['refuse']}")
    if "crash" in script:
        raise RuntimeError(f"broken at {path}")
    if "late" in script:
        raise ContestError(f"{path}: no answer after 600 s")
    told = script["private"] if rule.dataset == "private" else script.get("report", {})
    return make_report(**{"rule": rule.name, **told})


def content(**script: Any) -> bytes:
    """A file for `scripted`."""
    return json.dumps(script).encode()


def submit(board: Board, contest: Contest, team: Team, data: bytes, name: str = "") -> tuple[Submission, bool]:
    """Hand in bytes as an upload does; gives the submission and whether it is new."""
    with board.files.incoming(10**7) as incoming:
        incoming.write(data)
        return board.submit(contest, team, incoming, name=name)


def auth(token: str) -> dict[str, str]:
    """The header of a bearer."""
    return {"Authorization": f"Bearer {token}"}


def wait_for(client: TestClient, submission: int, headers: dict[str, str], limit_s: float = 15) -> dict[str, Any]:
    """The submission once it has ended."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        state: dict[str, Any] = client.get(f"/api/v1/submissions/{submission}", headers=headers).json()
        if state["state"] in TERMINAL:
            return state
        time.sleep(0.05)
    raise AssertionError(f"submission {submission} is still {state['state']}")
