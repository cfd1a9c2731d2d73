"""Fuzz whatever reads a stranger's bytes: `python -m tests.attacks.fuzz --minutes 30`.

Hypothesis draws edits (of bytes, of the manifest, of the pickle, of headers, of the wire format) to well-formed
files and answers. What the parent process does with them happens here; what only the isolated child does (opening
what the gate let pass) happens in a fork, so that its end can be told from ours. A finding is any exception but
RefusedError, any step of more than `SLOW_S`, any death by a signal: it is kept as a file and counted.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import json
import math
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from contest.errors import RefusedError, UsageError
from contest.model_file.manifest import parse_manifest
from contest.untrusted import check_bytes
from scoring.costs import Costs, Examination, Number, Operation
from scoring.sandbox import Limits, result_file, run_isolated
from tests.attacks import makers, onnx_makers

SLOW_S = 5.0
CHILD_S = 20
CHILD_BYTES = 4_000_000_000
IMAGES = 4
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
SCALARS = (
    None,
    True,
    0,
    -1,
    1,
    9,
    2**31,
    2**63,
    10**30,
    0.5,
    -0.0,
    1e308,
    "",
    "x",
    "../../x",
    "os.system",
    "\u202e",
    "a" * 500,
    [],
    {},
    [[]],
    [0],
    [3, 3],
    {"": 0},
)


@dataclass
class Figures:
    """What a run of the fuzzer comes to."""

    executions: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    def refused(self, where: str, error: Exception) -> None:
        # Names and numbers out, so that what is counted is kinds of refusals.
        text = re.sub(r"'[^']*'", "'..'", str(error))
        text = re.sub(r"(not valid: )\S+: ", r"\1", re.sub(r"[^ -~]+|\\x..", "?", text))
        self.refusals[f"{where}: {re.sub(r'[-0-9][-0-9,.]*', 'N', text)[:120]}"] += 1
        self.outcomes[f"{where} refused"] += 1


def mutated(draw: Any, data: bytes) -> bytes:
    """A few edits to some bytes."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.sampled_from(("flip", "set", "number", "delete", "insert", "repeat", "cut", "swap"))):
            case "flip" if changed:
                changed[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if changed:
                changed[place] = draw(st.integers(0, 255))
            case "number":
                width = draw(st.sampled_from((1, 2, 4, 8)))
                value = draw(st.sampled_from(INTERESTING)) % 256**width
                changed[place : place + width] = value.to_bytes(width, draw(st.sampled_from(("little", "big"))))
            case "delete":
                del changed[place : place + draw(st.integers(1, 64))]
            case "insert":
                changed[place:place] = draw(st.binary(max_size=32))
            case "repeat":
                changed[place:place] = changed[place : place + draw(st.integers(1, 256))]
            case "cut" if draw(st.integers(0, 9)) == 0:
                del changed[place:]
            case "swap":
                other, size = draw(st.integers(0, max(0, len(changed) - 1))), draw(st.integers(1, 32))
                changed[place : place + size] = changed[other : other + size]
    return bytes(changed)


def changed_json(draw: Any, value: Any) -> Any:
    """The same JSON with one thing in it replaced, removed or doubled."""
    place: Any = value
    for _ in range(8):
        if not isinstance(place, dict | list) or not place:
            break
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 4)):
            place = place[key]
            continue
        match draw(st.sampled_from(("replace", "remove", "add", "steal"))):
            case "replace":
                place[key] = copy.deepcopy(draw(st.sampled_from(SCALARS)))
            case "remove":
                del place[key]
            case "add" if isinstance(place, dict):
                place[draw(st.text(max_size=20))] = copy.deepcopy(draw(st.sampled_from(SCALARS)))
            case "add":
                place.append(copy.deepcopy(draw(st.sampled_from(SCALARS))))
            case _:
                place[key] = place[draw(st.sampled_from(keys))]
        break
    return value


