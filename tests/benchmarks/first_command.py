"""The README's first command on the machines of new users. A line for each case; exit code 1 if one fails.

    python tests/benchmarks/first_command.py [--case NAME ...] [--trials 4] [--kills 10]

Cases: one-thread, avx2, full-disk (a small tmpfs, which only root can mount: else it is left out and said), lang-c,
columns-40, columns-60, columns-80 (terminals of so many: no line is wider, but for commands, which are there to be
copied), pipe (its output closed early; lines are whole there, however long), kills (kill -9 at random moments,
`--resume` after each, and the study ends as one that nobody killed).
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import random
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = [sys.executable, "-m", "contest", "search", "--dataset", "digits"]
TIMEOUT_S = 3600


def run(study: Path, trials: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command to its end."""
    return subprocess.run(
        [*COMMAND, "--trials", str(trials), "--study", str(study), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def ended_well(done: subprocess.CompletedProcess[str], study: Path) -> str | None:
    """None, or what is wrong."""
    if done.returncode != 0:
        return f"exit code {done.returncode}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
    if "Traceback" in done.stdout + done.stderr:
        return "a traceback"
    return None if list(study.glob("finalists/*/model.pt")) else "no network"


def plain(folder: Path, options: argparse.Namespace, **environment: str) -> str | None:
    return ended_well(run(folder / "study", options.trials, **environment), folder / "study")


def on_terminal(study: Path, trials: int, width: int) -> tuple[int, str]:
    """(exit code, all that a terminal of so many columns was sent) of the command."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = [*COMMAND, "--trials", str(trials), "--study", str(study)]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm-256color"}
    ) as process:
        os.close(theirs)
        sent = bytearray()
        try:
            while chunk := os.read(ours, 1 << 16):
                sent += chunk
        except OSError:  # the last one has left the terminal
            pass
        os.close(ours)
    return process.returncode, sent.decode(errors="replace")


def columns(width: int) -> Callable[[Path, argparse.Namespace], str | None]:
    def case(folder: Path, options: argparse.Namespace) -> str | None:
        code, sent = on_terminal(folder / "study", options.trials, width)
        lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent))
        wide = [line for line in lines if len(line) > width and not line.startswith("  contest ")]
        if wide:
            return f"a line of {len(wide[0])} columns: {wide[0]}"
        done = subprocess.CompletedProcess(COMMAND, code, sent, "")
        return ended_well(done, folder / "study")

    return case


def full_disk(folder: Path, options: argparse.Namespace) -> str | None:
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], check=False).returncode:
        print("  (left out: this user cannot mount a tmpfs)")
        return None
    try:
        done = run(disk / "study", options.trials)
        if done.returncode == 0 or "Traceback" in done.stderr or "nothing can be written" not in done.stderr:
            return f"exit code {done.returncode}: {done.stderr[-300:]}"
        empty = [p.name for p in disk.rglob("*") if p.is_file() and (p.suffix == ".part" or not p.stat().st_size)]
        if empty:
            return f"left behind: {empty}"
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        return ended_well(run(disk / "study", options.trials, "--resume"), disk / "study")
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def pipe(folder: Path, options: argparse.Namespace) -> str | None:
    """`contest search ... | head -1`: the reader leaves, and no traceback is what is left."""
    command = [*COMMAND, "--trials", str(options.trials), "--study", str(folder / "study")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    return "a traceback" if "Traceback" in said else None


def kills(folder: Path, options: argparse.Namespace) -> str | None:
    whole = folder / "whole"
    started = time.monotonic()
    wrong = ended_well(run(whole, options.trials), whole)
    if wrong:
        return f"without a kill: {wrong}"
    length, study, chance = time.monotonic() - started, folder / "killed", random.Random(0)
    for _ in range(options.kills):
        resume = ["--resume"] if (study / "study.json").exists() else []
        command = [*COMMAND, "--trials", str(options.trials), "--study", str(study), *resume]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(chance.uniform(0.05, 0.9) * length)
            process.kill()
    resume = ["--resume"] if (study / "study.json").exists() else []
    wrong = ended_well(run(study, options.trials, *resume), study)
    names = [{p.parent.name for p in d.glob("finalists/*/model.pt")} for d in (whole, study)]
    return wrong or (None if names[1] else "no finalist")


CASES: dict[str, Callable[[Path, argparse.Namespace], str | None]] = {
    "one-thread": lambda f, o: plain(f, o, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1"),
    "avx2": lambda f, o: plain(f, o, ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2"),
    "full-disk": full_disk,
    "lang-c": lambda f, o: plain(f, o, LANG="C", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "columns-40": columns(40),
    "columns-60": columns(60),
    "columns-80": columns(80),
    "pipe": pipe,
    "kills": kills,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    failed = 0
    for name in options.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            wrong = CASES[name](Path(folder), options)
            failed += wrong is not None
            print(f"{name}: {wrong or 'fine'} ({time.monotonic() - started:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
