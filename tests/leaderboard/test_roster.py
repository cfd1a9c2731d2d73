"""Rosters, class codes, names that are shown and names that are not."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from pathlib import Path

import pytest
from board_helpers import auth, content, scripted, submit
from click.testing import CliRunner
from fastapi.testclient import TestClient

from contest.errors import UsageError
from leaderboard.app import create_app
from leaderboard.board import Board
from leaderboard.commands.admin import admin
from leaderboard.domain import contests, ranking, roster, tokens
from leaderboard.domain.roster import JoinError
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import Contest, Submission, Token, now

TABLE = """Team;Name;Courriel;Numéro
Équipe Ada;Ada L.;Ada@Example.edu;1815
Équipe Ada;Grace H.;grace@example.edu;1906
Zuse;Konrad;konrad@example.edu;1910
;Late Comer;late@example.edu;2001
"""


def the(board: Board) -> Contest:
    with board.database.read() as session:
        return contests.find(session, "cifar")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("team,name\nA,B\n", "no column of mails"),
        ("mail\nnobody\n", "line 2 of the roster: 'nobody' is no mail address"),
        ("mail\na@b.ch\nA@B.ch\n", "line 3 of the roster has the mail of line 2"),
        ("mail,team\na@b.ch\n", "line 2 of the roster has another number of columns"),
        ('mail,team\n"a@b.ch,x\n', "roster"),
    ],
)
def test_a_roster_that_is_none_names_the_line(table: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        roster.parse(table)


def test_a_roster_makes_teams_once(any_board: Board) -> None:
    people = roster.parse("\ufeff" + TABLE)
    assert people[0].columns == {"Numéro": "1815"} and people[3].team == ""
    with any_board.database.write() as session:
        done = roster.import_roster(session, contests.find(session, "cifar"), people)
    assert (done.teams, done.added, [h.mail for h in done.handouts]) == (
        2,
        4,
        ["Ada@Example.edu", "grace@example.edu", "konrad@example.edu"],
    )
    with any_board.database.write() as session:  # again, with one more
        more = [*people, roster.Person("new@example.edu", team="zuse", name="New")]
        again = roster.import_roster(session, contests.find(session, "cifar"), more)
    assert (again.teams, again.added, [(h.team, h.mail) for h in again.handouts]) == (
        0,
        1,
        [("Zuse", "new@example.edu")],
    )
    with any_board.database.read() as session:
        viewer = tokens.check(session, done.handouts[0].token)
        zuse = contests.find_team(session, contests.find(session, "cifar"), "Zuse")
        assert viewer is not None and viewer.role == "team"
        assert len(roster.members(session, zuse.contest, zuse)) == 2


def test_the_command_writes_tokens_for_its_owner_alone(settings: BoardSettings, board: Board, tmp_path: Path) -> None:
    table, out = tmp_path / "roster.csv", tmp_path / "tokens.csv"
    table.write_text(TABLE)
    arguments = ["teams", str(table), "--out", str(out), "--directory", str(settings.directory)]
    done = CliRunner().invoke(admin, arguments)
    assert done.exit_code == 0 and "2 new teams, 4 new members" in done.output
    assert out.stat().st_mode & 0o777 == 0o600
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    assert [row["team"] for row in rows] == ["Équipe Ada", "Équipe Ada", "Zuse"]
    with board.database.read() as session:
        assert all(tokens.check(session, row["token"]) for row in rows)
    assert isinstance(CliRunner().invoke(admin, arguments).exception, UsageError), "never over older tokens"


def test_joining_with_a_class_code(any_board: Board) -> None:
    with any_board.database.write() as session:
        contest = contests.find(session, "cifar")
        roster.import_roster(session, contest, [roster.Person("free@example.edu")])
        code = roster.new_code(session, contest).code
        wide = roster.new_code(session, contest, domain="uni.example", days=1)

    def join(*arguments: str) -> roster.Handout:
        with any_board.database.write() as session:
            return roster.join(session, *arguments)

    handout = join(f" {code.lower()} ", "Free@example.edu", "Newcomers", "F.")
    with any_board.database.read() as session:
        viewer = tokens.check(session, handout.token)
        assert viewer is not None and handout.team == "Newcomers"
    for arguments, words in (
        ((code, "free@example.edu", "Others"), "has joined already"),
        ((code, "stranger@uni.example", "Others"), "not on the roster"),
        (("AAAA-BBBB-CCCC", "free@example.edu", "X"), "unknown, revoked or out of date"),
        ((wide.code, "one@uni.example", "newcomers"), "a team of this name exists"),
        ((wide.code, "one@other.example", "X"), "not on the roster"),
        ((wide.code, "one@notuni.example", "X"), "not on the roster"),
    ):
        with pytest.raises(JoinError, match=words):
            join(*arguments)
    assert join(wide.code, "one@uni.example", "Another").team == "Another"
    with any_board.database.write() as session:
        roster.revoke(session, contests.find(session, "cifar"), code)
        session.merge(wide).expires_at = now() - timedelta(seconds=1)
    for text in (code, wide.code):
        with pytest.raises(JoinError, match="out of date"):
            join(text, "two@uni.example", "Third")
    with any_board.database.read() as session:
        assert roster.codes(session, contests.find(session, "cifar")) == []


def test_the_page_of_joining_counts_failures_not_people(settings: BoardSettings, board: Board) -> None:
    with board.database.write() as session:
        code = roster.new_code(session, contests.find(session, "cifar"), domain="uni.example").code
    with TestClient(create_app(settings, scripted), raise_server_exceptions=False) as client:

        def post(**fields: str) -> tuple[int, str]:
            found = re.search(r'name="csrf" value="([^"]+)"', client.get("/join").text)
            assert found is not None
            answer = client.post("/join", data={"csrf": found[1], **fields})
            return answer.status_code, answer.text

        for i in range(15):  # a whole class behind one address
            status, text = post(code=code, mail=f"p{i}@uni.example", team=f"Team {i}", name="<b>x</b>")
            assert status == 200 and "contest_" in text, text
            client.cookies.clear()
        status, text = post(code=code, mail="p3@uni.example", team="Again")
        assert status == 403 and "has joined already" in text
        for _ in range(12):
            status, text = post(code="AAAA-AAAA-AAAA", mail="x@uni.example", team="T")
        assert status == 429 and "try again" in text


def test_renamed_merged_and_given_new_tokens(any_board: Board) -> None:
    contest = the(any_board)
    with any_board.database.read() as session:
        alpha, beta = (contests.find_team(session, contest, name) for name in ("Alpha", "Beta"))
    same = content(report={"score": 0.02})
    for team, data in ((alpha, same), (beta, same), (beta, content(report={"score": 0.01}))):
        any_board.work.score(submit(any_board, contest, team, data)[0].id)
    with any_board.database.write() as session:
        alpha, beta = (contests.find_team(session, contests.find(session, "cifar"), n) for n in ("Alpha", "Beta"))
        old = tokens.create(session, beta)
        with pytest.raises(UsageError, match="has a team 'BETA' already"):
            roster.rename(session, alpha, "BETA")
        roster.rename(session, alpha, "Aleph", "Group 7")
        handout = roster.add_member(session, beta, "b@example.edu")
        roster.merge(session, beta, alpha)
        assert tokens.check(session, handout.token) is not None
    with any_board.database.read() as session:
        contest = contests.find(session, "cifar")
        (row,) = ranking.page(session, contest, whole=True).rows
        assert (row.team, row.score) == ("Aleph", 0.01)
        assert [team.name for team in contests.teams(session, contest)] == ["Aleph"]
        assert session.query(Submission).count() == 2, "the same file of both is one submission"
    with any_board.database.write() as session:
        (new,) = roster.rotate(session, contests.find_team(session, contests.find(session, "cifar"), "Aleph"))
        assert tokens.check(session, old) is None and tokens.check(session, handout.token) is None
        assert tokens.check(session, new.token) is not None
        assert session.query(Token).filter(Token.revoked_at.is_(None)).count() == 1


@pytest.fixture
def class_of_three(board: Board, settings: BoardSettings) -> dict[str, str]:
    """Three ranked teams; the tokens of the last and of an organiser."""
    with board.database.write() as session:
        contests.add_team(session, contests.find(session, "cifar"), "Gammaray")
    contest = the(board)
    for name, score in (("Alpha", 0.01), ("Beta", 0.02), ("Gammaray", 0.03)):
        with board.database.read() as session:
            team = contests.find_team(session, contest, name)
        board.work.score(submit(board, contest, team, content(report={"score": score}))[0].id)
    with board.database.write() as session:
        team = contests.find_team(session, contests.find(session, "cifar"), "Gammaray")
        return {"team": tokens.create(session, team), "admin": tokens.create(session, None)}


PATHS = (
    "/",
    "/contests/cifar",
    "/contests/cifar?section=below_threshold",
    "/contests/cifar?q=alpha",
    "/contests/cifar/chart.json",
    "/contests/cifar/plot.svg",
    "/submissions/1",
    "/submissions/2",
    "/submissions/3",
    "/compare?id=1&id=2",
    "/contests/cifar/teams/1",
    "/contests/cifar/teams/2",
    "/contests/cifar/teams/3",
    "/api/v1/contests/cifar/ranking",
    "/api/v1/contests/cifar/points",
    "/api/v1/contests/cifar/records",
    "/api/v1/contests/cifar/submissions",
    "/api/v1/submissions/1",
    "/api/v1/submissions/1/report",
    "/metrics",
    "/api/v1/contests",
)


@pytest.mark.parametrize("asker", ["public", "team", "admin"])
def test_pseudonyms_hide_names_everywhere(
    settings: BoardSettings, board: Board, class_of_three: dict[str, str], asker: str
) -> None:
    with board.database.write() as session:
        contests.change(session, contests.find(session, "cifar"), {"shown_names": "pseudonyms"})
    with TestClient(create_app(settings, scripted), raise_server_exceptions=False) as client:
        headers = sign_in(client, class_of_three.get(asker, ""))
        shown = "".join(client.get(path, headers=headers).text for path in PATHS)
    assert ("Alpha" in shown, "Beta" in shown) == ((True, True) if asker == "admin" else (False, False))
    assert ("Gammaray" in shown) == (asker != "public")


@pytest.mark.parametrize("asker", ["public", "team", "admin"])
def test_only_the_first_places_are_shown(
    settings: BoardSettings, board: Board, class_of_three: dict[str, str], asker: str
) -> None:
    with board.database.write() as session:
        contests.change(session, contests.find(session, "cifar"), {"shown_places": 1})
    with TestClient(create_app(settings, scripted), raise_server_exceptions=False) as client:
        headers = sign_in(client, class_of_three.get(asker, ""))
        answers = {path: client.get(path, headers=headers) for path in PATHS}
    shown = "".join(answer.text for answer in answers.values())
    assert ("Beta" in shown) == (asker == "admin") and "Alpha" in shown
    assert ("Gammaray" in shown) == (asker != "public")
    assert answers["/submissions/2"].status_code == (200 if asker == "admin" else 404)
    if asker == "team":
        assert "rank 3" in answers["/submissions/3"].text, "one's own rank is one's own"


def sign_in(client: TestClient, token: str) -> dict[str, str]:
    if not token:
        return {}
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/login").text)
    assert found is not None
    client.post("/login", data={"token": token, "csrf": found[1]})
    return auth(token)


@pytest.mark.parametrize("rule", ["lab", "lab-macs", "micronet"])
def test_the_rule_is_never_silent(tmp_path: Path, rule: str) -> None:
    told = CliRunner().invoke(admin, ["create", "spring", "--rule", rule, "--directory", str(tmp_path)]).output
    assert f"rule {rule} version" in told and "2024" in told and "2025-02" in told
    listed = CliRunner().invoke(admin, ["list", "--directory", str(tmp_path)]).output
    assert f"rule {rule} version" in listed
