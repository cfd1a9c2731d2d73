"""A process of its own users, network, processes and files, made with unshare(2). Linux, no privileges needed.

What is visible: the libraries and the two packages that run (read-only), the submission's scratch directory
(read-only, as /submission), a small /tmp, a few devices. No home, no database, no other process.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from contest.errors import UsageError
from scoring.sandbox import seccomp

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
        return seccomp.syscall(_CREATE_RULESET, 0, 0, _VERSION) >= 1
    except OSError:
        return False


def restrict_to(paths: Iterable[str]) -> bool:
    """Let this thread, and those that it starts, read below `paths` alone and write nowhere; False where that fails."""
    if not available():
        return False
    attributes = ctypes.create_string_buffer(struct.pack("<Q", _ALL_OF_VERSION_1), 8)
    ruleset = seccomp.syscall(_CREATE_RULESET, ctypes.addressof(attributes), 8, 0)
    try:
        for path in (*paths, *DEVICES_AND_FACTS):
            if Path(path).exists():
                _allow(ruleset, path)
        seccomp.syscall(_RESTRICT_SELF, ruleset, 0)
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
        seccomp.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.addressof(rule), 0)
    finally:
        os.close(place)


SUBMISSION = "/submission"
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_FLAGS = (
    seccomp.CLONE_NEWUSER
    | seccomp.CLONE_NEWNET
    | seccomp.CLONE_NEWNS
    | seccomp.CLONE_NEWPID
    | seccomp.CLONE_NEWIPC
    | seccomp.CLONE_NEWUTS
)


def enter(scratch: Path, scratch_bytes: int) -> bool:
    """Go on in new namespaces; False where the machine allows none, and then nothing has changed.

    The process that asked stays outside, waits, and ends as its child in the namespaces ends.
    """
    if sys.platform != "linux":
        return False
    user, group = os.getuid(), os.getgid()
    try:
        seccomp.unshare(_FLAGS)
    except OSError:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    seccomp.prctl(seccomp.PR_SET_PDEATHSIG, 9)
    _change_root(scratch, scratch_bytes)
    seccomp.drop_capabilities()
    return True


def readable(paths: Iterable[str]) -> list[str]:
    """The folders and files that Python and its libraries need, from `sys.path` and the system.

    Of `sys.path` only site-packages and our own two packages: everything else on it (the working directory of
    `python -m`, a check-out with a database in it, PYTHONPATH) may hold anything.
    """
    needed = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/sys/devices/system/cpu"]
    needed += [sys.prefix, sys.base_prefix, sys.base_exec_prefix, str(Path(sys.executable).resolve().parent.parent)]
    for path in paths:
        if Path(path).name in ("site-packages", "dist-packages"):
            needed.append(path)
        else:
            packages = [Path(path) / name for name in ("contest", "scoring")]
            needed += [str(p) for p in packages if (p / "__init__.py").is_file()]
    existing = sorted({p for p in needed if p not in ("", "/") and Path(p).exists()})
    return [p for p in existing if not any(p != q and p.startswith(q + "/") for q in existing)]


def check_private(private: Mapping[str, Path]) -> None:
    """Raise UsageError when something that no stranger may read lies where the isolated process can read.

    private: what it is, in words -> where it is.
    """
    for what, path in private.items():
        place = path.resolve()
        for bound in readable(sys.path):
            if place.is_relative_to(Path(bound).resolve()):
                raise UsageError(
                    f"{what} '{path}' lies inside '{bound}', which the process that opens strangers' files has to "
                    "read: move it to a folder of its own"
                )


def _change_root(scratch: Path, scratch_bytes: int) -> None:
    seccomp.mount("none", "/", None, seccomp.MS_REC | seccomp.MS_PRIVATE)
    root = scratch / "root"
    root.mkdir()
    seccomp.mount("tmpfs", str(root), "tmpfs", seccomp.MS_NOSUID | seccomp.MS_NODEV, "size=1m,mode=755")
    # Before everything else, since what is needed may itself lie below /tmp.
    (root / "tmp").mkdir()
    seccomp.mount("tmpfs", str(root / "tmp"), "tmpfs", seccomp.MS_NOSUID | seccomp.MS_NODEV, f"size={scratch_bytes}")
    for path in readable(sys.path):
        if Path(path).is_symlink():
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (root / path[1:]).symlink_to(Path(path).readlink())
        else:
            _bind(path, root, path)
    for device in DEVICES:
        _bind(device, root, device, writable=True)
    _bind(str(scratch), root, SUBMISSION)
    _processes(root)
    os.chdir(root)
    seccomp.pivot_root_here()
    seccomp.mount(
        "none",
        "/",
        None,
        seccomp.MS_REMOUNT | seccomp.MS_BIND | seccomp.MS_RDONLY | seccomp.MS_NOSUID | seccomp.MS_NODEV,
    )


def _processes(root: Path) -> None:
    """A /proc of the new process namespace; where that is forbidden (in containers), the two files that count."""
    (root / "proc").mkdir()
    try:
        seccomp.mount("proc", str(root / "proc"), "proc", seccomp.MS_NOSUID | seccomp.MS_NODEV | seccomp.MS_NOEXEC)
    except OSError:
        for path in ("/proc/cpuinfo", "/proc/meminfo"):
            _bind(path, root, path)


def _bind(source: str, root: Path, target: str, *, writable: bool = False) -> None:
    place = root / target[1:]
    if Path(source).is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    seccomp.mount(source, str(place), None, seccomp.MS_BIND | seccomp.MS_REC)
    if not writable:
        # A mount of another owner's keeps its flags: taking one away is refused.
        kept = os.statvfs(place).f_flag & (seccomp.MS_NOSUID | seccomp.MS_NODEV | seccomp.MS_NOEXEC)
        flags = seccomp.MS_REMOUNT | seccomp.MS_BIND | seccomp.MS_RDONLY | seccomp.MS_NOSUID | seccomp.MS_NODEV | kept
        seccomp.mount("none", str(place), None, flags)
