"""Text from strangers: cleaned where it comes in, escaped where it goes out (by the templates)."""

from __future__ import annotations

import re
import unicodedata

from contest.errors import UsageError

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


def one_line(value: str, what: str, limit: int, *, required: bool = True) -> str:
    """Normalised (NFC), without control, format and surrogate characters, spaces squeezed.

    Raises UsageError when nothing is left (and `required`) or more than `limit` characters are.
    """
    text = unicodedata.normalize("NFC", value)
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cs", "Co", "Cn"))
    text = " ".join(text.split())
    if required and not text:
        raise UsageError(f"{what} is empty; it must have at least one visible character")
    if len(text) > limit:
        raise UsageError(f"{what} has {len(text)} characters; at most {limit} are allowed")
    return text


def name_key(name: str) -> str:
    """What two names must not share: compatibility forms and case are the same name."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())[:120]


def file_name(value: str) -> str:
    """The last part of whatever path the client sent, shortened; only ever shown."""
    last = re.split(r"[/\\]", value.strip())[-1]
    text = "".join(c if c.isprintable() and c not in '<>:"|?*%' else "_" for c in unicodedata.normalize("NFC", last))
    return text.strip(". ")[-120:] or "model"


def slug(value: str) -> str:
    """A contest's name in URLs. Raises UsageError for anything but lower-case letters, digits and hyphens."""
    if not _SLUG.fullmatch(value):
        raise UsageError(f"contest name '{value[:80]}' must be 1 to 64 of a-z, 0-9 and '-', not '-' at the ends")
    return value
