"""A process of its own users, network, processes and files, made with unshare(2). Linux, no privileges needed.

What is visible: the libraries and the two packages that run (read-only), the submission's scratch directory
(read-only, as /submission), a small /tmp, a few devices. No home, no database, no other process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from contest.errors import UsageError
from scoring.sandbox import syscalls

SUBMISSION = "/submission"
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_FLAGS = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
)


def enter(scratch: Path, scratch_bytes: int) -> bool:
    """Go on in new namespaces; False where the machine allows none, and then nothing has changed.

    The process that asked stays outside, waits, and ends as its child in the namespaces ends.
    """
    if sys.platform != "linux":
        return False
    user, group = os.getuid(), os.getgid()
    try:
        syscalls.unshare(_FLAGS)
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
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    _change_root(scratch, scratch_bytes)
    syscalls.drop_capabilities()
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
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    root = scratch / "root"
    root.mkdir()
    syscalls.mount("tmpfs", str(root), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "size=1m,mode=755")
    # Before everything else, since what is needed may itself lie below /tmp.
    (root / "tmp").mkdir()
    syscalls.mount("tmpfs", str(root / "tmp"), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, f"size={scratch_bytes}")
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
    syscalls.pivot_root_here()
    syscalls.mount(
        "none",
        "/",
        None,
        syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV,
    )


def _processes(root: Path) -> None:
    """A /proc of the new process namespace; where that is forbidden (in containers), the two files that count."""
    (root / "proc").mkdir()
    try:
        syscalls.mount("proc", str(root / "proc"), "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
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
    syscalls.mount(source, str(place), None, syscalls.MS_BIND | syscalls.MS_REC)
    if not writable:
        # A mount of another owner's keeps its flags: taking one away is refused.
        kept = os.statvfs(place).f_flag & (syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        flags = (
            syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | kept
        )
        syscalls.mount("none", str(place), None, flags)
