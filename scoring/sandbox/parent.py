"""The side that asks: starts the child, feeds it, bounds it, and believes nothing that comes back unchecked.

Nothing here deserialises a submission. It is copied byte by byte, and the child sees only the copy.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from contest.errors import ContestError, OverrunError, RefusedError
from contest.untrusted.check import ENDINGS, read_regular
from scoring.sandbox.limits import Limits, at_least, bubblewrap, scratch_folder, sweep
from scoring.sandbox.namespaces import SUBMISSION, readable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scoring.costs import Examination
    from scoring.sandbox.result_file import Passed


log = logging.getLogger(__name__)

# The path comes from here, not from site: no .pth file, no user site, no working directory is looked at.
START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from scoring.sandbox.child import main; main()"
PASSED_ON = ("LD_LIBRARY_PATH",)
"""What the child's environment takes over from ours: where libraries are, no more."""
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\- ]{0,99}")
_OUT_OF_MEMORY = re.compile(rb"bad_alloc|MemoryError|[Cc]annot allocate memory|can't allocate memory")
_DONE = re.compile(rb"\ndone ([01]\.\d{4})\n")
_impossible: set[str] = set()
"""Levels that this machine turned out not to have, so that they are not tried for each file."""


class Isolated(NamedTuple):
    """What the child found out, and the level at which it ran."""

    examination: Examination
    level: str


@dataclass(frozen=True)
class _ChildEnd:
    """How a child ended: what it wrote, the signal that killed it or its exit code, seconds of processor time."""

    output: bytes
    errors: bytes
    signal: int
    code: int
    cpu_s: float
    late: bool
    too_long: bool


def run_isolated(
    path: Path | str,
    images: NDArray[np.uint8] | None = None,
    limits: Limits | None = None,
    *,
    minimum_level: str | None = None,
    told: Callable[[float], None] | None = None,
) -> Isolated:
    """Examine a submission in a fresh process that can do nothing else.

    Args:
        path: the file of a stranger.
        images: uint8 [N,C,H,W], never labels; None examines the costs alone.
        minimum_level: one of `LEVELS`; where this machine cannot reach it, nothing is opened.
        told: gets the part of the work that the child says it has done, 0 to 1, about twice a second.

    Raises:
        RefusedError: the file is malformed or hostile, or took too much processor time or memory, or crashed; in words
            for its owner.
        OverrunError: the time on the clock ran out first, so this machine is too busy.
        ContestError: this machine cannot start the child at all, or not at `minimum_level`.
    """
    path, limits = Path(path), limits or Limits()
    from scoring.costs import Examination

    found, level = _examined(path, images, limits, minimum_level, told=told)
    if not isinstance(found, Examination):
        raise RefusedError("the process that ran the network ended without an answer; the file is not accepted")
    return Isolated(found, level)


def look_isolated(path: Path | str, limits: Limits | None = None, *, minimum_level: str | None = None) -> None:
    """The gate alone, in a process of its own that never imports torch: junk is refused in a tenth of a second.

    Raises what `run_isolated` raises.
    """
    _examined(Path(path), None, limits or Limits(), minimum_level, look=True)


def _examined(
    path: Path,
    images: NDArray[np.uint8] | None,
    limits: Limits,
    minimum: str | None,
    look: bool = False,
    told: Callable[[float], None] | None = None,
) -> tuple[Examination | Passed, str]:
    at_least("none", minimum)  # an unknown name is a mistake of the caller's
    content = read_regular(path)
    name = path.name if _SAFE_NAME.fullmatch(path.name) else f"model{_known_ending(path)}"
    _sweep_once()
    with scratch_folder() as scratch:
        (scratch / name).write_bytes(content)
        count = 0
        if images is not None:
            import numpy as np

            count = len(images)
            np.save(scratch / "images.npy", np.ascontiguousarray(images, dtype=np.uint8), allow_pickle=False)
        request = {"name": name, "images": count, "minimum": minimum, "limits": asdict(limits), "look": look}
        (scratch / "request.json").write_text(json.dumps(request))
        return _answered(scratch, limits, count, minimum, told)


@functools.cache
def _sweep_once() -> None:
    """Remove what killed processes left on this machine: their copies of submissions, and images."""
    if removed := sweep():
        log.info("removed %d scratch folders of dead processes", removed)


def _answered(
    scratch: Path, limits: Limits, images: int, minimum: str | None, told: Callable[[float], None] | None
) -> tuple[Examination | Passed, str]:
    from scoring.sandbox import result_file

    reason = ""
    for mode in ("bubblewrap", "namespaces", "limits"):
        if mode in _impossible or (mode == "bubblewrap" and bubblewrap() is None):
            continue
        ended = _run(_command(mode, scratch), limits, told)
        if not ended.output and not ended.late:
            # Our own code did not get as far as saying hello: the machine, not the submission, is the reason.
            reason = ended.errors.decode(errors="replace").strip().splitlines()[-1:][0] if ended.errors else ""
            log.warning("isolation by %s does not work here: %s", mode, reason)
            _impossible.add(mode)
            continue
        if ended.errors:
            log.debug("the isolated process wrote: %s", ended.errors.decode(errors="replace"))
        if ended.too_long:
            raise RefusedError(f"the answer about the network has more than {limits.answer_bytes:,} bytes")
        try:
            hello, found = result_file.unpack(ended.output, images)
        except RefusedError:
            _check_end(ended, limits)  # an answer that broke off says less than why
            raise
        if not at_least(hello.level, minimum):
            break
        if isinstance(found, result_file.Failure):
            if found.kind == "memory":
                raise _memory(limits)
            raise RefusedError(found.message)
        _check_end(ended, limits)
        if found is None:
            raise RefusedError("the process that ran the network ended without an answer; the file is not accepted")
        return found, hello.level
    if minimum is not None and not reason:
        raise ContestError(
            f"this machine cannot isolate at level '{minimum}', and below it nothing is opened; install bubblewrap, "
            "or allow user namespaces"
        )
    raise ContestError(f"the isolated process cannot be started: {reason[:300]}")