class Corpus:
    """Well-formed files and answers, and edits to them that know their structure."""

    def __init__(self) -> None:
        self.content = makers.quantised()
        self.torch = makers.torch_bytes(self.content)
        self.entries = makers.entries_of(self.torch)
        self.safetensors = makers.safetensors_bytes(self.content)
        self.length = int.from_bytes(self.safetensors[:8], "little")
        self.onnx = [onnx_makers.network().SerializeToString(), onnx_makers.quantised().SerializeToString()]
        operations = tuple(
            Operation(f"layer{i}", "conv", 100 * i, weights=9, nonzeros=5, weight_bits=3) for i in range(5)
        )
        costs = Costs(operations, (Number("step", "layer1", 4, 32),), ("Foo",), ("a problem",))
        rng = np.random.default_rng(0)
        logits = rng.standard_normal((IMAGES, 10)).astype(np.float32)
        examined = Examination(costs, {"p_s": 0.1}, (3, 8, 8), logits, logits.argmax(1).astype(np.int64), True)
        self.answer = result_file.frame(b"H", b'{"level": "limits"}') + result_file.pack(examined)

    def answer_of(self, draw: Any) -> bytes:
        """A damaged answer: bytes changed anywhere, or frames that hold together around changed content."""
        if draw(st.integers(0, 2)) == 0:
            return mutated(draw, self.answer)
        frames, place = [], 0
        while place < len(self.answer):
            size = int.from_bytes(self.answer[place + 9 : place + 17], "little")
            frames.append((self.answer[place + 8 : place + 9], self.answer[place + 17 : place + 17 + size]))
            place += 17 + size
        index = draw(st.sampled_from(range(len(frames))))
        kind, payload = frames[index]
        if kind in b"HR" and draw(st.integers(0, 3)):
            payload = json.dumps(changed_json(draw, json.loads(payload))).encode()
        elif draw(st.booleans()):
            payload = mutated(draw, payload)
        else:
            kind = draw(st.sampled_from((b"H", b"E", b"R", b"L", b"P", b"X")))
        frames[index] = (kind, payload)
        return b"".join(result_file.frame(k, p) for k, p in frames)

    def file(self, draw: Any) -> tuple[str, bytes]:
        """(name, bytes) of a damaged model file."""
        match draw(st.sampled_from(("torch", "safetensors", "onnx", "pickle", "header", "manifest", "entries"))):
            case "torch":
                return "x.pt", mutated(draw, self.torch)
            case "safetensors":
                return "x.safetensors", mutated(draw, self.safetensors)
            case "onnx":
                return "x.onnx", mutated(draw, draw(st.sampled_from(self.onnx)))
            case "pickle":
                name = next(n for n in self.entries if n.endswith("data.pkl"))
                return "x.pt", makers.zip_bytes({**self.entries, name: mutated(draw, self.entries[name])})
            case "header":
                header = json.loads(self.safetensors[8 : 8 + self.length])
                return "x.safetensors", makers.header_bytes(
                    changed_json(draw, header), self.safetensors[8 + self.length :]
                )
            case "manifest":
                manifest = json.dumps(changed_json(draw, json.loads(self.content["manifest"])))
                content = {**self.content, "manifest": manifest}
                if draw(st.booleans()):
                    return "x.safetensors", makers.safetensors_bytes(content)
                return "x.pt", makers.torch_bytes(content)
            case _:
                names = list(self.entries)
                renamed = {
                    draw(st.sampled_from((n, n, n, n, "x/" + n, n + "/", "../" + n, n[:-1]))): d
                    for n, d in self.entries.items()
                    if n != names[0] or draw(st.booleans())
                }
                return "x.pt", makers.zip_bytes(renamed)


