"""Pages over HTTP, without a browser: what is shown to whom, forms, hostile text, caches."""

from __future__ import annotations

import csv
import html
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from seeding import XSS, enter, report
from served import Site

from leaderboard.domain import contests, ranking, submissions, tokens
from leaderboard.storage.database import Cache
from leaderboard.storage.tables import now
from leaderboard.web import formats
from leaderboard.web.account import own_path
from leaderboard.web.ranking import RankingQuery, parse
from leaderboard.web.upload import UploadForm
from scoring.rules import load_rule


@pytest.fixture
def client(site: Site) -> Iterator[TestClient]:
    client = TestClient(site.app, follow_redirects=False, raise_server_exceptions=False)
    yield client
    client.close()


def csrf(client: TestClient, path: str) -> str:
    """The token of a form on a page."""
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def sign_in(client: TestClient, token: str) -> None:
    answer = client.post("/login", data={"token": token, "csrf": csrf(client, "/login")})
    assert answer.status_code == 303, answer.text


def made_contest(site: Site, slug: str, **settings: object) -> str:
    """A contest of one team; the team's token."""
    with site.board.database.write() as session:
        contest = contests.create(session, slug, load_rule("lab"), title=f"Contest {slug}")
        for name, value in settings.items():
            setattr(contest, name, value)
        return tokens.create(session, contests.add_team(session, contest, "test team"))


def rows(page: str) -> list[str]:
    """The teams of the ranking table, in order."""
    return [html.unescape(name) for name in re.findall(r'<th scope="row"><a href="[^"]+">([^<]+)</a>', page)]


_numbers = itertools.count()
PUBLIC = (
    "/",
    "/contests/spring",
    "/contests/spring/rules",
    "/contests/spring/submit",
    "/contests/spring/teams/1",
    "/login",
    "/submissions/1",
    "/compare",
    "/compare?id=1&id=2",
    "/nowhere",
)


