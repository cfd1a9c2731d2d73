"""The commands, and the whole way of a real file through the isolated scoring: submitted, scored, ranked, shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import torch
from board_helpers import content, scripted
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient

from contest import networks
from contest.cli import cli
from contest.errors import ContestError, DataError, UsageError
from contest.model_file import freeze, save
from leaderboard import client
from leaderboard.app import create_app
from leaderboard.client import Client, ServerError
from leaderboard.commands.ranking import bundled_entries
from leaderboard.settings import BoardSettings
from scoring.rules import load_rule

Run = Callable[..., Result]
SHAPE = (1, 8, 8)
RULE = """name = "anybody"
dataset = "digits"
threshold = {threshold}
params_reference = 38757
operations_reference = 774912
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network for the digits."""
    torch.manual_seed(0)
    architecture = networks.parse("thin:widths=4-6,depths=1-1")
    network = networks.build(architecture, SHAPE, 10).eval()
    path = tmp_path_factory.mktemp("model") / "net.pt"
    frozen = freeze(network, architecture, image_shape=SHAPE, classes=10)
    save(frozen, path)
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CONTEST_LEADERBOARD", str(tmp_path / "board"))
    for name in ("CONTEST_DATABASE", "CONTEST_URL", "CONTEST_TOKEN", "CONTEST_DATA"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(cli, [str(a) for a in arguments], standalone_mode=False)

    return invoke


def done(result: Result) -> str:
    assert result.exception is None, result.exception
    return result.stdout


def rule_file(directory: Path, threshold: float) -> Path:
    path = directory / "anybody.toml"
    path.write_text(RULE.format(threshold=threshold))
    return path


def test_a_rule_chooses_the_contest_or_begins_it(run: Run, model: Path, tmp_path: Path) -> None:
    """`contest search` prints `contest submit FILE --rule digits`, whatever contests the board has already."""
    anybody = rule_file(tmp_path, 0.0)
    others = tmp_path / "others.toml"
    others.write_text(anybody.read_text().replace("anybody", "others"))
    for rule in (anybody, others, anybody):
        entry = json.loads(done(run("submit", model, "--team", "Ada", "--rule", rule, "--json")))
        assert entry["rule_name"] == rule.stem
    newest = json.loads(done(run("submit", model, "--team", "Ada", "--json")))
    assert newest["rule_name"] == "others"
    wrong = run("submit", model, "--team", "Ada", "--contest", "anybody", "--rule", others)
    assert isinstance(wrong.exception, ContestError) and "anybody" in str(wrong.exception)


def test_a_real_file_is_scored_in_isolation_and_ranked(run: Run, model: Path, tmp_path: Path) -> None:
    rule = rule_file(tmp_path, 0.0)
    entry = json.loads(done(run("submit", model, "--team", "Ada", "--rule", rule, "--json")))
    assert entry["state"] == "ranked", entry
    assert entry["isolation"] in ("limits", "namespaces", "bubblewrap")
    assert 0 <= entry["accuracy"] <= 1 and entry["params"] + entry["ops"] == pytest.approx(entry["score"])
    assert entry["rule_name"] == "anybody"
    shown = json.loads(done(run("leaderboard", "--json")))
    assert [(row["rank"], row["team"], row["score"]) for row in shown["ranked"]] == [(1, "Ada", entry["score"])]
    assert "Ada" in done(run("leaderboard"))
    written = done(run("plot", "--out", tmp_path / "plot.svg")).split()
    assert [Path(name).name for name in written] == ["plot.svg"] and "<svg" in Path(written[0]).read_text()[:500]
    again = json.loads(done(run("submit", model, "--team", "ada", "--json")))
    assert again["id"] == entry["id"]
    # Under a harder rule the same network is below the threshold, and the old result stays stored.
    done(run("admin", "rescore", "--rule", rule_file(tmp_path / "board", 0.99), "--here"))
    shown = json.loads(done(run("leaderboard", "--json")))
    assert shown["ranked"] == [] and [row["team"] for row in shown["below_threshold"]] == ["Ada"]
    assert done(run("admin", "check")).strip() == "all is well"


@pytest.fixture
def third(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network under a rule with a third term, which is most of the score; what was said of it."""
    monkeypatch.setenv("COLUMNS", "200")
    rule = rule_file(tmp_path, 0.0)
    rule.write_text(f"{rule.read_text()}[terms]\nstorage = 1000\n")
    return done(run("submit", model, "--team", "Ada", "--rule", rule))


def test_the_terms_that_are_printed_add_up_to_the_score(third: str) -> None:
    said = third.replace("\n", " ")
    told = re.search(r"score ([\d.]+) = ([\d.]+) parameters \+ ([\d.]+) operations \+ ([\d.]+) storage ", said)
    assert told is not None, said
    score, *terms = map(float, told.groups())
    assert sum(terms) == pytest.approx(score, abs=2e-6) and terms[2] > 0.5 * score