class Fuzzer:
    """Runs one input after another and counts."""

    def __init__(self, keep: Path) -> None:
        self.figures, self.corpus, self.keep = Figures(), Corpus(), keep
        self.passed: tuple[str, bytes] | None = None
        keep.mkdir(parents=True, exist_ok=True)

    def guarded(self, where: str, data: bytes, function: Any) -> Any:
        """What `function` returns, None if it refuses; anything else is a finding."""
        self.figures.executions[where] += 1
        start = time.process_time()
        try:
            return function()
        except RefusedError as error:
            self.figures.refused(where, error)
        except Exception as error:  # whatever it is: this is what the fuzzer is here to see
            self.finding(f"{where}: {type(error).__name__}", data, traceback.format_exc())
        finally:
            took = time.process_time() - start
            self.figures.slowest_s = max(self.figures.slowest_s, took)
            if took > SLOW_S:
                self.finding(f"{where}: slow", data, f"{took:.1f} s")
        return None

    def finding(self, what: str, data: bytes, details: str) -> None:
        self.figures.findings[what] += 1
        path = self.keep / f"{what.replace(': ', '_').replace(' ', '_')}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.with_suffix(".bin").write_bytes(data)
        path.with_suffix(".txt").write_text(details)

    def file(self, name: str, data: bytes) -> None:
        """The gate, then the manifest, then (in a fork) the readers."""
        described = self.guarded("gate", data, lambda: check_bytes(data, name))
        if described is None:
            return
        self.figures.outcomes["gate passed"] += 1
        self.passed = name, data
        if described.manifest is not None:
            self.guarded("manifest", data, lambda: parse_manifest(described.manifest))
        self.in_fork(name, data)

    def answer(self, data: bytes) -> None:
        """What a hostile child could send."""
        if self.guarded("answer", data, lambda: result_file.unpack(data, IMAGES)) is not None:
            self.figures.outcomes["answer read"] += 1

    def in_fork(self, name: str, data: bytes) -> None:
        """What the isolated child does, under its limits."""
        self.figures.executions["reader"] += 1
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            _read_and_end(name, data, write)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            outcome = pipe.read(4_000).decode(errors="replace")
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            self.finding(f"reader: {signal.Signals(-code).name}", data, name)
        elif outcome.startswith("refused"):
            self.figures.refused("reader", RefusedError(outcome[8:]))
        elif outcome == "read":
            self.figures.outcomes["reader read"] += 1
        else:
            # Not the parent's: the isolated child turns it into a refusal. Kept, because a clear one is better.
            self.figures.outcomes[f"reader raised {outcome.split(':')[0]}"] += 1
            digest = hashlib.sha256(data).hexdigest()[:12]
            (self.keep / f"raised_{outcome.split(':')[0]}-{digest}.txt").write_text(f"{name}\n{outcome}")

    def isolated(self, seconds: float) -> None:
        """The whole way, through a real isolated child, for the last file that the gate let pass."""
        if self.passed is None:
            return
        name, data = self.passed
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / name
            path.write_bytes(data)
            limits = Limits(wall_s=4 * seconds, cpu_s=math.ceil(seconds))
            if self.guarded("isolated", data, lambda: run_isolated(path, None, limits)) is not None:
                self.figures.outcomes["isolated examined"] += 1


def _read_and_end(name: str, data: bytes, channel: int) -> None:
    """In the fork: read the file as the child does; say how it went; end."""
    from scoring.readers.read import read

    signal.alarm(CHILD_S)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + CHILD_BYTES,) * 2)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(data)
        try:
            read(path)
            outcome = "read"
        except (RefusedError, UsageError) as error:
            outcome = f"refused {error}"
        except Exception as error:  # reported to the parent by name
            outcome = f"{type(error).__name__}: {error}\n{traceback.format_exc()[-2500:]}"
    with contextlib.suppress(OSError):
        os.write(channel, outcome.encode()[:4_000])
    os._exit(0)


def run(minutes: float, first_seed: int, keep: Path, isolated_every_s: float, batch: int = 400) -> Figures:
    """Fuzz for some minutes. Every batch has its own seed, so that it can be run again."""
    fuzzer = Fuzzer(keep)
    end = time.monotonic() + 60 * minutes
    next_isolated = time.monotonic() + isolated_every_s
    number = first_seed
    while time.monotonic() < end:

        @seed(number)
        @settings(
            max_examples=batch,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def one(data: st.DataObject) -> None:
            if data.draw(st.integers(0, 4)) == 0:
                fuzzer.answer(fuzzer.corpus.answer_of(data.draw))
            else:
                fuzzer.file(*fuzzer.corpus.file(data.draw))

        one()
        number += 1
        if time.monotonic() > next_isolated:
            fuzzer.isolated(300)
            next_isolated = time.monotonic() + isolated_every_s
    return fuzzer.figures


def main() -> int:
    """Exit code 1 if there was a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "contest-fuzz")
    parser.add_argument("--isolated-every", type=float, default=120, help="seconds between complete isolated runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warm_up()
    start = time.monotonic()
    figures = run(arguments.minutes, arguments.seed, arguments.keep, arguments.isolated_every)
    report = {
        "minutes": round((time.monotonic() - start) / 60, 1),
        "executions": dict(figures.executions),
        "outcomes": dict(figures.outcomes.most_common()),
        "distinct_refusals": len(figures.refusals),
        "refusals": dict(figures.refusals.most_common()),
        "findings": dict(figures.findings),
        "slowest_s": round(figures.slowest_s, 2),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 1 if figures.findings else 0


def warm_up() -> None:
    """Import once what every fork would import for itself."""
    from scoring.readers.read import read

    with tempfile.TemporaryDirectory() as directory:
        for name, data in (
            ("x.pt", makers.torch_bytes(makers.quantised())),
            ("x.onnx", onnx_makers.network().SerializeToString()),
        ):
            path = Path(directory) / name
            path.write_bytes(data)
            read(path)


if __name__ == "__main__":
    raise SystemExit(main())
