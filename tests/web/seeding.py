"""A leaderboard full of made-up test entries: reports of the right form with figures that nobody measured."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

from contest.errors import RefusedError
from leaderboard.board import Board
from leaderboard.domain import contests, queue, standings, submissions, tokens
from leaderboard.domain.standings import State, Verdict, judge
from leaderboard.storage.file_store import StoredFile
from leaderboard.storage.tables import Submission, now
from scoring.report import Report
from scoring.rules import Rule, load_rule

ANIMALS = (
    "otter",
    "heron",
    "lynx",
    "gecko",
    "ibis",
    "marmot",
    "newt",
    "osprey",
    "puffin",
    "quokka",
    "raven",
    "shrew",
    "tapir",
    "vole",
    "wren",
    "yak",
    "axolotl",
    "badger",
)
XSS = '"><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'


def report(
    accuracy: float, macs: float = 8e6, weights: int = 60_000, bits: int = 4, rule: str = "lab"
) -> dict[str, Any]:
    """A report as `contest score --json` writes it, its terms by the formula of docs/scoring.md."""
    names = ["stem", "stage1.0.conv1", "stage1.0.conv2", "stage2.0.conv1", "stage2.0.conv2", "stage3.0.conv1", "head"]
    parts = [0.06, 0.22, 0.22, 0.18, 0.18, 0.13, 0.01]
    spread = [0.01, 0.07, 0.07, 0.2, 0.28, 0.35, 0.02]
    kept = 0.45
    layers = []
    for name, part, size in zip(names, parts, spread, strict=True):
        wide = 8 if name in ("stem", "head") else bits
        layers.append(
            {
                "name": name,
                "kind": "linear" if name == "head" else "conv",
                "macs": round(macs * part),
                "weights": round(weights * size),
                "nonzeros": round(weights * size * kept),
                "weight_bits": wide,
                "activation_bits": wide,
                "params": weights * size * kept * wide / 32 / 5.6e6,
                "ops": 2 * macs * part * wide / 32 / 8.3e8,
            }
        )
    params, ops = (sum(float(str(row[key])) for row in layers) for key in ("params", "ops"))
    for row in layers:
        row |= {"params_share": float(str(row["params"])) / params, "ops_share": float(str(row["ops"])) / ops}
    scores = {
        name: {
            "params": params,
            "ops": ops * factor,
            "total": params + ops * factor,
            "total_with_bitmask": params + ops * factor + weights / 32 / 5.6e6,
        }
        for name, factor in ((rule, 1.0), ("lab-macs", 8.3 / 5.6))
    }
    correct = round(10_000 * accuracy)
    threshold = load_rule("lab").threshold
    problems = (
        [] if accuracy >= threshold else [f"accuracy {accuracy:.4f} ({correct:,} of 10,000) is below the threshold"]
    )
    measured = {
        "p_s_weights": 0.41,
        "p_s_ops": 0.37,
        "p_u": 1 - kept,
        "q_w": bits + 0.1,
        "q_a": bits + 0.3,
        "q_ops": bits + 0.3,
        "weights": weights,
        "nonzeros": round(weights * kept),
        "parameters": weights + 900,
        "macs": round(macs),
    }
    return {
        "rule": rule,
        "scores": scores,
        "layers": layers,
        "measured": measured,
        "unknown_operations": [],
        "accuracy": {
            "value": accuracy,
            "correct": correct,
            "total": 10_000,
            "low": accuracy - 0.006,
            "high": accuracy + 0.0055,
        },
        "claimed": {"p_u": 1 - kept, "q_w": bits + 0.1, "p_s": 0.4100001},
        "problems": problems,
        "rule_version": 1,
        "dataset": "cifar10",
        "threshold": 0.9,
        "numbers": [],
        "flags": [],
        "rankable": not problems,
        "status": "below" if problems else "rankable",
        "file": {"isolation": "namespaces"},
        "notes": ["3 channels are masked to zero (test data)"],
        "holdout": None,
        "details": {"per_class": [{"name": f"class {i}", "accuracy": accuracy + (i - 4.5) / 90} for i in range(10)]},
        "provenance": {"seed": 3, "recipe": {"epochs": 60, "lr": 0.4}, "torch": "2.15.0"},
    }


def scorer(path: Path, rule: Rule, isolation: str = "") -> Report:
    """Scores a test file, which is JSON: the arguments of `report`, or {"refuse": why}."""
    try:
        arguments = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise RefusedError("the file is no test file") from None
    if "refuse" in arguments:
        raise RefusedError(arguments["refuse"])
    if "name" in arguments:
        made = report(arguments["accuracy"])
        made["layers"][0]["name"] = made["layers"][0]["kind"] = arguments["name"]
        made["provenance"] = {arguments["name"]: arguments["name"]}
        made["problems"] = made["flags"] = [arguments["name"]]
        return Report.from_json(made)
    return Report.from_json(report(**arguments, rule=rule.name))


def enter(board: Board, slug: str, team: str, made: dict[str, Any] | Verdict | None, **columns: Any) -> int:
    """One entry with a report (None: it stays in the queue); gives the submission's number."""
    with board.database.write() as session:
        contest = contests.find(session, slug)
        found = contests.find_team(session, contest, team)
        content = json.dumps([team, repr(made), sorted(map(str, columns.items()))]).encode()
        stored = board.files.take([content], 10**6)
        row, _ = submissions.enter(session, contest, found, StoredFile(stored.sha256, 180_000), name="model.pt")
        if made is not None:
            claim = queue.claim(session, row.id, "seed", 60)
            assert claim is not None
            session.flush()
            verdict = made if isinstance(made, Verdict) else judge(Report.from_json(made), claim.rule)
            queue.finish(session, claim, verdict)
        for name, value in columns.items():
            setattr(session.get_one(Submission, row.id), name, value)
        return row.id


def seed(board: Board, slug: str = "spring", teams: int = 18) -> dict[str, str]:
    """A contest with ranked and other entries; gives tokens: of the organiser and of the first team."""
    chance = random.Random(5)
    with board.database.write() as session:
        contest = contests.create(session, slug, load_rule("lab"), title="Spring contest (test data)")
        members = [contests.add_team(session, contest, f"test {name}") for name in ANIMALS[:teams]]
        found = {"admin": tokens.create(session, None), "team": tokens.create(session, members[0])}
        names = [member.name for member in members]
    for i, name in enumerate(names):
        age = timedelta(hours=3 * (teams - i), minutes=7 * i)
        accuracy = round(0.9 + chance.uniform(-0.012, 0.028), 4)
        made = report(
            accuracy, chance.uniform(4e6, 3e7), chance.randrange(20_000, 300_000), chance.choice([2, 3, 4, 8])
        )
        if i % 5 == 4:
            made["claimed"]["p_u"] = 0.7
        enter(board, slug, name, made, created_at=now() - age, note="distilled, cosine schedule" if i % 3 else "")
    enter(board, slug, names[0], Verdict(State.REFUSED, "operation 'aten::fft' is not known to the rules"))
    with board.database.write() as session:
        standings.rebuild(session, contests.find(session, slug))  # the moments above were set afterwards
    return found
