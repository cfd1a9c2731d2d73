"""Landlock: a process forbids itself every file but those below some folders. Linux 5.13 and later, no privileges.

It is what the level `limits` has in place of a view of files of its own. Where the kernel lacks it, that level can
read what its user may read.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from scoring.sandbox import syscalls

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_VERSION = 1  # flag of landlock_create_ruleset: give the version of the interface
_PATH_BENEATH = 1
_EXECUTE, _READ_FILE, _READ_DIR = 1, 4, 8
_ALL_OF_VERSION_1 = (1 << 13) - 1
DEVICES_AND_FACTS = (
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self",
)


def available() -> bool:
    """Whether this kernel has Landlock."""
    if sys.platform != "linux":
        return False
    try:
        return syscalls.syscall(_CREATE_RULESET, 0, 0, _VERSION) >= 1
    except OSError:
        return False


def restrict_to(paths: Iterable[str]) -> bool:
    """Let this thread, and those that it starts, read below `paths` alone and write nowhere; False where that fails."""
    if not available():
        return False
    attributes = ctypes.create_string_buffer(struct.pack("<Q", _ALL_OF_VERSION_1), 8)
    ruleset = syscalls.syscall(_CREATE_RULESET, ctypes.addressof(attributes), 8, 0)
    try:
        for path in (*paths, *DEVICES_AND_FACTS):
            if Path(path).exists():
                _allow(ruleset, path)
        syscalls.syscall(_RESTRICT_SELF, ruleset, 0)
    except OSError:
        return False
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: str) -> None:
    access = _READ_FILE | _EXECUTE | (_READ_DIR if Path(path).is_dir() else 0)
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = ctypes.create_string_buffer(struct.pack("<Qi", access, place), 12)
        syscalls.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.addressof(rule), 0)
    finally:
        os.close(place)
