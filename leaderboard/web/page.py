"""What every page shares: who is asking, in which language, session cookie, CSRF token, templates, style and script.

The templates are in English; other languages are in `locale/LANGUAGE.po` (gettext).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
from dataclasses import dataclass
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from babel.core import negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import Translations
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import joinedload

from contest.errors import ContestError
from leaderboard.board import Board
from leaderboard.charts import accuracy_score
from leaderboard.domain import tokens
from leaderboard.domain.contests import NotFoundError
from leaderboard.domain.tokens import PUBLIC, SESSION_S, ForbiddenError, Viewer
from leaderboard.service.middleware import SESSION_COOKIE
from leaderboard.storage.tables import Contest, Team
from leaderboard.web.formats import FILTERS, duration

LOCALE = Path(__file__).parent / "locale"
LANGUAGES = ("en", *sorted(path.stem for path in LOCALE.glob("*.po")))


@cache
def templates(language: str) -> Environment:
    """The templates in one of LANGUAGES."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        extensions=["jinja2.ext.i18n"],
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    # `said` is for sentences that the program makes: `_` of a template takes a per cent sign in them for a place.
    told = partial(said, language)
    environment.filters |= {"said": told, "duration": partial(duration, say=told)}
    environment.policies["ext.i18n.trimmed"] = True
    environment.install_gettext_translations(translations(language), newstyle=True)  # type: ignore[attr-defined]
    return environment


@cache
def translations(language: str) -> Translations:
    """What a language's file says; for English nothing, so that the templates' own words stay."""
    if language == "en":
        return Translations()
    with (LOCALE / f"{language}.po").open("rb") as file:
        catalog = read_po(file, locale=language)
    compiled = io.BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    return Translations(compiled)


def said(language: str, text: str) -> str:
    """A sentence in a language of LANGUAGES; as it is where the language's file has it not."""
    return translations(language).gettext(text) if text else ""


def preferred(header: str) -> str:
    """The language of LANGUAGES that an Accept-Language header likes best; English where it likes none."""
    wanted = []
    for part in header[:400].split(","):
        name, _, weight = part.strip().partition(";q=")
        try:
            wanted.append((-float(weight or 1), name.strip().replace("-", "_")))
        except ValueError:
            continue
    return negotiate_locale([name for _, name in sorted(wanted, key=lambda pair: pair[0])], LANGUAGES) or "en"


_OWN_ADDRESS = re.compile(r'( (?:href|src|action|data-chart|data-state-url)=")/(?!/)')


@dataclass
class Visit:
    """One request for a page."""

    request: Request
    board: Board
    viewer: Viewer = PUBLIC
    team: Team | None = None
    cookie: str = ""
    """The session that the browser has; '' without one."""
    _new_cookie: str = ""

    @property
    def language(self) -> str:
        """The deployment's, else what the browser asks for."""
        return self.board.settings.language or preferred(self.request.headers.get("accept-language", ""))

    def say(self, text: str, **values: object) -> str:
        """A sentence in the reader's language, with values at its places %(name)s."""
        told = said(self.language, text)
        return told % values if values else told

    @property
    def signed_in(self) -> bool:
        return self.viewer.role != "public"

    def html(self, template: str, *, contest: Contest | None = None, here: str = "", **data: Any) -> str:
        """A page as text. Everything that is put into a template is escaped there."""
        prefix = self.board.settings.prefix
        text = (
            templates(self.language)
            .get_template(template)
            .render(
                prefix=prefix,
                language=self.language,
                contest=contest,
                contest_url=f"/contests/{contest.slug}" if contest else "",
                viewer=self.viewer,
                signed_in=self.signed_in,
                team=self.team,
                team_url=team_url,
                current=lambda page: Markup(' aria-current="page"') if page == here else "",
                csrf_field=self.csrf_field,
                static=url,
                vega=vega_url,
                base_url=str(self.request.base_url).rstrip("/") + prefix,
                **data,
            )
        )
        # Addresses within the site are written from its root; no text of a stranger holds a quotation mark unescaped.
        return _OWN_ADDRESS.sub(rf"\1{prefix}/", text) if prefix else text

    def page(self, template: str, *, status: int = 200, **data: Any) -> Response:
        """A page that is made for this visit."""
        response = HTMLResponse(
            self.html(template, **data), status, {"Cache-Control": "no-store", "Vary": "Accept-Language"}
        )
        if self._new_cookie:
            self.start_session(response, self._new_cookie)
        return response

    def start_session(self, response: Response, cookie: str) -> None:
        """Hand the browser a session cookie: unreadable for scripts, never sent along by other sites' forms."""
        response.set_cookie(
            SESSION_COOKIE,
            cookie,
            max_age=SESSION_S,
            httponly=True,
            samesite="lax",
            secure=self.board.settings.secure_cookies,
        )

    def csrf_field(self) -> Markup:
        """The hidden field of a form; begins a visitor's session if there is none."""
        if not self.cookie:
            self.cookie = self._new_cookie = self.board.signer.new_session()
        return Markup('<input type="hidden" name="csrf" value="{}">').format(self.board.signer.csrf_token(self.cookie))

    def check_csrf(self, token: object) -> None:
        """Raise ForbiddenError unless this site gave the form to this browser."""
        if self.request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise ForbiddenError("this form came from another site")
        self.board.signer.check_csrf(self.cookie, token if isinstance(token, str) else "")


