"""Many files at once, one row of a table each: a class graded by one command, and resumed where it broke off."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from contest.errors import UsageError
from contest.untrusted.description import shown
from scoring.report_tables import Tail

ENDINGS = (".pt", ".pth", ".safetensors", ".onnx", ".ckpt", ".bin", ".npz", ".t7", ".h5", ".keras", ".tflite")
"""Of the files that a folder is searched for; what is no network of ours is a row that says why."""
COLUMNS = (
    "file",
    "status",
    "score",
    "params",
    "ops",
    "accuracy",
    "low",
    "high",
    "claimed",
    "macs",
    "weights",
    "nonzeros",
    "weight_bits",
    "activation_bits",
    "rule",
    "seconds",
    "reason",
    "arch",
    "sha256",
)
UNFINISHED = ("error",)
"""Rows that are tried again on the next run: the machine may have been the reason."""


@dataclass(frozen=True)
class Grade:
    """A file to score, and the code of its network where it is a checkpoint."""

    path: Path
    arch: str | None = None


OUR_FORMAT = b"contest-model"
"""`contest.model_file.manifest.FORMAT`, which is not asked: it would import torch."""
_FRONT = 64 * 1024


def entries(target: Path, arch: str | None = None) -> list[Grade]:
    """The files of a folder (searched through), or the lines `path` or `path module:factory` of a text file.

    arch: the code of those checkpoints that do not name their own.

    Paths in a list are relative to it. Lines that begin with # are left out.
    """
    if target.is_dir():
        found = [Grade(path, _code(path, arch)) for path in sorted(target.rglob("*")) if _is_network(path)]
        if not found:
            raise UsageError(f"{target} holds no file that ends in {', '.join(ENDINGS)}")
        return found
    lines = [line.strip() for line in target.read_text().splitlines()]
    parts = [line.rsplit(maxsplit=1) for line in lines if line and not line.startswith("#")]
    found = []
    for part in parts:
        own = part[1] if len(part) == 2 and ":" in part[1] else None
        name = part[0] if own or len(part) == 1 else " ".join(part)
        if own is not None and own.partition(":")[0].endswith(".py"):
            own = str(target.parent / own)
        found.append(Grade(target.parent / name, own or _code(target.parent / name, arch)))
    if not found:
        raise UsageError(f"{target} lists no file")
    return found


def _code(path: Path, arch: str | None) -> str | None:
    """The code that is said once for all files, of those that need some: ONNX and our own hold their network."""
    if arch is None or path.suffix.lower() == ".onnx":
        return None
    try:
        with path.open("rb") as file:  # what our files call themselves stands in front
            return None if OUR_FORMAT in file.read(_FRONT) else arch
    except OSError:
        return arch


def _is_network(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.is_file() and path.suffix.lower() in ENDINGS and not hidden


def grade(
    work: Sequence[Grade], table: Path, options: Sequence[str], told: Callable[[Mapping[str, Any], int, int], None]
) -> list[dict[str, str]]:
    """Score each file and append its row at once; rows that stand in the table already are not made again.

    options: of `contest score`, for each file. told: gets each row, its number and how many there are.
    """
    done = _finished(table)
    rows: list[dict[str, str]] = []
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            writer.writeheader()
        for number, entry in enumerate(work, 1):
            digest = _sha256(entry.path)
            row = done.get((str(entry.path), digest, entry.arch or ""))
            if row is None:
                row = {**_row(entry, options), "sha256": digest}
                writer.writerow(row)
                file.flush()
                os.fsync(file.fileno())
            rows.append(row)
            told(row, number, len(work))
    return rows


def _finished(table: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    """Whole rows of an earlier run; the table is written anew without the others (a line that was cut off, errors)."""
    if not table.exists() or not table.stat().st_size:
        return {}
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UsageError(f"{table} is no table of `contest score --csv`: its columns are {reader.fieldnames}")
        whole = [row for row in reader if None not in row.values() and len(row["sha256"]) in (0, 64)]
    kept = [row for row in whole if row["status"] not in UNFINISHED and row["seconds"]]
    beside = table.with_name(table.name + ".part")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
    beside.replace(table)
    return {(row["file"], row["sha256"], row["arch"]): row for row in kept}


def _row(entry: Grade, options: Sequence[str]) -> dict[str, str]:
    """One file in a process of its own: whatever it does, the others are scored."""
    command = [sys.executable, "-m", "contest", "score", str(entry.path), "--json", *options]
    command += ["--arch", entry.arch] if entry.arch else []
    row = dict.fromkeys(COLUMNS, "") | {"file": str(entry.path), "arch": entry.arch or ""}
    start = time.monotonic()
    found = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    row["seconds"] = f"{time.monotonic() - start:.1f}"
    if found.returncode in (0, 1) and found.stdout.lstrip().startswith("{"):
        return row | _figures(json.loads(found.stdout))
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    row["status"] = "refused" if found.returncode in (2, 3) else "error"
    row["reason"] = " ".join(lines[-1].split()).removeprefix("error: ") if lines else f"ended with {found.returncode}"
    return row


def _figures(report: Mapping[str, Any]) -> dict[str, str]:
    score, accuracy, measured = report["scores"][report["rule"]], report["accuracy"] or {}, report["measured"]
    figures = {
        "status": report["status"],
        "score": score["total"],
        "rule": f"{report['rule']} {report['rule_version']}",
        **{term: score.get(term) for term in ("params", "ops")},
        "accuracy": accuracy.get("value"),
        "low": accuracy.get("low"),
        "high": accuracy.get("high"),
        "claimed": " ".join(f"{key}={value:g}" for key, value in report["claimed"].items()),
        "weight_bits": measured["q_w"],
        "activation_bits": measured["q_a"],
        **{key: measured[key] for key in ("macs", "weights", "nonzeros")},
        "reason": "; ".join((*report["problems"], *report["flags"])),
    }
    return {key: _cell(value) for key, value in figures.items()}


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def _sha256(path: Path) -> str:
    from scoring.score import sha256

    return sha256(path) if path.is_file() else ""


def show(rows: Sequence[Mapping[str, str]]) -> Table:
    """The class at a glance: rankable rows by their score, then the others."""
    order = {"rankable": 0, "below": 1, "flagged": 2, "costs-only": 3}
    table = Table(title="Grades", title_justify="left")
    for column in ("file", "status", "score", "accuracy", "claimed"):
        table.add_column(column, justify="right" if column in ("score", "accuracy") else "left")
    for row in sorted(rows, key=lambda r: (order.get(r["status"], 9), float(r["score"] or 1e9), r["file"])):
        table.add_row(Tail(row["file"]), row["status"], row["score"], row["accuracy"], shown(row["claimed"]))
    return table