@pytest.mark.parametrize("path", PUBLIC)
def test_every_page_obeys_its_own_policy(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == (404 if path == "/nowhere" else 200)
    policy = answer.headers["content-security-policy"]
    assert "'unsafe" not in policy
    for tag in re.findall(r"<script[^>]*>", answer.text):
        assert ' src="/static/' in tag
    assert "<style" not in answer.text
    assert not re.search(r"<[^>]+\s(style|on\w+)=", answer.text)
    assert re.search(r"<html lang=", answer.text)
    assert answer.text.count("<h1") == 1


def test_ranking_is_by_score(client: TestClient) -> None:
    page = client.get("/contests/spring").text
    scores = [float(text) for text in re.findall(r"<b>(0\.\d+)</b>", page)]
    assert len(scores) == len(rows(page)) >= 10
    assert scores == sorted(scores)


def test_orders_are_links_and_reverse(client: TestClient) -> None:
    by_name = rows(client.get("/contests/spring?sort=team").text)
    assert by_name == sorted(by_name)
    page = client.get("/contests/spring?sort=team&descending=1").text
    assert rows(page) == by_name[::-1]
    assert 'aria-sort="descending"' in page


def test_filters(client: TestClient) -> None:
    assert rows(client.get("/contests/spring?q=LYNX").text) == ["test lynx"]
    everybody = rows(client.get("/contests/spring").text)
    accurate = rows(client.get("/contests/spring?min_accuracy=92").text)
    assert accurate
    assert set(accurate) < set(everybody)
    assert rows(client.get("/contests/spring?min_accuracy=92,0").text) == accurate
    assert "No team matches" in client.get("/contests/spring?q=nobody").text


@pytest.mark.parametrize(
    "query",
    ["sort=evil", "section=evil", "page=0", "page=x", "page=٣", "max_score=a", "min_accuracy=-1", "max_score=nan"],
)
def test_senseless_addresses_are_named(client: TestClient, query: str) -> None:
    answer = client.get(f"/contests/spring?{query}")
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text


def test_the_table_of_visitors_is_made_once_for_each_revision(client: TestClient, site: Site) -> None:
    first = client.get("/contests/spring?q=yak")
    tag = first.headers["etag"]
    assert client.get("/contests/spring?q=yak", headers={"if-none-match": tag}).status_code == 304
    with site.board.database.write() as session:
        contests.find(session, "spring").revision += 1
    again = client.get("/contests/spring?q=yak", headers={"if-none-match": tag})
    assert again.status_code == 200
    assert again.text == first.text


def test_a_new_entry_shows_at_once(client: TestClient, site: Site) -> None:
    made_contest(site, "fresh")
    assert "Nobody is ranked yet." in client.get("/contests/fresh").text
    enter(site.board, "fresh", "test team", report(0.93))
    assert rows(client.get("/contests/fresh").text) == ["test team"]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_plot_can_be_downloaded(client: TestClient, kind: str) -> None:
    answer = client.get(f"/contests/spring/plot.{kind}")
    assert answer.status_code == 200
    assert len(answer.content) > 5_000
    again = client.get(f"/contests/spring/plot.{kind}", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


def test_charts_are_documents_of_vega_lite(client: TestClient) -> None:
    chart = client.get("/contests/spring/chart.json?width=390&theme=dark").json()
    assert "vega-lite" in chart["$schema"]
    assert chart["width"] < 390
    assert client.get("/contests/spring/chart.json?width=100000").status_code == 422
    assert "vega-lite" in client.get("/submissions/1/layers.json").json()["$schema"]


def test_static_files_are_looked_up_by_name(client: TestClient) -> None:
    page = client.get("/").text
    for path in set(re.findall(r'"(/static/[^"]+)"', page)):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    for evil in ("..%2fstatic.py", "%2e%2e/static.py", "static.py", "/etc/passwd"):
        assert client.get(f"/static/{evil}").status_code == 404


def test_submission_page(client: TestClient) -> None:
    page = client.get("/submissions/1").text
    for text in (
        "stage1.<wbr>0.<wbr>conv1",
        "Score under every rule",
        "lab-macs",
        "Two runs agree bit for bit",
        "namespaces",
        "class 9",
        "masked to zero",
    ):
        assert text in page
    assert "Log" not in page  # the owner's affair
    assert "model.pt" not in page


def third(site: Site, slug: str) -> tuple[int, str]:
    """A submission under a rule with a third term, and its team's token."""
    rule = replace(load_rule("lab"), name="third", terms=(("storage", 1e6),))
    with site.board.database.write() as session:
        contest = contests.create(session, slug, rule)
        token = tokens.create(session, contests.add_team(session, contest, "test team"))
    made = report(0.93, rule="third")
    scores = made["scores"]["third"]
    scores |= {"storage": 0.0345} | {key: scores[key] + 0.0345 for key in ("total", "total_with_bitmask")}
    return enter(site.board, slug, "test team", made), token


def test_the_terms_of_the_table_add_up_to_the_score(client: TestClient, site: Site) -> None:
    """And where a rule has the usual two, there is no such column."""
    _, token = third(site, "third")
    page = client.get("/contests/third").text
    heads = [re.sub(r"<[^>]+>|\s", "", head) for head in re.findall(r"<th scope=\"col\".*?</th>", page, re.DOTALL)]
    (line,) = re.findall(r"<tr>\s*<td><input type=\"checkbox\".*?</tr>", page, re.DOTALL)
    cells = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", line, re.DOTALL)]
    shown = dict(zip(heads, cells, strict=True))
    terms = [float(shown[name]) for name in ("Parameters", "Operations", "Storage")]
    assert sum(terms) == pytest.approx(float(shown["Score"]), rel=1e-3) and terms[2] == 0.0345
    assert '"storage": "0.0345"' in client.get("/contests/third/chart.json").text
    assert "storage" not in client.get("/contests/spring").text.lower()
    sign_in(client, token)
    (team,) = re.findall(r"/contests/third/teams/\d+", line)
    (row,) = csv.DictReader(io.StringIO(client.get(f"{team}/tries.csv").text))
    assert sum(float(row[name]) for name in ("params", "ops", "storage")) == pytest.approx(float(row["score"]))
    assert "terms" not in row


def test_the_terms_of_a_submission_add_up_to_the_score(client: TestClient, site: Site) -> None:
    number, _ = third(site, "three")
    figures = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", client.get(f"/submissions/{number}").text))
    terms = [float(figures[name]) for name in ("Parameter term", "Operation term", "Storage")]
    assert sum(terms) == pytest.approx(float(figures["Score"]), rel=1e-3) and terms[2] == 0.0345
    assert "Storage" in client.get(f"/compare?id={number}&id={number}").text
    assert "+ storage / 1,000,000" in client.get("/contests/three/rules").text


def test_the_owner_sees_log_and_refused_files(client: TestClient, site: Site) -> None:
    number = 19
    assert client.get(f"/submissions/{number}").status_code == 404
    sign_in(client, site.tokens["team"])
    page = client.get(f"/submissions/{number}").text
    assert "aten::fft" in page
    assert "scoring begins" in page
    assert "model.pt" in page


def test_compare(client: TestClient) -> None:
    page = client.get("/compare?id=1&id=2").text
    assert "of the other&#39;s score" in page
    assert page.count("(better)") == 5
    for query in ("id=1", "id=1&id=2&id=3", "id=x&id=1", "id=-1&id=2", "id=99999999999999&id=1"):
        assert "Choose two submissions" in client.get(f"/compare?{query}").text
    assert client.get("/compare?id=1&id=999999").status_code == 404


def test_forms_need_their_token(client: TestClient, site: Site) -> None:
    assert client.post("/login", data={"token": site.tokens["team"]}).status_code == 403
    sign_in(client, site.tokens["admin"])
    for path in (
        "/logout",
        "/admin/contests/spring/close",
        "/admin/contests/spring/teams",
        "/admin/submissions/1/disqualify",
    ):
        assert client.post(path, data={"csrf": "no", "name": "x", "reason": "x"}).status_code == 403
        assert client.get(path).status_code in (404, 405)
    with site.board.database.read() as session:
        assert contests.find(session, "spring").closed_at is None


def test_a_form_of_another_session_is_refused(client: TestClient, site: Site) -> None:
    stranger = TestClient(site.app)
    foreign = csrf(stranger, "/login")
    client.get("/login")
    assert client.post("/login", data={"token": site.tokens["team"], "csrf": foreign}).status_code == 403


def test_a_form_from_another_site_is_refused(client: TestClient, site: Site) -> None:
    data = {"token": site.tokens["team"], "csrf": csrf(client, "/login")}
    assert client.post("/login", data=data, headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_signing_in_and_out(client: TestClient, site: Site) -> None:
    wrong = client.post("/login", data={"token": "contest_0_0", "csrf": csrf(client, "/login")})
    assert wrong.status_code == 401
    answer = client.post("/login", data={"token": site.tokens["team"], "csrf": csrf(client, "/login")})
    assert answer.headers["location"] == "/contests/spring"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Sign out" in client.get("/").text
    assert client.post("/logout", data={"csrf": csrf(client, "/")}).status_code == 303
    assert "Sign in" in client.get("/").text


def test_a_cookie_is_worthless_after_signing_out(client: TestClient, site: Site) -> None:
    """Whoever kept a copy of it replays nothing: no page, no form, and not the form's token either."""
    sign_in(client, site.tokens["admin"])
    cookie, form = client.cookies["contest_session"], csrf(client, "/admin")
    thief = TestClient(site.app, follow_redirects=False, cookies={"contest_session": cookie})
    assert thief.get("/admin").status_code == 200
    assert client.post("/logout", data={"csrf": csrf(client, "/")}).status_code == 303
    for _ in range(2):
        assert thief.get("/admin").status_code == 403
        assert thief.post("/admin/contests/spring/close", data={"csrf": form}).status_code == 403
    assert "Sign in" in thief.get("/").text
    sign_in(client, site.tokens["admin"])  # the token itself is as good as before
    assert client.get("/admin").status_code == 200
    thief.close()


def test_provenance_is_shown_as_a_claim(client: TestClient, site: Site) -> None:
    page = client.get("/submissions/1").text
    claims = page.partition("As the file tells it")[2].partition("</section>")[0]
    assert "nobody has checked" in claims
    assert "2.15.0" in claims
    made_contest(site, "untold")
    made = report(0.93)
    del made["provenance"]
    number = enter(site.board, "untold", "test team", made)
    assert "As the file tells it" not in client.get(f"/submissions/{number}").text


def test_a_revoked_token_ends_its_sessions(client: TestClient, site: Site) -> None:
    token = made_contest(site, "revoked")
    sign_in(client, token)
    with site.board.database.write() as session:
        tokens.revoke(session, token.split("_")[1])
    assert "Sign in" in client.get("/").text


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"]
)
def test_no_address_from_outside_sends_anybody_elsewhere(path: str) -> None:
    assert own_path(path) == "/"
    assert own_path("/contests/spring/submit") == "/contests/spring/submit"


def test_submitting_without_a_script(client: TestClient, site: Site) -> None:
    token = made_contest(site, "plain", max_bytes=2_000)
    sign_in(client, token)
    page = "/contests/plain/submit"
    body = json.dumps({"accuracy": 0.92}).encode()
    answer = client.post(
        "/contests/plain/submissions",
        data={"csrf": csrf(client, page), "note": "hello"},
        files={"file": ("../../m.pt", body)},
    )
    assert answer.status_code == 303, answer.text
    shown = client.get(answer.headers["location"]).text
    assert "m.pt" in shown
    assert "../" not in re.sub(r"<[^>]+>", "", shown)
    assert "hello" in shown
    refused = client.post(
        "/contests/plain/submissions", data={"csrf": csrf(client, page)}, files={"file": ("big.pt", b"x" * 3_000)}
    )
    assert refused.status_code == 413
    assert "more than 2000 bytes" in refused.text
    missing = client.post(
        "/contests/plain/submissions", data={"csrf": csrf(client, page)}, files={"other": ("a", b"a")}
    )
    assert "no file was chosen" in missing.text
    forged = client.post("/contests/plain/submissions", data={"csrf": "no"}, files={"file": ("m.pt", body)})
    assert forged.status_code == 403


def test_only_teams_of_the_contest_submit(client: TestClient, site: Site) -> None:
    assert client.post("/contests/spring/submissions", files={"file": ("m.pt", b"x")}).status_code == 403
    sign_in(client, made_contest(site, "other"))
    assert client.post("/contests/spring/submissions", files={"file": ("m.pt", b"x")}).status_code == 403
    assert "sign in" in client.get("/contests/spring/submit").text


def test_private_until_its_date(client: TestClient, site: Site) -> None:
    token = made_contest(site, "secret", private_until=now() + timedelta(days=1))
    number = enter(site.board, "secret", "test team", report(0.93))
    page = client.get("/contests/secret").text
    assert "private until" in page
    assert not rows(page)
    for path in (f"/submissions/{number}", "/contests/secret/chart.json", "/contests/secret/plot.svg"):
        assert client.get(path).status_code in (403, 404)
    assert "0.9" not in client.get("/").text.split("Contest secret")[1].split("</li>")[0]
    sign_in(client, token)
    assert client.get(f"/submissions/{number}").status_code == 200


def test_coarse_feedback_hides_the_exact_accuracy(client: TestClient, site: Site) -> None:
    token = made_contest(site, "coarse", feedback="coarse")
    made = report(0.8873)
    made["flags"], made["holdout"] = ["hold-out 0.8811"], {"value": 0.8811}
    made["details"] = {"per_class": [{"name": "cat", "accuracy": 0.8811}]}
    number = enter(site.board, "coarse", "test team", made)
    for _ in range(2):  # a visitor, then the owner
        page = client.get(f"/submissions/{number}").text
        assert "88.50 %" in page
        assert not re.search(r"88\.73|0\.8873|8,873|0\.8811|88\.1", page)
        sign_in(client, token)


def test_hostile_text_in_every_field(client: TestClient, site: Site) -> None:
    with site.board.database.write() as session:
        contest = contests.create(session, "hostile", load_rule("lab"), title=XSS)
        team = contests.add_team(session, contest, XSS[:80])
        team_id = team.id
    made = report(0.93)
    for key in ("name", "kind"):
        made["layers"][0][key] = XSS
    made["provenance"] = {XSS: XSS}
    made["flags"] = [XSS]
    made["file"] = {"isolation": XSS[:20]}
    made["notes"] = [XSS]
    made["details"]["per_class"][0]["name"] = XSS
    made["measured"]["q_w"] = made["claimed"]["q_w"] = XSS
    made["claimed"][XSS] = XSS
    made["scores"][XSS] = made["scores"]["lab"]
    number = enter(site.board, "hostile", XSS[:80], made, note=XSS, file_name=XSS)
    sign_in(client, site.tokens["admin"])
    with site.board.database.write() as session:
        contests.disqualify_submission(session, submissions.find(session, number, tokens.Viewer("admin")), XSS)
    paths = (
        "/",
        "/contests/hostile",
        f"/submissions/{number}",
        f"/compare?id={number}&id=1",
        "/admin",
        f"/contests/hostile/teams/{team_id}",
        "/contests/hostile/rules",
        "/contests/hostile/submit",
        f"/contests/spring?q={XSS}",
        f"/login?next={XSS}",
        f"/compare?id={XSS}&id=1",
        f"/contests/{XSS}",
        f"/{XSS}",
    )
    for path in paths:
        text = client.get(path).text
        assert "<script>window" not in text, path
        assert "<img src=x" not in text, path


def test_odd_reports_still_give_a_page(client: TestClient, site: Site) -> None:
    """Reports of other versions: whatever is missing or strange, the page stands."""
    made_contest(site, "odd")
    for i, key in enumerate(("layers", "provenance", "details", "holdout", "threshold", "surprise")):
        number = enter(site.board, "odd", "test team", report(0.93 + i / 1000))
        with site.board.database.write() as session:
            result = submissions.latest_result(session, number)
            assert result is not None
            result.report = {**{k: v for k, v in result.report.items() if k != key}, **({key: {}} if i % 2 else {})}
        assert client.get(f"/submissions/{number}").status_code == 200


def test_organisers_page(client: TestClient, site: Site) -> None:
    made_contest(site, "run")
    number = enter(site.board, "run", "test team", report(0.93))
    assert client.get("/admin").status_code == 403
    sign_in(client, site.tokens["admin"])
    shown = client.post("/admin/contests/run/teams", data={"csrf": csrf(client, "/admin"), "name": "Newcomers"}).text
    token = re.search(r"contest_[0-9a-f]{16}_[\w-]{43}", shown)
    assert token is not None
    assert token[0] not in client.get("/admin").text  # shown once
    twice = client.post("/admin/contests/run/teams", data={"csrf": csrf(client, "/admin"), "name": "newcomers"})
    assert twice.status_code == 422
    client.post("/admin/contests/run/close", data={"csrf": csrf(client, "/admin")})
    assert "closed" in client.get("/contests/run").text
    client.post("/admin/contests/run/reopen", data={"csrf": csrf(client, "/admin")})
    path = f"/submissions/{number}"
    client.post(f"/admin{path}/disqualify", data={"csrf": csrf(client, path), "reason": "trained on the test set"})
    assert "trained on the test set" in client.get(path).text
    assert rows(client.get("/contests/run").text) == []
    client.post(f"/admin{path}/readmit", data={"csrf": csrf(client, path)})
    assert rows(client.get("/contests/run").text) == ["test team"]


def test_a_view_survives_its_address() -> None:
    view = RankingQuery("/x", "below_threshold", "team", True, "a&b=c", 0.5, 90.0, 3)
    query = dict(pair.split("=") for pair in view.url().partition("?")[2].split("&"))
    assert query["q"] == "a%26b%3Dc"
    assert parse("/x", query | {"q": "a&b=c"}) == view


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0041234, "0.004123"),
        (1.6669, "1.667"),
        (0.0, "0"),
        (3e-7, "3.000e-07"),
        (None, "–"),
        (float("nan"), "–"),
        ("0.1", "–"),
        (True, "–"),
        (12.3456, "12.35"),
    ],
)
def test_scores_are_written_with_four_digits(value: object, text: str) -> None:
    assert formats.score(value) == text