def test_the_terms_of_the_table_add_up_to_the_score(run: Run, third: str) -> None:
    table = done(run("leaderboard"))
    head, line = (next(row for row in table.splitlines() if word in row) for word in ("parameters", "Ada"))
    cells = dict(zip(re.split(r"\s*[│┃]\s*", head), re.split(r"\s*[│┃]\s*", line), strict=True))
    score, *terms = (float(cells[name]) for name in ("score", "parameters", "operations", "storage"))
    assert sum(terms) == pytest.approx(score, abs=2e-6)
    row = json.loads(done(run("leaderboard", "--json")))["ranked"][0]
    assert row["params"] + row["ops"] + row["measured"]["terms"]["storage"] == pytest.approx(row["score"])
    head, _, line = done(run("leaderboard", "--markdown")).splitlines()
    assert "parameters + operations + storage" in head
    assert sum(map(float, line.split(" | ")[3].split(" + "))) == pytest.approx(score, abs=2e-5)


def test_a_hostile_file_is_refused_with_exit_code_2(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(b"\x80\x04cposix\nsystem\n(S'touch /tmp/owned'\ntR.")
    result = run("submit", path, "--team", "Mallory", "--rule", rule_file(tmp_path, 0.0))
    assert result.return_value == 2 and "refused" in result.stdout
    assert str(tmp_path / "board") not in result.stdout


def test_organising_from_the_command_line(run: Run) -> None:
    done(run("admin", "create", "spring", "--rule", "lab", "--daily", 3, "--title", "Spring contest"))
    text = done(run("admin", "add-team", "Ada")).strip()
    assert text.startswith("contest_") and "\n" not in text
    assert "contest_" in done(run("admin", "token", "Ada", "--label", "laptop", "--days", 3))
    assert "contest_" in done(run("admin", "token", "--organiser"))
    listed = done(run("admin", "tokens"))
    assert "laptop" in listed and "organiser" in listed and text.split("_", 2)[2] not in listed
    done(run("admin", "revoke", text.split("_")[1]))
    assert "revoked" in done(run("admin", "tokens"))
    done(run("admin", "close"))
    assert "closed" in done(run("admin", "list"))
    done(run("admin", "reopen"))
    done(run("admin", "set", "--daily", 5, "--feedback", "coarse", "--private-until", "2099-01-01T00:00"))
    done(run("admin", "disqualify", "--team", "ada", "--reason", "two accounts"))
    done(run("admin", "readmit", "--team", "ada"))
    events = done(run("admin", "events"))
    for word in ("create contest", "add team", "close", "reopen", "disqualify team", "two accounts", "readmit"):
        assert word in events


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("admin", "create", "Bad Name"), "a-z"),
        (("admin", "create", "x", "--isolation", "moon"), "level"),
        (("admin", "close"), "no contest"),
        (("admin", "create", "x", "--private-until", "tomorrow"), "2026-12-24"),
        (("leaderboard",), "contest submit"),
        (("leaderboard", "--url", "ftp://x"), "http://"),
    ],
)
def test_mistakes_are_explained(run: Run, arguments: tuple[str, ...], word: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, UsageError) and word in str(error)


def test_export_and_import_from_the_command_line(run: Run, tmp_path: Path) -> None:
    done(run("admin", "create", "spring"))
    done(run("admin", "add-team", "Ada"))
    assert done(run("admin", "export", tmp_path / "x.tar")).strip() == "1 contests, 2 events, 1 teams, 1 tokens"
    done(run("admin", "import", tmp_path / "x.tar", "--directory", tmp_path / "other"))
    assert "spring: open" in done(run("admin", "list", "--directory", tmp_path / "other"))


@pytest.fixture
def remote(settings: BoardSettings, board: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """`Client` reaches the application without a socket."""
    monkeypatch.setattr(client, "POLL_S", 0.05)
    with TestClient(create_app(settings, scripted, pages=False)) as service:
        monkeypatch.setattr(service, "close", lambda: None)  # one application for several commands
        monkeypatch.setattr(httpx, "Client", lambda **options: _routed(service, options))
        yield service


def _routed(service: TestClient, options: dict[str, object]) -> TestClient:
    service.headers.pop("authorization", None)
    service.headers.update(options["headers"])  # type: ignore[arg-type]
    return service


def test_submitting_elsewhere(remote: TestClient, run: Run, token: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(content(report={"score": 0.04}))
    url = ("--url", "http://testserver")
    entry = json.loads(done(run("submit", path, *url, "--token", token("Alpha"), "--json")))
    assert (entry["state"], entry["team"], entry["file_name"]) == ("ranked", "Alpha", "net.pt")
    path.write_bytes(content(report={"accuracy": 0.5}))
    assert run("submit", path, *url, "--token", token("Beta")).return_value == 1
    shown = json.loads(done(run("leaderboard", *url, "--json")))
    assert [row["team"] for row in shown["ranked"]] == ["Alpha"]
    assert [row["team"] for row in shown["below_threshold"]] == ["Beta"]
    error = run("submit", path, *url, "--token", "wrong").exception
    assert isinstance(error, ServerError) and "401" in str(error)
    assert isinstance(run("submit", path, *url).exception, UsageError)


def test_a_server_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.time, "sleep", lambda _: None)
    with pytest.raises(ServerError, match="does not answer"), Client("http://127.0.0.1:9") as away:
        away.contest()


def test_bundled_networks_need_their_report(tmp_path: Path) -> None:
    assert bundled_entries(load_rule("lab"), tmp_path) == []
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a\.json"):
        bundled_entries(load_rule("lab"), tmp_path)