def _command(mode: str, scratch: Path) -> list[str]:
    # Our packages come first: wherever this one was imported from, the child imports it from there too.
    own = Path(__file__).resolve().parents[2]
    bound = [own, *map(Path, readable(sys.path))]
    paths = [own, *(Path(p).absolute() for p in sys.path if p)]
    existing = [str(p) for p in dict.fromkeys(paths) if p.exists() and any(p.is_relative_to(b) for b in bound)]
    directory = "/submission" if mode == "bubblewrap" else str(scratch)
    child = [sys.executable, "-I", "-S", "-B", "-c", START, json.dumps(existing), mode, directory]
    program = bubblewrap()
    if mode == "bubblewrap" and program is not None:
        return _in_bubblewrap(program, child, scratch)
    return child


def _environment(limits: Limits) -> dict[str, str]:
    fixed = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(limits.threads),
        "MKL_NUM_THREADS": str(limits.threads),
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp",
        "PYTHONHASHSEED": "0",
    }
    return {**{k: os.environ[k] for k in PASSED_ON if k in os.environ}, **fixed}


def _run(command: list[str], limits: Limits, told: Callable[[float], None] | None) -> _ChildEnd:
    deadline = time.monotonic() + limits.wall_s
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd="/",
            env=_environment(limits),
            start_new_session=True,
            close_fds=True,
        )
        assert process.stdout is not None
        try:
            with process.stdout as pipe:
                output, complete = _read(pipe, deadline, limits.answer_bytes, lambda: _pass_on(errors, told))
            late = not _wait(process.pid, deadline if complete else 0.0) and time.monotonic() >= deadline
        finally:
            # Not reaped yet, so the number still belongs to our group and to no other.
            os.killpg(process.pid, signal.SIGKILL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        tail = errors.read(1_000_000)[-4_000:]
    code = process.returncode
    killed_by = -code if code < 0 else code - 128 if 128 < code < 192 else 0
    too_long = not complete and not late
    return _ChildEnd(output, tail, killed_by, code, usage.ru_utime + usage.ru_stime, late, too_long)


def _pass_on(errors: IO[bytes], told: Callable[[float], None] | None) -> None:
    """Tell how far the child says it is. It may say anything: a number from 0 to 1 is all that is taken."""
    if told is not None:
        size = os.fstat(errors.fileno()).st_size
        said = _DONE.findall(os.pread(errors.fileno(), 100, max(0, size - 100)))
        if said:
            told(min(1.0, float(said[-1])))


def _read(pipe: IO[bytes], deadline: float, limit: int, waiting: Callable[[], None]) -> tuple[bytes, bool]:
    """Everything from a pipe until it closes; False if the time ran out or there was more than `limit`.

    waiting: called about twice a second.
    """
    output = bytearray()
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(min(left, 0.5) * 1000):
            waiting()
            continue
        chunk = os.read(pipe.fileno(), 1 << 20)
        if not chunk:
            return bytes(output), True
        output += chunk
        if len(output) > limit:
            return bytes(output[:limit]), False
    return bytes(output), False


def _wait(pid: int, deadline: float) -> bool:
    """Whether a child ended before the deadline. It stays a zombie, for the caller to reap."""
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True


def _check_end(ended: _ChildEnd, limits: Limits) -> None:
    """Raise what the end of a child means, if it is not a good one."""
    if ended.late:
        raise OverrunError(
            f"the network was stopped after {limits.wall_s:g} s, before it had used its {limits.cpu_s} s of processor "
            "time: this machine is too busy; try again later"
        )
    if ended.signal == signal.SIGXCPU or (ended.signal == signal.SIGKILL and ended.cpu_s >= limits.cpu_s - 1):
        raise RefusedError(f"the network was stopped: it took more than {limits.cpu_s} s of processor time")
    if ended.code != 0 and _OUT_OF_MEMORY.search(ended.errors):
        raise _memory(limits)
    if ended.signal == signal.SIGKILL:
        raise RefusedError("the network was stopped by the system, most likely because it took too much memory")
    if ended.signal:
        name = signal.Signals(ended.signal).name if ended.signal in set(signal.Signals) else f"signal {ended.signal}"
        raise RefusedError(f"the process that ran the network crashed ({name}); the file is not accepted")
    if ended.code:
        raise RefusedError(f"the process that ran the network ended with code {ended.code} and without an answer")


def _memory(limits: Limits) -> RefusedError:
    return RefusedError(f"the network was stopped: it needs more than {limits.memory_bytes / 1e9:g} GB of memory")


def _known_ending(path: Path) -> str:
    return path.suffix.lower() if path.suffix.lower() in ENDINGS else ""


def _in_bubblewrap(program: str, child: Sequence[str], scratch: Path) -> list[str]:
    """`child` within bubblewrap: no network, own processes, libraries and submission read-only, a /tmp of its own."""
    arguments = [program, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    # Before everything else, since what is needed may itself lie below /tmp.
    arguments += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in readable(sys.path):
        if Path(path).is_symlink():
            arguments += ["--symlink", str(Path(path).readlink()), path]
        else:
            arguments += ["--ro-bind", path, path]
    return [*arguments, "--ro-bind", str(scratch), SUBMISSION, "--chdir", "/", "--", *child]
