"""Every method has a page with a picture that the tool made."""

from __future__ import annotations

from pathlib import Path

import pytest

from contest import pruning
from contest.lab.results.pictures import IMP

PAGES = Path(__file__).parents[2] / "docs" / "methods"


@pytest.mark.parametrize("name", [*pruning.methods(), IMP])
def test_every_method_has_a_page_and_a_picture(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert f"({name}.svg)" in page and "**When.**" in page and "**Source.**" in page
    assert 0 < (PAGES / f"{name}.svg").stat().st_size < 150_000
    assert f"({name}.md)" in (PAGES / "README.md").read_text(encoding="utf-8")
