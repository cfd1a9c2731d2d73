"""The organiser's text, announcements, and what a team takes home: its files, reports and tries."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus

import pytest
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.pofile import read_po
from board_helpers import content, scripted, submit
from fastapi.testclient import TestClient

from leaderboard.app import create_app
from leaderboard.board import Board
from leaderboard.charts import networks
from leaderboard.commands.ranking import bundled_entries
from leaderboard.domain import claims, contests, tokens
from leaderboard.service import schemas
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import Contest, State
from leaderboard.web import formats, ranking, submissions, teams
from leaderboard.web.formats import markdown
from leaderboard.web.page import LANGUAGES, LOCALE
from scoring.rules import built_in as built_in_rules
from scoring.rules import load_rule


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "![x](http://e.vil/x)",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "<a href='javascript:alert(1)'>x</a>",
        "[x]( java\nscript:alert(1))",
        "`<b>`",
        "<!-- x --><iframe>",
        '[x](http://e.vil/" onmouseover="alert(1))',
        "[x](vbscript:x)",
    ],
)
def test_an_organisers_markdown_is_no_html(text: str) -> None:
    shown = str(markdown(text))
    tags = set(re.findall(r"<\s*/?\s*([a-z0-9]+)", shown))
    assert tags <= {"p", "a", "code"}, shown
    for target in re.findall(r'href="([^"]*)"', shown):
        assert target.startswith(("http://", "https://", "mailto:"))
    assert not re.search(r"<[^>]*\son\w+=", shown)


def test_markdown_is_markdown() -> None:
    shown = str(markdown("# Prizes\n\n* **one** [page](https://e.org)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"))
    for part in ("<h1>Prizes</h1>", "<li><strong>one</strong>", '<a href="https://e.org">page</a>', "<td>1</td>"):
        assert part in shown


@pytest.fixture
def site(settings: BoardSettings, board: Board) -> Iterator[tuple[TestClient, dict[str, str]]]:
    with board.database.write() as session:
        contest = contests.find(session, "cifar")
        found = {name: tokens.create(session, contests.find_team(session, contest, name)) for name in ("Alpha", "Beta")}
        found["admin"] = tokens.create(session, None)
    with board.database.read() as session:
        team = contests.find_team(session, contest, "Alpha")
    for script in ({"report": {"score": 0.02}}, {"refuse": "not a network"}, {"report": {"score": 0.01}}):
        board.work.score(submit(board, contest, team, content(**script), name="net.pt")[0].id)
    with TestClient(create_app(settings, scripted), raise_server_exceptions=False) as client:
        yield client, found


def sign_in(client: TestClient, token: str) -> None:
    client.cookies.clear()
    client.post("/login", data={"token": token, "csrf": csrf(client, "/login")})


def csrf(client: TestClient, path: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def test_news(site: tuple[TestClient, dict[str, str]]) -> None:
    client, found = site
    sign_in(client, found["admin"])
    token = csrf(client, "/contests/cifar/news")
    told = {"csrf": token, "title": "Ensembles <b>count</b>", "body": "Each member is **paid**.", "answer": "1"}
    assert client.post("/admin/contests/cifar/announce", data=told).status_code == 200
    client.post("/admin/contests/cifar/about", data={"csrf": token, "text": "## Prizes\n\nA cake."})
    client.cookies.clear()
    page = client.get("/contests/cifar/news").text
    assert "Answers on the rules" in page and "<strong>paid</strong>" in page and "<h2>Prizes</h2>" in page
    assert "Ensembles &lt;b&gt;count&lt;/b&gt;" in page and "Ensembles" in client.get("/contests/cifar").text
    assert client.post("/admin/contests/cifar/announce", data=told).status_code == 403


def test_a_team_takes_its_work_home(site: tuple[TestClient, dict[str, str]]) -> None:
    client, found = site
    sign_in(client, found["Alpha"])
    file = client.get("/submissions/1/file")
    assert file.content == content(report={"score": 0.02}) and "net.pt" in file.headers["content-disposition"]
    assert client.get("/submissions/3/report.json").json()["scores"]["lab"]["total"] == 0.01
    rows = list(
        csv.DictReader(io.StringIO(client.get("/contests/cifar/teams/1/tries.csv").content.decode("utf-8-sig")))
    )
    assert [(row["number"], row["state"], row["score"]) for row in rows] == [
        ("1", "ranked", "0.02"),
        ("2", "refused", ""),
        ("3", "ranked", "0.01"),
    ]
    assert "not a network" in rows[1]["reason"]
    page = client.get("/submissions/3").text
    assert "/compare?id=1&amp;id=3" in page and "the file" in page
    assert "Mend what the reason names" in client.get("/submissions/2").text
    assert "Why does my own number differ" in page
    # A quarter parameters, three quarters operations (`make_report`): 0.0025 + 0.0075 / 2.
    why = client.get("/submissions/3/why?score=0,00625").text
    assert "operations doubled" in why.split("<table")[1].split("</tr>")[1] and "gives your number" in why
    assert client.get("/submissions/3/why?p_u=140%25").status_code == 422
    assert client.get("/submissions/3/why").status_code == 200
    team = client.get("/contests/cifar/teams/1").text
    assert "Your tries" in team and "Against your" in team and "0.500×" in team.replace("0.5×", "0.500×")
    drawn = client.get("/contests/cifar/teams/1/tries.json?x=params").text
    assert '"3"' in drawn and "parameter term" in drawn and '"angle"' in drawn  # of the same layers: an arrow
    sign_in(client, found["Beta"])
    assert "Your tries" not in client.get("/contests/cifar/teams/1").text
    for path, status in (
        ("/contests/cifar/teams/1/tries.json", 403),
        ("/submissions/1/file", 403),
        ("/contests/cifar/teams/1/tries.csv", 403),
        ("/submissions/3/why", 403),
    ):
        assert client.get(path).status_code == status
    assert client.get("/submissions/2/report.json").status_code == 404


def messages() -> dict[str, str]:
    """Message -> the file that has it: of templates, of sentences with values in them, and of those in tables."""
    found = {}
    templates = sorted((LOCALE.parent / "templates").glob("*.html"))
    charts = LOCALE.parents[1] / "charts"
    for path in (*templates, *sorted(LOCALE.parent.glob("*.py")), *sorted(charts.glob("*.py"))):
        ways = "jinja2.ext:babel_extract" if path.suffix == ".html" else "python"
        keywords = DEFAULT_KEYWORDS if path.suffix == ".html" else {"say": None}
        with path.open("rb") as file:
            for _, message, _, _ in extract(ways, file, keywords=keywords, options={"trimmed": "true"}):
                found[message if isinstance(message, str) else message[0]] = path.name
    rules = [load_rule(name) for name in built_in_rules()]
    waiting = {
        "own_figures": [text for cause in (*claims._CAUSES, claims.GREW_BACK) for text in cause[:2]],
        "submissions": [
            "claimed by the file",
            *submissions._CHECKS,
            *(meaning for _, meaning in submissions._QUANTITIES.values()),
        ],
        "schemas": list(schemas._NEXT_STEPS.values()),
        "formats": [*formats.UNITS],
        "ranking": list(ranking._CONVENTIONS.values()),
        "rules": [text for rule in rules for text in (rule.history, rule.footnote) if text],
        "problems": [HTTPStatus(status).phrase for status in (400, 401, 403, 404, 405, 408, 413, 422, 429, 500, 503)],
        "tables": [state.replace("_", " ") for state in State],
        "news": ["Announcements", "Answers on the rules"],
        "tries": [*networks.TITLES.values(), "float", "half", "channels removed", "pruned", "other", "network"],
        "charts": ["weights", "MACs", "bits"],
    }
    return found | {text: source for source, texts in waiting.items() for text in texts}


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_every_word_of_a_page_is_in_the_language_file(language: str) -> None:
    """And has the same places for figures, and the same tags."""
    with (LOCALE / f"{language}.po").open("rb") as file:
        catalog = read_po(file, locale=language)
    asked = messages()
    assert len(asked) > 250
    missing = [(template, text) for text, template in asked.items() if not (catalog.get(text) and catalog[text].string)]
    assert not missing
    assert not {m.id for m in catalog if m.id} - set(asked), "words that no page says any more"
    for message in catalog:
        if message.id:
            for part in (r"%\(\w+\)s", r"</?\w+", r"%%"):
                assert sorted(re.findall(part, message.id)) == sorted(re.findall(part, message.string)), message.id
    text = "".join(path.read_text(encoding="utf-8") for path in (LOCALE.parent / "templates").glob("*.html"))
    text = re.sub(r"<(pre|code|script|textarea)\b.*?</\1>|{% trans.*?endtrans %}", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", "|", re.sub(r"{{.*?}}|{%.*?%}", "|", text, flags=re.DOTALL))
    words = {part.strip() for part in text.split("|") if re.search("[a-z]{2}", part)}
    words -= {"contest", "· contest", "ref", "/join", "CSV"}
    assert not words, "no file can translate these: wrap them in _() or trans"


def test_pages_speak_the_readers_language(site: tuple[TestClient, dict[str, str]], settings: BoardSettings) -> None:
    client, found = site
    client.cookies.clear()
    for wanted, language, word in (
        ("fr-CH, fr;q=0.9, en;q=0.8", "fr", "Classement"),
        ("de, en;q=0.5", "en", "Ranking"),
        ("", "en", "Ranking"),
        ("x;q=much, fr", "fr", "Classement"),
    ):
        for _ in range(2):  # the second from what is kept for visitors
            answer = client.get("/contests/cifar", headers={"accept-language": wanted})
            assert f'<html lang="{language}"' in answer.text and f'<h2 id="table-title">{word}</h2>' in answer.text
        assert "Accept-Language" in answer.headers["vary"]
    for wanted, word in (("fr", "score selon la r"), ("en", "score under rule lab"), ("fr", "score selon la r")):
        for path in ("/contests/cifar/chart.json", "/contests/cifar/plot.svg"):
            answer = client.get(path, headers={"accept-language": wanted})
            assert word in answer.text and "Accept-Language" in answer.headers["vary"], path
    sign_in(client, found["admin"])
    layers = client.get("/submissions/3/layers.json", headers={"accept-language": "fr"}).text
    assert "part du score" in layers and "part of the score" not in layers
    for path in ("/admin", "/contests/cifar/rules", "/submissions/3", "/contests/cifar/teams/1", "/nowhere", "/join"):
        assert client.get(path, headers={"accept-language": "fr"}).status_code == (404 if path == "/nowhere" else 200)
    with TestClient(create_app(replace(settings, language="fr", workers=0), scripted)) as french:
        assert '<html lang="fr"' in french.get("/", headers={"accept-language": "en"}).text


def test_what_would_help_most_is_said_of_a_real_report() -> None:
    """The bundled network's own: the dearest layers first, and fewer bits where there are some."""
    (entry, *_) = bundled_entries(load_rule("lab"))
    contest = Contest(slug="c", rule=load_rule("lab").to_json(), rule_name="lab")
    found = teams._helps(contest, entry.report)
    assert len(found) == 5 and [row.best for row in found] == sorted((row.best for row in found), reverse=True)
    assert all(0 < row.best < row.params + row.ops + entry.score / 10 for row in found)
    assert teams._helps(contest, None) == []
