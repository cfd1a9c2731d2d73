"""The deployment's secret, and what is signed with it: sessions and forms."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from contest.errors import ContestError, UsageError

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
