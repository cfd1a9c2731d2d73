"""The programs of docs/python.md run as they are printed, one after the other in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def test_every_program_runs(tmp_path: Path) -> None:
    programs = {
        title: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        for title, text in SECTION.findall(PAGE.read_text(encoding="utf-8"))
    }
    assert all(programs.values()), f"a section without a program: {[t for t, p in programs.items() if not p]}"
    said = {}
    for title, blocks in programs.items():
        for block in blocks:
            ran = subprocess.run(
                [sys.executable, "-W", "error::UserWarning:__main__", "-c", block],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
                cwd=tmp_path,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            assert ran.returncode == 0, f"{title}\n{ran.stderr}"
            said[title] = ran.stdout
    scored = next(text for title, text in said.items() if "contest score" in title)
    accuracy = float(re.search(r"accuracy ([\d.]+)%", scored)[1])  # type: ignore[index]
    assert accuracy > 80, scored  # ten classes: chance is 10
    entered = next(text for title, text in said.items() if "contest submit" in title)
    # The very file that was scored a section above: the same score, and its state.
    score = re.search(r"^(0\.\d{4}) =", scored)
    assert score is not None and f"score {score[1]} at {accuracy:.1f}%" in entered
    assert entered.split(":")[0] == ("ranked" if "rankable" in scored else "below_threshold")
