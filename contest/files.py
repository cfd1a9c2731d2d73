"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end; after an error nothing is left of it.

    A kill at any time, or a disk that is full, leaves the old file. Several processes may write the same file: the last
    one's stays.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`text` as the file `path`, whole or not at all."""
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")


def write_lines(path: Path, text: str) -> None:
    """`text` and the end of its last line as the file `path`, whole or not at all."""
    write_text(path, text + "\n")


def cache_folder(name: str) -> Path:
    """The folder `name` of what programs of this user may share and do without (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contest" / name


def why_unwritable(directory: Path) -> str | None:
    """Why nothing can be written in `directory` (it is gone, read-only, on a full disk); None if a file of 1 MB can."""
    probe = directory / f".probe.{os.getpid()}"
    try:
        try:
            with probe.open("wb") as file:
                file.write(bytes(1_000_000))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return None