def test_other_formats() -> None:
    assert formats.percent(0.9) == "90 %"
    assert formats.percent(0.8999) == "89.99 %"
    assert formats.accuracy(0.9) == "90.00 %"
    assert [formats.count(n) for n in (999, 1000, 12_480_000, 999_700, 5e9)] == ["999", "1k", "12.5M", "1M", "5G"]
    assert formats.bits(4.0) == "4"
    assert formats.size(180_000) == "176 KiB"
    assert formats.breakable("a.b/<c>") == "a.<wbr>b/<wbr>&lt;c&gt;<wbr>"


def test_cache_makes_once_for_each_version_and_forgets_the_oldest() -> None:
    cache, made = Cache[int](2), list[int]()

    def make(value: int) -> int:
        made.append(value)
        return value

    for key in (1, 2, 1, 3, 1, 2):
        assert cache.get(key, 0, lambda key=key: make(key)) == key  # type: ignore[misc]
    assert made == [1, 2, 3, 2]
    assert cache.get(2, 1, lambda: make(5)) == 5
    assert cache.get(2, 1, lambda: make(6)) == 5
    assert made == [1, 2, 3, 2, 5]
    with pytest.raises(ZeroDivisionError):
        cache.get("x", 0, lambda: 1 // 0)
    assert cache.get("x", 0, lambda: 5) == 5


def test_sorts_of_the_table_are_known() -> None:
    assert {"team", "score", "accuracy", "params", "ops", "time"} <= set(ranking.SORTS)


def form_body(parts: list[tuple[str, str | None, bytes]], boundary: str = "b0undary") -> tuple[bytes, dict[str, str]]:
    """A multipart body of (name, file name, content) in this order, and its header."""
    body = b""
    for name, file_name, content in parts:
        told = f'; filename="{file_name}"' if file_name is not None else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{told}\r\n\r\n'.encode() + content
        body += b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"content-type": f"multipart/form-data; boundary={boundary}"}


