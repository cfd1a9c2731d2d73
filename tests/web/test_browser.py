"""In a real Chromium against a real server. The `page` fixture fails on any error in the console, CSP included."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from seeding import XSS, enter, report
from served import Site

from leaderboard.domain import contests, final, tokens
from leaderboard.storage.tables import State, Submission, now
from scoring.rules import load_rule

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def sign_in(page: Page, token: str) -> None:
    page.goto("/login")
    page.fill("#token", token)
    page.click("button.primary")
    page.get_by_role("button", name="Sign out").wait_for()


def drawn(page: Page, theme: str = "light") -> Any:
    """The chart's element, once it is drawn."""
    return page.wait_for_selector(f'[data-drawn="{theme}"] canvas', timeout=30_000)


def place_of(page: Page, name: str) -> tuple[float, float]:
    """Where a point of the chart is on the screen, by Vega's own scales."""
    x, y = page.evaluate(
        """name => {
            const place = document.querySelector("[data-chart]"), view = place.view;
            place.scrollIntoView({block: "center"});
            const find = mark => (mark.items || []).flatMap(item =>
                item.datum && item.datum.name === name && item.shape !== undefined ? [item]
                : (item.items || []).flatMap(find));
            const item = find(view.scenegraph().root)[0], box = place.querySelector("canvas").getBoundingClientRect();
            const [left, top] = view.origin(), pad = view.padding();
            return [box.left + pad.left + left + item.x, box.top + pad.top + top + item.y];
        }""",
        name,
    )
    return x, y


def team_of(site: Site, slug: str) -> str:
    with site.board.database.write() as session:
        contest = contests.create(session, slug, load_rule("lab"), title=f"Contest {slug}")
        return tokens.create(session, contests.add_team(session, contest, "test team"))


def final_phase_of_long_names(site: Site, slug: str) -> str:
    """A contest that is over, with final results of teams whose names are as long as may be; its page."""
    names = ("Les Réseaux Extraordinairement Économes de Brest", "W" * 80)
    with site.board.database.write() as session:
        contest = contests.create(session, slug, load_rule("lab"), title=f"Contest {slug}")
        for name in names:
            contests.add_team(session, contest, name)
    for name, accuracy in zip(names, (0.92, 0.93), strict=True):
        enter(site.board, slug, name, report(accuracy))
    with site.board.database.write() as session:
        contest = contests.find(session, slug)
        contest.deadline, contest.final_at = now() - timedelta(days=3), now() - timedelta(hours=1)
        final.begin(session, contest)
    return f"/contests/{slug}/final"


def test_submit_watch_rank(page: Page, site: Site, tmp_path: Path) -> None:
    """The whole way of an entry, as its team sees it."""
    file = tmp_path / "model.pt"
    file.write_text(json.dumps({"accuracy": 0.9234}), encoding="utf-8")
    sign_in(page, team_of(site, "live"))
    page.goto("/contests/live/submit")
    page.set_input_files("#file", file)
    page.fill("#note", "from the browser")
    page.click("button.primary")
    page.wait_for_url(re.compile(r"/submissions/\d+$"))
    page.locator(".badge.ranked").wait_for()
    assert page.locator(".figures dd").nth(1).inner_text() == "92.34 %"
    assert "from the browser" in page.content()
    page.click("nav >> text=Ranking")
    assert page.locator(".ranking tbody th").all_inner_texts() == ["test team"]
    assert page.locator("tr.own").count() == 1


def test_a_waiting_submission_changes_by_itself(page: Page, site: Site) -> None:
    token = team_of(site, "wait")
    number = enter(site.board, "wait", "test team", None, state=State.RUNNING)
    sign_in(page, token)
    page.goto(f"/submissions/{number}")
    assert page.locator(".status .badge").inner_text() == "running"
    with site.board.database.write() as session:
        row = session.get_one(Submission, number)
        row.state, row.reason = State.REFUSED, "operation 'aten::fft' is not known to the rules"
    page.locator(".badge.refused").wait_for()
    assert "aten::fft" in page.locator(".status").inner_text()


def test_upload_errors_are_shown(page: Page, site: Site, tmp_path: Path) -> None:
    token = team_of(site, "small")
    with site.board.database.write() as session:
        contests.find(session, "small").max_bytes = 1000
    file = tmp_path / "big.pt"
    file.write_bytes(b"x" * 2000)
    sign_in(page, token)
    page.goto("/contests/small/submit")
    page.set_input_files("#file", file)
    page.click("button.primary")
    assert "larger than the contest allows" in page.locator(".progress-text").inner_text()


def test_chart(page: Page) -> None:
    """Hover shows figures, a click opens the entry, the wheel with Ctrl zooms."""
    page.goto("/contests/spring")
    drawn(page)
    x, y = place_of(page, "test lynx")
    page.mouse.move(x, y)
    tooltip = page.wait_for_selector("#vg-tooltip-element.visible")
    assert tooltip is not None
    assert "test lynx" in tooltip.inner_text()
    page.mouse.move(x + 2, y + 2)
    before = page.evaluate("document.querySelector('[data-chart]').view.scale('x').domain()")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.wait_for_function(
        "w => { const [a, b] = document.querySelector('[data-chart]').view.scale('x').domain(); return b / a < w }",
        arg=0.9 * before[1] / before[0],
    )
    page.mouse.dblclick(x + 150, y - 4)
    page.wait_for_function(
        "d => Math.abs(document.querySelector('[data-chart]').view.scale('x').domain()[0] / d - 1) < 1e-6",
        arg=before[0],
    )
    page.mouse.click(*place_of(page, "test lynx"))
    page.wait_for_url(re.compile(r"/submissions/\d+$"))
    assert "test lynx" in page.locator(".crumbs").inner_text()


