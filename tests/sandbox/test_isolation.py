"""What hostile code could do in the child, if it ever ran there: nothing. And how its end is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contest.errors import ContestError, OverrunError, RefusedError, UsageError
from scoring.sandbox import LEVELS, Limits, at_least, limits, look_isolated, namespaces, parent, run_isolated

QUICK = Limits(wall_s=60, cpu_s=60, memory_bytes=1_000_000_000, threads=1)

ATTACK = """
import json, sys; sys.path[:] = json.loads(sys.argv[1])
from scoring.sandbox import child
from contest.errors import RefusedError
def attack(directory, request, level):
    import ctypes, os, socket, subprocess, time
    child._shut(request["limits"])
{code}
child._examine = attack
child.main()
"""

ATTEMPTS = """
    from pathlib import Path
    def attempt(function):
        try:
            function()
        except OSError as error:
            return type(error).__name__
        return "done"
    def listed(folder):
        try:
            return os.listdir(folder)
        except OSError:
            return []
    secret, victim = Path({secret!r}), Path({victim!r})
    raise RefusedError(json.dumps(dict(
        socket=attempt(lambda: socket.create_connection(("127.0.0.1", {port}), timeout=2)),
        fork=attempt(lambda: os.fork() or os._exit(0)),
        execute=attempt(lambda: subprocess.run(["/bin/true"])),
        signal=attempt(lambda: os.kill({parent}, 0)),
        read_secret=attempt(lambda: secret.read_text()),
        write=attempt(lambda: victim.write_text("changed")),
        remove=attempt(lambda: victim.unlink()),
        write_tmp=attempt(lambda: Path("/tmp/dropped").write_text("x")),
        touch_submission=attempt(lambda: (directory / request["name"]).write_bytes(b"")),
        environment=sorted(os.environ),
        processes=len([p for p in listed("/proc") if p.isdigit()]),
        level=level,
    )).replace("/", "|"))
"""


def available() -> list[str]:
    return [m for m in ("bubblewrap", "namespaces", "limits") if m != "bubblewrap" or limits.bubblewrap()]


def only(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_impossible", {m for m in LEVELS if m != level})


def attack(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: Limits = QUICK) -> str:
    """The refusal that comes back when this code runs in the place of the examination."""
    indented = "\n".join("    " + line.strip(" ") if not line.startswith("    ") else line for line in code.split("\n"))
    monkeypatch.setattr(parent, "START", ATTACK.format(code=indented))
    path = tmp_path / "model.pt"
    path.write_bytes(b"not opened in these tests")
    with pytest.raises(RefusedError) as caught:
        run_isolated(path, None, limits)
    return str(caught.value)


def have_namespaces() -> bool:
    return subprocess.run(["unshare", "-Urn", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("level", ["bubblewrap", "namespaces", "limits"])
def test_nothing_can_be_reached(level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if level not in available() or (level == "namespaces" and not have_namespaces()):
        pytest.skip(f"this machine has no {level}")
    if sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("the filter of system calls knows Linux on x86_64 and aarch64")
    monkeypatch.setenv("CONTEST_TOKEN", "secret")
    only(level, monkeypatch)
    secret, victim = tmp_path / "database.sqlite", tmp_path / "victim"
    secret.write_text("labels")
    victim.write_text("whole")
    code = ATTEMPTS.format(secret=str(secret), victim=str(victim), port=1, parent=os.getpid())
    result: dict[str, Any] = json.loads(attack(code, monkeypatch, tmp_path))
    for attempt in ("socket", "fork", "execute", "signal", "write", "remove", "write_tmp", "touch_submission"):
        assert result[attempt] in ("PermissionError", "FileNotFoundError", "OSError", "ProcessLookupError"), attempt
    assert victim.read_text() == "whole" and not Path("/tmp/dropped").exists()
    assert "CONTEST_TOKEN" not in result["environment"]
    assert not {"HOME_SECRET", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"} & set(result["environment"])
    if level != "limits" or namespaces.available():
        assert result["read_secret"] == ("PermissionError" if level == "limits" else "FileNotFoundError")
        assert result["processes"] <= 3
    assert result["level"] == level


READ = """
    from pathlib import Path
    def attempt(function):
        try:
            return str(function())
        except (OSError, ImportError) as error:
            return type(error).__name__
    board = Path({board!r})
    raise RefusedError(json.dumps(dict(
        database=attempt((board / "leaderboard.sqlite").read_text),
        secret=attempt((board / "secret").read_text),
        listed=attempt(lambda: os.listdir(board)),
        planted=attempt(lambda: __import__("planted_module")),
        level=level,
    )).replace("/", "|"))