@pytest.mark.parametrize(
    ("damage", "status", "word"),
    [
        (lambda body: body[: len(body) // 2], 422, "breaks off"),
        (lambda body: b"", 422, "breaks off"),
        (lambda body: b"nothing of the kind" * 50, 422, "damaged"),
        (lambda body: body.replace(b"note", b"n" * 5000), 422, "the form"),
        (lambda body: body.replace(b"a remark", b"n" * 5000), 422, "4096"),
        (lambda body: body.replace(b'name="csrf"', b'name="other"'), 403, "no longer"),
        (lambda body: body.replace(b'; filename="m.pt"', b""), 422, "no file"),
        (lambda body: body.replace(b'filename="m.pt"', b'filename=""'), 422, "no file"),
    ],
)
def test_damaged_forms_are_explained(
    client: TestClient, site: Site, damage: Callable[[bytes], bytes], status: int, word: str
) -> None:
    slug = f"form-{next(_numbers)}"
    sign_in(client, made_contest(site, slug))
    token = csrf(client, f"/contests/{slug}/submit").encode()
    file = json.dumps({"accuracy": 0.92}).encode()
    body, header = form_body([("csrf", None, token), ("note", None, b"a remark"), ("file", "m.pt", file)])
    answer = client.post(f"/contests/{slug}/submissions", content=damage(body), headers=header)
    assert (answer.status_code, word in answer.text) == (status, True), answer.text
    assert not list(site.board.settings.files.glob("incoming-*"))
    with site.board.database.read() as session:
        assert contests.count_submissions(session, contests.find(session, slug)) == {}
    assert client.post(f"/contests/{slug}/submissions", content=body, headers=header).status_code == 303


def test_a_form_is_read_the_same_in_whatever_pieces_it_arrives(site: Site) -> None:
    parts = [("csrf", None, b"t"), ("note", None, "grüße".encode()), ("file", "n\u00e9t.pt", bytes(range(256)) * 20)]
    body, header = form_body(parts)
    for size in (1, 7, 4096, 10**6):
        with site.board.files.incoming(10**6) as incoming:
            seen: list[Mapping[str, str]] = []
            form = UploadForm(header["content-type"], "file", incoming, seen.append)
            for start in range(0, len(body), size):
                form.feed(body[start : start + size])
            form.finish()
            stored = incoming.keep()
        assert seen == [{"csrf": "t", "note": "grüße"}] and form.file_name == "n\u00e9t.pt"
        assert stored.size_bytes == 256 * 20
        assert site.board.files.path(stored.sha256).read_bytes() == bytes(range(256)) * 20
