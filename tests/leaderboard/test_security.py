"""Signed values, CSRF tokens, bearer tokens, file names, stored files, rate limits: the parts by themselves."""

from __future__ import annotations

import os
import stat
import time
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contest.errors import RefusedError, UsageError
from leaderboard.board import Board
from leaderboard.domain import contests, tokens
from leaderboard.domain.tokens import ForbiddenError, Signer, load_signer
from leaderboard.service.access import bearer
from leaderboard.service.middleware import Buckets
from leaderboard.storage.file_store import FileStore, TooLargeError
from leaderboard.storage.tables import now
from leaderboard.text import file_name, name_key, one_line, slug

SIGNER = Signer(b"0" * 32)


def test_what_is_signed_comes_back_for_its_purpose_only() -> None:
    sealed = SIGNER.seal("session", "abc", 60)
    assert SIGNER.open("session", sealed) == "abc"
    assert SIGNER.open("csrf", sealed) is None
    assert Signer(b"1" * 32).open("session", sealed) is None
    assert SIGNER.open("session", SIGNER.seal("session", "abc", -1)) is None
    for i in range(len(sealed)):
        changed = sealed[:i] + ("0" if sealed[i] != "0" else "1") + sealed[i + 1 :]
        assert SIGNER.open("session", changed) is None


@given(st.text())
def test_no_text_opens_by_chance(text: str) -> None:
    assert SIGNER.open("session", text) is None


def test_csrf_tokens_belong_to_a_session() -> None:
    session, other = SIGNER.new_session("k1"), SIGNER.new_session("k1")
    token = SIGNER.csrf_token(session)
    SIGNER.check_csrf(session, token)
    for wrong in ((other, token), (session, ""), ("", token), (session, "x.1.y")):
        with pytest.raises(ForbiddenError):
            SIGNER.check_csrf(*wrong)
    known, visitor = SIGNER.read_session(session), SIGNER.read_session(SIGNER.new_session())
    assert known is not None and known.token_key == "k1" and visitor is not None and visitor.token_key == ""
    assert known.name and known.name != visitor.name
    assert SIGNER.read_session("forged") is None


def test_the_secret_is_made_once_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTEST_SECRET", raising=False)
    first = load_signer(tmp_path)
    assert load_signer(tmp_path) == first and len(first.secret) == 32
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    monkeypatch.setenv("CONTEST_SECRET", "short")
    with pytest.raises(UsageError, match="5 characters"):
        load_signer(tmp_path)


def test_tokens_expire_and_know_their_team(board: Board) -> None:
    with board.database.write() as session:
        team = contests.find_team(session, contests.find(session, "cifar"), "Alpha")
        good = tokens.create(session, team)
        old = tokens.create(session, team, expires_at=now() - timedelta(seconds=1))
        viewer = tokens.check(session, good)
        assert viewer is not None and viewer.team_id == team.id and not viewer.admin
        assert tokens.check(session, old) is None
        assert tokens.check(session, good[:-1] + ("A" if good[-1] != "A" else "B")) is None
        assert tokens.check(session, good + "A") is None
        organiser = tokens.check(session, tokens.create(session, None))
        assert organiser is not None and organiser.admin


@pytest.mark.parametrize(
    ("header", "token"), [("Bearer abc", "abc"), ("bearer abc", "abc"), ("Basic abc", None), (None, None)]
)
def test_bearer(header: str | None, token: str | None) -> None:
    assert bearer(header) == token


@given(st.text(max_size=300))
def test_file_names_are_harmless(text: str) -> None:
    name = file_name(text)
    assert 0 < len(name) <= 120 and not set(name) & set('/\\<>"%\x00\r\n') and name not in (".", "..")
    assert name.isprintable()


def test_names_that_read_the_same_are_the_same() -> None:
    assert name_key("Straße") == name_key("STRASSE") and name_key("Ａｌｐｈａ") == name_key("alpha")
    assert one_line("  a\u200b \n b\x00", "x", 10) == "a b"
    with pytest.raises(UsageError, match="empty"):
        one_line("\u200b\n", "team name", 10)
    assert slug("cifar-10") == "cifar-10"
    for wrong in ("", "-a", "A", "a/b", "a" * 65, "ä"):
        with pytest.raises(UsageError):
            slug(wrong)


def test_files_are_cut_off_and_cleaned_up(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    with pytest.raises(TooLargeError, match="10 bytes"):
        store.take([b"12345", b"678901"], 10)
    with pytest.raises(RefusedError, match="empty"):
        store.take([], 10)
    assert list(tmp_path.iterdir()) == []
    stored = store.take([b"123"], 10)
    assert store.verify(stored.sha256) and store.path(stored.sha256).read_bytes() == b"123"
    (tmp_path / "incoming-dead").write_bytes(b"x")
    (tmp_path / "opened-dead").mkdir()
    assert store.sweep(time.time() - 60) == 0, "an upload that began this minute, a folder that is a moment old"
    os.utime(tmp_path / "opened-dead", (0, 0))  # nobody holds its lock
    assert store.sweep(time.time() - 60) == 1 and store.sweep(time.time() + 60) == 1
    assert store.verify(stored.sha256)
    for wrong in ("../x", "a" * 63, "A" * 64, "a" * 63 + "/"):
        with pytest.raises(UsageError):
            store.path(wrong)


@pytest.mark.parametrize(
    ("content", "name", "ending"),
    [
        (b"PK\x03\x04...", "x", ".pt"),
        (b"\x10\0\0\0\0\0\0\0{}", "x", ".safetensors"),
        (b"\x08\x07...", "x", ".onnx"),
        (b"anything", "net.ONNX", ".onnx"),
        (b"anything", "net.exe", ".pt"),
    ],
)
def test_readers_get_a_name_that_says_the_format(tmp_path: Path, content: bytes, name: str, ending: str) -> None:
    store = FileStore(tmp_path)
    stored = store.take([content], 100)
    with store.opened_as(stored.sha256, name) as path:
        assert path.name == f"model{ending}" and path.read_bytes() == content
    assert not path.exists() and store.verify(stored.sha256)
    assert [path.name for path in tmp_path.iterdir()] == [stored.sha256[:2]]  # and nothing of what was opened


def test_buckets_fill_again() -> None:
    buckets = Buckets(per_minute=60)
    assert [buckets.take("a", 0.0) for _ in range(60)] == [0.0] * 60
    assert buckets.take("a", 0.0) == pytest.approx(1.0)
    assert buckets.take("b", 0.0) == 0.0
    assert buckets.take("a", 1.0) == 0.0 and buckets.take("a", 1.0) > 0
