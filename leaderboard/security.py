"""What protects browsers and the service: headers, signed values, CSRF tokens, who is asking.

Forms (by `leaderboard.web`) use a session cookie plus a CSRF token; the API takes bearer tokens only, so that no
other site can make a browser use it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contest.errors import ContestError, UsageError

SESSION_COOKIE = "contest_session"
SESSION_S = 12 * 3600
FORM_S = 2 * 3600

# No eval, no inline scripts or styles, nothing from elsewhere. Charts draw into blob: and data: images for download.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


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


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


class SecurityHeaders:
    """Adds the headers above to every answer; HSTS only where the service is known to be behind TLS."""

    def __init__(self, app: ASGIApp, *, tls: bool = False) -> None:
        self.app = app
        self.headers = HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if tls else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