def team_url(team: Team) -> str:
    """A team's page; `team.contest` must be loaded."""
    return f"/contests/{team.contest.slug}/teams/{team.id}"


def see_other(path: str) -> Response:
    """After a form: go and GET a page."""
    return RedirectResponse(path, 303)


def the_visit(request: Request) -> Visit:
    """Who asks, by the session cookie; a cookie that is no good is no cookie."""
    board: Board = request.app.state.board
    cookie = request.cookies.get(SESSION_COOKIE, "")
    known = board.signer.read_session(cookie) if cookie else None
    if known is None:
        return Visit(request, board)
    if not known.token_key:
        return Visit(request, board, cookie=cookie)
    with board.database.read() as session:
        viewer = tokens.viewer_by_key(session, known.token_key)
        if viewer is None or tokens.has_ended(session, known.name):  # revoked or signed out meanwhile
            return Visit(request, board)
        team = None
        if viewer.team_id is not None:
            team = session.scalar(select(Team).options(joinedload(Team.contest)).where(Team.id == viewer.team_id))
    return Visit(request, board, viewer, team, cookie)


TheVisit = Annotated[Visit, Depends(the_visit)]


def error_page(request: Request, status: int, detail: str) -> Response:
    """An error for people. It must work when nothing else does, so without the database if need be."""
    try:
        visit = the_visit(request)
    except (SQLAlchemyError, ContestError):
        visit = Visit(request, request.app.state.board)
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = f"Error {status}"
    return visit.page("error.html", status=status, title=title, detail=detail)


router = APIRouter()

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FILES = {path.name: path.read_bytes() for path in sorted((Path(__file__).parent / "assets").iterdir())}
_HASHES = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _FILES.items()}
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}


def url(name: str) -> str:
    """The address of a static file; it changes with the content, so that browsers may keep it for good."""
    return f"/static/{name}?{_HASHES[name]}"


@cache
def vega_url() -> str:
    """The address of Vega, Vega-Lite and Vega-Embed."""
    from importlib.metadata import version

    return f"/static/vega.js?{version('vl-convert-python')}"


@router.get("/static/{name}")
def static(name: str, request: Request) -> Response:
    """A file by name. Names are looked up, never joined to a path."""
    if name != "vega.js" and name not in _FILES:
        raise NotFoundError(f"there is no file '{name[:80]}'")
    headers = dict(_FOREVER)
    content = _vega(False) if name == "vega.js" else _FILES[name]
    if name == "vega.js" and "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = _vega(True), "gzip"
    return Response(content, media_type=_TYPES[Path(name).suffix], headers=headers)


@cache
def _vega(compressed: bool) -> bytes:
    return gzip.compress(_vega(False), 6) if compressed else accuracy_score.javascript().encode()
