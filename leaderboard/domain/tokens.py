"""Who is asking: bearer tokens, and the sessions of browsers that showed one.

A token is `contest_<key>_<secret>` with 256 random bits of secret: shown once, compared in constant time. Its row is
found by the key, which is no secret; only the SHA-256 of the secret is stored. A slow hash would add nothing: nobody
guesses 256 bits. Sessions and forms are signed with the deployment's own secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from contest.errors import ContestError, UsageError
from leaderboard.storage.tables import EndedSession, Team, Token, now
from leaderboard.text import one_line

_FORM = re.compile(r"contest_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"no such token").hexdigest()


@dataclass(frozen=True)
class Viewer:
    """Who is asking."""

    role: Literal["public", "team", "admin"] = "public"
    team_id: int | None = None
    contest_id: int | None = None
    token_key: str = ""

    @property
    def admin(self) -> bool:
        return self.role == "admin"

    def owns(self, team_id: int) -> bool:
        """Whether what belongs to the team may be shown and changed."""
        return self.admin or (self.team_id is not None and self.team_id == team_id)


PUBLIC = Viewer()


def create(session: Session, team: Team | None, *, label: str = "", expires_at: datetime | None = None) -> str:
    """A new token for a team, or for an organiser when `team` is None. This text exists nowhere else."""
    key, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    session.add(
        Token(
            key=key,
            digest=_digest(secret),
            role="admin" if team is None else "team",
            team_id=None if team is None else team.id,
            label=one_line(label, "token label", 80, required=False),
            expires_at=expires_at,
        )
    )
    session.flush()
    return f"contest_{key}_{secret}"


def check(session: Session, token: str) -> Viewer | None:
    """Who holds the token; None for one that is unknown, revoked or out of date."""
    match = _FORM.fullmatch(token)
    if match is None:
        return None
    row = session.scalar(select(Token).where(Token.key == match[1]))
    # Compared even when the key is unknown: the answer takes as long.
    genuine = hmac.compare_digest(_digest(match[2]), row.digest if row else _NOBODY)
    return viewer_of(session, row) if genuine and row is not None else None


def viewer_by_key(session: Session, key: str) -> Viewer | None:
    """Who holds the token with this public half: for sessions that proved the secret when they began."""
    row = session.scalar(select(Token).where(Token.key == key))
    return None if row is None else viewer_of(session, row)


def viewer_of(session: Session, row: Token) -> Viewer | None:
    """The holder of a token that is still good."""
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now()):
        return None
    if row.role == "admin":
        return Viewer("admin", token_key=row.key)
    team = session.get(Team, row.team_id)
    return None if team is None else Viewer("team", team.id, team.contest_id, row.key)


def revoke(session: Session, key: str) -> None:
    """Make a token useless from now on. Raises UsageError when there is none with this key."""
    key = key.removeprefix("contest_")[:16]
    found = session.execute(update(Token).where(Token.key == key, Token.revoked_at.is_(None)).values(revoked_at=now()))
    if not found.rowcount:  # type: ignore[attr-defined]
        raise UsageError(f"there is no token '{key}' that could be revoked; `contest admin tokens` lists them")


def end_session(session: Session, name: str, lifetime: timedelta) -> None:
    """Make a browser session's cookie useless; `lifetime` is the longest that it would have been good."""
    session.execute(delete(EndedSession).where(EndedSession.expires_at < now()))
    if not has_ended(session, name):
        session.add(EndedSession(key=name, expires_at=now() + lifetime))


def has_ended(session: Session, name: str) -> bool:
    """Whether a browser session was signed out."""
    return session.get(EndedSession, name) is not None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


SESSION_S = 12 * 3600
FORM_S = 2 * 3600


class ForbiddenError(ContestError):
    """The request is not allowed: no token, a wrong one, or a form that this site did not send."""

    exit_code = 3


class UnauthorizedError(ForbiddenError):
    """The request needs a token."""


@dataclass(frozen=True)
class BrowserSession:
    """What a session cookie says: its own name, and the public half of the token that began it ('' for a visitor)."""

    name: str
    token_key: str


@dataclass(frozen=True)
class Signer:
    """Signs values for one deployment; what was signed for one purpose is worthless for another."""

    secret: bytes

    def seal(self, purpose: str, value: str, lifetime_s: int) -> str:
        """`value` with a time limit and a signature. The value stays readable: it must be no secret."""
        body = f"{value}.{int(time.time()) + lifetime_s}"
        return f"{body}.{self._mac(purpose, body)}"

    def open(self, purpose: str, sealed: str) -> str | None:
        """The value, or None when the signature or the time is wrong."""
        body, _, mac = sealed.rpartition(".")
        value, _, expiry = body.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(purpose, body).encode()):
            return None
        return value if expiry.isdecimal() and int(expiry) >= time.time() else None

    def csrf_token(self, session: str) -> str:
        """For a hidden field of a form that the holder of this session cookie was given."""
        return self.seal(f"csrf:{session}", secrets.token_hex(8), FORM_S)

    def check_csrf(self, session: str, token: str) -> None:
        """Raise ForbiddenError unless the form was made for this session."""
        if not session or self.open(f"csrf:{session}", token) is None:
            raise ForbiddenError("this form is not (or no longer) valid: load the page again and repeat")

    def new_session(self, token_key: str = "") -> str:
        """A session cookie's value: of the holder of a token, or of a visitor when there is no key."""
        return self.seal("session", f"{token_key or '-'}:{secrets.token_hex(8)}", SESSION_S)

    def read_session(self, cookie: str) -> BrowserSession | None:
        """The session of a cookie; None when the cookie is no good."""
        value = self.open("session", cookie)
        if value is None:
            return None
        key, _, name = value.partition(":")
        return BrowserSession(name, key.replace("-", ""))

    def _mac(self, purpose: str, body: str) -> str:
        return hmac.new(self.secret, f"{purpose}\0{body}".encode(), hashlib.sha256).hexdigest()


def load_signer(directory: Path) -> Signer:
    """The deployment's secret: `CONTEST_SECRET` (at least 32 characters), else a file that is made once."""
    if configured := os.environ.get("CONTEST_SECRET"):
        if len(configured) < 32:
            raise UsageError(f"CONTEST_SECRET has {len(configured)} characters; at least 32 are needed")
        return Signer(configured.encode())
    path = directory / "secret"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return Signer(bytes.fromhex(path.read_text(encoding="ascii")))
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        secret = secrets.token_hex(32)
        file.write(secret)
    return Signer(bytes.fromhex(secret))
