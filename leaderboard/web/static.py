"""Our own style and script, and Vega from the vl-convert package: served by us, kept by browsers for good."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from leaderboard.charts import accuracy_score
from leaderboard.domain.contests import NotFoundError

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