"""


@pytest.mark.parametrize("level", ["bubblewrap", "namespaces", "limits"])
def test_a_folder_on_the_path_is_not_readable(level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`python -m contest serve` in the board's folder puts that folder on `sys.path`; so does PYTHONPATH."""
    if level not in available() or (level == "namespaces" and not have_namespaces()):
        pytest.skip(f"this machine has no {level}")
    if level == "limits" and not namespaces.available():
        pytest.skip("this kernel has no Landlock: at level limits everything that the user may read is readable")
    only(level, monkeypatch)
    board = tmp_path / "board"
    board.mkdir()
    for name in ("leaderboard.sqlite", "secret"):
        (board / name).write_text("the labels")
    (board / "planted_module.py").write_text("")
    monkeypatch.syspath_prepend(str(board))
    result = json.loads(attack(READ.format(board=str(board)), monkeypatch, tmp_path))
    assert result.pop("level") == level
    assert result.pop("planted") == "ModuleNotFoundError"
    assert set(result.values()) <= {"FileNotFoundError", "PermissionError"}, result


def test_of_the_path_only_libraries_and_our_packages_are_bound(tmp_path: Path) -> None:
    ours, foreign, checkout = tmp_path / "lib" / "site-packages", tmp_path / "work", tmp_path / "checkout"
    for folder in (ours, foreign, checkout / "contest", checkout / "scoring"):
        folder.mkdir(parents=True)
    (foreign / "scoring").mkdir()  # a folder of that name, but no package
    for name in ("contest", "scoring"):
        (checkout / name / "__init__.py").touch()
    bound = [p for p in namespaces.readable(map(str, (ours, foreign, checkout))) if p.startswith(str(tmp_path))]
    assert bound == sorted(map(str, (ours, checkout / "contest", checkout / "scoring")))


def test_what_is_private_may_not_lie_inside(tmp_path: Path) -> None:
    namespaces.check_private({"the board's folder": tmp_path})
    with pytest.raises(UsageError, match=r"the board's folder '.*' lies inside '.*'.* move it"):
        namespaces.check_private({"the board's folder": Path(sys.prefix) / "board"})
    (tmp_path / "link").symlink_to(sys.prefix)
    with pytest.raises(UsageError, match="the data"):
        namespaces.check_private({"the data": tmp_path / "link" / "data"})


def test_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "needs more than 1 GB of memory" in attack("x = bytearray(3_000_000_000)", monkeypatch, tmp_path)


def test_processor_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limits = Limits(wall_s=60, cpu_s=2, threads=1)
    assert "2 s of processor time" in attack("while True: pass", monkeypatch, tmp_path, limits)


def test_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The clock runs out on a busy machine, and nobody's file is refused for that."""
    start = time.monotonic()
    with pytest.raises(OverrunError, match=r"stopped after 4 s, .*; try again later") as caught:
        attack("time.sleep(600)", monkeypatch, tmp_path, Limits(wall_s=4))
    assert not isinstance(caught.value, RefusedError) and caught.value.exit_code == 4
    assert time.monotonic() - start < 30


def test_a_network_that_never_ends_meets_the_limit_of_processor_time_first() -> None:
    assert Limits().wall_s > Limits().cpu_s


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ctypes.string_at(0)", "crashed \\(SIGSEGV\\)"),
        ("ctypes.CDLL(None).abort()", "crashed \\(SIG(ABRT|SEGV|ILL)\\)"),
        ("os._exit(0)", "without an answer"),
        ("os._exit(3)", "code 3"),
        ("raise SystemExit('Traceback: /etc/passwd')", "code 1"),
        ("raise ValueError('cannot read /home/team/secret/file.txt')", "ValueError: cannot read \\(a path\\)$"),
        ("return b'rubbish'", "not one"),
        ("return b'CONTEST1R' + b'\\\\xff' * 8", "unknown kind or impossible size"),
        (
            "from scoring.sandbox import result_file; return result_file.frame(b'H', b'{\"level\": \"bubblewrap\"}')",
            "not in order",
        ),
        ("from scoring.sandbox import result_file; return result_file.frame(b'R', b'[]')", "not a table of costs"),
        ("return bytes(QUICK_ANSWER)".replace("QUICK_ANSWER", "3_000_000"), "more than 2,000,000 bytes"),
    ],
)
def test_how_it_ends(code: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limits = Limits(wall_s=60, cpu_s=60, answer_bytes=2_000_000, threads=1)
    found = attack(code, monkeypatch, tmp_path, limits)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found)


