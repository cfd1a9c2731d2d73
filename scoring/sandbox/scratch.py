"""Folders for a moment: removed by whoever made them, or, when he was killed, by the next who looks.

The maker holds a lock on the folder while he lives (flock(2)): no clock and no process number has to be believed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PREFIX = "contest-scratch-"
_NEW_S = 60.0
"""Between a folder's making and its locking a moment passes: younger ones are left alone."""


@contextlib.contextmanager
def scratch_folder(prefix: str = PREFIX, directory: Path | None = None) -> Iterator[Path]:
    """An empty folder that is gone at the end of the block, or soon after its maker's death."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=directory, ignore_cleanup_errors=True) as name:
        place = os.open(name, os.O_RDONLY)
        try:
            if sys.platform != "win32":
                fcntl.flock(place, fcntl.LOCK_EX)
            yield Path(name).resolve()
        finally:
            os.close(place)


def sweep(prefix: str = PREFIX, directory: Path | None = None, *, older_than_s: float = _NEW_S) -> int:
    """Remove what dead processes left; gives how many folders. Others' folders are not touched."""
    removed = 0
    if sys.platform == "win32":
        return removed
    for path in (directory or Path(tempfile.gettempdir())).glob(f"{prefix}*"):
        try:
            found = path.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < older_than_s or not path.is_dir():
                continue
            place = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile
            continue
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            removed += 1
        except BlockingIOError:  # its maker lives
            continue
        finally:
            os.close(place)
    return removed
