"""Text from strangers: cleaned where it comes in, escaped where it goes out (by the templates)."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Callable

from contest.errors import UsageError

_MAIL = re.compile(r"[^@\s<>,;\"]{1,64}@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")
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


_ADJECTIVES = """
amber brave calm clever daring eager fair gentle happy honest jolly keen light lively loyal merry mild noble proud
quick quiet ready sharp shy silver sunny swift tidy warm wild wise young
"""
_ANIMALS = """
badger beaver bison crane deer dove eagle falcon ferret finch fox gull hare hawk hedgehog heron ibex ibis jay lark lynx
marten mole newt osprey otter owl panda puffin raven robin seal stoat stork swan toad trout vole wren
"""


def pseudonym(taken: Callable[[str], bool]) -> str:
    """A name that says nothing of a team, and that is not taken."""
    while True:
        name = f"{secrets.choice(_ADJECTIVES.split())} {secrets.choice(_ANIMALS.split())} {secrets.randbelow(90) + 10}"
        if not taken(name):
            return name


def mail_address(value: str) -> str:
    """A mail address, cleaned. Raises UsageError for what is none; that mail arrives is not checked."""
    text = one_line(value, "mail", 254)
    if not _MAIL.fullmatch(text):
        raise UsageError(f"'{text[:80]}' is no mail address; it must read name@place.domain")
    return text