def test_scratch_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits.tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    attack("os._exit(0)", monkeypatch, tmp_path)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """kill -9 leaves a copy of the submission and 30 MB of images; the next process takes them away."""
    code = (
        "import time; from pathlib import Path; from scoring.sandbox.limits import scratch_folder\n"
        f"with scratch_folder('left-', Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'images.npy').write_bytes(bytes(1000)); print(folder, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert folder.is_dir()
    assert limits.sweep("left-", tmp_path, older_than_s=0) == 0, "its maker lives"
    process.kill()
    process.wait()
    process.stdout.close()
    assert limits.sweep("left-", tmp_path) == 0, "too young to be sure"
    assert limits.sweep("left-", tmp_path, older_than_s=0) == 1 and not folder.exists()


def test_below_the_minimum_nothing_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only("limits", monkeypatch)
    path = tmp_path / "model.pt"
    path.write_bytes(b"x")
    with pytest.raises(ContestError, match="cannot isolate at level 'namespaces'") as caught:
        run_isolated(path, None, QUICK, minimum_level="namespaces")
    assert caught.value.exit_code == 4


def test_a_level_that_does_not_work_is_left_for_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parent, "bubblewrap", lambda: "/bin/false")
    monkeypatch.setattr(parent, "_impossible", set())
    assert "empty" in attack('raise RefusedError("empty")', monkeypatch, tmp_path)
    assert "bubblewrap" in parent._impossible


def test_levels_are_ordered() -> None:
    assert at_least("bubblewrap", "limits") and at_least("limits", None) and not at_least("none", "limits")
    with pytest.raises(UsageError, match="not a level"):
        at_least("limits", "docker")


def test_pixels_arrive_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
    import numpy as np
    images = np.load(directory / "images.npy", allow_pickle=False)
    raise RefusedError(json.dumps([sorted(os.listdir(directory)), images.shape, int(images.sum()), str(images.dtype)]))
"""
    monkeypatch.setattr(parent, "START", ATTACK.format(code=code))
    path = tmp_path / "my model (final).pt"
    path.write_bytes(b"x")
    with pytest.raises(RefusedError) as caught:
        run_isolated(path, np.full((5, 3, 4, 4), 2, np.uint8), QUICK)
    files, shape, total, kind = json.loads(str(caught.value))
    assert (
        {"images.npy", "model.pt", "request.json"} <= set(files) <= {"images.npy", "model.pt", "request.json", "root"}
    )
    assert (shape, total, kind) == ([5, 3, 4, 4], 480, "uint8")


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    """The worker is killed hard; nothing may go on running without limits and without a reader."""
    (tmp_path / "model.pt").write_bytes(b"x")
    code = ATTACK.format(code="    time.sleep(600)")
    script = (
        f"from scoring.sandbox import parent, run_isolated, Limits; parent.START = {code!r};"
        f"run_isolated({str(tmp_path / 'model.pt')!r}, None, Limits(wall_s=120))"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        wait_for(lambda: len(processes_with(str(tmp_path))) >= 2)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    wait_for(lambda: not processes_with(str(tmp_path)))


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def processes_with(text: str) -> list[int]:
    """Processes whose command line holds this text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_the_gate_alone_lets_a_good_file_pass_and_refuses_junk(tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"PK\x03\x04 junk")
    with pytest.raises(RefusedError, match="zip archive"):
        look_isolated(tmp_path / "junk.pt")
    bundled = Path(__file__).parents[2] / "leaderboard" / "bundled"
    look_isolated(next(bundled.glob("*.pt")))


@pytest.mark.parametrize(("asked", "load", "threads"), [("", 0.2, 4), ("", 2.4, 2), ("", 9.0, 1), ("1", 0.0, 1)])
def test_only_idle_cores_are_used(monkeypatch: pytest.MonkeyPatch, asked: str, load: float, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load), raising=False)
    assert Limits().threads == threads
