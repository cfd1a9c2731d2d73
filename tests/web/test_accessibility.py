"""axe-core on every page, in both themes, at both widths: no serious finding."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from served import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGES = (
    "/",
    "/contests/spring",
    "/contests/spring?section=below_threshold&sort=team",
    "/contests/spring/rules",
    "/contests/spring/submit",
    "/contests/spring/teams/1",
    "/submissions/1",
    "/submissions/19",
    "/compare?id=1&id=2",
    "/admin",
    "/admin/contests/spring/roster",
    "/admin/contests/spring/marks",
    "/contests/spring/news",
    "/submissions/1/why?score=0.004",
    "/join",
    "/login",
    "/nowhere",
)


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's script from the npm registry (MPL 2.0; not ours to ship)."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: axe-core cannot be fetched")
    folder = tmp_path_factory.mktemp("axe")
    try:
        done = subprocess.run([npm, "pack", "axe-core@4"], cwd=folder, capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry does not answer: axe-core cannot be fetched")
    archives = list(Path(folder).glob("axe-core-*.tgz"))
    if done.returncode or not archives:
        pytest.skip("axe-core cannot be fetched from the npm registry")
    with tarfile.open(archives[0]) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def findings(page: Page, axe: str) -> list[str]:
    """What axe finds, with impact and place. Run in the debugger's world, which no policy binds."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{page.url} {entry['impact']} {entry['id']}: {node['html'][:160]}"
        for entry in found["violations"]
        for node in entry["nodes"][:3]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_finding(chromium: Browser, site: Site, axe: str, scheme: str, width: int) -> None:
    context = chromium.new_context(
        base_url=site.url,
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": 850},
    )
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.goto("/login")
    page.fill("#token", site.tokens["admin"])
    page.click("button.primary")
    page.get_by_role("button", name="Sign out").wait_for()
    complaints = []
    for path in PAGES:
        page.goto(path)
        for place in page.query_selector_all("[data-chart]"):
            place.wait_for_selector("canvas")
        complaints += findings(page, axe)
    context.close()
    assert not complaints, "\n".join(complaints)


def test_no_serious_finding_on_the_ranking(page: Page, axe: str) -> None:
    """The quick one: the page that everybody sees."""
    page.goto("/contests/spring")
    page.wait_for_selector("[data-drawn]")
    complaints = [text for text in findings(page, axe) if " serious " in text or " critical " in text]
    assert not complaints, "\n".join(complaints)
