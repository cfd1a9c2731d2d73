"""Pages in the reader's language: English as the templates have it, others from `locale/LANGUAGE.po` (gettext)."""

from __future__ import annotations

import io
from functools import cache, partial
from pathlib import Path

from babel.core import negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import Translations
from jinja2 import Environment, FileSystemLoader, StrictUndefined

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
