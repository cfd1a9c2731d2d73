"""The process that opens a submission: locks itself in first, then imports, then looks at the file.

Started by `parent` as `python -I -S -B -c START paths mode directory`. Before the file is opened only our own code
has run, so what it says up to there (the level) can be believed; what it says afterwards is checked by
`result_file`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

_PATH = re.compile(r"(?<![\w.])/(?:[\w.\-+]+/)+[\w.\-+]*")
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|bad_alloc|[Uu]nable to allocate|Cannot allocate memory"
)
GRACE_CPU_S = 2
MAX_THREADS = 512


def main() -> None:
    """Serve one request and end."""
    mode, directory = sys.argv[2], Path(sys.argv[3])
    channel = os.dup(1)
    os.dup2(2, 1)  # whatever libraries print belongs to the errors
    os.set_inheritable(channel, False)
    request = json.loads((directory / "request.json").read_text())
    level, directory = _lock_in(mode, directory, request["limits"])
    from scoring.sandbox.limits import at_least

    _send(channel, b"H", json.dumps({"level": level}).encode())
    if not at_least(level, request["minimum"]):
        os._exit(0)
    _send_raw(channel, _answer(directory, request, level))
    sys.stderr.flush()
    os._exit(0)  # no destructors: they cost time, and the answer is given


def _lock_in(mode: str, directory: Path, limits: dict[str, Any]) -> tuple[str, Path]:
    """(level, where the submission is now)."""
    if sys.platform == "linux":
        from scoring.sandbox import namespaces, seccomp

        seccomp.prctl(seccomp.PR_SET_PDEATHSIG, 9)
        seccomp.prctl(seccomp.PR_SET_NO_NEW_PRIVS, 1)
        if mode == "namespaces" and namespaces.enter(directory, limits["file_bytes"]):
            mode, directory = "namespaces", Path(namespaces.SUBMISSION)
        elif mode == "namespaces":
            mode = "limits"
        if mode == "limits":
            _forbid_other_files(directory)
        seccomp.prctl(seccomp.PR_SET_DUMPABLE, 0)
    cpu = limits["cpu_s"]
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + GRACE_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"],) * 2)
    if mode != "limits":  # there the count is of the processes in the namespace, not of all that this user runs
        _lower(resource.RLIMIT_NPROC, MAX_THREADS)
    return mode, directory


def _forbid_other_files(directory: Path) -> None:
    """Where there is no view of the files of one's own: at least, on kernels that can, no way into the others."""
    import contest.errors  # noqa: F401  (from now on, nobody may list the folder that our packages lie in)
    from scoring.sandbox import namespaces

    namespaces.restrict_to([*namespaces.readable(sys.path), str(directory)])


def _answer(directory: Path, request: dict[str, Any], level: str) -> bytes:
    """The frames of the examination, or of the reason why there is none."""
    try:
        if request["look"]:
            return _look(directory / request["name"], request["limits"])
        return _examine(directory, request, level)
    except MemoryError:
        kind, message = "memory", ""
    except Exception as error:  # whatever a hostile file provokes is a reason to refuse it
        traceback.print_exc()  # for the log of whoever runs the machine; never for the owner of the file
        kind, message = _reason(error)
    return _frame(b"E", json.dumps({"kind": kind, "message": message}).encode())


def _look(path: Path, limits: dict[str, Any]) -> bytes:
    """The gate alone, which needs the standard library and no more."""
    from contest.untrusted import check_file

    _shut(limits)
    check_file(path)
    return _frame(b"O", b"")


def _examine(directory: Path, request: dict[str, Any], level: str) -> bytes:
    import numpy as np
    import torch

    from contest.training.device import keep_memory
    from contest.untrusted import check_file
    from scoring.examine import examine
    from scoring.readers.read import read_limited
    from scoring.sandbox import result_file

    limits = request["limits"]
    path = directory / request["name"]
    torch.set_num_threads(limits["threads"])
    torch.set_num_interop_threads(1)
    keep_memory()
    images = np.load(directory / "images.npy", allow_pickle=False) if request["images"] else None
    if path.suffix.lower() == ".onnx":
        import onnxruntime  # noqa: F401  (what is imported later would find the door shut)
    _shut(limits)
    check_file(path)
    subject = read_limited(path, None if images is None else (images.shape[1], images.shape[2], images.shape[3]))
    return result_file.pack(examine(subject, images, told=_tell))


def _tell(part: float) -> None:
    """Says among the errors how far it is; who waits may look (`parent.progress`)."""
    os.write(2, f"\ndone {part:.4f}\n".encode())


def _shut(limits: dict[str, Any]) -> None:
    """The limits that the imports could not have lived with."""
    _lower(resource.RLIMIT_AS, _mapped_bytes() + limits["memory_bytes"])
    _lower(resource.RLIMIT_NOFILE, limits["open_files"])
    if sys.platform == "linux":
        from scoring.sandbox import seccomp as system_calls

        system_calls.install()


def _lower(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _mapped_bytes() -> int:
    """Address space in use; where nobody says, what torch maps with its largest build."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 16_000_000_000


def _reason(error: Exception) -> tuple[str, str]:
    """(kind, message) without paths and tracebacks."""
    from contest.errors import ContestError

    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and _NO_MEMORY.search(text):
        return "memory", ""
    text = _PATH.sub("(a path)", text)[:1_000]
    if isinstance(error, ContestError):
        return "refused", text
    return "refused", f"the network cannot be examined: {type(error).__name__}: {text[:300]}"


def _send(channel: int, kind: bytes, payload: bytes) -> None:
    _send_raw(channel, _frame(kind, payload))


def _frame(kind: bytes, payload: bytes) -> bytes:
    # As `result_file.frame` writes it, which imports numpy: that starts threads, and namespaces want a single one.
    return b"CONTEST1" + kind + len(payload).to_bytes(8, "little") + payload


def _send_raw(channel: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(channel, view) :]