def test_the_wheel_alone_scrolls_the_page(page: Page) -> None:
    page.goto("/contests/spring")
    drawn(page)
    x, y = place_of(page, "test lynx")
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(x, min(y, 500))
    page.mouse.wheel(0, 300)
    page.wait_for_function("() => scrollY > 100")


def test_dark_and_light(page: Page) -> None:
    page.goto("/contests/spring")
    drawn(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Switch between dark and light").click()
    drawn(page, "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 28)"
    page.reload()
    drawn(page, "dark")  # it is remembered
    page.get_by_role("button", name="Switch between dark and light").click()
    drawn(page)


def test_the_systems_wish_counts(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto("/contests/spring")
    drawn(page, "dark")
    page.emulate_media(color_scheme="light")
    drawn(page, "light")


def test_compare_two(page: Page) -> None:
    page.goto("/contests/spring")
    button = page.get_by_role("button", name="Compare two selected")
    assert button.is_disabled()
    boxes = page.get_by_role("checkbox")
    boxes.nth(0).check()
    boxes.nth(2).check()
    assert boxes.nth(1).is_disabled()
    button.click()
    page.wait_for_url(re.compile(r"/compare\?id=\d+&id=\d+"))
    assert page.locator("td.better").count() >= 3


def test_filter_and_order(page: Page) -> None:
    page.goto("/contests/spring")
    page.fill("input[name=q]", "r")
    page.click("text=Filter")
    names = page.locator(".ranking tbody th").all_inner_texts()
    assert names
    assert all("r" in name.removeprefix("test ") for name in names)
    page.click("thead >> text=Accuracy")
    page.wait_for_url(re.compile("sort=accuracy"))
    shares = [float(cell.split()[0]) for cell in page.locator(".ranking tbody td:nth-child(5)").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == len(names)


def test_by_keyboard(page: Page) -> None:
    page.goto("/contests/spring")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(12):
        page.keyboard.press("Tab")
        outlined = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outlined == "solid"
    page.locator(".ranking tbody th a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/teams/\d+$"))


def test_hostile_text_is_inert(page: Page, site: Site) -> None:
    """Scripts in every field that a stranger fills: nothing runs, in pages, chart and tooltip."""
    with site.board.database.write() as session:
        contest = contests.create(session, "evil", load_rule("lab"), title=XSS)
        team = contests.add_team(session, contest, XSS[:80])
        path, token = f"/contests/evil/teams/{team.id}", tokens.create(session, team)
    made = report(0.93)
    made["layers"][0]["name"] = made["layers"][1]["kind"] = XSS
    made["provenance"], made["flags"] = {XSS: XSS}, [XSS]
    number = enter(site.board, "evil", XSS[:80], made, note=XSS, file_name=XSS)
    sign_in(page, token)
    for address in (f"/submissions/{number}", path, f"/compare?id={number}&id=1", "/", "/contests/evil"):
        page.goto(address)
        if page.locator("[data-chart]").count():
            drawn(page)
    page.mouse.move(*place_of(page, XSS[:80]))
    page.wait_for_selector("#vg-tooltip-element.visible")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked === undefined")
    assert page.locator("#vg-tooltip-element img, main script, main img").count() == 0


@pytest.mark.slow
def test_without_javascript(chromium: Browser, site: Site, tmp_path: Path) -> None:
    """Everything but the interactive chart: sign in, submit, wait, rank, compare."""
    token = team_of(site, "noscript")
    file = tmp_path / "model.pt"
    file.write_text(json.dumps({"accuracy": 0.91}), encoding="utf-8")
    context = chromium.new_context(base_url=site.url, java_script_enabled=False)
    context.set_default_timeout(15_000)
    page = context.new_page()
    sign_in(page, token)
    page.goto("/contests/noscript/submit")
    page.set_input_files("#file", file)
    page.click("button.primary")
    page.wait_for_url(re.compile(r"/submissions/\d+$"))
    page.locator(".badge.ranked").wait_for(timeout=20_000)  # by meta refresh
    page.goto("/contests/spring")
    assert page.locator(".chart img").get_attribute("src") == "/contests/spring/plot.svg"
    page.get_by_role("checkbox").nth(0).check()
    page.get_by_role("checkbox").nth(1).check()
    page.click("text=Compare two selected")
    assert page.locator("table.compare").count() == 1
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(page: Page, site: Site, width: int, tmp_path: Path) -> None:
    """Every page in full, also as a picture in the test's folder."""
    page.set_viewport_size({"width": width, "height": 850})
    sign_in(page, site.tokens["admin"])
    addresses = (
        "/",
        "/contests/spring",
        "/contests/spring?section=below_threshold",
        "/contests/spring/rules",
        "/submissions/1",
        "/compare?id=1&id=2",
        "/contests/spring/teams/1",
        "/contests/spring/submit",
        "/login",
        "/admin",
        "/admin/contests/spring/roster",
        "/admin/contests/spring/marks",
        "/submissions/1/why?score=0.004",
        final_phase_of_long_names(site, f"wide-{width}"),
    )
    page.set_extra_http_headers({"Accept-Language": "fr" if width == 390 else "en"})  # French words are longer
    for number, address in enumerate(addresses):
        page.goto(address)
        if page.locator("[data-chart]").count():
            drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
        if address.endswith("/final"):  # a name that cannot break leaves room for score and accuracy beside it
            assert page.locator("td b").last.evaluate("e => e.getBoundingClientRect().right <= innerWidth")
        page.screenshot(path=tmp_path / f"{number}-{width}.png", full_page=True)
