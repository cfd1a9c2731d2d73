"""A board with very many made-up submissions, written straight into its tables: for load tests and query plans."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from sqlalchemy import insert, text

from leaderboard.domain import contests, standings
from leaderboard.storage.database import Database
from leaderboard.storage.tables import Contest, State, Submission, Team, now
from leaderboard.text import name_key
from scoring.rules import load_rule

_BATCH = 20_000
MEASURED = {
    "p_s_weights": 0.4,
    "p_s_ops": 0.35,
    "p_u": 0.5,
    "q_w": 4,
    "q_a": 4.0,
    "q_ops": 4.0,
    "weights": 100_000,
    "nonzeros": 50_000,
    "parameters": 101_000,
    "macs": 10_000_000,
}


def fill(database: Database, count: int, per_team: int = 50, slug: str = "load") -> None:
    """So many submissions of count / per_team teams, as if they had been scored."""
    dice = random.Random(0)
    with database.write() as session:
        contest = contests.create(session, slug, load_rule("lab"), daily_limit=10**6, total_limit=10**6)
        first = (session.connection().scalar(text("SELECT max(id) FROM teams")) or 0) + 1
        teams = [
            {
                "contest_id": contest.id,
                "name": f"Team {i}",
                "name_key": name_key(f"Team {i}"),
                "created_at": now(),
                "disqualified_reason": "",
            }
            for i in range(max(1, count // per_team))
        ]
        session.execute(insert(Team), teams)
    for start in range(0, count, _BATCH):
        with database.write() as session:
            numbers = range(start, min(start + _BATCH, count))
            session.execute(insert(Submission), [_row(i, dice, contest, first + i // per_team) for i in numbers])
    with database.write() as session:
        session.execute(text("ANALYZE"))
        standings.rebuild(session, session.get_one(Contest, contest.id))
        session.execute(text("ANALYZE"))


def _row(i: int, dice: random.Random, contest: Contest, team: int) -> dict[str, Any]:
    score, accuracy = 10 ** dice.uniform(-2.5, 0), dice.uniform(0.85, 0.95)
    return {
        "contest_id": contest.id,
        "team_id": team,
        "sha256": f"{dice.getrandbits(256):064x}",
        "size_bytes": 100_000,
        "file_name": "model.pt",
        "note": "",
        "reason": "",
        "log": "",
        "our_fault": False,
        "created_at": now() - timedelta(seconds=10**7 - i),
        "finished_at": now(),
        "attempts": 1,
        "claim": "",
        "state": State.RANKED if accuracy >= 0.9 else State.BELOW_THRESHOLD,
        "disqualified_reason": "",
        "rule_name": "lab",
        "rule_version": contest.rule_version,
        "score": score,
        "params": score / 4,
        "ops": score * 3 / 4,
        "score_with_bitmask": score * 1.05,
        "accuracy": accuracy,
        "isolation": "bubblewrap",
        "accuracy_low": accuracy - 0.005,
        "accuracy_high": accuracy + 0.005,
        "measured": MEASURED,
        "claimed": {"p_u": 0.5, "q_w": 4},
    }
